"""One policy and direction as nf_tables: its chain, the sets of numbers that its rules look into, and the peers that it names.

Names carry a digest of what the rules say, so that a policy that changes is a new chain beside the old one, and pods are moved from one
to the other by the elements of the node's maps: nobody ever meets a half of it.

Policies of the tiers Admin and Baseline have chains of the same kind; their rules say what becomes of what they match.

A rule of the policy is a rule of the chain for each port and peer. When these are many of both, a chain of its own has the peers, and
there is a rule for each port and for each peer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from podplane.model.cluster_policy import Policy
from podplane.model.policy import (
    EVERYTHING,
    Direction,
    IPBlock,
    PodSelector,
    PolicyRule,
)
from podplane.policy import peers as p
from podplane.policy import rows as r
from podplane.policy import tables
from podplane.policy.networks import BITS, Prefix, network, prefixes_of
from podplane.policy.peers import GroupSet, NamedPort, Opening, PeerSet, digest
from podplane.policy.tables import IN, OUT
from podplane.state.nft import COMMENT_BYTES, Chain, NamedCounter, Part, Rule, Set, label
from podplane.state.nft_members import Members
from podplane.state.nft_nat import protocol
from podplane.state.nft_rules import Row, count_in, family, goto, jump, rule
from podplane.state.value import Fragment, Value, fragment

INLINE_NETWORKS, INLINE_PORTS, INLINE_RULES = 6, 4, 32
"""Up to so many are matched one by one: networks of an IP version and single ports of a rule; more are a set. Of more rules for one rule of
a policy, the peers become a chain."""
TOGETHER, MOST_OPENINGS, MOST_PORTS = 8, 64, 16
"""Of more policies than this of one group that only open single ports to selectors, all that they allow is one set. Those that open more
than so many have chains of their own, and so have those that would open more ports than this to one selector together with others: each of
its pods is so many elements of the set."""
SHORT = {"ingress": IN, "egress": OUT}
PASSING = {IN: goto("pass"), OUT: goto("ingress")}
"""What becomes of packets that policies allow."""
PREFIX = {"Admin": "anp", "NetworkPolicy": "np", "Baseline": "bnp"}
"""Of the names of chains of policies."""
NAME_LETTERS, NUMBER_LETTERS = 40, 20
ALL_PODS = PodSelector(EVERYTHING)


class Match(NamedTuple):
    """Expressions that match, of one IP version or of both (0)."""

    row: Row
    version: int = 0


ANY = (Match(()),)


class RuleCounter(NamedTuple):
    """What counts the connections that a rule of a policy decided about: the rule's number, from 1, and the counter's name."""

    rule: int
    name: str


class Program(msgspec.Struct, frozen=True):
    """What the rules of one policy (`name` is its path) and direction come to.

    `chain` is the name of the chain that a group jumps to, "" when the policy allows nothing there. `peers` are the sets of pods that its
    rules look into, `forbidding` the selectors of those of rules that do more than allow, `local` the named ports of the pods that the
    policy selects; `denies`: does any of them deny? `label` is the policy as comments name it. `openings` are all that it allows, where it
    names selectors and single ports and nothing else.
    """

    name: str
    direction: Direction
    label: str
    fragment: Fragment = {}
    chain: str = ""
    counters: tuple[RuleCounter, ...] = ()
    peers: frozenset[PeerSet] = frozenset()
    local: frozenset[NamedPort] = frozenset()
    forbidding: frozenset[PodSelector] = frozenset()
    denies: bool = False
    openings: frozenset[Opening] | None = None


def compile_policy(policy: Policy, direction: Direction, versions: tuple[int, ...]) -> Program:
    """What a policy that says something about a direction does there."""
    rules = policy.rules(direction) or ()
    if not rules:
        return nothing_of(policy, direction)
    return _Compiler(policy, direction, versions).program(rules)


def nothing_of(policy: Policy, direction: Direction) -> Program:
    """A policy that allows nothing."""
    return Program(policy.metadata.path, direction, _label(policy))


class _Compiler:
    """Collects what the rules need."""

    def __init__(self, policy: Policy, direction: Direction, versions: tuple[int, ...]) -> None:
        self._policy, self._direction, self._versions = policy, direction, versions
        self._path = policy.metadata.path
        self._side = r.SOURCE if direction == "ingress" else r.DESTINATION
        self._short = SHORT[direction]
        self._act: Row = ()
        content = digest((policy.tier, self._path, direction, policy.rules(direction), versions))
        self._name = f"{PREFIX[policy.tier]}-{policy.metadata.name[:NAME_LETTERS]}-{self._short}-{content}"
        self._values: list[Value] = []
        self._peers: set[PeerSet] = set()
        self._local: set[NamedPort] = set()
        self._counters: list[RuleCounter] = []
        self._equal = Counter[str]()
        self._found_blocks: dict[int, tuple[Match, ...]] = {}
        """Of each rule, by its identity."""

    def program(self, rules: tuple[PolicyRule, ...]) -> Program:
        found = [one for number, allowed in enumerate(rules, 1) for one in self._rules(number, allowed)]
        self._values.append(tables.chain(self._name, found, comment=_label(self._policy)))
        counters, forbidding = (
            tuple(self._counters),
            {peer for one in rules if one.action != "Accept" for peer in _selectors(one)},
        )
        sets = frozenset(self._peers), frozenset(self._local), frozenset(forbidding)
        values = fragment(self._values)
        denies = any(one.action == "Deny" for one in rules)
        names = self._path, self._direction, _label(self._policy)
        return Program(*names, values, self._name, counters, *sets, denies, _openings(self._policy, rules))

    def _rules(self, number: int, allowed: PolicyRule) -> Iterator[Rule]:
        comment = f"{_label(self._policy, NUMBER_LETTERS)} {self._direction} rule {number}"
        self._act = self._acting(number, allowed, comment)
        for match in self._named_of_peers(allowed):
            yield self._matching(match, comment)
        ports = self._port_matches(allowed)
        peers = self._peer_matches(allowed) if ports else ()
        if len(ports) * len(peers) <= INLINE_RULES or min(len(ports), len(peers)) == 1:
            yield from (self._matching(both, comment) for port in ports for peer in peers if (both := _both(port, peer)))
            return
        name = f"{self._name}-{number}"
        self._values.append(tables.chain(name, (self._matching(peer, comment) for peer in peers), comment=comment))
        yield from (rule(_family(port), port.row, jump(name), comment=comment) for port in ports)

    def _matching(self, match: Match, comment: str) -> Rule:
        return rule(_family(match), match.row, self._act, comment=comment)

    def _acting(self, number: int, allowed: PolicyRule, comment: str) -> Row:
        """What a rule does with what it matches. One that denies asks first what is never denied."""
        counted = count_in(self._counter(number, allowed))
        if allowed.action == "Deny":
            name = f"{self._name}-{number}-deny"
            denied = rule(counted, goto(tables.denial_chain(tables.BY_RULE[self._short])), comment=comment)
            self._values.append(tables.chain(name, (rule(jump("deny")), denied), comment=comment))
            return goto(name)
        passes = allowed.action == "Pass" and self._policy.tier == "Admin"
        return (*counted, *(goto(tables.BELOW_ADMIN[self._short]) if passes else PASSING[self._short]))

    def _counter(self, number: int, allowed: PolicyRule) -> str:
        """The counter of a rule. Its name says what the rule does: it goes on counting when others change, or rules change places."""
        content = digest((self._path, self._direction, allowed))
        self._equal[content] += 1
        name = f"{self._policy.short}-{self._short}-{content}" + (
            f"-{self._equal[content]}" if self._equal[content] > 1 else ""
        )
        comment = f"{_label(self._policy, NUMBER_LETTERS)} {self._direction}"
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

    def _blocks(self, allowed: PolicyRule) -> tuple[Match, ...]:
        """Several ports of a rule may ask for its blocks."""
        if (found := self._found_blocks.get(id(allowed))) is None:
            blocks = [peer for peer in allowed.peers or () if isinstance(peer, IPBlock)]
            found = tuple(
                match for version in self._versions for match in self._networks(prefixes_of(blocks, version), version)
            )
            self._found_blocks[id(allowed)] = found
        return found

    def _networks(self, prefixes: list[Prefix], version: int) -> Iterator[Match]:
        if len(prefixes) <= INLINE_NETWORKS:
            yield from (Match(r.network_is(network(one, version), self._side), version) for one in prefixes)
            return
        keys = [first.to_bytes(BITS[version] // 8, "big") + bytes((length,)) for first, length in prefixes]
        key, own = (tables.TYPE[version],), digest((self._path, b"".join(keys)))
        found = tables.set_("networks", version, key, own, f"{len(keys)} networks", interval=True)
        comment = _label(self._policy).encode()
        self._values += [found, Members.of(found, [one + comment for one in keys])]
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
                    if blocks := ANY if allowed.peers is None else self._blocks(allowed):
                        pods = self._pods(PeerSet(ALL_PODS, port), version)
                        yield from (both for block in blocks if (both := _both(pods, block)))

    def _fill(self, found: Set, keys: Iterable[tuple[Part, ...]]) -> None:
        comment = _label(self._policy)
        self._values += [found, *(tables.element(found.name, key, comment) for key in keys)]


def _openings(policy: Policy, rules: Iterable[PolicyRule]) -> frozenset[Opening] | None:
    """What a NetworkPolicy opens; None where elements of a set can't say it, or too many would have to."""
    found: set[Opening] = set()
    for one in rules if policy.tier == "NetworkPolicy" else ():
        if one.ports is None or one.peers is None:
            return None
        for port in one.ports:
            if not isinstance(port.port, tuple) or port.port[0] != port.port[1]:
                return None
            for peer in one.peers:
                if not isinstance(peer, PodSelector):
                    return None
                found.add(Opening(peer, port.protocol, port.port[0]))
    return frozenset(found) if policy.tier == "NetworkPolicy" and len(found) <= MOST_OPENINGS else None


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
    """All pods that the same NetworkPolicies select for a direction: their chain, the paths of these policies, and what counts the packets
    that none of them allows.

    What many of them allow may be one set, `peers`: then `together` are the paths of these, and `allowed` counts for all of them.
    """

    chain: Chain
    policies: tuple[str, ...]
    denied: NamedCounter
    peers: GroupSet | None = None
    together: tuple[str, ...] = ()
    allowed: NamedCounter | None = None


