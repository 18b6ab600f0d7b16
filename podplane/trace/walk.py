"""A packet on its way: where it is, what is known of it there, and how it passes a hook of netfilter."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from podplane.state.network import Link
from podplane.state.nft import Limit
from podplane.state.value import IPAddress, Value
from podplane.trace import conntrack
from podplane.trace.conntrack import DESTINATION, SOURCE, Range, Track
from podplane.trace.expressions import Context, Undecided
from podplane.trace.memory import Memory
from podplane.trace.packet import Packet
from podplane.trace.program import SEEN_BY, BaseChain, Hit, Outcome
from podplane.trace.routing import LOCAL, UNICAST, NextHop
from podplane.trace.trace import Dropped, Ending, Hop, Rejected
from podplane.trace.world import End, Namespace, World

TRACK_PRIORITY, LAST_PRIORITY = -200, 1 << 31
"""NF_IP_PRI_CONNTRACK, NF_IP_PRI_LAST."""
NAT = {"prerouting": (-100, DESTINATION), "output": (-100, DESTINATION), "postrouting": (100, SOURCE), "input": (100, SOURCE)}
"""At which priority a hook translates, and which end."""
MAX_NAME = 16


class Stage(enum.Enum):
    """Where a packet is within a machine."""

    ARRIVE = "receive"
    BRIDGE_PREROUTING = "bridge prerouting"
    BRIDGE_FORWARD = "bridge forward"
    BRIDGE_INPUT = "bridge input"
    PREROUTING = "prerouting"
    ROUTE = "route"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"
    NEIGHBOUR = "neighbour"
    BRIDGE_OUTPUT = "bridge output"
    BRIDGE_POSTROUTING = "bridge postrouting"
    TRANSMIT = "transmit"


@dataclass(slots=True)
class Walk:
    """The state of an evaluation.

    `link_in` and `link_out` are the interfaces as IP sees them; `port_in` and `port_out` the ports when that is a bridge. `bridged` says
    that the packet passed the hooks of IP while it was on the bridge (br_netfilter).
    """

    world: World
    namespace: Namespace
    packet: Packet
    memory: Memory
    choose: Callable[[int], int]
    exceeds: Callable[[Limit], bool]
    hops: list[Hop] = field(default_factory=list)
    track: Track | None = None
    route: NextHop | None = None
    link_in: str = ""
    link_out: str = ""
    port_in: str = ""
    port_out: str = ""
    bridged: bool = False

    @property
    def netns(self) -> str:
        """The name of the namespace in which it is."""
        return self.namespace.name

    def end(self, link: str) -> End:
        """A link here."""
        return End(self.netns, link)

    def link(self, name: str) -> Link:
        """A link here, by name. Undecided when no value tells of it."""
        found = self.namespace.links.get(name)
        if found is None:
            raise Undecided(f"no value tells of link {name} in {self.netns or 'the node'}")
        return found

    def change(self, **fields: object) -> None:
        """Change fields of the packet."""
        self.packet = msgspec.structs.replace(self.packet, **fields)

    def enter(self, end: End) -> None:
        """Come by a link into another namespace, where nothing but the packet is known of it."""
        self.namespace = self.world.namespaces[end.netns]
        self.track = self.route = None
        self.port_in, self.link_in, self.link_out, self.port_out, self.bridged = end.link, "", "", "", False
        self.change(mark=0, state="", link=end.link)

    def tell(self, stage: Stage | str, text: str, value: Value | None = None, comment: str = "") -> Hop:
        """Note a step."""
        name = stage.value if isinstance(stage, Stage) else stage
        hop = Hop(
            self.netns, name, text, self.packet, value, comment or getattr(value, "alias", "") or getattr(value, "comment", "")
        )
        self.hops.append(hop)
        return hop

    def drop(self, stage: Stage | str, text: str, value: Value | None = None) -> Dropped:
        """End here; nobody is told."""
        return Dropped(self.tell(stage, text, value))

    def reject(self, stage: Stage | str, text: str, how: str, value: Value | None = None) -> Rejected:
        """End here; the sender is told."""
        return Rejected(self.tell(stage, text, value), how)

    def pass_hook(self, hook: str) -> Ending | None:
        """Pass IP's hook: base chains, connection tracking and translation in the order of their priorities."""
        self._refuse_opaque(self.packet.version)
        chains = self.namespace.hooks.get((self.packet.version, hook), [])
        nat = [chain for chain in chains if chain.is_nat]
        steps: list[tuple[int, Callable[[], Ending | None]]] = [
            (chain.priority, lambda chain=chain: self._pass_chain(chain, hook))  # type: ignore[misc]  # bound now
            for chain in chains
            if not chain.is_nat
        ]
        if hook in ("prerouting", "output"):
            steps.append((TRACK_PRIORITY, self._find_connection))
        if hook in NAT:
            priority, end = NAT[hook]
            steps.append((priority, lambda: self._translate(nat, end, hook)))
        if hook in ("postrouting", "input"):
            steps.append((LAST_PRIORITY, self._confirm))
        for _, step in sorted(steps, key=lambda pair: pair[0]):
            ending = step()
            if ending is not None:
                return ending
        return None

    def pass_bridge_hook(self, hook: str, priorities: range) -> Ending | None:
        """Pass base chains of the bridge family, of these priorities."""
        self._refuse_opaque("bridge")
        for chain in self.namespace.hooks.get(("bridge", hook), ()):
            if chain.priority in priorities:
                ending = self._pass_chain(chain, hook, is_bridge=True)
                if ending is not None:
                    return ending
        return None

    def _refuse_opaque(self, seen: int | str) -> None:
        """Undecided when a table that sees the packet has a chain of which not all is known."""
        for family in SEEN_BY[seen]:
            if family in self.namespace.opaque:
                raise Undecided(f"not all is known of {self.namespace.opaque[family]}")

    def _context(self, hook: str, is_bridge: bool) -> Context:
        return Context(
            packet=self.packet,
            netns=self.netns,
            hook=hook,
            memory=self.memory,
            choose=self.choose,
            exceeds=self.exceeds,
            fib=self._fib,
            own_address=self._own_address,
            link_in=self.port_in if is_bridge else self.link_in,
            link_out=self.port_out if is_bridge else self.link_out,
            bridge_in=self.link_in if is_bridge else "",
            bridge_out=self.link_out if is_bridge else "",
            track=self.track,
        )

    def _pass_chain(self, chain: BaseChain, hook: str, is_bridge: bool = False) -> Ending | None:
        before, context = self.packet, self._context(hook, is_bridge)

        def tell(hit: Hit) -> None:
            self.packet, self.track = context.packet, context.track
            value, rule = hit.chain, hit.rule
            place = f"{'bridge ' if is_bridge else ''}{hook}"
            text = f"chain {value.family} {value.table} {value.name}" + ("" if rule else ", policy drop")
            comment = rule.comment if rule else value.comment
            self.hops.append(Hop(self.netns, place, text, self.packet, value, comment, hit.elements))

        outcome: Outcome = chain.program.run(chain.compiled, context, tell)
        self.packet, self.track = context.packet, context.track
        if not outcome.accepted:
            by = self.hops[-1] if self.hops else self.tell(hook, "too many jumps", chain.compiled.chain)
            return Rejected(by, outcome.rejected) if outcome.rejected else Dropped(by)
        if hook == "output" and chain.is_route and _flow(before) != _flow(self.packet):
            return self.reroute()
        return None

    def _find_connection(self) -> None:
        if self.track is None:
            self.track = conntrack.track(self.packet, self.memory.connections.get(self.netns, {}))

    def _translate(self, chains: list[BaseChain], end: int, hook: str) -> Ending | None:
        seen = self.track
        if seen is None or seen.connection is None:
            return None
        for chain in chains:
            if end in seen.done:
                break
            ending = self._pass_chain(chain, hook)
            if ending is not None:
                return ending
        conntrack.choose_translation(seen, end, Range(), self.memory.connections.get(self.netns, {}), self.choose)
        before, self.packet = self.packet, conntrack.translate(self.packet, seen, end)
        if before != self.packet:
            self.tell(hook, f"translated to {self.packet}")
        if hook == "output" and before.destination != self.packet.destination:
            return self.reroute()
        return None

    def _confirm(self) -> None:
        if self.track is not None:
            conntrack.confirm(self.track, self.memory.connections.setdefault(self.netns, {}))

    def reroute(self) -> Ending | None:
        """Find the route of a packet of this machine anew (ip_route_me_harder)."""
        packet = self.packet
        self.route = self.namespace.routing.find(packet.destination, packet.source, packet.mark)
        if self.route is None or self.route.kind not in (UNICAST, LOCAL):
            return self.drop(Stage.ROUTE, f"no route to {packet.destination}", self.route.value if self.route else None)
        link = self.route.link
        is_inside = not packet.source.is_loopback or self.route.kind == LOCAL
        if packet.version == 6 or is_inside or self.namespace.routes_localnet(link):
            return None
        return self.drop(Stage.ROUTE, f"the loopback address {packet.source} may not leave by {link}", self.route.value)

    def _own_address(self, context: Context, link: str) -> IPAddress | None:
        """The address of a link for masquerade and redirect."""
        version = self.packet.version
        near = (self.route.gateway or context.packet.destination) if self.route is not None and context.link_out else None
        return self.namespace.routing.own_address(link, near, version)

    def _fib(self, context: Context, result: int, flags: int) -> bytes:
        return fib(self.namespace, context, result, flags)


