"""Many datagrams in and out by one system call each: recvmmsg(2) and sendmmsg(2), through the C library.

What is received is looked up where it lies, and what is known is sent back from memory that was arranged once, so that an answer costs
Python two lookups and one copy. The address that the kernel wrote beside a datagram is the one that its answer is sent to.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Mapping, MutableSequence, Sequence
from typing import NamedTuple

COUNT = 64
"""Datagrams of one call, at most."""
BYTES = 4096
"""The longest datagram that is taken whole, and that is sent."""
ID_BYTES = 2
"""What a datagram begins with, is sent back as it came, and no part of what is looked up."""
MSG_DONTWAIT = 0x40
NAME_BYTES = 32
"""Room for a socket address, before each datagram."""

Address = tuple[str, bytes]
"""A sender: its IP address, and its socket address as the kernel has it, by which it is answered (`Outgoing`)."""
Reply = tuple[bytes, int, object]
"""The datagram to send, without its id; its kind, a number that is counted by; and what its owner wants to keep with it."""


class _Header(ctypes.Structure):
    """struct msghdr, recvmsg(2)."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    """struct mmsghdr, recvmmsg(2)."""

    _fields_ = [("header", _Header), ("length", ctypes.c_uint)]


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("at", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Exchanged(NamedTuple):
    """What became of one batch: how many were received and answered, the bytes of both, and those that nothing is known of."""

    received: int
    answered: int
    received_bytes: int
    answered_bytes: int
    others: list[tuple[bytes, Address]]


_SLOT = NAME_BYTES + BYTES
_STRIDE = ctypes.sizeof(_Message)
_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


class Incoming:
    """Batches of datagrams of connected sockets. One serves any number of sockets, but one at a time."""

    def __init__(self) -> None:
        self._received = bytearray(COUNT * BYTES)
        at = ctypes.addressof((ctypes.c_char * len(self._received)).from_buffer(self._received))
        self._view = memoryview(self._received)
        self._pieces, self._messages = (_Piece * COUNT)(), (_Message * COUNT)()
        for i in range(COUNT):
            self._pieces[i] = _Piece(at + i * BYTES, BYTES)
            self._messages[i] = _Message(_Header(None, 0, ctypes.addressof(self._pieces[i]), 1))
        self._messages_at = ctypes.addressof(self._messages)
        self._lengths = _numbers_at(self._messages, _Message.length.offset)

    def receive(self, fd: int) -> list[bytes]:
        """What waits in a socket, `COUNT` datagrams at most. OSError for what an ICMP message says about one that was sent."""
        received = _recvmmsg(fd, self._messages_at, COUNT, MSG_DONTWAIT, None)
        if received < 0:
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return []
            raise OSError(number, os.strerror(number))
        view = self._view
        return [view[i * BYTES : i * BYTES + length].tobytes() for i, length in enumerate(self._lengths[:received].tolist())]


class Outgoing:
    """Batches of datagrams to be sent. One serves any number of sockets, but one at a time."""

    def __init__(self) -> None:
        self._slots = bytearray(COUNT * _SLOT)
        self._view = memoryview(self._slots)
        at = ctypes.addressof((ctypes.c_char * len(self._slots)).from_buffer(self._slots))
        self._pieces, self._messages = (_Piece * COUNT)(), (_Message * COUNT)()
        for i in range(COUNT):
            name = at + i * _SLOT
            self._pieces[i] = _Piece(name + NAME_BYTES, 0)
            self._messages[i] = _Message(_Header(name, 0, ctypes.addressof(self._pieces[i]), 1))
        self._messages_at = ctypes.addressof(self._messages)
        self._name_lengths = _numbers_at(self._messages, _Message.header.offset + _Header.name_bytes.offset)
        self._lengths = memoryview(self._pieces).cast("B").cast("P")[1::2]

    def send(self, fd: int, datagrams: Sequence[tuple[bytes, bytes]]) -> int:
        """Send (socket address as the kernel has it, datagram), `COUNT` at most; b"" as address on a connected socket. The number of those
        that were sent: the next one can't be, and those behind it were not tried."""
        view, lengths, name_lengths, at = self._view, self._lengths, self._name_lengths, 0
        for i, (name, data) in enumerate(datagrams):
            size = len(data)
            if size > BYTES:
                raise ValueError(f"a datagram of {size} bytes")
            if name:
                view[at : at + len(name)] = name
            name_lengths[i] = len(name)
            view[at + NAME_BYTES : at + NAME_BYTES + size] = data
            lengths[i] = size
            at += _SLOT
        sent: int = _sendmmsg(fd, self._messages_at, len(datagrams), MSG_DONTWAIT)
        return max(0, sent)