def group(programs: Iterable[Program], direction: str, versions: Iterable[int] = ()) -> Group:
    """The group of these policies for a direction (IN, OUT). Its counters go on when the policies change what they allow."""
    programs = list(programs)
    together, openings = _together(programs)
    if len(together) > TOGETHER:
        return _group_with_set(programs, together, GroupSet(openings), direction, versions)
    paths, denied, last = _ending(programs, direction)
    return Group(_chain("", programs, direction, rule(jump("deny")), last), paths, denied)


def _ending(programs: list[Program], direction: str) -> tuple[tuple[str, ...], NamedCounter, Rule]:
    """The paths of these policies, and what counts and drops what none of them allows."""
    paths = [program.name for program in programs]
    comment = _default_deny(programs)
    denied = tables.counter(f"deny-{direction}-{digest((direction, paths))}", comment)
    return tuple(paths), denied, rule(count_in(denied.name), goto(f"deny-{direction}"), comment=comment)


def _together(programs: Iterable[Program]) -> tuple[list[Program], set[Opening]]:
    """Those whose openings may be one set, and these openings."""
    found: list[Program] = []
    openings, ports = set[Opening](), dict[PodSelector, int]()
    for one in programs:
        if one.chain and one.openings is not None:
            new, more = one.openings - openings, dict[PodSelector, int]()
            for selector, _, _ in new:
                more[selector] = (more.get(selector) or ports.get(selector, 0)) + 1
            if all(count <= MOST_PORTS for count in more.values()):
                found.append(one)
                openings |= new
                ports |= more
    return found, openings


