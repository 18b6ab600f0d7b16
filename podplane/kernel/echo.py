"""ICMP echo requests of a node to others, and their answers (RFC 792, RFC 4443).

A raw socket for each IP version, in which the kernel keeps nothing but echo replies with this sender's identifier. A request carries the
time when it was sent, and a code that only this sender can make, for this address, number and time: who sees requests to one address
can't answer for another. The kernel notes when an answer came (SO_TIMESTAMPNS), so that answers may be read late. CAP_NET_RAW is all that
it needs.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import socket
import struct
import time
from collections.abc import Iterator

from podplane.kernel.announce import checksum
from podplane.kernel.parts import Answer
from podplane.kernel.socket_filter import Instruction, attach

HEADER = struct.Struct("!BBHHH8sQ")
"""Type, code, checksum, identifier, sequence number; the authentication code, and when it was sent, in nanoseconds of the wall clock."""
SIGNED = struct.Struct("!HQ")
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
SO_TIMESTAMPNS = 35
"""include/uapi/asm-generic/socket.h; the type of its control message, too."""
TIMESPEC = struct.Struct("@ll")
SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1
"""include/linux/socket.h, include/uapi/linux/icmp.h, icmpv6.h: a bit for each type that is dropped."""
LD_HALF_AT_X, LD_X_HEADER, JUMP_EQUAL, RETURN, LD_HALF = 0x48, 0xB1, 0x15, 0x06, 0x28
"""BPF_LD|BPF_H|BPF_IND, BPF_LDX|BPF_B|BPF_MSH, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K, BPF_LD|BPF_H|BPF_ABS."""
BYTES, CONTROL_BYTES = 128, 64
LONGEST_SECONDS = 60.0


class Echo:
    """Of the namespace in which it is made (`parts.Echo`). Requests of an IP version that the kernel has not got are not sent."""

    def __init__(self) -> None:
        self._identifier = int.from_bytes(os.urandom(2))
        self._key = os.urandom(16)
        self._sockets: dict[int, socket.socket] = {}
        for version in (4, 6):
            try:
                self._sockets[version] = _open(version, self._identifier)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    self.close()
                    raise

    def send(self, ip: str, sequence: int) -> bool:
        """Send a request; False when that can't be: nothing leads there, say."""
        version = 6 if ":" in ip else 4
        own = self._sockets.get(version)
        if own is None:
            return False
        now = time.time_ns()
        parts = (self._identifier, sequence, self._code(ip, sequence, now), now)
        message = HEADER.pack(REQUEST[version], 0, 0, *parts)
        if version == 4:  # of ICMPv6 the kernel computes it (RFC 3542, 3.1)
            message = HEADER.pack(REQUEST[version], 0, checksum(message), *parts)
        try:
            own.sendto(message, (ip, 0))
        except OSError:
            return False
        return True

    def receive(self) -> Iterator[Answer]:
        """The answers that wait."""
        for version, own in self._sockets.items():
            while True:
                try:
                    data, control, _, sender = own.recvmsg(BYTES, CONTROL_BYTES)
                except OSError:  # none is left; or an ICMP error about a request, which is gone with this call
                    break
                if (answer := self._answer(version, data, control, sender[0])) is not None:
                    yield answer

    def _answer(self, version: int, data: bytes, control: list[tuple[int, int, bytes]], ip: str) -> Answer | None:
        start = (data[0] & 15) * 4 if version == 4 else 0
        if len(data) < start + HEADER.size:
            return None
        kind, _, _, identifier, sequence, code, sent = HEADER.unpack_from(data, start)
        if (kind, identifier) != (REPLY[version], self._identifier):
            return None
        if not hmac.compare_digest(code, self._code(ip, sequence, sent)):
            return None
        received = next((_nanoseconds(one) for _, type_, one in control if type_ == SO_TIMESTAMPNS), time.time_ns())
        return Answer(ip, sequence, min(max(0.0, (received - sent) / 1e9), LONGEST_SECONDS))  # somebody may have set the clock

    def _code(self, ip: str, sequence: int, sent: int) -> bytes:
        """What authenticates a request to this address, and its answer (RFC 7693, keyed)."""
        return hashlib.blake2b(SIGNED.pack(sequence, sent) + ip.encode(), digest_size=8, key=self._key).digest()

    def close(self) -> None:
        """Close the sockets; idempotent."""
        for own in self._sockets.values():
            own.close()


def _nanoseconds(timespec: bytes) -> int:
    seconds, nanoseconds = TIMESPEC.unpack_from(timespec)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _open(version: int, identifier: int) -> socket.socket:
    if version == 4:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        made.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << REPLY[4])))
    else:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        words = [0xFFFFFFFF] * 8
        words[REPLY[6] // 32] &= ~(1 << REPLY[6] % 32)
        made.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("=8I", *words))
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    made.setblocking(False)
    attach(made, list(_of_identifier(version, identifier)))
    return made


def _of_identifier(version: int, identifier: int) -> Iterator[Instruction]:
    """What others ping does not wake anybody. A raw socket sees the header of IPv4 and not that of IPv6 (raw(7), RFC 3542)."""
    if version == 4:
        yield LD_X_HEADER, 0, 0, 0
        yield LD_HALF_AT_X, 0, 0, 4
    else:
        yield LD_HALF, 0, 0, 4
    yield JUMP_EQUAL, 0, 1, identifier
    yield RETURN, 0, 0, 0xFFFFFFFF
    yield RETURN, 0, 0, 0