def _numbers_at(messages: ctypes.Array[_Message], offset: int) -> memoryview:
    """A number of 32 bits of each message, at this offset in it, as one that Python reads and writes without a detour."""
    return memoryview(messages).cast("B").cast("I")[offset // 4 :: _STRIDE // 4]


class _Unpackers(dict[int, struct.Struct]):
    """By the length of a datagram: from its slot to (address of the sender, the datagram without its id). Made when first needed."""

    def __init__(self, version: int) -> None:
        super().__init__()
        # struct sockaddr_in: family, port, address; sockaddr_in6: family, port, flow, address, scope
        self._name = "4x4s24x" if version == 4 else "8x16s8x"

    def __missing__(self, length: int) -> struct.Struct:
        id_bytes = min(ID_BYTES, length)
        found = self[length] = struct.Struct(f"={self._name}{id_bytes}x{length - id_bytes}s")
        return found


class Datagrams:
    """Batches of datagrams of one address family. One serves any number of sockets, but one at a time."""

    def __init__(self, version: int) -> None:
        self._unpackers = _Unpackers(version)
        self._version = version
        self._count = 0
        self._address = slice(4, 8) if version == 4 else slice(8, 24)
        self._received = bytearray(COUNT * _SLOT)
        self._view = memoryview(self._received)
        self._replies = bytearray(COUNT * BYTES)
        self._out = memoryview(self._replies)
        self._in_pieces, self._out_pieces = (_Piece * COUNT)(), (_Piece * (2 * COUNT))()
        self._in, self._send = (_Message * COUNT)(), (_Message * COUNT)()
        self._name_bytes = 16 if version == 4 else 28
        self._arrange(self._name_bytes)
        self._in_at, self._send_at = ctypes.addressof(self._in), ctypes.addressof(self._send)
        self._lengths = _numbers_at(self._in, _Message.length.offset)
        self._sent_lengths = memoryview(self._out_pieces).cast("B").cast("P")[3::4]

    def _arrange(self, name_bytes: int) -> None:
        received = ctypes.addressof((ctypes.c_char * len(self._received)).from_buffer(self._received))
        replies = ctypes.addressof((ctypes.c_char * len(self._replies)).from_buffer(self._replies))
        in_at, out_at = ctypes.addressof(self._in_pieces), ctypes.addressof(self._out_pieces)
        size = ctypes.sizeof(_Piece)
        for i in range(COUNT):
            name = received + i * _SLOT
            data = name + NAME_BYTES
            self._in_pieces[i] = _Piece(data, BYTES)
            self._out_pieces[2 * i] = _Piece(data, ID_BYTES)
            self._out_pieces[2 * i + 1] = _Piece(replies + i * BYTES, 0)
            self._in[i] = _Message(_Header(name, name_bytes, in_at + i * size, 1))
            self._send[i] = _Message(_Header(name, name_bytes, out_at + 2 * i * size, 2))

    def exchange(
        self, fd: int, senders: Mapping[bytes, bytes], replies: Mapping[bytes, Reply], counts: MutableSequence[int]
    ) -> Exchanged | None:
        """Answer what waits in a socket; None when nothing does.

        A datagram is answered at once when its sender's address (packed) is one of `senders`, and `replies` has the datagram without its
        id, or that behind what `senders` says: what only some may have. Each adds one to `counts` at its kind. All others are returned.
        """
        received = _recvmmsg(fd, self._in_at, COUNT, MSG_DONTWAIT, None)
        if received <= 0:
            return None  # or an ICMP error about an answer, which is gone with this call
        self._count = received
        lengths = self._lengths[:received].tolist()
        out, sent_lengths, unpackers, buffer = self._out, self._sent_lengths, self._unpackers, self._received
        others: list[tuple[bytes, Address]] = []
        first = answered_bytes = at = 0  # `first` of those that are not sent yet
        for i, length in enumerate(lengths):
            sender, data = unpackers[length].unpack_from(buffer, i * _SLOT)
            prefix = senders.get(sender)
            if prefix is not None and (found := replies.get(data) or replies.get(prefix + data)) is not None:
                reply, kind, _ = found
                size = len(reply)
                out[at : at + size] = reply
                sent_lengths[i] = size
                counts[kind] += 1
                answered_bytes += size
            else:
                others.append(self._other(i, length))
                if first < i:
                    self._flush(fd, first, i)
                first = i + 1
            at += BYTES
        if first < received:
            self._flush(fd, first, received)
        answered = received - len(others)
        return Exchanged(received, answered, sum(lengths), answered_bytes + ID_BYTES * answered, others)

    @property
    def size(self) -> int:
        """Datagrams of one batch, at most."""
        return COUNT

    def senders(self) -> list[bytes]:
        """The packed addresses that those of the last batch came from."""
        view, first, end = self._view, self._address.start, self._address.stop
        return [view[at + first : at + end].tobytes() for at in range(0, self._count * _SLOT, _SLOT)]

    def _flush(self, fd: int, first: int, end: int) -> None:
        """Send the answers to these; one that can't be sent (to port 0, say) is left out, and its client asks again."""
        while first < end:
            sent = _sendmmsg(fd, self._send_at + first * _STRIDE, end - first, MSG_DONTWAIT)
            first += sent if sent > 0 else 1

    def _other(self, i: int, length: int) -> tuple[bytes, Address]:
        """A datagram, and its sender."""
        at = i * _SLOT
        name = self._view[at : at + self._name_bytes].tobytes()
        ip = socket.inet_ntoa(name[4:8]) if self._version == 4 else socket.inet_ntop(socket.AF_INET6, name[8:24])
        return self._view[at + NAME_BYTES : at + NAME_BYTES + length].tobytes(), (ip, name)