def _group_with_set(
    programs: list[Program], together: list[Program], peers: GroupSet, direction: str, versions: Iterable[int]
) -> Group:
    """That of many policies: what most of them allow is one set, and the others have their chains."""
    paths = tuple(one.name for one in together)
    opened = {id(one) for one in together}
    alone = group([msgspec.structs.replace(one, openings=None) for one in programs if id(one) not in opened], direction)
    every, denied, last = _ending(programs, direction)
    comment = f"allowed by any of {len(together)} policies"
    allowed = tables.counter(f"allow-{direction}-{digest((direction, every))}", comment)
    side = r.SOURCE if direction == IN else r.DESTINATION
    ways = [
        rule(
            family(version),
            r.peer_and_port_in(version, side, p.name(peers, version)),
            count_in(allowed.name),
            PASSING[direction],
            comment=comment,
        )
        for version in versions
    ]
    *jumps, deny, _ = alone.chain.rules
    name = f"{direction}-{digest((_chain_name('', programs, direction), alone.chain.name, peers))}"
    return Group(tables.chain(name, (*ways, *jumps, deny, last)), every, denied, peers, paths, allowed)


def admin_group(programs: Iterable[Program], direction: str) -> Chain:
    """The chain of all pods that the same policies of the Admin tier select for a direction."""
    return _chain("admin-", programs, direction, rule(goto(tables.BELOW_ADMIN[direction])))


def baseline_group(programs: Iterable[Program], direction: str) -> Chain:
    """That of all pods that the same policies of the Baseline tier select, and no NetworkPolicy does."""
    return _chain("base-", programs, direction, rule(PASSING[direction]))


def _chain(prefix: str, programs: Iterable[Program], direction: str, *last: Rule) -> Chain:
    programs = list(programs)
    jumps = [rule(jump(program.chain), comment=program.label) for program in programs if program.chain]
    return tables.chain(_chain_name(prefix, programs, direction), [*jumps, *last])


def _chain_name(prefix: str, programs: list[Program], direction: str) -> str:
    content = (direction, [program.name for program in programs], [program.chain for program in programs])
    return f"{prefix}{direction}-{digest(content)}"


def _default_deny(programs: list[Program]) -> str:
    text = "default deny: " + " ".join(program.label for program in programs)
    return text if len(text.encode()) <= COMMENT_BYTES else f"default deny: {len(programs)} policies"


def _label(policy: Policy, room: int = 0) -> str:
    return label(policy.short, policy.metadata.path, room)
