"""What a kubelet asks of an engine, and how: the Container Runtime Interface, version 1 (k8s.io/cri-api, api.proto), over a Unix socket.

A message of Protocol Buffers is here what it is on the wire: values by the number of their field. Calls are gRPC over HTTP/2.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.events

RUNTIME, IMAGES = "runtime.v1.RuntimeService", "runtime.v1.ImageService"
TCP, UDP, SCTP = range(3)
"""enum Protocol."""
SECONDS = 60.0
"""A call that takes longer has failed."""
CHUNK_BYTES = 1 << 16
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""

Value = int | str | Mapping[int, Any] | Sequence[Any]
Fields = Mapping[int, Value]
"""A message to be sent: text, numbers, messages, and lists of them, by field number."""
Received = dict[int, list[Any]]
"""A message that came: all values of each field. What is text or a message is bytes."""


class CriError(Exception):
    """An engine refused a call: why, in its own words."""


class Cri:
    """An engine that listens at a path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def call(self, method: str, fields: Fields, service: str = RUNTIME) -> Received:
        """One call. CriError with the engine's reason when it is refused, OSError when nobody answers."""
        body = encode(fields)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        headers = {":method": "POST", ":scheme": "http", ":path": f"/{service}/{method}", ":authority": "localhost"}
        connection.send_headers(1, list((headers | {"content-type": "application/grpc", "te": "trailers"}).items()))
        connection.send_data(1, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(SECONDS)
            peer.connect(self._path)
            data, trailers = _answered(connection, peer)
        if trailers.get("grpc-status") != "0":
            raise CriError(f"{method}: {trailers.get('grpc-message', trailers)}")
        return decode(data[5:])

    def until(self, method: str, fields: Fields, holds: Any, service: str = RUNTIME, seconds: float = 20.0) -> Received:
        """The answer to a call, asked again until it is as wanted, and while nobody answers, or the engine has not begun."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, CriError):
                if holds(answer := self.call(method, fields, service)):
                    return answer
            assert time.monotonic() < end, f"{method} is never answered as wanted"
            time.sleep(0.02)


def _answered(connection: h2.connection.H2Connection, peer: socket.socket) -> tuple[bytes, dict[str, str]]:
    """The data of an answer, and its headers, those at its end among them."""
    data, headers = bytearray(), dict[str, str]()
    while True:
        peer.sendall(connection.data_to_send())
        if not (chunk := peer.recv(CHUNK_BYTES)):
            raise ConnectionResetError("the engine ended the connection")
        for event in connection.receive_data(chunk):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                headers |= dict(event.headers or ())
            elif isinstance(event, h2.events.DataReceived):
                data += event.data or b""
                connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise ConnectionResetError(f"the engine ended the call: {event}")
            elif isinstance(event, h2.events.StreamEnded):
                return bytes(data), headers


def pairs(texts: Mapping[str, str]) -> list[Fields]:
    """A `map<string, string>`."""
    return [{1: key, 2: value} for key, value in texts.items()]


def encode(fields: Fields) -> bytes:
    """A message as bytes."""
    return b"".join(_field(number, value) for number, value in fields.items())


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    if isinstance(value, list | tuple):
        return b"".join(_field(number, one) for one in value)
    content = value.encode() if isinstance(value, str) else encode(value)
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest ones first; all bytes but the last have their highest bit set."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def decode(data: bytes) -> Received:
    """A message of bytes."""
    found: Received = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        size, at = _read_varint(data, at) if kind == BYTES else ({FIXED64: 8, FIXED32: 4}[kind], at)
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
