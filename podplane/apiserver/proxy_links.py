"""Links of what a proxied server answers, so that a browser stays below the path of the `proxy` subresource.

Source: apimachinery, util/proxy/transport.go: which attributes are links, and which links are the server's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit, urlunsplit

from podplane.apiserver.proxy_markup import links

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
NAMES = {tag.encode(): frozenset(name.encode() for name in names) for tag, names in LINKS.items()}
NO_URL = re.compile(r"^ |[\x00-\x1f\x7f]")
"""What Go's net/url takes for no URL, or no absolute path; `urlsplit` would drop it."""
MAX_LINK_CHARS = 16 * 1024
"""A longer one, such as a picture within the page, is no path of a server."""


def moved(link: str, prefix: str, hosts: Collection[str]) -> str:
    """A link that is an absolute path of one of these hosts, below the prefix; any other one as it is."""
    if len(link) > MAX_LINK_CHARS or NO_URL.search(link):
        return link
    try:
        parts = urlsplit(link)
    except ValueError:
        return link
    if (parts.netloc and parts.netloc not in hosts) or not parts.path.startswith("/"):
        return link
    path = parts.path if parts.path.startswith(prefix) else prefix + parts.path
    return urlunsplit(("", "", path, parts.query, parts.fragment))


def rewritten(page: bytes, prefix: str, hosts: Collection[str]) -> Iterator[bytes]:
    """An HTML page with its links moved, in parts, an empty one where a step of work made none; all else is left byte by byte."""
    done = 0
    for span in links(page, NAMES):
        if span is None:
            yield b""
            continue
        start, end = span
        yield page[done:start] + moved(page[start:end].decode("latin-1"), prefix, hosts).encode("latin-1")
        done = end
    yield page[done:]
