"""Netlink: messages as bytes, many of them in one send, and an honest word on each (RFC 3549, netlink(7)).

A message is `struct nlmsghdr` (length, type, flags, sequence, port) and a payload: a fixed header of its family, then
attributes (`struct nlattr`: length, type, value, padded to four bytes; nested ones carry attributes as value).

`Socket.request` sends many messages at once. The kernel handles them in order, one by one, and goes on after a refusal,
which it always answers, with the sequence number, an errno and, with NETLINK_EXT_ACK, its own text; only the last message
asks for an acknowledgement (NLM_F_ACK), and that says that all are done. So one system call carries hundreds of changes
and every refused one is known by name. Answers queue in the receive buffer while the kernel works: a batch is bounded so
that they fit there even if every message is refused.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_ECHO, NLM_F_DUMP_INTR = 0x01, 0x02, 0x04, 0x08, 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK, NETLINK_CAP_ACK = 270, 11, 12, 10

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
ERROR = struct.Struct("=i")

BATCH_MESSAGES = 256
"""Refusals of one batch that fit the default receive buffer: each takes a socket buffer of some 800 bytes."""
BATCH_BYTES = 160 * 1024
"""Below the 208 KiB that one send may have without privileges (net.core.wmem_max)."""
RECEIVE_BYTES = 64 * 1024
MSG_TRUNC = int(socket.MSG_TRUNC)
DUMP_TRIES = 5


@dataclass(frozen=True, slots=True)
class Message:
    """One request: `payload` is the family's fixed header and the attributes; `label` names it in errors, if there are any."""

    type: int
    flags: int
    payload: bytes
    label: str | Callable[[], str] = ""

    @property
    def name(self) -> str:
        """What the message is to do, in words."""
        return self.label() if callable(self.label) else self.label


@dataclass(frozen=True, slots=True)
class Refusal:
    """The kernel refused the message at `index` of a request: its errno and the extended ACK's text, if it gave one."""

    index: int
    errno: int
    text: str

    def __str__(self) -> str:
        return self.text or os.strerror(self.errno)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) & 3)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """A byte."""
    return attribute(kind, bytes((value,)))


