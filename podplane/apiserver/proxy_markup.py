"""Where the links of an HTML page are, found in time proportional to its length, and in steps that are each short.

Pods decide what a page holds. No expression here goes back over what it has taken (`*+`, `++`, `?+`), each step begins where the last one
ended, and a tag, a comment or an element of text that never ends is the rest of the page.

Source: HTML Standard, 13.2.5 (Tokenization).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Set

Span = tuple[int, int]
Names = Mapping[bytes, Set[bytes]]
SPACE = rb"\t\n\f\r "
NAME = rb"[a-zA-Z][^/>" + SPACE + rb"]*+"
MARKUP = re.compile(
    rb"<++(?:(?P<tag>" + NAME + rb")|/(?P<end>" + NAME + rb")|(?P<comment>!--)|(?P<bogus>[!?/]))?",
)
"""What one or more `<` begin; with no group they are text."""
ATTRIBUTE = re.compile(
    rb"[/" + SPACE + rb"]*+(?P<name>[^/>" + SPACE + rb"][^/>=" + SPACE + rb"]*+)(?:[" + SPACE + rb"]*+=[" + SPACE + rb"]*+(?:"
    rb'"(?P<double>[^"]*+)"'
    rb"|'(?P<single>[^']*+)'"
    rb"|(?P<cut>[\"'])"
    rb"|(?P<bare>[^>" + SPACE + rb"]++))?+)?+"
)
"""`cut` is a quote that never ends."""
TAG_END = re.compile(rb"[/" + SPACE + rb"]*+>")
COMMENT_END = re.compile(rb"-++(?P<end>!?+>)?+")
"""Dashes, and whether they end a comment; those that begin it may (`<!-->`)."""
TEXT_END = {
    name: re.compile(rb"</(?P<end>(?i:" + name + rb")(?=[/>" + SPACE + rb"]))?+")
    for name in (b"iframe", b"noembed", b"noframes", b"script", b"style", b"textarea", b"title", b"xmp")
}
"""Elements that hold text and no markup, and what ends them."""
REST_IS_TEXT = b"plaintext"


def links(page: bytes, names: Names) -> Iterator[Span | None]:
    """The values of these attributes, by element; None after each step that found nothing."""
    at = page.find(b"<")
    while at >= 0:
        found = MARKUP.match(page, at)
        assert found is not None  # there is a `<`
        tag = (found["tag"] or b"").lower()
        after = found.end()
        if tag or found["end"]:
            after = yield from _attributes(page, after, names.get(tag, frozenset()))
        elif found["comment"]:
            after = yield from _until(page, after - 2, b"--", COMMENT_END)
        elif found["bogus"]:
            after = page.find(b">", after)
        if tag in TEXT_END and after >= 0:
            after = yield from _until(page, after, b"</", TEXT_END[tag])
        yield None
        at = page.find(b"<", after) if after >= 0 and tag != REST_IS_TEXT else -1


def _until(page: bytes, at: int, start: bytes, end: re.Pattern[bytes]) -> Generator[None, None, int]:
    """Where the first thing ends that begins so and has an `end`; -1 when there is none."""
    while (at := page.find(start, at)) >= 0:
        found = end.match(page, at)
        assert found is not None  # it takes `start` at least
        at = found.end()
        if found["end"] is not None:
            return at
        yield None
    return at


def _attributes(page: bytes, at: int, names: Set[bytes]) -> Generator[Span | None, None, int]:
    """What `links` says of a tag whose name ends here; where the tag ends is returned, -1 when it doesn't."""
    while (found := ATTRIBUTE.match(page, at)) is not None and not found["cut"]:
        at = found.end()
        has_link = found.lastgroup not in (None, "name") and found["name"].lower() in names
        yield found.span(str(found.lastgroup)) if has_link else None
    end = TAG_END.match(page, at)
    return end.end() if end is not None else -1
