"""Rules of CoreDNS's plugin rewrite, as those of podplane: a name (exact), or all names with an end (suffix).

A regular expression is taken over where it is nothing but a suffix: `(.*)\\.old\\.example` → `{1}.new.example`. Answers need no rule:
they have the name that was asked for, as an alias.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from podplane.dns.config import domain_name
from podplane.dns.corefile_syntax import Directive
from podplane.dns.corefile_words import Left
from podplane.dns.message import text_of

MODES = ("continue", "stop")
KINDS = ("exact", "suffix", "regex", "prefix", "substring")
SUFFIX_PATTERN = re.compile(r"\^?\(\.[*+]\??\)((?:\\\.[A-Za-z0-9_-]+)+)(?:\\\.)?\$?")
SUFFIX_TARGET = re.compile(r"\{1\}\.([A-Za-z0-9_.-]+)")


def rewrites(directive: Directive) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, words) of each rule of a directive."""
    words = tuple(word for i, word in enumerate(directive.words) if i or word not in MODES)
    if words:
        yield directive.line, words
    for one in directive.block:
        if one.name != "answer":
            yield one.line, (one.name, *one.words)


def rule(words: tuple[str, ...]) -> dict[str, str]:
    """The rule that has these words. Left when it has no counterpart."""
    if words[0] != "name":
        raise Left(f"rewrite {words[0]} has no counterpart")
    kind, rest = (words[1], words[2:]) if len(words) > 1 and words[1] in KINDS else ("exact", words[1:])
    if len(rest) < 2:
        raise Left("rewrite name needs two names")
    from_, to = rest[:2]
    if kind == "regex" and (old := SUFFIX_PATTERN.fullmatch(from_)) and (new := SUFFIX_TARGET.fullmatch(to)):
        kind, from_, to = "suffix", old[1].replace("\\.", "."), new[1]
    if kind not in ("exact", "suffix"):
        raise Left(f"rewrite name {kind} {from_} has no counterpart")
    try:
        names = [text_of(domain_name(name.removeprefix("."))).removesuffix(".") for name in (from_, to)]
    except ValueError as error:
        raise Left(f"rewrite name {kind}: {error}") from None
    return {"name" if kind == "exact" else "suffix": names[0], "to": names[1]}
