"""Tables of iptables' own kind (ip_tables, "legacy"), which nf_tables knows nothing of: names, policies and chains. Nothing is written.

To ask for a table that is not there would make one, so only those that the kernel names are asked for.

Sources: include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h, netfilter/x_tables.h (struct ipt_getinfo,
ipt_get_entries, ipt_entry, xt_standard_target, xt_error_target).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from podplane.kernel.errors import from_errno
from podplane.kernel.namespace import Namespace

_libc = ctypes.CDLL(None, use_errno=True)
GET_INFO, GET_ENTRIES = 64, 65
"""IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES; of IPv6 the same."""
NAME, INFO = 32, struct.Struct("=32sI5I5III")
"""XT_TABLE_MAXNAMELEN; struct ipt_getinfo: name, hooks, where their chains begin and end, entries, bytes."""
ENTRIES_HEAD = 40
"""Bytes of struct ipt_get_entries before its entries."""
TARGET, VERDICT, TARGET_NAME = 32, struct.Struct("=i"), slice(2, 31)
"""Of a target: the bytes of its head, behind which the verdict is, or a chain's name; where in the head its own name is."""
HOOKS = {"input": 1, "forward": 2}
"""NF_INET_LOCAL_IN, NF_INET_FORWARD."""
DROPS = -1
"""-NF_DROP - 1."""


class Family(NamedTuple):
    """How one IP version is asked: names of tables in /proc, the socket's domain and level, where in an entry its offsets are."""

    version: int
    names: str
    domain: int
    level: int
    offsets: int


FAMILIES = (
    Family(4, "/proc/thread-self/net/ip_tables_names", socket.AF_INET, socket.IPPROTO_IP, 88),
    Family(6, "/proc/thread-self/net/ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, 140),
)


class LegacyTable(NamedTuple):
    """A table: IP version, name, the hooks whose policy is to drop, and the names of the chains that users made."""

    version: int
    name: str
    dropping: frozenset[str]
    chains: frozenset[str]


def read(namespace: Namespace) -> list[LegacyTable]:
    """All of a namespace; none where the kernel has none, or this process may not know. KernelError when one can't be read."""
    return namespace.run(lambda: [_table(family, name) for family in FAMILIES for name in _names(family)])


def _names(family: Family) -> list[str]:
    try:
        with open(family.names) as file:
            return file.read().split()
    except OSError:
        return []


def _table(family: Family, name: str) -> LegacyTable:
    with socket.socket(family.domain, socket.SOCK_DGRAM) as one:
        info = INFO.unpack(_asked(one, family, GET_INFO, name.encode().ljust(INFO.size, b"\0"), name))
        hooks, underflows, size = info[1], info[7:12], info[13]
        question = struct.pack("=32sI", name.encode(), size).ljust(ENTRIES_HEAD + size, b"\0")
        entries = _asked(one, family, GET_ENTRIES, question, name)[ENTRIES_HEAD:]
    dropping = frozenset(
        hook for hook, number in HOOKS.items() if hooks >> number & 1 and _verdict(entries, underflows[number], family) == DROPS
    )
    return LegacyTable(family.version, name, dropping, frozenset(_chains(entries, family)))


def _asked(one: socket.socket, family: Family, option: int, question: bytes, table: str) -> bytes:
    """getsockopt(2) with a question in its buffer, which `socket.getsockopt` has no room for."""
    buffer, length = ctypes.create_string_buffer(question, len(question)), ctypes.c_uint32(len(question))
    if _libc.getsockopt(one.fileno(), family.level, option, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise from_errno(f"read the table {table} of legacy iptables (IPv{family.version})", number, os.strerror(number))
    return buffer.raw[: length.value]


def _offsets(entries: bytes, at: int, family: Family) -> tuple[int, int]:
    """Where the target of an entry is, and the next entry."""
    target, following = struct.unpack_from("=HH", entries, at + family.offsets)
    return at + target, at + following


def _verdict(entries: bytes, at: int, family: Family) -> int:
    found: int = VERDICT.unpack_from(entries, _offsets(entries, at, family)[0] + TARGET)[0]
    return found


def _chains(entries: bytes, family: Family) -> Iterator[str]:
    """A chain begins with an entry whose target is ERROR, with the chain's name; the last of them ends the table."""
    at = 0
    while at + family.offsets + 4 <= len(entries):
        target, following = _offsets(entries, at, family)
        if entries[target : target + TARGET][TARGET_NAME].rstrip(b"\0") == b"ERROR":
            yield entries[target + TARGET : following].split(b"\0", 1)[0].decode(errors="replace")
        if following <= at:
            return
        at = following
