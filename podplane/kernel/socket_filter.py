"""Filters of sockets, by source address for one: the kernel drops a part of what some send before it takes room in the socket.

It is a program of classic BPF (the kernel's Documentation/networking/filter.rst), which needs no privilege and costs other senders one
comparison for each address that it names.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
LD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_RET|BPF_K."""
NETWORK_HEADER, RANDOM = 0xFFF00000, 0xFFFFF000 + 56
"""SKF_NET_OFF, SKF_AD_OFF + SKF_AD_RANDOM."""
SOURCE_AT = {4: 12, 6: 8}
"""Where the source is in a header of IPv4 (RFC 791, 3.1) and IPv6 (RFC 8200, 3)."""
WHOLE, NOTHING = 0xFFFFFFFF, 0
MOST = 64
"""Addresses of one filter; a program has 4096 instructions at most."""

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, operand."""


def program(passing: Mapping[bytes, float]) -> list[Instruction]:
    """Of each of these addresses (packed) only this part passes, by chance; all of others do. ValueError for more than `MOST` addresses."""
    if len(passing) > MOST:
        raise ValueError(f"{len(passing)} addresses are too many for a filter")
    made = [one for address, part in passing.items() for one in _of_address(address, part)]
    return [*made, (RETURN, 0, 0, WHOLE)]


def _of_address(address: bytes, part: float) -> Iterator[Instruction]:
    words = struct.unpack(f"!{len(address) // 4}I", address)
    at = NETWORK_HEADER + SOURCE_AT[4 if len(words) == 1 else 6]
    for i, word in enumerate(words):
        yield LD_WORD, 0, 0, at + 4 * i
        yield JUMP_EQUAL, 0, 2 * (len(words) - 1 - i) + 4, word  # else to the next address
    yield LD_WORD, 0, 0, RANDOM
    yield JUMP_AT_LEAST, 0, 1, min(int(part * 2**32), 2**32 - 1)
    yield RETURN, 0, 0, NOTHING
    yield RETURN, 0, 0, WHOLE


def limit(bound: socket.socket, passing: Mapping[bytes, float]) -> None:
    """Let only these parts of what these addresses send into the socket, from now on; with none, all. OSError when the kernel refuses."""
    if not passing:
        try:
            bound.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        except FileNotFoundError:
            pass  # there is none
        return
    attach(bound, program(passing))


def attach(bound: socket.socket, instructions: Iterable[Instruction]) -> None:
    """Have the kernel run this program on all that comes to a socket. OSError when it refuses."""
    code = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    kept = ctypes.create_string_buffer(code, len(code))  # struct sock_fprog points to it
    bound.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(code) // 8, ctypes.addressof(kept)))
