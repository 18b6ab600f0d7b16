"""SPDY/3.1 as far as a port-forward needs it, on the server's side: bytes in, events out; methods make the bytes to send.

Kubernetes' peers (moby/spdystream) leave out the draft's flow control: they neither send nor heed WINDOW_UPDATE and SETTINGS, and so
does this. What holds a fast peer back is the connection below.

Source: the draft draft-mbelshe-httpbis-spdy-00 and SPDY/3.1 of the Chromium project.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

import msgspec

VERSION = 3
CONTROL = 0x8000
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1
PROTOCOL_ERROR, REFUSED_STREAM = 1, 3
"""Status codes of RST_STREAM; PROTOCOL_ERROR is one of GOAWAY too."""
MAX_CONTROL_BYTES = 16 * 1024
"""What every implementation must accept at least (draft, 2.2.1), and this one at most; the same for a header block unpacked."""
MAX_DATA_BYTES = 2**24 - 1
HEAD = struct.Struct(">HHI")
STREAM_BITS, LENGTH_BITS = 0x7FFFFFFF, 0xFFFFFF


class Opened(msgspec.Struct, frozen=True):
    """The peer opened a stream; `end`: it will send nothing on it."""

    stream: int
    headers: Mapping[str, str]
    end: bool = False


class Data(msgspec.Struct, frozen=True):
    """Bytes of a stream, a frame's or a part of one; `end`: the last ones."""

    stream: int
    data: bytes
    end: bool = False


class Reset(msgspec.Struct, frozen=True):
    """The peer dropped a stream, both directions."""

    stream: int
    status: int


class Pinged(msgspec.Struct, frozen=True):
    """The peer wants this number back."""

    number: int


class Leaving(msgspec.Struct, frozen=True):
    """The peer will open no more streams."""


class Broken(msgspec.Struct, frozen=True):
    """The peer doesn't keep to the protocol; nothing follows."""

    why: str


Event = Opened | Data | Reset | Pinged | Leaving | Broken


class SpdyError(Exception):
    """What came is not SPDY/3.1; one line that says why."""


