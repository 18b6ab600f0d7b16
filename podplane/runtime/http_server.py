"""HTTP/1.1 as the built-in programs serve it: from a connection's bytes to requests, from answers to bytes; no sockets here.

Enough for curl, for kubelet's probes and for the tests of Kubernetes; the rest is refused with its status (RFC 9110, RFC 9112).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, quote, unquote

from podplane.runtime.sniffing import HTML, kind

MAX_HEAD_BYTES = MAX_BODY_BYTES = 64 * 1024
MAX_DIGITS = 18
MAX_CHUNK_LINE = 4096
FORM = "application/x-www-form-urlencoded"
REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    304: "Not Modified",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    412: "Precondition Failed",
    413: "Content Too Large",
    417: "Expectation Failed",
    418: "I'm a teapot",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
"""What is said beside a status; of the others, the number (RFC 9112, 4: a client ignores it)."""
_END = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,8}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class BadRequest(Exception):
    """What came is no request that can be served: the status, and one line that says why. Nothing more can be understood."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `version` is the minor one: HTTP/1.`version`."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    version: int = 1

    @property
    def path(self) -> str:
        """The path, as it is meant: without escapes."""
        return unquote(self.target.partition("?")[0], errors="replace")

    @property
    def keep_alive(self) -> bool:
        """The connection is to stay open for more requests (RFC 9112, 9.3)."""
        words = [word.strip().lower() for word in self.header("connection").split(",")]
        return "close" not in words and (self.version > 0 or "keep-alive" in words)

    def header(self, name: str) -> str:
        """The first value of a header, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def parameter(self, *names: str) -> str:
        """The first of these parameters that says something: of a form in the body first, then of the query."""
        values = dict(reversed(self._parameters()))
        return next((values[name] for name in names if values.get(name)), "")

    def _parameters(self) -> list[tuple[str, str]]:
        form = self.body.decode("latin-1") if self.header("content-type").partition(";")[0].strip().lower() == FORM else ""
        return parse_qsl(form, True, errors="replace") + parse_qsl(self.target.partition("?")[2], True, errors="replace")


@dataclass(slots=True)
class Response:
    """An answer. Its body is `body`, or what `file` holds, `size` bytes of it; whoever sends it closes the file.

    What kind of text the body is can be seen in it, unless it is said.
    """

    body: bytes = b""
    status: int = 200
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    file: BinaryIO | None = None
    size: int = 0

    @property
    def has_body(self) -> bool:
        """Some statuses have none, whatever is said (RFC 9110, 6.4.1)."""
        return self.status >= 200 and self.status not in (204, 304)

    def head(self, *, close: bool) -> bytes:
        """Status line and headers."""
        fields = [*self.headers, ("Connection", "close")] if close else list(self.headers)
        if self.has_body:
            length = self.size if self.file else len(self.body)
            fields += [("Content-Type", self.content_type or kind(self.body)), ("Content-Length", str(length))]
        lines = [f"HTTP/1.1 {self.status} {REASONS.get(self.status, f'status code {self.status}')}"]
        lines += [f"{name}: {_CONTROL.sub(' ', value)}" for name, value in fields]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def as_json(value: Any) -> bytes:
    """The value as Go writes JSON: no blanks, names in order."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def redirect(location: str, status: int = 302) -> Response:
    """To another place; what can't stand in a URL is escaped."""
    place = quote(location, safe="!#$%&'()*+,/:;=?@[]~")
    link = place.replace("&", "&amp;")
    body = f'<a href="{link}">{REASONS.get(status, status)}</a>.\n\n'
    return Response(body.encode(), status, HTML, (("Location", place),))


class Chunks:
    """A body in chunks (RFC 9112, 7.1), as far as it is here."""

    def __init__(self) -> None:
        self.body = bytearray()
        self._bytes = 0
        self._is_over = False

    def take(self, buffer: bytearray) -> bool:
        """Take whole chunks, and what ends them, out of what came; True when the body is whole. BadRequest when it can't be."""
        while (end := buffer.find(b"\n", 0, MAX_CHUNK_LINE)) >= 0:
            line = bytes(buffer[:end]).removesuffix(b"\r")
            if self._is_over:
                self._drop(buffer, end + 1)
                if not line:
                    return True
                continue
            size = _chunk_size(line)
            if len(self.body) + size > MAX_BODY_BYTES:
                raise BadRequest(413, f"the body of a request is at most {MAX_BODY_BYTES} bytes long")
            if not size:
                self._is_over = True
                self._drop(buffer, end + 1)
                continue
            begin = end + 1
            if len(buffer) < begin + size + 2:
                return False
            if buffer[begin + size : begin + size + 2] != b"\r\n":
                raise BadRequest(400, "a chunk does not end where its size says")
            self.body += buffer[begin : begin + size]
            self._drop(buffer, begin + size + 2)
        if len(buffer) >= MAX_CHUNK_LINE:
            raise BadRequest(400, "a chunk begins with its size in hexadecimal digits")
        return False

    def _drop(self, buffer: bytearray, count: int) -> None:
        """So much has been read; what is beside the body is bounded, too."""
        del buffer[:count]
        self._bytes += count
        if self._bytes - len(self.body) > MAX_HEAD_BYTES:
            raise BadRequest(431, f"what is beside the chunks of a body is at most {MAX_HEAD_BYTES} bytes long")


