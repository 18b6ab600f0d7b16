"""grpc.health.v1.Health over HTTP/2: what a probe says and what a server answers; no sockets here.

HTTP/2 is h2's. The two messages (a service's name, a status) have one field each, so they are read and written by hand
(protobuf.dev/programming-guides/encoding; grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/health-checking.md). This module imports h2, which
takes 70 ms: import it when the first gRPC probe runs, and not on an event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

HEALTH, CHECK = "grpc.health.v1.Health", "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
"""HealthCheckResponse.ServingStatus."""
SERVING, NOT_SERVING = 1, 2
CODES = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
"""Status codes by number, as Go names them (grpc/grpc, doc/statuscodes.md)."""
OK, UNKNOWN, NOT_FOUND, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 2, 5, 12, 13, 14
DEADLINE_EXCEEDED = 4
HTTP_CODES = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""The code for an HTTP status without one of gRPC (doc/http-grpc-status-mapping.md)."""
INTEGER, INT32 = re.compile("[+-]?[0-9]{1,10}"), 1 << 31
SHOWN = 80
"""So much of a text that is no number is shown."""
MAX_MESSAGE_BYTES = 64 * 1024
MAX_EVENTS = 1000
"""Frames, or nearly so, that the answer to one call may have: each costs time, and as an empty one only nine bytes."""
PIECE_BYTES = 1024
"""What is read of an answer before its frames are counted again."""
LENGTH_DELIMITED, VARINT = 2, 0
Headers = Mapping[str, str]


class Malformed(Exception):
    """Bytes that are no such message."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: its code and message, and with code 0 the status of the service."""

    code: int
    message: str = ""
    status: int = 0


# Messages.


def request(service: str) -> bytes:
    """HealthCheckRequest."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def response(status: int) -> bytes:
    """HealthCheckResponse."""
    return b"\x08" + _varint(status) if status else b""


def service_of(message: bytes) -> str:
    """The service that a HealthCheckRequest asks for. Malformed when it is none."""
    name = dict(_fields(message)).get((1, LENGTH_DELIMITED), b"")
    assert isinstance(name, bytes)
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Malformed("a name that is no UTF-8") from None


def status_of(message: bytes) -> int:
    """The status that a HealthCheckResponse tells. Malformed when it is none."""
    found = dict(_fields(message)).get((1, VARINT), 0)
    assert isinstance(found, int)
    return found


def framed(message: bytes) -> bytes:
    """Length-Prefixed-Message, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def unframed(data: bytes) -> bytes:
    """The one message in a body. Malformed when it is not whole, or compressed."""
    if len(data) < 5 or data[0] or int.from_bytes(data[1:5], "big") != len(data) - 5:
        raise Malformed("a body that is not one message without compression")
    return data[5:]


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def _fields(message: bytes) -> Iterator[tuple[tuple[int, int], int | bytes]]:
    """((number, wire type), value) of each field."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _number(message, at)
            yield (tag >> 3, kind), value
            continue
        size, at = _number(message, at) if kind == LENGTH_DELIMITED else ({1: 8, 5: 4}.get(kind, 0), at)
        if (not size and kind != LENGTH_DELIMITED) or at + size > len(message):
            raise Malformed("a field that is cut off, or of a kind that nobody knows")
        yield (tag >> 3, kind), message[at : at + size]
        at += size


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        number, at = number | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return number, at
    raise Malformed("a number that is cut off, or too long")


# The two sides.


class Check:
    """One call of Check, on a connection of its own: what came goes into `receive`, what is to be sent comes out of `pending`."""

    def __init__(self, authority: str, service: str, user_agent: str) -> None:
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._connection.initiate_connection()
        self._headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", CHECK),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("user-agent", user_agent),
            ("te", "trailers"),
        ]
        self._body = framed(request(service))
        self._said: dict[str, str] = {}
        self._data = b""
        self._events = 0
        self.connected = False
        """The other side speaks HTTP/2."""
        self.outcome: Outcome | None = None
        """How the call ended, once it has."""

    def pending(self) -> bytes:
        """What is to be sent now."""
        return self._connection.data_to_send()

    def receive(self, data: bytes) -> None:
        """This came; nothing means that the connection was closed."""
        if not data:
            self._end(Outcome(UNAVAILABLE, "error reading from server: EOF"))
            return
        try:
            for at in range(0, len(data), PIECE_BYTES):
                if self.outcome is None:
                    self._read(data[at : at + PIECE_BYTES])
        except h2.exceptions.ProtocolError as error:
            self._end(Outcome(UNAVAILABLE, f"error reading server preface: {error}"))

    def _read(self, piece: bytes) -> None:
        for event in self._connection.receive_data(piece):
            self._happened(event)
            self._events += 1
        if self._events > MAX_EVENTS:
            self._end(Outcome(UNAVAILABLE, f"the answer has more than {MAX_EVENTS} frames"))

    def _happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged) and not self.connected:
            self.connected = True
            self._connection.send_headers(1, self._headers)
            self._connection.send_data(1, self._body, end_stream=True)
        elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            self._said |= _text(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self._data = (self._data + (event.data or b""))[:MAX_MESSAGE_BYTES]
            self._connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
        elif isinstance(event, h2.events.StreamEnded):
            self._end(answer(self._said, self._data))
        elif isinstance(event, h2.events.StreamReset):
            self._end(Outcome(INTERNAL, f"stream terminated by RST_STREAM with error code: {_error_name(event.error_code)}"))
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._end(Outcome(UNAVAILABLE, f"closing transport due to: received GOAWAY, {_error_name(event.error_code)}"))

    def _end(self, outcome: Outcome) -> None:
        self.outcome = self.outcome or outcome


def _text(headers: Iterable[tuple[str | bytes, str | bytes]] | None) -> dict[str, str]:
    """Headers, of which HTTP says only that they are bytes (RFC 9110, section 5.5)."""
    return {_decoded(name): _decoded(value) for name, value in headers or ()}


def _decoded(part: str | bytes) -> str:
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def _int32(text: str) -> int | None:
    """A number of 32 bits with a sign, as Go reads one; None for any other text."""
    number = int(text) if INTEGER.fullmatch(text) else INT32
    return number if -INT32 <= number < INT32 else None


def _error_name(code: object) -> str:
    return code.name if isinstance(code, h2.errors.ErrorCodes) else str(code)


def answer(said: Headers, data: bytes) -> Outcome:
    """What an answer means: its headers and trailers, and its body."""
    http, content = said.get(":status", ""), said.get("content-type", "")
    if "grpc-status" not in said:
        return Outcome(
            HTTP_CODES.get(_int32(http) or 0, UNKNOWN),
            f'unexpected HTTP status code received from server: {http}; transport: received unexpected content-type "{content}"',
        )
    code = _int32(said["grpc-status"])
    if code is None:
        return Outcome(INTERNAL, f'transport: malformed grpc-status: "{said["grpc-status"][:SHOWN]}"')
    if code:
        return Outcome(code & 0xFFFF_FFFF, unquote(said.get("grpc-message", "")))
    try:
        return Outcome(OK, status=status_of(unframed(data)))
    except Malformed as error:
        return Outcome(INTERNAL, f"the answer is {error}")


def failure(outcome: Outcome) -> str:
    """Why a probe with this outcome failed, in kubelet's words; "" when it succeeded (kubernetes, pkg/probe/grpc)."""
    if outcome.code == UNIMPLEMENTED:
        return f"error: this server does not implement the grpc health protocol ({HEALTH}): {outcome.message}"
    if outcome.code:
        name = CODES[outcome.code] if outcome.code < len(CODES) else f"Code({outcome.code})"
        return f"error: health rpc probe failed: rpc error: code = {name} desc = {outcome.message}"
    if outcome.status != SERVING:
        return f'service unhealthy (responded with "{STATUSES.get(outcome.status, outcome.status)}")'
    return ""


