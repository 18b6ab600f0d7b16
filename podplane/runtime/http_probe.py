"""The HTTP probe: a GET, and where an answer redirects to on the same host (kubernetes, pkg/probe/http)."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from socket import socket
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from podplane.model.pod import HttpHeader
from podplane.runtime.dial import any_certificate

ANSWER_BYTES = 10 * 1024
"""So much of an answer is read and shown (kubelet, maxRespBodyLength)."""
MAX_HEAD_BYTES = 256 * 1024
"""Go's client takes 10 MiB; here the node's event loop reads it."""
STATUS_DIGITS = 3
MAX_REDIRECTS = 10
"""As Go's client has it."""
USER_AGENT = "kube-probe/1.36"
DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
PLAIN_ANSWERS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL makes of an answer without TLS."""
CONTROL = re.compile("[\x00-\x1f\x7f]")
Connect = Callable[[str, int], Awaitable[socket]]


class NoTls(Exception):
    """What answered doesn't speak TLS."""


class NoAnswer(Exception):
    """What came is no answer of HTTP; one line that says why."""


class Answer(msgspec.Struct, frozen=True):
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
    first = url
    for _ in range(MAX_REDIRECTS):
        answer = await _one(url, {"User-Agent": agent}, headers, connect)
        if not answer.redirects or not (url := _next(first, url, answer.location)):
            return answer
    raise NoAnswer(f"stopped after {MAX_REDIRECTS} redirects")


def _next(first: str, url: str, location: str) -> str:
    """Where an answer leads to; "" when that is another host than the first one. NoAnswer when it is no URL."""
    try:
        if CONTROL.search(location):
            raise ValueError("invalid control character in URL")
        url = urljoin(url, location)
        place = urlsplit(url)
        return url if place.hostname == urlsplit(first).hostname and place.scheme in DEFAULT_PORTS else ""
    except ValueError as error:
        raise NoAnswer(f'failed to parse Location header "{location}": {error}') from None


async def _one(url: str, own: Mapping[str, str], headers: tuple[HttpHeader, ...], connect: Connect) -> Answer:
    try:
        place = urlsplit(url)
        host, port = place.hostname or "", place.port or DEFAULT_PORTS[place.scheme]
    except ValueError as error:
        raise NoAnswer(f"{url}: {error}") from None
    sock = await connect(host, port)
    secure = any_certificate() if place.scheme == "https" else None
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
    words = (await _line(reader, MAX_HEAD_BYTES)).split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit() or len(words[1]) != STATUS_DIGITS:
        raise NoAnswer("malformed HTTP response")
    status, location, body = int(words[1]), b"", b""
    if status >= 300:
        location = await _location(reader)
        body = await reader.read(ANSWER_BYTES)
    return Answer(status, location.decode("latin-1"), body.decode(errors="replace").strip())


async def _location(reader: asyncio.StreamReader) -> bytes:
    """The first Location of a head, which is read to its end. NoAnswer when it is too long."""
    found, room = b"", MAX_HEAD_BYTES
    while (line := await _line(reader, room)).strip():
        room -= len(line)
        name, _, value = line.partition(b":")
        if not found and name.lower() == b"location":
            found = value.strip()
    return found


async def _line(reader: asyncio.StreamReader, room: int) -> bytes:
    """The next line of a head that may have so many bytes more. NoAnswer when it has more, or the line has more than the reader takes."""
    try:
        line = await reader.readline()
    except ValueError:
        raise NoAnswer("a line of the server's response headers is too long") from None
    if len(line) > room:
        raise NoAnswer(f"server response headers exceeded {MAX_HEAD_BYTES} bytes; aborted")
    return line
