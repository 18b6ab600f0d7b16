"""One policy and direction as nf_tables: its chain, the sets of numbers that its rules look into, and the peers that it names.

Names carry a digest of what the rules say, so that a policy that changes is a new chain beside the old one, and pods are moved from one
to the other by the elements of the node's maps: nobody ever meets a half of it.

A rule of the policy is a rule of the chain for each port and peer. When these are many of both, a chain of its own has the peers, and
there is a rule for each port and for each peer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from podplane.model.policy import (
    EVERYTHING,
    Direction,
    IPBlock,
    NetworkPolicy,
    PodSelector,
    PolicyRule,
)
from podplane.policy import peers as p
from podplane.policy import rows as r
from podplane.policy import tables
from podplane.policy.networks import networks_of
from podplane.policy.peers import NamedPort, PeerSet, digest
from podplane.policy.tables import IN, OUT
from podplane.state.nft import COMMENT_BYTES, Chain, NamedCounter, Part, Rule, Set, label
from podplane.state.nft_nat import protocol
from podplane.state.nft_rules import Row, count_in, family, goto, jump, rule
from podplane.state.value import Fragment, Value, fragment

INLINE_NETWORKS, INLINE_PORTS, INLINE_RULES = 6, 4, 32
"""Up to so many are matched one by one: networks of an IP version and single ports of a rule; more are a set. Of more rules for one rule of
a policy, the peers become a chain."""
SHORT = {"ingress": IN, "egress": OUT}
NAME_LETTERS, NUMBER_LETTERS = 40, 20
ALL_PODS = PodSelector(EVERYTHING)


class Match(NamedTuple):
    """Expressions that match, of one IP version or of both (0)."""

    row: Row
    version: int = 0


ANY = (Match(()),)


class RuleCounter(NamedTuple):
    """What counts the connections that a rule of a policy allowed: the rule's number, from 1, and the counter's name."""

    rule: int
    name: str


class Program(msgspec.Struct, frozen=True):
    """What the rules of one policy (`name` is its path) and direction come to.

    `chain` is the name of the chain that a group jumps to, "" when the policy allows nothing there. `peers` are the sets of pods that its
    rules look into, `local` the named ports of the pods that the policy selects.
    """

    name: str
    direction: Direction
    fragment: Fragment = {}
    chain: str = ""
    counters: tuple[RuleCounter, ...] = ()
    peers: frozenset[PeerSet] = frozenset()
    local: frozenset[NamedPort] = frozenset()


def compile_policy(policy: NetworkPolicy, direction: Direction, versions: tuple[int, ...]) -> Program:
    """What a policy that says something about a direction allows there."""
    rules = policy.rules(direction) or ()
    if not rules:
        return Program(policy.metadata.path, direction)
    return _Compiler(policy, direction, versions).program(rules)


class _Compiler:
    """Collects what the rules need."""

    def __init__(self, policy: NetworkPolicy, direction: Direction, versions: tuple[int, ...]) -> None:
        self._path, self._direction, self._versions = policy.metadata.path, direction, versions
        self._side = r.SOURCE if direction == "ingress" else r.DESTINATION
        short = SHORT[direction]
        self._allow = self._verdict = goto("pass" if short == IN else "ingress")
        content = digest((self._path, direction, policy.rules(direction), versions))
        self._name = f"np-{policy.metadata.name[:NAME_LETTERS]}-{short}-{content}"
        self._values: list[Value] = []
        self._peers: set[PeerSet] = set()
        self._local: set[NamedPort] = set()
        self._counters: list[RuleCounter] = []
        self._equal = Counter[str]()

    def program(self, rules: tuple[PolicyRule, ...]) -> Program:
        found = [one for number, allowed in enumerate(rules, 1) for one in self._rules(number, allowed)]
        self._values.append(tables.chain(self._name, found, comment=label("np", self._path)))
        sets = frozenset(self._peers), frozenset(self._local)
        return Program(self._path, self._direction, fragment(self._values), self._name, tuple(self._counters), *sets)

    def _rules(self, number: int, allowed: PolicyRule) -> Iterator[Rule]:
        comment = label("np", self._path, room=NUMBER_LETTERS) + f" {self._direction} rule {number}"
        self._allow = (*count_in(self._counter(number, allowed)), *self._verdict)
        for match in self._named_of_peers(allowed):
            yield self._allowing(match, comment)
        ports = self._port_matches(allowed)
        peers = self._peer_matches(allowed) if ports else ()
        if len(ports) * len(peers) <= INLINE_RULES or min(len(ports), len(peers)) == 1:
            yield from (self._allowing(both, comment) for port in ports for peer in peers if (both := _both(port, peer)))
            return
        name = f"{self._name}-{number}"
        self._values.append(tables.chain(name, (self._allowing(peer, comment) for peer in peers), comment=comment))
        yield from (rule(_family(port), port.row, jump(name), comment=comment) for port in ports)

    def _allowing(self, match: Match, comment: str) -> Rule:
        return rule(_family(match), match.row, self._allow, comment=comment)

    def _counter(self, number: int, allowed: PolicyRule) -> str:
        """The counter of a rule. Its name says what the rule does: it goes on counting when others change, or rules change places."""
        content = digest((self._path, self._direction, allowed))
        self._equal[content] += 1
        name = f"np-{SHORT[self._direction]}-{content}" + (f"-{self._equal[content]}" if self._equal[content] > 1 else "")
        comment = label("np", self._path, room=NUMBER_LETTERS) + f" {self._direction}"
        self._values.append(tables.counter(name, comment))
        self._counters.append(RuleCounter(number, name))
        return name

    # Peers.

    def _peer_matches(self, allowed: PolicyRule) -> tuple[Match, ...]:
        if allowed.peers is None:
            return ANY
        pods = [self._pods(PeerSet(one), version) for one in _selectors(allowed) for version in self._versions]
        return (*pods, *self._blocks(allowed))

    def _pods(self, peers: PeerSet, version: int) -> Match:
        """The peer is one of these pods; of those with a port, the packet goes to that port."""
        self._peers.add(peers)
        self._values.append(p.set_of(peers, version))
        name = p.name(peers, version)
        row = r.address_in(version, self._side, name) if peers.port is None else r.address_and_port_in(version, name)
        return Match(row, version)

    def _blocks(self, allowed: PolicyRule) -> Iterator[Match]:
        blocks = [peer for peer in allowed.peers or () if isinstance(peer, IPBlock)]
        for version in self._versions:
            networks = networks_of(blocks, version)
            if len(networks) <= INLINE_NETWORKS:
                yield from (Match(r.network_is(network, self._side), version) for network in networks)
            else:
                own = digest((self._path, *map(str, networks)))
                key = (tables.TYPE[version],)
                found = tables.set_("cidrs", version, key, own, f"{len(networks)} networks", interval=True)
                self._fill(found, [(network,) for network in networks])
                yield Match(r.address_in(version, self._side, found.name), version)

    # Ports.

    def _port_matches(self, allowed: PolicyRule) -> tuple[Match, ...]:
        """The ports that are matched apart from the peer."""
        if allowed.ports is None:
            return ANY
        ports = dict.fromkeys(allowed.ports)
        single = {one: one.port[0] for one in ports if isinstance(one.port, tuple) and one.port[0] == one.port[1]}
        if len(single) <= INLINE_PORTS:
            single = {}
        matches = [self._many_ports(sorted((one.protocol.lower(), number) for one, number in single.items()))] if single else []
        for port in ports:
            if isinstance(port.port, str):
                matches += self._local_named(NamedPort(port.protocol, port.port)) if self._direction == "ingress" else ()
            elif port not in single:
                matches.append(Match(_numbers(port.protocol, port.port)))
        return tuple(matches)

    def _many_ports(self, keys: list[tuple[str, int]]) -> Match:
        found = tables.set_("ports", 0, p.PORT_KEY, digest((self._path, *keys)), f"{len(keys)} ports")
        self._fill(found, keys)
        return Match(r.port_in(found.name))

    def _local_named(self, port: NamedPort) -> Iterator[Match]:
        """The packet goes to where a pod of this node has this port: the pod that the policy selects."""
        self._local.add(port)
        for version in self._versions:
            self._values.append(p.local_set(port, version))
            yield Match(r.address_and_port_in(version, p.local_name(port, version)), version)

    def _named_of_peers(self, allowed: PolicyRule) -> Iterator[Match]:
        """What pods send to a port by its name: it is another number on each peer, so peer and port are matched at once."""
        if self._direction == "ingress":
            return
        for one in dict.fromkeys(allowed.ports or ()):
            if isinstance(one.port, str):
                port = NamedPort(one.protocol, one.port)
                for version in self._versions:
                    yield from (self._pods(PeerSet(selector, port), version) for selector in _selectors(allowed))
                    if blocks := ANY if allowed.peers is None else tuple(self._blocks(allowed)):
                        pods = self._pods(PeerSet(ALL_PODS, port), version)
                        yield from (both for block in blocks if (both := _both(pods, block)))

    def _fill(self, found: Set, keys: Iterable[tuple[Part, ...]]) -> None:
        comment = label("np", self._path)
        self._values += [found, *(tables.element(found.name, key, comment) for key in keys)]


def _selectors(allowed: PolicyRule) -> list[PodSelector]:
    return list(dict.fromkeys(peer for peer in allowed.peers or () if isinstance(peer, PodSelector)))


def _both(one: Match, other: Match) -> Match | None:
    """Both match; None when they are of two IP versions."""
    if one.version and other.version and one.version != other.version:
        return None
    return Match((*one.row, *other.row), max(one.version, other.version))


def _family(match: Match) -> Row:
    """What a rule begins with that matches addresses."""
    return family(match.version) if match.version else ()


def _numbers(name: str, numbers: tuple[int, int] | None) -> Row:
    row = protocol(name.lower())
    return row if numbers is None else (*row, *r.ports_between(*numbers))


class Group(msgspec.Struct, frozen=True):
    """All pods that the same policies select for a direction: their chain, the paths of these policies, and what counts the packets that
    none of them allows."""

    chain: Chain
    policies: tuple[str, ...]
    denied: NamedCounter


def group(programs: Iterable[Program], direction: str) -> Group:
    """The group of these policies for a direction (IN, OUT). Its counter goes on when the policies change what they allow."""
    programs = list(programs)
    paths = [program.name for program in programs]
    called = [program for program in programs if program.chain]
    jumps = [rule(jump(program.chain), comment=label("np", program.name)) for program in called]
    name = f"{direction}-{digest((direction, paths, [program.chain for program in programs]))}"
    comment = _default_deny(paths)
    denied = tables.counter(f"deny-{direction}-{digest((direction, paths))}", comment)
    last = rule(count_in(denied.name), goto(f"deny-{direction}"), comment=comment)
    return Group(tables.chain(name, [*jumps, rule(jump("deny")), last]), tuple(paths), denied)


def _default_deny(paths: list[str]) -> str:
    text = "default deny: " + " ".join(f"np/{path}" for path in paths)
    return text if len(text.encode()) <= COMMENT_BYTES else f"default deny: {len(paths)} policies"