@dataclass(slots=True)
class _Call:
    headers: Headers
    data: bytes = b""


@dataclass(slots=True)
class Serving:
    """The server's side of one connection: `check` says the status of a service, or nothing for one that it doesn't know."""

    check: Callable[[str], int | None]
    _connection: h2.connection.H2Connection = field(init=False)
    _calls: dict[int, _Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._connection = h2.connection.H2Connection(config)
        self._connection.initiate_connection()

    def pending(self) -> bytes:
        """What is to be sent now."""
        return self._connection.data_to_send()

    def receive(self, data: bytes) -> bool:
        """This came; False when nothing more can be understood."""
        try:
            for event in self._connection.receive_data(data):
                self._happened(event)
        except h2.exceptions.ProtocolError:
            return False
        return True

    def _happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._calls[event.stream_id or 0] = _Call(_text(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            stream = event.stream_id or 0
            call = self._calls.get(stream)
            if call is not None:
                call.data = (call.data + (event.data or b""))[:MAX_MESSAGE_BYTES]
            self._connection.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        elif isinstance(event, h2.events.StreamReset):
            self._calls.pop(event.stream_id or 0, None)
        elif isinstance(event, h2.events.StreamEnded) and (call := self._calls.pop(event.stream_id or 0, None)):
            self._answer(event.stream_id or 0, call)

    def _answer(self, stream: int, call: _Call) -> None:
        if not call.headers.get("content-type", "").startswith("application/grpc"):
            self._connection.send_headers(stream, [(":status", "415")], end_stream=True)
            return
        outcome = self.outcome(call.headers.get(":path", ""), call.data)
        trailers = [("grpc-status", str(outcome.code)), ("grpc-message", quote(outcome.message, safe=" "))]
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if outcome.code:
            self._connection.send_headers(stream, [*head, *trailers], end_stream=True)
            return
        self._connection.send_headers(stream, head)
        self._connection.send_data(stream, framed(response(outcome.status)))
        self._connection.send_headers(stream, trailers[:1], end_stream=True)

    def outcome(self, path: str, data: bytes) -> Outcome:
        """How a call of this method ends."""
        service, _, method = path.strip("/").partition("/")
        if service != HEALTH:
            return Outcome(UNIMPLEMENTED, f"unknown service {service}")
        if path == WATCH:
            return Outcome(UNIMPLEMENTED, "unimplemented")
        if path != CHECK:
            return Outcome(UNIMPLEMENTED, f"unknown method {method} for service {service}")
        try:
            status = self.check(service_of(unframed(data)))
        except Malformed as error:
            return Outcome(INTERNAL, f"the request is {error}")
        return Outcome(NOT_FOUND, "unknown service") if status is None else Outcome(OK, status=status)