def _flow(packet: Packet) -> tuple[object, ...]:
    """What a route chain compares to see whether a packet must be routed again."""
    return packet.source, packet.destination, packet.mark


FIB_OIFNAME, FIB_TYPE = 2, 3
SADDR, MARK, IIF, OIF, PRESENT = 1, 4, 8, 16, 32
KINDS = {UNICAST: 1, LOCAL: 2, "broadcast": 3, "multicast": 5, "blackhole": 6, "unreachable": 7, "prohibit": 8}
"""RTN_*."""


def fib(namespace: Namespace, context: Context, result: int, flags: int) -> bytes:
    """What `fib` of nft(8) loads; links by index are not known."""
    packet, routing = context.packet, namespace.routing
    ip = packet.source if flags & SADDR else packet.destination
    link = context.link_in if flags & IIF else context.link_out if flags & OIF else ""
    if result == FIB_TYPE:
        if ip.is_multicast:
            kind = "multicast"
        elif ip.version == 4:
            kind = routing.local_kind(ip, link)
        else:
            hop = routing.find(ip, link=link)
            kind = hop.kind if hop is not None else "unreachable"
        return KINDS[kind].to_bytes(4, "little")
    if result != FIB_OIFNAME and not flags & PRESENT:
        raise Undecided("values don't say the index of a link")
    hop = routing.find(ip, mark=packet.mark if flags & MARK else 0, link=link)
    found = hop.link if hop is not None and hop.kind == UNICAST else ""
    return bytes((bool(found),)) if flags & PRESENT else found.encode().ljust(MAX_NAME, b"\0")
