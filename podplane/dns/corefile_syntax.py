"""The grammar of a Corefile, CoreDNS's configuration: server blocks of directives, which may have blocks of directives.

    key key, key {            words until the end of a line; a block begins with { at its end, and ends with } alone
        plugin word "a word"  # a comment
        plugin {
            property word
        }
    }
    (snippet) { … }           used by `import snippet`
    {$VARIABLE} {%VARIABLE%}  in any word: of the environment

Without any braces, the first line has the keys, and all others are directives. Source: the lexer and parser of coredns/caddy (caddyfile).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

MAX_DEPTH, MAX_DIRECTIVES, MAX_CHARACTERS = 8, 10_000, 1 << 20
"""Blocks in each other (and snippets that import others); directives in all, once snippets are imported; characters of the text."""
BRACES = frozenset("{}")
VARIABLE = re.compile(r"\{\$([^{}\s]+)\}|\{%([^{}\s%]+)%\}")


class CorefileError(ValueError):
    """The text is no Corefile."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


class Word(NamedTuple):
    """A word, and the line that it begins in."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Directive:
    """A line: its first word, the others, and the lines of its block. `unset` are variables that the environment does not have."""

    name: str
    words: tuple[str, ...]
    line: int
    block: tuple[Directive, ...] = ()
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Server:
    """A server block: its keys (zones and ports), and directives."""

    keys: tuple[str, ...]
    line: int
    directives: tuple[Directive, ...]


def parse(text: str, environment: Mapping[str, str]) -> list[Server]:
    """The server blocks of a Corefile. CorefileError when it is none."""
    if len(text) > MAX_CHARACTERS:
        raise CorefileError(1, f"the text is longer than {MAX_CHARACTERS} characters")
    lines = [tuple(words) for _, words in groupby(_words(text), key=lambda word: word.line)]
    if not any(word.text in BRACES for words in lines for word in words):
        servers = [_without_braces(lines, environment)] if lines else []
        return _Imports({}).servers(servers)
    reader = _Reader(lines, environment)
    blocks = list(reader.servers())
    snippets = {one.keys[0][1:-1]: one.directives for one in blocks if _is_snippet(one)}
    return _Imports(snippets).servers([one for one in blocks if not _is_snippet(one)])


def _is_snippet(block: Server) -> bool:
    return len(block.keys) == 1 and re.fullmatch(r"\(.+\)", block.keys[0]) is not None


def _words(text: str) -> Iterator[Word]:
    """Words are separated by spaces; in quotes there may be some, and line breaks, too, and \\" is a quote. # begins a comment anywhere
    else."""
    pattern = re.compile(r'"((?:[^"\\]|\\.)*)"|"|(#[^\n]*)|([^\s#"][^\s#]*)|(\n)|[^\S\n]+', re.DOTALL)
    line = 1
    for found in pattern.finditer(text):
        if found[0] == '"':
            raise CorefileError(line, "a quote is not closed")
        if found[1] is not None:
            yield Word(found[1].replace('\\"', '"'), line)
        elif found[3] is not None:
            yield Word(found[3], line)
        line += found[0].count("\n")


def _without_braces(lines: list[tuple[Word, ...]], environment: Mapping[str, str]) -> Server:
    keys, *others = lines
    found = _keys(keys, environment)
    if not found:
        raise CorefileError(keys[0].line, "a server block has no zone")
    return Server(found, keys[0].line, tuple(_directive(words, (), environment) for words in others))


def _keys(words: tuple[Word, ...], environment: Mapping[str, str]) -> tuple[str, ...]:
    texts = (_expanded(word.text.removesuffix(","), environment)[0] for word in words)
    return tuple(text for text in texts if text)


def _directive(words: tuple[Word, ...], block: tuple[Directive, ...], environment: Mapping[str, str]) -> Directive:
    expanded = [_expanded(word.text, environment) for word in words]
    name, *others = (text for text, _ in expanded)
    unset = tuple(one for _, missing in expanded for one in missing)
    return Directive(name, tuple(others), words[0].line, block, unset)


def _expanded(text: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    names = [found[1] or found[2] for found in VARIABLE.finditer(text)]
    value = VARIABLE.sub(lambda found: environment.get(found[1] or found[2], ""), text)
    return value, [name for name in names if name not in environment]


class _Reader:
    """Reads lines, each one once."""

    def __init__(self, lines: list[tuple[Word, ...]], environment: Mapping[str, str]) -> None:
        self._lines = iter(lines)
        self._environment = environment
        self._last = 1

    def servers(self) -> Iterator[Server]:
        """The blocks of the whole text."""
        keys: list[Word] = []
        for words in self._lines:
            keys += words
            self._last = words[0].line
            if words[-1].text == "{":
                found = _keys(tuple(keys[:-1]), self._environment)
                if not found or any(word.text in BRACES for word in keys[:-1]):
                    raise CorefileError(self._last, "a server block has no zone")
                yield Server(found, keys[0].line, self._block(1))
                keys = []
            elif not words[-1].text.endswith(","):
                raise CorefileError(self._last, f"{words[0].text!r} is outside of a server block")
        if keys:
            raise CorefileError(self._last, "a server block has no {")

    def _block(self, depth: int) -> tuple[Directive, ...]:
        """The lines up to the one that closes the block."""
        if depth > MAX_DEPTH:
            raise CorefileError(self._last, f"blocks are nested deeper than {MAX_DEPTH} levels")
        found: list[Directive] = []
        for words in self._lines:
            self._last = words[0].line
            if words[0].text == "}":
                if len(words) > 1:
                    raise CorefileError(self._last, f"{words[1].text!r} stands behind a }}")
                return tuple(found)
            opens = words[-1].text == "{"
            own = words[:-1] if opens else words
            if not own or any(word.text in BRACES for word in own):
                raise CorefileError(self._last, "a { is not at the end of its line, or a } not on a line of its own")
            found.append(_directive(own, self._block(depth + 1) if opens else (), self._environment))
        raise CorefileError(self._last, "a block is not closed")


class _Imports:
    """Puts snippets in the place of their imports; what is no snippet's name stays an `import`, of files."""

    def __init__(self, snippets: Mapping[str, tuple[Directive, ...]]) -> None:
        self._snippets = snippets
        self._left = MAX_DIRECTIVES

    def servers(self, servers: list[Server]) -> list[Server]:
        """With everything imported."""
        return [replace(one, directives=tuple(self._over(one.directives, 0))) for one in servers]

    def _over(self, directives: tuple[Directive, ...], depth: int) -> Iterator[Directive]:
        for one in directives:
            self._left -= 1
            if self._left < 0 or depth > MAX_DEPTH:
                raise CorefileError(one.line, "there are too many directives, or snippets import each other")
            if one.name == "import" and one.words and one.words[0] in self._snippets:
                yield from self._over(self._snippets[one.words[0]], depth + 1)
            else:
                yield replace(one, block=tuple(self._over(one.block, depth)))