class Server:
    """One connection, its server's side."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._stream, self._left, self._end = 0, 0, False
        self._last = 0
        self._broken = False
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def receive(self, data: bytes) -> Iterator[Event]:
        """What these bytes mean, together with all before them."""
        self._rest += data
        while not self._broken:
            try:
                event = self._data() if self._left else self._frame()
            except _Incomplete:
                return
            except SpdyError as error:
                self._broken, self._rest, event = True, bytearray(), Broken(str(error))
            if event is not None:
                yield event

    def _take(self, length: int) -> bytes:
        """That many bytes; _Incomplete when they aren't there yet."""
        if len(self._rest) < length:
            raise _Incomplete
        with memoryview(self._rest) as rest:
            found = bytes(rest[:length])
        del self._rest[:length]  # doesn't move what follows: a message of many small frames costs no more than its length
        return found

    def _data(self) -> Data:
        """As much of a frame of data as is there."""
        found = self._take(min(self._left, len(self._rest)) or 1)
        self._left -= len(found)
        return Data(self._stream, found, self._end and not self._left)

    def _frame(self) -> Event | None:
        """The next frame: a control frame when it is there whole, of a frame of data the head."""
        if len(self._rest) < HEAD.size:
            raise _Incomplete
        first, second, third = HEAD.unpack_from(self._rest)
        flags, length = third >> 24, third & LENGTH_BITS
        if not first & CONTROL:
            self._take(HEAD.size)
            self._stream, self._left, self._end = (first << 16 | second), length, bool(flags & FIN)
            return None if length else Data(self._stream, b"", self._end)
        if first & ~CONTROL != VERSION:
            raise SpdyError(f"a frame has version {first & ~CONTROL} of SPDY: {VERSION} is spoken here")
        if length > MAX_CONTROL_BYTES:
            raise SpdyError(f"a control frame has {length} bytes: at most {MAX_CONTROL_BYTES} are accepted")
        body = self._take(HEAD.size + length)[HEAD.size :]
        if second not in _FRAMES:
            return None  # what isn't known is ignored (draft, 2.2.1)
        smallest, parse = _FRAMES[second]
        if length < smallest:
            raise SpdyError(f"a control frame of type {second} has {length} bytes: it needs {smallest}")
        return parse(self, body, flags)

    def _opened(self, body: bytes, flags: int) -> Event:
        stream, headers = _number(body), self._headers(body[10:])
        if not stream & 1 or stream <= self._last:
            raise SpdyError(f"stream {stream} was opened after {self._last}: a client's are odd and go up")
        self._last = stream
        return Opened(stream, headers, bool(flags & FIN))

    def _more_headers(self, body: bytes, flags: int) -> Event | None:
        """They mean nothing here, but the compression of all that follow hangs on them."""
        self._headers(body[4:])
        return Data(_number(body), b"", True) if flags & FIN else None

    def _replied(self, body: bytes, flags: int) -> Event:
        raise SpdyError(f"stream {_number(body)} was answered, but the server opens none")

    def _reset(self, body: bytes, flags: int) -> Event:
        return Reset(_number(body), int.from_bytes(body[4:8], "big"))

    def _pinged(self, body: bytes, flags: int) -> Event | None:
        number = int.from_bytes(body[:4], "big")
        return Pinged(number) if number & 1 else None  # an even one would be the answer to a ping of the server's

    def _leaving(self, body: bytes, flags: int) -> Event:
        return Leaving()

    def _headers(self, block: bytes) -> Mapping[str, str]:
        try:
            plain = self._inflate.decompress(block, MAX_CONTROL_BYTES + 1)
        except zlib.error as error:
            raise SpdyError(f"a header block can't be unpacked: {error}") from None
        if len(plain) > MAX_CONTROL_BYTES or self._inflate.unconsumed_tail:
            raise SpdyError(f"a header block unpacks to more than {MAX_CONTROL_BYTES} bytes")
        return _pairs(plain)

    def reply(self, stream: int) -> bytes:
        """Accept a stream."""
        block = self._deflate.compress(bytes(4)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(SYN_REPLY, stream.to_bytes(4, "big") + block)

    def data(self, stream: int, data: bytes, *, end: bool = False) -> bytes:
        """Bytes for a stream, of which `end` says that they are its last; at most MAX_DATA_BYTES."""
        return struct.pack(">II", stream, (FIN if end else 0) << 24 | len(data)) + data

    def reset(self, stream: int, status: int) -> bytes:
        """Drop a stream, or refuse it."""
        return _control(RST_STREAM, struct.pack(">II", stream, status))

    def pong(self, number: int) -> bytes:
        """The answer to a ping."""
        return _control(PING, number.to_bytes(4, "big"))

    def go_away(self, status: int) -> bytes:
        """The end of the connection, and why."""
        return _control(GOAWAY, struct.pack(">II", self._last, status))


class _Incomplete(Exception):
    """The rest is still on its way."""


def _control(kind: int, body: bytes) -> bytes:
    return HEAD.pack(CONTROL | VERSION, kind, len(body)) + body


def _number(body: bytes) -> int:
    return int.from_bytes(body[:4], "big") & STREAM_BITS


def _pairs(block: bytes) -> Mapping[str, str]:
    """The names and values of a header block (draft, 2.6.10)."""
    texts: list[str] = []
    position = 4
    for _ in range(2 * int.from_bytes(block[:4], "big")):
        end = position + 4 + int.from_bytes(block[position : position + 4], "big")
        if position + 4 > len(block) or end > len(block):
            raise SpdyError("a header block is shorter than it says")
        texts.append(block[position + 4 : end].decode("latin-1"))
        position = end
    if position != len(block):
        raise SpdyError("a header block is not as long as it says")
    return dict(zip(texts[::2], texts[1::2], strict=True))


_FRAMES: Mapping[int, tuple[int, Callable[[Server, bytes, int], Event | None]]] = {
    SYN_STREAM: (10, Server._opened),
    SYN_REPLY: (4, Server._replied),
    RST_STREAM: (8, Server._reset),
    PING: (4, Server._pinged),
    GOAWAY: (8, Server._leaving),
    HEADERS: (4, Server._more_headers),
}
"""By type: the least that a frame's body has, and what it means. SETTINGS and WINDOW_UPDATE mean nothing here."""

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length content-location "
    "content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match "
    "if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range "
    "referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get "
    "status 200|OK version HTTP/1.1 url public set-cookie keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal "
    "Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, "
    "Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,"
    "text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(word)) + word.replace("|", " ").encode() for word in _WORDS.split()) + _TEXT.encode()
)
"""With which header blocks are compressed (draft, 2.6.10.1): words with their lengths, then plain text."""
