"""Netlink: messages as bytes, many of them in one send, and an honest word on each (RFC 3549, netlink(7)).

A message is `struct nlmsghdr` (length, type, flags, sequence, port) and a payload: a fixed header of its family, then
attributes (`struct nlattr`: length, type, value, padded to four bytes; nested ones carry attributes as value).

`Socket.request` sends many messages at once. The kernel handles them in order, one by one, and goes on after a refusal,
which it always answers, with the sequence number, an errno and, with NETLINK_EXT_ACK, its own text; only the last message
asks for an acknowledgement (NLM_F_ACK), and that says that all are done. So one system call carries hundreds of changes
and every refused one is known by name. Answers queue in the receive buffer while the kernel works: a batch is bounded so
that they fit there even if every message is refused. Should the buffer overflow all the same (ENOBUFS), the answers that are missing
are reported as unknown (`Overrun`).

Sequence numbers never repeat within a socket. An answer to an earlier request, left over after an overflow, is told by its number and
dropped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_ECHO, NLM_F_DUMP_INTR = 0x01, 0x02, 0x04, 0x08, 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS = 1, 2
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK, NETLINK_CAP_ACK = 270, 11, 12, 10

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
ERROR = struct.Struct("=i")

PADDING = (b"", bytes(3), bytes(2), bytes(1))
"""What brings a payload to four bytes, by how many of these its last part has."""
BATCH_MESSAGES = 256
"""Refusals of one batch that fit the default receive buffer: each takes a socket buffer of some 800 bytes."""
BATCH_BYTES = 160 * 1024
"""Below the 208 KiB that one send may have without privileges (net.core.wmem_max)."""
SO_SNDBUFFORCE = 32
RECEIVE_BYTES = 64 * 1024
BUFFER_BYTES = 208 * 1024
"""SO_RCVBUF: net.core.rmem_max, which the kernel doubles; without it a socket gets net.core.rmem_default, half of that."""
MSG_TRUNC = int(socket.MSG_TRUNC)
DUMP_TRIES = 5
MAX_SEQUENCE = (1 << 32) - 1
MAX_DRAINED = 10_000
"""More datagrams than any receive buffer holds."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One request: `payload` is the family's fixed header and the attributes; `label` names it in errors, if there are any."""

    type: int
    flags: int
    payload: bytes
    label: str | Callable[[], str] = ""

    @property
    def name(self) -> str:
        """What the message is to do, in words."""
        return self.label() if callable(self.label) else self.label


class Refusal(msgspec.Struct, frozen=True):
    """The kernel refused the message at `index` of a request: its errno and the extended ACK's text, if it gave one.

    `offset` is where in the message, counted from its header, the attribute to blame begins; 0 when the kernel names none.
    """

    index: int
    errno: int
    text: str
    offset: int = 0

    def __str__(self) -> str:
        return self.text or os.strerror(self.errno)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) & 3)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string; bytes that are no UTF-8 came as surrogates (PEP 383)."""
    return attribute(kind, value.encode(errors="surrogateescape") + b"\0")


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
    """The attributes as a mapping; of repeated ones the last (use `attributes` for lists). ValueError as there.

    Without the generator of `attributes`, as a link has some fifty, and each start of a pod is notified by several links.
    """
    found: dict[int, bytes] = {}
    unpack, end = ATTRIBUTE.unpack_from, len(data)
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        after = offset + length
        if length < 4 or after > end:
            raise ValueError(f"attribute {kind & NLA_TYPE_MASK} of length {length} at {offset} of {end} bytes")
        found[kind & NLA_TYPE_MASK] = bytes(data[offset + 4 : after])
        offset += (length + 3) & ~3
    return found


def find_attribute(data: bytes | memoryview, kind: int, offset: int = 0) -> bytes:
    """The first attribute of this type; empty when there is none. What comes behind it is not looked at."""
    return next((value for one, value in attributes(data, offset) if one == kind), b"")


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of each message of a datagram."""
    offset, end = 0, len(data)
    while offset + 16 <= end:
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > end:
            raise ValueError(f"message of length {length} at {offset} of {end} bytes")
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def extended_ack(flags: int, payload: bytes) -> tuple[str, int]:
    """Of an NLMSG_ERROR payload: the kernel's own words, or ""; and the offset of the attribute to blame, or 0."""
    if not flags & NLM_F_ACK_TLVS:
        return "", 0
    length = HEADER.unpack_from(payload, 4)[0]
    start = 4 + (16 if flags & NLM_F_CAPPED else (length + 3) & ~3)
    found = parse_attributes(payload, start)
    words = found.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    return words, int.from_bytes(found.get(NLMSGERR_ATTR_OFFS, b""), sys.byteorder)


class Overrun(OSError):
    """The receive buffer overflowed, and answers are missing: what became of the request must be read back."""

    def __init__(self) -> None:
        super().__init__(errno.ENOBUFS, "the socket's receive buffer overflowed: the kernel's answer is lost")


class DumpInterrupted(Exception):
    """The table changed during a dump again and again, so no consistent picture could be read."""


