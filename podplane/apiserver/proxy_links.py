"""Links of what a proxied server answers, so that a browser stays below the path of the `proxy` subresource.

Source: apimachinery, util/proxy/transport.go: which attributes are links, and which links are the server's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from html.parser import HTMLParser
from urllib.parse import urlsplit, urlunsplit

LINKS: dict[str, frozenset[str]] = {
    tag: frozenset(names.split())
    for tag, names in {
        "a": "href",
        "applet": "codebase",
        "area": "href",
        "audio": "src",
        "base": "href",
        "blockquote": "cite",
        "body": "background",
        "button": "formaction",
        "command": "icon",
        "del": "cite",
        "embed": "src",
        "form": "action",
        "frame": "longdesc src",
        "head": "profile",
        "html": "manifest",
        "iframe": "longdesc src",
        "img": "longdesc src usemap",
        "input": "src usemap formaction",
        "ins": "cite",
        "link": "href",
        "object": "classid codebase data usemap",
        "q": "cite",
        "script": "src",
        "source": "src",
        "video": "poster src",
    }.items()
}
"""The attributes that hold a link, by element (HTML 4.01, index of attributes, and HTML 5)."""
ATTRIBUTE = re.compile(
    r"""(?P<head>(?P<name>[^\s/>"'=]+)\s*=\s*)(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s>"']+))"""
)


def moved(link: str, prefix: str, hosts: Collection[str]) -> str:
    """A link that is an absolute path of one of these hosts, below the prefix; any other one as it is."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return link
    if (parts.netloc and parts.netloc not in hosts) or not parts.path.startswith("/"):
        return link
    path = parts.path if parts.path.startswith(prefix) else prefix + parts.path
    return urlunsplit(("", "", path, parts.query, parts.fragment))


def rewritten(page: bytes, prefix: str, hosts: Collection[str]) -> bytes:
    """An HTML page with its links moved; all else is left byte by byte, whatever its encoding."""
    text = page.decode("latin-1")
    tags = _Tags(text)
    pieces, done = [], 0
    for start, raw, names in tags.found:
        new = _tag(raw, names, lambda link: moved(link, prefix, hosts))
        pieces += [text[done:start], new]
        done = start + len(raw)
    return "".join((*pieces, text[done:])).encode("latin-1")


def _tag(raw: str, names: Collection[str], move: Callable[[str], str]) -> str:
    def attribute(found: re.Match[str]) -> str:
        if found["name"].lower() not in names:
            return found[0]
        kind = found.lastgroup or ""
        quote = {"double": '"', "single": "'"}.get(kind, "")
        return f"{found['head']}{quote}{move(found[kind])}{quote}"

    return ATTRIBUTE.sub(attribute, raw)


class _Tags(HTMLParser):
    """Where the elements are that can have links: (offset, as it is written, names of the attributes)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[int, str, frozenset[str]]] = []
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element; `<br/>` comes here too."""
        raw, (line, column) = self.get_starttag_text(), self.getpos()
        if tag in LINKS and raw:
            self.found.append((self._lines[line - 1] + column, raw, LINKS[tag]))
