"""Tables of others: read as far as somebody asks, and what another program has left there removed when that is asked for.

All chains are listed (the kernel filters them by nothing but the family), rules are read chain by chain: what a look costs depends on how
many chains there are, not on their rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from podplane.kernel.errors import from_errno
from podplane.kernel.namespace import Namespace
from podplane.kernel.netlink import Message, Socket, attributes, be64, parse_attributes, text
from podplane.kernel.nft import constants as c
from podplane.kernel.nft import decode
from podplane.kernel.nft.reading import generation
from podplane.state.nft import Chain, Rule

NETLINK_NETFILTER, AF_UNSPEC = 12, 0
HANDLE = 3
"""NFTA_RULE_HANDLE."""
DORMANT = 1
"""NFT_TABLE_F_DORMANT."""
EVERYTHING = c.GENERIC.pack(AF_UNSPEC, 0, 0)
TableName = tuple[str, str]


class Place(NamedTuple):
    """A chain: family, table and name."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.family} {self.table}"


class FoundRule(NamedTuple):
    """A rule where it is, with the number by which the kernel knows it."""

    handle: int
    rule: Rule


class Tables:
    """The tables of a namespace, over a socket of its own, which `with` closes. OSError when the kernel refuses."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.run(Socket, NETLINK_NETFILTER)
        self._chains: list[Chain] | None = None

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def generation(self) -> int:
        """The kernel's count of commits."""
        return generation(self._socket)

    def chains(self) -> list[Chain]:
        """All chains without their rules, whosever they are, but those on devices and those that are part of a rule; as they were when
        this was asked for first."""
        if self._chains is None:
            found = (decode.chain_from(row, ()) for _, row in self._socket.dump(c.GETCHAIN, EVERYTHING))
            self._chains = [one for one in found if isinstance(one, Chain)]
        return self._chains

    def tables(self) -> frozenset[TableName]:
        """All of them."""
        return frozenset(name for name, _ in self._tables())

    def dormant(self) -> frozenset[TableName]:
        """Those whose base chains see no packet."""
        return frozenset(name for name, flags in self._tables() if flags & DORMANT)

    def owned(self) -> frozenset[TableName]:
        """Those that one process alone may change, and a flush of all tables by others leaves out."""
        return frozenset(name for name, flags in self._tables() if flags & c.TABLE_OWNED)

    def _tables(self) -> Iterator[tuple[TableName, int]]:
        """With their flags."""
        for _, row in self._socket.dump(c.GETTABLE, EVERYTHING):
            found = parse_attributes(row, c.GENERIC.size)
            name = found[c.TABLE_NAME].rstrip(b"\0").decode()
            yield (c.FAMILY_NAMES[row[0]], name), int.from_bytes(found.get(c.TABLE_FLAGS, b""), "big")

    def rules(self, place: Place) -> list[FoundRule]:
        """The rules of a chain, of those that the kernel has now."""
        query = (
            c.GENERIC.pack(c.FAMILIES[place.family], 0, 0) + text(c.RULE_TABLE, place.table) + text(c.RULE_CHAIN, place.name)
        )
        try:
            rows = [row for _, row in self._socket.dump(c.GETRULE, query)]
        except FileNotFoundError:
            return []
        return [FoundRule(_handle(row), found) for row in rows for _, found in (decode.rule_from(row),)]

    def remove(
        self, tables: Iterable[TableName], chains: Iterable[Place] = (), rules: Mapping[Place, Iterable[int]] | None = None
    ) -> None:
        """In one transaction: tables with all that is in them, rules by their handles, chains with their rules. KernelError when that is
        refused, and then nothing is changed."""
        gone, self._chains = tuple(chains), None
        messages = [
            *(_message(c.DELRULE, place, (be64(HANDLE, one),)) for place, ones in (rules or {}).items() for one in ones),
            *(_message(c.DELRULE, place) for place in gone),
            *(_message(c.DELCHAIN, place) for place in gone),
            *(Message(c.DELTABLE, 0, _head(family) + text(c.TABLE_NAME, name)) for family, name in tables),
        ]
        if not messages:
            return
        edge = c.GENERIC.pack(0, 0, c.NFNL_SUBSYS_NFTABLES)
        refused = self._socket.transaction([Message(c.BATCH_BEGIN, 0, edge), *messages, Message(c.BATCH_END, 0, edge)])
        if refused:
            raise from_errno("remove what another program left in nf_tables", refused[0].errno, refused[0].text)


def _head(family: str) -> bytes:
    return c.GENERIC.pack(c.FAMILIES[family], 0, 0)


def _message(kind: int, place: Place, more: Iterable[bytes] = ()) -> Message:
    """Without more, DELRULE is about all rules of the chain."""
    name = c.RULE_CHAIN if kind == c.DELRULE else c.CHAIN_NAME
    return Message(kind, 0, _head(place.family) + text(c.RULE_TABLE, place.table) + text(name, place.name) + b"".join(more))


def _handle(row: bytes) -> int:
    return next(int.from_bytes(value, "big") for kind, value in attributes(row, c.GENERIC.size) if kind == HANDLE)