class Socket:
    """A netlink socket of one protocol, in the network namespace where it was opened; any thread may use it, one at a time."""

    def __init__(self, protocol: int, opened: socket.socket | None = None) -> None:
        """`opened` is one of this protocol that somebody else opened, in place of a new one in the thread's namespace; what it has
        received is dropped."""
        self._socket = opened or socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            if opened is not None and self.port:  # whoever had it may have ended between a question and its answer
                self._drain()
            else:
                self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise

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
        first = self._begin(len(part))
        last = self._sequence
        pieces: list[bytes] = []
        for sequence, message in enumerate(part, first):
            payload = message.payload
            flags = message.flags | (NLM_F_REQUEST if sequence != last else NLM_F_REQUEST | NLM_F_ACK)
            pieces += HEADER.pack(16 + len(payload), message.type, flags, sequence, 0), payload, PADDING[len(payload) & 3]
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
                    refused.append(Refusal(sequence - first, code, *extended_ack(flags, payload)))
        return refused

    def _begin(self, count: int) -> int:
        """The first of `count` sequence numbers that nobody had; they begin anew at 1 before they leave 32 bits."""
        if self._sequence + count > MAX_SEQUENCE:
            self._drain()
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

    def _drain(self) -> None:
        """Drop all that waits to be received."""
        for _ in range(MAX_DRAINED):
            try:
                self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except Overrun:
                continue

    def make_room(self, size: int) -> None:
        """Let one send have so many bytes, where this process may say so (CAP_NET_ADMIN of the machine)."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, size)

    def transaction(self, batch: Sequence[Message]) -> list[Refusal]:
        """Send a batch of nf_tables, begin and end among its messages. An empty list means that all took effect; else nothing did.

        A refusal of the first message is one of the whole (the commit failed). The kernel works and answers within the send
        (netlink_unicast_kernel), so what is to be read is there when it returns. Overrun when it is not known what became of it;
        OSError (EMSGSIZE) when it is larger than one send may be.
        """
        first = self._begin(len(batch))
        last = first + len(batch) - 2
        self._socket.send(
            b"".join(
                [encode(m, first + i, NLM_F_REQUEST | (NLM_F_ACK if first + i == last else 0)) for i, m in enumerate(batch)]
            )
        )
        refused: list[Refusal] = []
        acknowledged = False
        for kind, flags, sequence, payload in self._waiting():
            if kind == NLMSG_ERROR and first <= sequence <= first + len(batch):
                code = -ERROR.unpack_from(payload)[0]
                acknowledged |= not code and sequence == last
                if code:
                    refused.append(Refusal(sequence - first, code, *extended_ack(flags, payload)))
        if not refused and not acknowledged:
            raise Overrun
        return refused

    def _waiting(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The messages that wait to be received, those that overflowed the buffer left out."""
        for _ in range(MAX_DRAINED):
            try:
                answer = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except Overrun:
                continue
            yield from messages(answer)

    def dump_steps(self, kind: int, payload: bytes, flags: int = NLM_F_DUMP) -> Iterator[list[tuple[int, bytes]]]:
        """A dump in slices of (type, payload), a datagram each (at most 32 KiB); the socket serves nothing else until the last one.

        OSError when the kernel refuses it; DumpInterrupted at its end when the table changed meanwhile (NLM_F_DUMP_INTR).
        """
        wanted = self._begin(1)
        self._socket.send(encode(Message(kind, flags, payload), wanted, NLM_F_REQUEST))
        interrupted = done = False
        while not done:
            rows: list[tuple[int, bytes]] = []
            for found, found_flags, sequence, content in messages(self._receive()):
                if sequence != wanted:
                    continue
                interrupted |= bool(found_flags & NLM_F_DUMP_INTR)
                done = found in (NLMSG_DONE, NLMSG_ERROR) or not found_flags & NLM_F_MULTI
                code = -ERROR.unpack_from(content)[0] if found in (NLMSG_DONE, NLMSG_ERROR) and len(content) >= 4 else 0
                if code:
                    raise OSError(code, extended_ack(found_flags, content)[0] or os.strerror(code))
                if found not in (NLMSG_DONE, NLMSG_ERROR):
                    rows.append((found, content))
            yield rows
        if interrupted:
            raise DumpInterrupted(f"message type {kind}: the table changed during the dump")

    def dump(self, kind: int, payload: bytes, flags: int = NLM_F_DUMP) -> list[tuple[int, bytes]]:
        """(type, payload) of every message of a dump, read anew when the table changed meanwhile.

        OSError when the kernel refuses it, DumpInterrupted after several tries.
        """
        for _ in range(DUMP_TRIES):
            try:
                return [row for rows in self.dump_steps(kind, payload, flags) for row in rows]
            except DumpInterrupted:
                continue
        raise DumpInterrupted(f"message type {kind}: the table changed during each of {DUMP_TRIES} dumps")

    def ask(self, kind: int, payload: bytes) -> bytes:
        """The payload of the one message that answers a request. OSError when the kernel refuses it."""
        wanted = self._begin(1)
        self._socket.send(encode(Message(kind, 0, payload), wanted, NLM_F_REQUEST))
        while True:
            data = self._receive()
            length, found, flags, sequence, _ = HEADER.unpack_from(data)
            if sequence != wanted:
                continue
            content = data[HEADER.size : length]
            if found == NLMSG_ERROR and (code := -ERROR.unpack_from(content)[0]):
                raise OSError(code, extended_ack(flags, content)[0] or os.strerror(code))
            return content

    def fileno(self) -> int:
        """Readable when something was sent unasked for, on a socket that waits for no answer."""
        return self._socket.fileno()

    def receive_waiting(self) -> bytes:
        """The next datagram that waits. BlockingIOError when none does, Overrun when some were lost before it."""
        return self._receive(socket.MSG_DONTWAIT)

    def _receive(self, how: int = 0) -> bytes:
        try:
            data, _, flags, _ = self._socket.recvmsg(RECEIVE_BYTES, 0, how)
        except OSError as error:
            raise Overrun() if error.errno == errno.ENOBUFS else error from None
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