def _chunk_size(line: bytes) -> int:
    """The size that begins a chunk; what follows a semicolon extends it, and means nothing here."""
    digits = line.partition(b";")[0].strip()
    if not _HEXADECIMAL.fullmatch(digits):
        raise BadRequest(400, "a chunk begins with its size in hexadecimal digits")
    return int(digits, 16)


class Parser:
    """The bytes of one connection, and the requests in them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._first_is_fine = False
        self._request: Request | None = None
        self._body_bytes = 0
        self._chunks: Chunks | None = None

    def feed(self, data: bytes) -> None:
        """More bytes came."""
        self._buffer += data

    def next(self) -> Request | None:
        """The next request, if it is here whole. BadRequest when there can be none any more."""
        if self._request is None:
            head = self._head()
            if head is None:
                return None
            self._request = parse_head(head)
            self._body_bytes = body_length(self._request)
            self._chunks = Chunks() if is_chunked(self._request) else None
        if self._chunks is not None:
            return self._next_of_chunks(self._chunks)
        if len(self._buffer) < self._body_bytes:
            return None
        request, self._request = self._request, None
        if self._body_bytes:
            request = Request(request.method, request.target, request.headers, self._take(self._body_bytes), request.version)
        return request

    def _next_of_chunks(self, chunks: Chunks) -> Request | None:
        """The request whose body comes in chunks, once the last is here."""
        if not chunks.take(self._buffer):
            return None
        request, self._request, self._chunks = self._request, None, None
        assert request is not None
        return replace(request, body=bytes(chunks.body))

    def _head(self) -> bytes | None:
        """The next head without the empty line at its end; an empty line before it is not one (RFC 9112, 2.2)."""
        if self._buffer.startswith((b"\r", b"\n")):
            self._buffer = self._buffer.lstrip(b"\r\n")
            self._searched = 0
        end = _END.search(self._buffer, self._searched)
        if (end.end() if end else len(self._buffer)) > MAX_HEAD_BYTES:
            raise BadRequest(431, f"the head of a request is at most {MAX_HEAD_BYTES} bytes long")
        if end is None:
            self._check_first_line()
            self._searched = max(0, len(self._buffer) - 3)
            return None
        head = bytes(self._buffer[: end.start()])
        self._take(end.end())
        self._searched, self._first_is_fine = 0, False
        return head

    def _check_first_line(self) -> None:
        """BadRequest as soon as the first line is here and is none: who doesn't speak HTTP may never send the empty line."""
        end = -1 if self._first_is_fine else self._buffer.find(b"\n", self._searched)
        if end >= 0:
            parse_first(self._buffer[:end].decode("latin-1").removesuffix("\r"))
            self._first_is_fine = True

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def parse_head(head: bytes) -> Request:
    """The request that begins with this head. BadRequest when it is none."""
    first, *rest = (line.removesuffix("\r") for line in head.decode("latin-1").split("\n"))
    method, target, version = parse_first(first)
    request = Request(method, target, tuple(_field(line) for line in rest), version=version)
    if request.version and sum(name.lower() == "host" for name, _ in request.headers) != 1:
        raise BadRequest(400, "a request has one Host header")
    return request


def parse_first(line: str) -> tuple[str, str, int]:
    """Method, target, and minor version of HTTP/1 that a request line says. BadRequest when it is none."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadRequest(400, "the first line is not: method target HTTP/1.1")
    if found[3] != "1":
        raise BadRequest(505, f"HTTP/{found[3]}.{found[4]} is not served: use HTTP/1.1")
    return found[1], _origin(found[2]), int(found[4])


def _origin(target: str) -> str:
    """The target from its path on (RFC 9112, 3.2): proxies are asked with a whole URL."""
    if target.lower().startswith(("http://", "https://")):
        _, slash, path = target.partition("://")[2].partition("/")
        return slash + path or "/"
    if not target.startswith(("/", "*")):
        raise BadRequest(400, "the target of a request begins with /")
    return target


def _field(line: str) -> tuple[str, str]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise BadRequest(400, "a header is not: name: value")
    return found[1], found[2].rstrip(" \t")


def is_chunked(request: Request) -> bool:
    """Does its body come in chunks? BadRequest for any other coding."""
    codings = [value.strip().lower() for name, value in request.headers if name.lower() == "transfer-encoding"]
    if codings and codings != ["chunked"]:
        raise BadRequest(501, f"Transfer-Encoding {', '.join(codings)} is not read here: send chunked, or Content-Length")
    return bool(codings)


def body_length(request: Request) -> int:
    """How many bytes of body follow the head. BadRequest when that can't be told, or they are too many."""
    lengths = {value for name, value in request.headers if name.lower() == "content-length"}
    if not lengths:
        return 0
    if request.header("transfer-encoding"):
        raise BadRequest(400, "a request has Content-Length or Transfer-Encoding, not both")
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "Content-Length is not one number")
    if len(length) > MAX_DIGITS or int(length) > MAX_BODY_BYTES:
        raise BadRequest(413, f"the body of a request is at most {MAX_BODY_BYTES} bytes long")
    return int(length)
