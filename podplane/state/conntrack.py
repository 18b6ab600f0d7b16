"""Values of connection tracking: where connections are sent, where they may go, and those that there are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from podplane.state.value import IPAddress

JUDGE_AGAIN, REVOKED = 1 << 29, 1 << 30
"""Bits of the mark of a tracked connection: what its client sends next is to be judged as if it was the first packet; it was let pass once,
and is no more."""


class Target(NamedTuple):
    """The endpoint that a connection goes to."""

    ip: IPAddress
    port: int


class Frontend(NamedTuple):
    """What a client sends to: `protocol` is tcp, udp or sctp."""

    protocol: str
    ip: IPAddress
    port: int


class Connection(NamedTuple):
    """A tracked connection whose destination was translated: the frontend, the endpoint, and what passed in both directions.

    `packets` and `bytes` are 0 where the kernel does not count (net.netfilter.nf_conntrack_acct).
    """

    protocol: str
    address: IPAddress
    port: int
    target: IPAddress
    target_port: int
    packets: int
    bytes: int


class TrackedFlow(NamedTuple):
    """All tracked connections from one address to one port (0: the protocol has none) of who answers them; addresses are packed, `protocol`
    is its number (IANA)."""

    source: bytes
    destination: bytes
    protocol: int
    port: int


class Sent(NamedTuple):
    """Whence and where to a client sends, before anything of that is translated."""

    source: IPAddress
    source_port: int
    to: IPAddress
    to_port: int


class Revoked(NamedTuple):
    """A TCP connection that was let pass and is no more: who answers it, and its client as that one sees it; and what this one sends."""

    server: IPAddress
    server_port: int
    client: IPAddress
    client_port: int
    sent: Sent | None = None


Allowed = Mapping[Frontend, Collection[Target]]
"""The endpoints that connections to each of these frontends may go to."""
