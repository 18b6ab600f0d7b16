"""`agnhost test-webserver`: the files of the working directory over HTTP."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from urllib.parse import quote

from podplane.runtime.agnhost.common import Context, opened, prepared
from podplane.runtime.agnhost.flags import Value
from podplane.runtime.http_server import Response
from podplane.runtime.serving import Exchange, Http
from podplane.runtime.sniffing import HTML, TEXT

FLAGS: Mapping[str, Value] = {"port": 80}
TYPES = {".html": HTML, ".txt": TEXT, ".json": "application/json", ".css": "text/css; charset=utf-8"}
HEADERS = (
    ("Cache-Control", "private"),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
)
"""So that pages in a browser may ask, through the API server's proxy too."""
MAX_ENTRIES = 10_000
MISSING = Response(b"404 page not found\n", 404)


def run(context: Context) -> int:
    """Serve until SIGTERM."""
    loop, servers = prepared()
    files = Files(os.getcwd())
    servers.add(opened(socket.SOCK_STREAM, context.flags.number("port")), lambda: Http(files.handle, servers))
    context.ready()
    return loop.run()


class Files:
    """What a directory holds: plain files, and lists of its directories; nothing beyond it, by whatever link."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)

    def handle(self, exchange: Exchange) -> Response:
        """The answer to a request."""
        response = self.find(exchange.request.path)
        return replace(response, headers=(*HEADERS, *response.headers))

    def find(self, path: str) -> Response:
        """What is at this path."""
        if "\0" in path:
            return MISSING
        name = os.path.realpath(os.path.join(self._root, path.lstrip("/")))
        if os.path.commonpath((name, self._root)) != self._root:
            return MISSING
        try:
            if not os.path.isdir(name):
                return _file(name)
            if not path.endswith("/"):
                return Response(b"", 301, headers=(("Location", quote(os.path.basename(path)) + "/"),))
            index = os.path.join(name, "index.html")
            return _file(index) if os.path.isfile(index) and not os.path.islink(index) else _listing(name)
        except OSError as error:
            return Response(b"403 Forbidden\n", 403) if isinstance(error, PermissionError) else MISSING


def _file(name: str) -> Response:
    """A plain file; of anything else, nobody knows when it ends."""
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        return MISSING
    kind = TYPES.get(os.path.splitext(name)[1], "application/octet-stream")
    return Response(content_type=kind, file=os.fdopen(fd, "rb", buffering=0), size=found.st_size)


def _listing(name: str) -> Response:
    with os.scandir(name) as entries:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in islice(entries, MAX_ENTRIES))
    links = "".join(f'<a href="{quote(entry, errors="surrogateescape")}">{_escape(entry)}</a>\n' for entry in names)
    return Response(f"<pre>\n{links}</pre>\n".encode(errors="replace"), content_type=HTML)


def _escape(text: str) -> str:
    """The text within HTML; the module `html` brings a table of all entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
