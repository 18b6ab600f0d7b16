"""What firewalls of the machine do to packets of pods, as far as can be known.

A packet of each way is judged by each filter chain of others at the forward and input hooks (`trace.passing`). Told is what a chain drops
for certain, and what one may drop that drops by default, by its policy or by a rule for all that come so far: nobody but its extensions
knows all that some rules match. Rules that drop some of what pods send, and pass the rest, are their owner's business.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from podplane.kernel.nft.others import Place, TableName, Tables
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.routes import ways as backends
from podplane.state.nft import Chain, Rule
from podplane.state.value import IPAddress, IPNetwork, address_of, network_of
from podplane.trace.conntrack import track
from podplane.trace.expressions import Context, Undecided
from podplane.trace.memory import Memory
from podplane.trace.packet import Packet
from podplane.trace.passing import Answer, Chains, destination_type
from podplane.trace.walk import FIB_TYPE, SADDR

MOST_RULES, MOST_VISITS = 5000, 50_000
"""So many rules are read for one look, and packets come to so many; what a larger firewall does isn't said."""
SEEN_BY = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}
DNS_PORT = 53
OUTER = {"vxlan": "udp", "gre": "gre", "ip6gre": "gre"}
"""What carries packets of pods between nodes, by the type of a tunnel's link."""


class Kind(enum.Enum):
    """What a firewall is to let through: what pods send to pods, what they send to their node, what other nodes send in tunnels."""

    PODS = enum.auto()
    NODE = enum.auto()
    TUNNEL = enum.auto()


class Way(NamedTuple):
    """A packet on its way through the node: what it is in words, at which hook, by which links, the packet, and its kind."""

    what: str
    hook: str
    link_in: str
    link_out: str
    packet: Packet
    kind: Kind = Kind.PODS


class Suspect(NamedTuple):
    """A chain, the way that it drops, and whether that is certain."""

    chain: Chain
    way: Way
    is_certain: bool


class TooManyError(Exception):
    """There are more rules than are looked through."""


class Budget:
    """So much may be done; TooManyError for more."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, count: int = 1) -> None:
        """Do so much."""
        self._left -= count
        if self._left < 0:
            raise TooManyError


def ways(node: Node, peers: Sequence[Node], config: NetworkConfig, names: Iterable[str] = ()) -> Iterator[Way]:
    """Those that are asked for, of each IP version that the node has pods of: with a pod of a peer, or with one of this node alone.

    `names` are the addresses of the node's name server.
    """
    servers = list(map(address_of, names))
    for block in map(network_of, node.spec.pod_cidrs):
        own, second, bridge = _pod(block, 2), _pod(block, 3), config.bridge
        yield Way("between pods of this node", "forward", bridge, bridge, Packet(source=own, destination=second))
        far, peer = _far(peers, block.version), _peer(peers, block.version)
        for link in _links(config):
            if far is not None:
                yield Way("to pods of other nodes", "forward", bridge, link, Packet(source=own, destination=far))
                yield Way("from pods of other nodes", "forward", link, bridge, Packet(source=far, destination=own))
            if peer is not None:
                yield Way("from pods to other nodes", "forward", bridge, config.uplink, Packet(source=own, destination=peer))
                yield Way("from other nodes to pods", "forward", link, bridge, Packet(source=peer, destination=own))
        for ip in [one for one in servers if one.version == block.version][:1]:
            question = Packet(source=own, destination=ip, protocol="udp", destination_port=DNS_PORT)
            yield Way("from pods to the name server of this node", "input", bridge, "", question, Kind.NODE)
    yield from _outer(node, peers, config)


def _far(peers: Iterable[Node], version: int) -> IPAddress | None:
    """An address as one of a pod of a peer; None while no peer has any of this IP version."""
    others = (network_of(one) for peer in peers for one in peer.spec.pod_cidrs)
    return next((_pod(one, 2) for one in others if one.version == version), None)


def _peer(peers: Iterable[Node], version: int) -> IPAddress | None:
    """An address of a peer, if one has any of this IP version."""
    return next((ip for peer in peers if (ip := _ip(peer, version)) is not None), None)


def _pod(block: IPNetwork, number: int) -> IPAddress:
    """An address of a block, as one of a pod."""
    return block[min(number, block.num_addresses - 1)]


def _links(config: NetworkConfig) -> Iterable[str]:
    """Those by which pods of peers are reached."""
    found = [(way.devices, way.tunnel) for way in backends.of(config)]
    direct = [config.uplink] if any(not devices or tunnel for devices, tunnel in found) else []
    return dict.fromkeys([*direct, *(device for devices, _ in found for device in devices)])


def _outer(node: Node, peers: Sequence[Node], config: NetworkConfig) -> Iterator[Way]:
    """What peers send to this node in tunnels."""
    for way in backends.of(config):
        for version, kind in way.kinds.items():
            ends = [(_ip(peer, version), _ip(node, version)) for peer in peers[:1]]
            for source, destination in ends if kind in OUTER else ():
                if source is not None and destination is not None:
                    packet = Packet(
                        source=source, destination=destination, protocol=OUTER[kind], destination_port=config.vxlan_port
                    )
                    what = f"of {way.name} from other nodes ({way.carried_in(config)})"
                    yield Way(what, "input", config.uplink, "", packet, Kind.TUNNEL)


def _ip(node: Node, version: int) -> IPAddress | None:
    return next((ip for ip in map(address_of, node.internal_ips) if ip.version == version), None)


def suspects(tables: Tables, own: Collection[TableName], wanted: Collection[Way]) -> list[Suspect]:
    """The chains of others that drop, or may drop, some of these. TooManyError when there are too many rules."""
    found: list[Suspect] = []
    read, rules, visits = dict[TableName, Chains](), Budget(MOST_RULES), Budget(MOST_VISITS)
    passed_over = {*own, *tables.dormant()}
    for chain in tables.chains():
        hook = chain.hook
        if hook is None or hook.type != "filter" or chain.family not in SEEN_BY or (chain.family, chain.table) in passed_over:
            continue
        for way in wanted:
            if way.hook == hook.hook and way.packet.version in SEEN_BY[chain.family]:
                reader = _reader(tables, chain, rules)
                table = read.setdefault((chain.family, chain.table), Chains(chain.family, chain.table, reader, visits.spend))
                answer = table.judge(chain, _context(way))
                if Answer.DROP in answer or Answer.PASS not in answer:
                    found.append(Suspect(chain, way, Answer.PASS not in answer))
    return found


def _reader(tables: Tables, chain: Chain, budget: Budget) -> Callable[[str], list[Rule]]:
    def read(name: str) -> list[Rule]:
        rules = [one.rule for one in tables.rules(Place(chain.family, chain.table, name))]
        budget.spend(len(rules))
        return rules

    return read


def _context(way: Way) -> Context:
    return Context(
        packet=way.packet,
        netns="",
        hook=way.hook,
        memory=Memory(),
        choose=lambda below: 0,
        exceeds=lambda limit: False,
        fib=_fib,
        own_address=lambda context, link: None,
        link_in=way.link_in,
        link_out=way.link_out,
        track=track(way.packet, {}),
    )


def _fib(context: Context, result: int, flags: int) -> bytes:
    if result == FIB_TYPE and not flags & SADDR:
        return destination_type(context.hook).to_bytes(4, "little")
    raise Undecided("what the routes of the machine say is not asked")
