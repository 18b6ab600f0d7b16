"""The HTTP probe: a GET, and where an answer redirects to on the same host (kubernetes, pkg/probe/http)."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from socket import socket
from urllib.parse import SplitResult, urljoin, urlsplit

from podplane.model.pod import HttpHeader

ANSWER_BYTES = 10 * 1024
"""So much of an answer is read and shown (kubelet, maxRespBodyLength)."""
MAX_LINES = 1000
MAX_REDIRECTS = 10
"""As Go's client has it."""
USER_AGENT = "kube-probe/1.36"
DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
PLAIN_ANSWERS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL makes of an answer without TLS."""
LOCATION = re.compile(rb"\r\nlocation:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)
Connect = Callable[[str, int], Awaitable[socket]]


class NoTls(Exception):
    """What answered doesn't speak TLS."""


class NoAnswer(Exception):
    """What came is no answer of HTTP; one line that says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, the place that it leads to, and the beginning of the body of what is no success."""

    status: int
    location: str = ""
    body: str = ""

    @property
    def redirects(self) -> bool:
        """To another place?"""
        return self.status in REDIRECTS and bool(self.location)


async def get(url: str, headers: tuple[HttpHeader, ...], connect: Connect, agent: str = USER_AGENT) -> Answer:
    """The last answer on the way that begins at this URL: redirects to other hosts are not followed. NoAnswer or OSError else."""
    first = urlsplit(url).hostname
    for _ in range(MAX_REDIRECTS):
        answer = await _one(url, {"User-Agent": agent}, headers, connect)
        url = urljoin(url, answer.location)
        if not answer.redirects or urlsplit(url).hostname != first or urlsplit(url).scheme not in DEFAULT_PORTS:
            return answer
    raise NoAnswer(f"stopped after {MAX_REDIRECTS} redirects")


async def _one(url: str, own: Mapping[str, str], headers: tuple[HttpHeader, ...], connect: Connect) -> Answer:
    try:
        place = urlsplit(url)
        host, port = place.hostname or "", place.port or DEFAULT_PORTS[place.scheme]
    except ValueError as error:
        raise NoAnswer(f"{url}: {error}") from None
    sock = await connect(host, port)
    secure = _unverified() if place.scheme == "https" else None
    try:
        reader, writer = await asyncio.open_connection(sock=sock, ssl=secure, server_hostname="" if secure else None)
    except ssl.SSLError as error:
        if error.reason in PLAIN_ANSWERS:
            raise NoTls from None
        raise
    try:
        writer.write(_request(place, {"Host": place.netloc, **own}, headers))
        return await _answer(reader)
    finally:
        writer.close()


def _request(place: SplitResult, own: Mapping[str, str], headers: tuple[HttpHeader, ...]) -> bytes:
    """A request with headers of ours, and those that are wanted, several of one name too, in place of ours."""
    wanted = {header.name.lower() for header in headers}
    fields = [pair for pair in ({**own, "Accept": "*/*"}).items() if pair[0].lower() not in wanted]
    fields += [(header.name, header.value) for header in headers if header.value]  # an empty one takes ours away
    target = place._replace(scheme="", netloc="", fragment="").geturl()
    lines = [f"GET {target or '/'} HTTP/1.1", *(f"{name}: {value}" for name, value in [*fields, ("Connection", "close")])]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")


async def _answer(reader: asyncio.StreamReader) -> Answer:
    words = (await reader.readline()).split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise NoAnswer("malformed HTTP response")
    status, head, body = int(words[1]), b"", b""
    if status >= 300:
        head = await _head(reader)
        body = await reader.read(ANSWER_BYTES)
    location = LOCATION.search(head)
    return Answer(status, location[1].decode("latin-1") if location else "", body.decode(errors="replace").strip())


async def _head(reader: asyncio.StreamReader) -> bytes:
    """The lines before the empty one. NoAnswer when there are too many, or one is too long."""
    lines = [b"\r\n"]
    try:
        while len(lines) <= MAX_LINES and (line := await reader.readline()).strip():
            lines.append(line)
    except ValueError:
        raise NoAnswer("server response headers exceeded the limit") from None
    return b"".join(lines)


def _unverified() -> ssl.SSLContext:
    """As a kubelet does, a probe takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