def u16(kind: int, value: int) -> bytes:
    """Two bytes, host order."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """Four bytes, host order."""
    return attribute(kind, struct.pack("=I", value))


def be16(kind: int, value: int) -> bytes:
    """Two bytes, network order."""
    return attribute(kind, struct.pack(">H", value))


def be32(kind: int, value: int) -> bytes:
    """Four bytes, network order."""
    return attribute(kind, struct.pack(">I", value))


def be64(kind: int, value: int) -> bytes:
    """Eight bytes, network order."""
    return attribute(kind, struct.pack(">Q", value))


def attributes(data: bytes | memoryview, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type without flags, value) of each attribute in `data` from `offset` on. ValueError when one runs over the end."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise ValueError(f"attribute {kind & NLA_TYPE_MASK} of length {length} at {offset} of {end} bytes")
        yield kind & NLA_TYPE_MASK, bytes(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3


def parse_attributes(data: bytes | memoryview, offset: int = 0) -> dict[int, bytes]:
    """The attributes as a mapping; of repeated ones the last (use `attributes` for lists)."""
    return dict(attributes(data, offset))


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of each message of a datagram."""
    offset, end = 0, len(data)
    while offset + 16 <= end:
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > end:
            raise ValueError(f"message of length {length} at {offset} of {end} bytes")
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def refusal_text(flags: int, payload: bytes) -> str:
    """The kernel's own words in an NLMSG_ERROR payload (extended ACK), or ""."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    length = HEADER.unpack_from(payload, 4)[0]
    start = 4 + (16 if flags & NLM_F_CAPPED else (length + 3) & ~3)
    return parse_attributes(payload, start).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")


class DumpInterrupted(Exception):
    """The table changed during a dump again and again, so no consistent picture could be read."""


class Socket:
    """A netlink socket of one protocol, in the network namespace where it was opened; any thread may use it, one at a time."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    @property
    def port(self) -> int:
        """The port id of this socket: notifications of what it changed carry it (nlmsg_pid)."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Close; idempotent."""
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, batch: Sequence[Message]) -> list[Refusal]:
        """Send all messages in as few sends as the socket allows; the refused ones, in order. All others took effect."""
        refused: list[Refusal] = []
        start = 0
        for part in split(batch):
            refused += [Refusal(start + r.index, r.errno, r.text) for r in self._send(part)]
            start += len(part)
        return refused

    def _send(self, part: Sequence[Message]) -> list[Refusal]:
        first = self._sequence + 1
        self._sequence += len(part)
        last = self._sequence
        pieces = [encode(m, first + i, NLM_F_REQUEST) for i, m in enumerate(part[:-1])]
        pieces.append(encode(part[-1], last, NLM_F_REQUEST | NLM_F_ACK))
        self._socket.send(b"".join(pieces))
        refused = []
        done = False
        while not done:
            for kind, flags, sequence, payload in messages(self._receive()):
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                done |= sequence == last
                code = -ERROR.unpack_from(payload)[0]
                if code:
                    refused.append(Refusal(sequence - first, code, refusal_text(flags, payload)))
        return refused

    def transaction(self, data: bytes) -> list[Refusal]:
        """Send a batch of nf_tables, made by the caller; `index` of a refusal is the sequence number of its message.

        An empty list means that all took effect; else nothing did. The kernel works and answers within the send
        (netlink_unicast_kernel), so what is to be read is there when it returns.
        """
        self._socket.send(data)
        refused: list[Refusal] = []
        while True:
            try:
                answer = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return refused
            for kind, flags, sequence, payload in messages(answer):
                code = -ERROR.unpack_from(payload)[0] if kind == NLMSG_ERROR else 0
                if code:
                    refused.append(Refusal(sequence, code, refusal_text(flags, payload)))

    def dump(self, kind: int, payload: bytes, flags: int = NLM_F_DUMP) -> list[tuple[int, bytes]]:
        """(type, payload) of every message of a dump, read anew when the table changed meanwhile (NLM_F_DUMP_INTR).

        OSError when the kernel refuses it, DumpInterrupted after several tries.
        """
        for _ in range(DUMP_TRIES):
            self._sequence += 1
            self._socket.send(encode(Message(kind, flags, payload), self._sequence, NLM_F_REQUEST))
            rows, interrupted = self._collect(self._sequence)
            if not interrupted:
                return rows
        raise DumpInterrupted(f"message type {kind}: the table changed during each of {DUMP_TRIES} dumps")

    def _collect(self, wanted: int) -> tuple[list[tuple[int, bytes]], bool]:
        rows: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            for kind, flags, sequence, payload in messages(self._receive()):
                if sequence != wanted:
                    continue
                interrupted |= bool(flags & NLM_F_DUMP_INTR)
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    code = -ERROR.unpack_from(payload)[0] if len(payload) >= 4 else 0
                    if code:
                        raise OSError(code, refusal_text(flags, payload) or os.strerror(code))
                    return rows, interrupted
                rows.append((kind, payload))
                if not flags & NLM_F_MULTI:
                    return rows, interrupted

    def _receive(self, how: int = 0) -> bytes:
        data, _, flags, _ = self._socket.recvmsg(RECEIVE_BYTES, 0, how)
        if flags & MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "a netlink message was larger than the receive buffer")
        return data


def encode(message: Message, sequence: int, flags: int) -> bytes:
    """The message with its header; its length is padded to four bytes as the kernel expects between messages."""
    length = 16 + len(message.payload)
    header = HEADER.pack(length, message.type, message.flags | flags, sequence, 0)
    return header + message.payload + b"\0" * (-length & 3)


def split(batch: Sequence[Message]) -> Iterable[Sequence[Message]]:
    """Parts of the batch, in order, each within the limits of one send."""
    start, size = 0, 0
    for i, message in enumerate(batch):
        length = 20 + len(message.payload)
        if i > start and (size + length > BATCH_BYTES or i - start >= BATCH_MESSAGES):
            yield batch[start:i]
            start, size = i, 0
        size += length
    if start < len(batch):
        yield batch[start:]
