"""The sets of peers: the addresses of the pods that a selector selects, or their addresses with the port that has a name.

A set is there while a rule for a pod of this node looks into it. What is in it is kept by `filling`: a pod that comes, goes or changes its
labels costs one element a set, whatever the number of the others.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from podplane.model.cluster_policy import NODES
from podplane.model.pod_info import PodInfo, SlimMetadata
from podplane.model.policy import PodSelector
from podplane.policy import tables
from podplane.policy.words import peer_text
from podplane.state.nft import COMMENT_BYTES, Set, label
from podplane.state.nft_types import address_bytes, key_bytes
from podplane.state.value import IPAddress

CACHED = 4096
DIGEST_BYTES = 8
PORT_KEY = ("inet_proto", "inet_service")


class NamedPort(NamedTuple):
    """A port by its name; `protocol` as in PolicyPort."""

    protocol: str
    name: str


class PeerSet(NamedTuple):
    """The pods of a selector, in both families; with `port`, where each of them has that port."""

    selector: PodSelector
    port: NamedPort | None = None

    @property
    def selectors(self) -> tuple[PodSelector, ...]:
        """Those whose pods it has."""
        return (self.selector,)

    def ends(self, selector: PodSelector, pod: PodInfo) -> list[bytes]:
        """What follows a pod's addresses in the keys of its elements."""
        return [b""] if self.port is None else [_end(*one) for one in numbers(pod, self.port)]


class Opening(NamedTuple):
    """What an element for each pod says of a rule: to, or from, the pods of a selector, one port of a protocol (as in PolicyPort)."""

    selector: PodSelector
    protocol: str
    number: int


class GroupSet:
    """The pods of many selectors, in both families, each with the ports that rules open to them."""

    __slots__ = ("_ends", "openings", "text")

    def __init__(self, openings: Iterable[Opening]) -> None:
        self.openings = frozenset(openings)
        self._ends: dict[PodSelector, list[bytes]] = {}
        ordered = sorted(((_digest_of_opening(one), one) for one in self.openings), key=itemgetter(0))
        for _, one in ordered:
            self._ends.setdefault(one.selector, []).append(_end(one.protocol.lower(), one.number))
        self.text = digest([text for text, _ in ordered])

    @property
    def selectors(self) -> tuple[PodSelector, ...]:
        """Those whose pods it has."""
        return tuple(self._ends)

    def ends(self, selector: PodSelector, pod: PodInfo) -> list[bytes]:
        """As of a PeerSet."""
        return self._ends[selector]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupSet) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"GroupSet({self.text})"


Peers = PeerSet | GroupSet


def digest(content: object) -> str:
    """Of a value that is written the same whenever it is equal: named tuples, texts and numbers."""
    return hashlib.blake2s(repr(content).encode(), digest_size=DIGEST_BYTES).hexdigest()


@functools.lru_cache(CACHED)
def digest_of(selector: PodSelector) -> str:
    """Of a selector: all agents of a process ask for it when a pod joins or leaves it."""
    return digest(selector)


@functools.lru_cache(CACHED)
def _digest_of_opening(opening: Opening) -> str:
    """Of an opening: when one of a thousand policies changes, the others' are known."""
    return digest(opening)


def name(peers: Peers, version: int) -> str:
    """The name of its set for one IP version."""
    if isinstance(peers, GroupSet):
        return tables.set_name("group", version, digest(peers))
    return _name(peers, version)


@functools.lru_cache(CACHED)
def _name(peers: PeerSet, version: int) -> str:
    return tables.set_name("pods" if peers.port is None else "named", version, digest(peers))


def set_of(peers: Peers, version: int) -> Set:
    """Its set for one IP version."""
    if isinstance(peers, GroupSet):
        comment = f"{len(peers.openings)} peers with ports, of all policies of a group"
        return tables.set_("group", version, (tables.TYPE[version], *PORT_KEY), digest(peers), comment)
    return _set_of(peers, version)


@functools.lru_cache(CACHED)
def _set_of(peers: PeerSet, version: int) -> Set:
    key, comment = (tables.TYPE[version],), description(peers.selector)
    if peers.port is None:
        return tables.set_("pods", version, key, digest(peers), comment)
    comment = f"{peers.port.protocol} {peers.port.name} of {comment}"
    return tables.set_("named", version, (*key, *PORT_KEY), digest(peers), comment[:COMMENT_BYTES])


def packed_elements(
    peers: Peers, selector: PodSelector, pods: Iterable[PodInfo], versions: Iterable[int]
) -> dict[int, list[bytes]]:
    """What pods of a selector bring: packed elements (`state.nft_members`) of each IP version."""
    found: dict[int, list[bytes]] = {version: [] for version in versions}
    for pod in pods:
        ends, comment = peers.ends(selector, pod), _comment(pod.metadata)
        for ip in pod.ips:
            elements = found.get(6 if ":" in ip else 4)
            if elements is not None:
                try:
                    key = address_bytes(ip)
                except OSError:  # what is no address sends no packets
                    continue
                elements += [key + end + comment for end in ends]
    return found


def _comment(metadata: SlimMetadata) -> bytes:
    name, namespace = metadata.name, metadata.namespace
    return (label("node", name) if namespace == NODES else label("pod", f"{namespace}/{name}")).encode()


@functools.lru_cache(CACHED)
def _end(protocol: str, number: int) -> bytes:
    """A protocol and port as the end of a packed key."""
    return key_bytes(PORT_KEY, (protocol, number))


def numbers(pod: PodInfo, port: NamedPort) -> Iterator[tuple[str, int]]:
    """What a pod has under a name: protocol (as nft names it) and number of each of its ports, each once."""
    found = {one.port for one in pod.ports.named if (one.protocol, one.name) == port}
    return ((port.protocol.lower(), number) for number in sorted(found))


@functools.lru_cache(CACHED)
def local_name(port: NamedPort, version: int) -> str:
    """The name of the set of where the pods of this node that policies select have a port."""
    return tables.set_name("local", version, digest(port))


@functools.lru_cache(CACHED)
def local_set(port: NamedPort, version: int) -> Set:
    """That set."""
    key = (tables.TYPE[version], *PORT_KEY)
    return tables.set_("local", version, key, digest(port), f"{port.protocol} {port.name} of pods of this node")


def addresses(ips: Iterable[str], versions: Iterable[int]) -> list[IPAddress]:
    """The addresses of these versions. Of thousands of pods they take a tenth of a start: none is read as one of another version first."""
    wanted = set(versions)
    return [_address(ip) for ip in ips if (6 if ":" in ip else 4) in wanted]


def _address(ip: str) -> IPAddress:
    return ipaddress.IPv6Address(ip) if ":" in ip else ipaddress.IPv4Address(ip)


def description(selector: PodSelector) -> str:
    """A selector in words, as much of it as a comment takes: `pods with app=web of namespaces with team=a`."""
    return peer_text(selector, "").encode()[:COMMENT_BYTES].decode(errors="ignore")
