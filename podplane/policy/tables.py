"""The nf_tables objects that all policies of a node share: the table, its base chains, and what each local pod has in it.

    forward   what is known (ct status confirmed) passes; anything else → egress
    input     what is known passes; anything else that pods send to this node → to-node
    to-node   to-node4: MAC and source → own-node, or where egress4 leads to if a policy selects the pod for egress
    own-node  what is for addresses of the node → pass
    egress    egress4: MAC and source → goto ingress, or goto out-<group>   a pod of this node sends by its own address
    ingress   ingress4: destination → pass, or goto in-<group>           a pod of this node, or the node, is sent to
    out-…     jump np-…-out of each policy that selects the pod; what none of them allows → deny-out
    np-…-out  what a policy allows → goto ingress
    in-…      jump np-…-in of each policy; what none of them allows → deny-in
    np-…-in   what a policy allows → pass
    admin-in-…  of pods that Admin policies select, before in-…: jump anp-…-in of each of them; what none of them decides → policies-in
    anp-…-in  Accept → pass; Deny → deny-cnp-in; Pass → policies-in
    policies-in  policies-in4: destination → pass, in-… or base-in-…, as ingress4 has it of other pods
    base-in-…   of pods that Baseline policies select, and no NetworkPolicy: jump bnp-…-in of each; what none of them decides → pass
    gate      drop: a pod of this node whose policies are not in place, or that uses another's address
    neighbours  what pods say to their link by ICMPv6: solicitations by an address of their own → accept; all else of it → drop
    pass      accept

Only the first packet of a connection passes this. `ct status confirmed` and not `ct state established`, because UDP that nobody answers
stays "new": each of its packets would pass all rules. A packet that is dropped is never confirmed. Answers, and ICMP errors about a
connection, belong to it.

Each pod of the node is an element of all maps; one that is not yet is met by the gate, whichever way. What the node itself sends leaves
by the output hook, which has no chain here: probes of a pod by its own node always pass. What pods send to the node passes input: that is
egress too. That a pod reaches itself is asked for only on the way to a drop.

When a chain comes, or a pod is led to another one, the kernel walks all rules that each base chain leads to (nft_table_validate): 1 ms for
4,000 rules, the greater part of a change. So input leads to policies' chains only where a policy for egress selects a pod of the node. It
takes no way of more than 15 jumps and gotos (NFT_JUMP_STACK_SIZE), which is the longest here: through all tiers of both directions.

A pod sends by its own addresses only. The bridge takes frames from its port only with its own MAC (`pods.plan`), so MAC and address tell
whose packet it is; the element of the map of egress has both, so that costs no look-up of its own. That is asked of first packets: into a
connection that it guesses right a pod can send by another's address. Nothing that is for the link only (neighbour discovery, router
advertisements, redirects, multicast listeners, DHCP's answers) reaches another pod, and of it the node takes what a pod needs to resolve
its gateway. The node asks no pod for its MAC (`pods.plan`), so it takes no pod's word for one.

When what policies let pass changes, the connections of the pods concerned get a bit in their mark (`JudgeAgain`): what the client sends
next is judged as a first packet is. What passes loses the bit; what is denied gets another one, by which answers are refused and all that
the client sends is judged: it passes once it is allowed again. To delete the entries would not do: the next packet would begin a
connection anew, perhaps from the other end (net.netfilter.nf_conntrack_tcp_loose).

A pod sends by addresses of its own only, and is reached by these only: policies know neither its link-local address nor who listens to a
multicast or broadcast, which the bridge brings to all of its pods.

Sources: nft(8); Kubernetes, "Network Policies"; RFC 4861 (hop limit 255), RFC 2131 and RFC 8415 (ports of DHCP).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.policy import rows as r
from podplane.state.conntrack import JUDGE_AGAIN, REVOKED
from podplane.state.mac import link_local_of
from podplane.state.nft import (
    ACCEPT,
    DROP,
    GOTO,
    RETURN,
    Chain,
    Element,
    Hook,
    Limit,
    Log,
    NamedCounter,
    Part,
    Rule,
    Set,
    Table,
    Verdict,
    label,
)
from podplane.state.nft_nat import pair_in, port_is, protocol
from podplane.state.nft_rules import (
    Row,
    count_in,
    destination_in,
    family,
    goto,
    input_is,
    input_is_not,
    jump,
    output_is,
    output_is_not,
    rule,
    sender_in,
    source_in,
    verdict,
)
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment

TABLE = ("inet", "podplane-policy")
FAMILY, NAME = TABLE
TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
PRIORITY = -10
"""Before NF_IP_PRI_FILTER, where others may accept; after translation of destinations."""
SENDERS_PRIORITY = -110
"""Before NF_IP_PRI_NAT_DST (-100), where Services translate, and refuse what has no endpoint a moment later."""
ERRORS = "errors"
"""The chain and the counter of errors that pods send about connections of nobody."""
IN, OUT = "in", "out"
MAPS = {OUT: "egress", IN: "ingress"}
TO_NODE, OWN_NODE = "to-node", "own-node"
"""The chain and, before a 4 or 6, the maps for what pods send to the node; and the chain of those that no policy selects for egress."""
BELOW_ADMIN = {OUT: "policies-out", IN: "policies-in"}
"""The chains, and before a 4 or 6 the maps, by which pods that Admin policies select come to the other policies."""
PASSES = {OUT: Verdict(GOTO, "ingress"), IN: Verdict(GOTO, "pass")}
"""What becomes of packets of a pod that no policy selects for this direction."""
CLOSED = {OUT: Verdict(GOTO, "deny-out"), IN: Verdict(GOTO, "deny-in")}
"""What becomes of them where policies select it and can't be programmed."""
RANK = {
    "ports": 1,
    "networks": 1,
    "pods": 2,
    "named": 2,
    "group": 2,
    "local": 2,
    "self": 3,
    "policies-out": 3,
    "policies-in": 3,
}
RANK |= {"own": 3}
RANK |= dict.fromkeys((*MAPS.values(), TO_NODE), 4)
"""Sets that rules look into are filled before a pod is led to these rules, and emptied after that."""
PACKED = ("pods", "named", "group", "networks")
"""Kinds of sets that may have a hundred thousand elements."""
GATE, FOREIGN = "gate", "foreign"
BY_RULE = {IN: "cnp-in", OUT: "cnp-out"}
"""What the log says before packets that a rule denies, by direction."""
DENIALS = {
    IN: "no policy allows the receiver this",
    OUT: "no policy allows the sender this",
    BY_RULE[IN]: "a ClusterNetworkPolicy denies the receiver this",
    BY_RULE[OUT]: "a ClusterNetworkPolicy denies the sender this",
    GATE: "policies of this pod are not in place, or it is another's address",
    FOREIGN: "no address of a pod of this node",
}
"""Why packets are dropped, by what the log says before them."""
RESET = "resets"
"""The counter of packets of TCP connections that were let pass once, and are answered with a reset."""
LOG_GROUP = 80
"""The group of NFLOG that is told of them."""
TOLD_A_SECOND = 100
"""Of the packets that are dropped for each of these reasons, so many are told; others are only counted."""
LINK_ONLY = 130, 153
"""ICMPv6 types from multicast listeners (RFC 2710) to multicast routers (RFC 4286): all that is for the link only."""
SOLICITATIONS = 133, 135
"""Of routers, of neighbours."""
DHCP_ANSWERS = {4: (67, 68), 6: (547, 546)}
"""Ports of a server's answer to a client."""
UNSPECIFIED = ipaddress.ip_network("::/128")
NEIGHBOURS = "neighbours"


def set_(kind: str, version: int, key: tuple[str, ...], suffix: str = "", comment: str = "", *, interval: bool = False) -> Set:
    """A set of the table; `version` 0: for both."""
    return Set(
        family=FAMILY,
        table=NAME,
        name=set_name(kind, version, suffix),
        key=key,
        data=("verdict",) if kind in (*MAPS.values(), TO_NODE, *BELOW_ADMIN.values()) else (),
        interval=interval,
        comment=comment,
        rank=RANK[kind],
        packed=kind in PACKED,
    )


def set_name(kind: str, version: int, suffix: str = "") -> str:
    """`pods4-8c1f`; `version` 0: for both."""
    return f"{kind}{version or ''}{'-' if suffix else ''}{suffix}"


def element(name: str, key: tuple[Part, ...], comment: str, data: Verdict | None = None) -> Element:
    """An element of a set of the table."""
    return Element(family=FAMILY, table=NAME, set=name, key=key, data=data, comment=comment)


def chain(name: str, rules: Iterable[Rule], hook: Hook | None = None, comment: str = "") -> Chain:
    """A chain of the table."""
    return Chain(family=FAMILY, table=NAME, name=name, hook=hook, rules=tuple(rules), comment=comment)


def counter(name: str, comment: str) -> NamedCounter:
    """A counter of the table."""
    return NamedCounter(family=FAMILY, table=NAME, name=name, comment=comment)


def pod_elements(ips: Iterable[IPAddress], mac: str, comment: str, verdicts: dict[str, Verdict]) -> Iterator[Element]:
    """What a pod has in the maps: what becomes of what it sends (OUT) and of what it is sent (IN). One with rules reaches itself."""
    to_node = Verdict(GOTO, OWN_NODE) if verdicts[OUT] == PASSES[OUT] else verdicts[OUT]
    for ip in ips:
        yield element(f"{TO_NODE}{ip.version}", (mac, ip), comment, to_node)
        yield element(f"{MAPS[OUT]}{ip.version}", (mac, ip), comment, verdicts[OUT])
        yield element(f"{MAPS[IN]}{ip.version}", (ip,), comment, verdicts[IN])
        yield from (element(f"own{ip.version}", (mac, own), comment) for own in _own(ip, mac))
        if verdicts != PASSES:
            yield element(f"self{ip.version}", (ip, ip), comment)


def _own(ip: IPAddress, mac: str) -> Iterable[IPAddress]:
    return (ip, link_local_of(mac)) if ip.version == 6 else (ip,)


def below_admin(
    direction: str, ips: Iterable[IPAddress], versions: Iterable[int], comment: str, then: Verdict
) -> Iterator[Value]:
    """What becomes of a pod's packets that no Admin policy decides about, and what all such pods share: a chain, and its maps."""
    name, side = BELOW_ADMIN[direction], r.SOURCE if direction == OUT else r.DESTINATION
    ways = [rule(family(version), r.verdict_of(version, side, f"{name}{version}")) for version in versions]
    yield chain(name, [*ways, rule(goto(GATE))], comment="after the Admin tier")
    yield from (set_(name, version, (TYPE[version],)) for version in versions)
    yield from (element(f"{name}{ip.version}", (ip,), comment, then) for ip in ips)


def on_node(node: Node, config: NetworkConfig) -> Fragment:
    """What the node has before there is a pod; nothing while it has no blocks."""
    blocks = [ipaddress.ip_network(block) for block in node.spec.pod_cidrs]
    if not blocks:
        return {}
    values: list[Value] = [Table(family=FAMILY, table=NAME)]
    for block in blocks:
        address = TYPE[block.version]
        values += [set_(name, block.version, ("ether_addr", address)) for name in (MAPS[OUT], TO_NODE)]
        values.append(set_(MAPS[IN], block.version, (address,)))
        values.append(set_("own", block.version, ("ether_addr", address)))
        values.append(set_("self", block.version, (address, address)))
        own = block.network_address + 1
        values.append(element(f"ingress{block.version}", (own,), label("node", node.metadata.name), PASSES[IN]))
    return fragment(
        [
            *values,
            *_denials(blocks, config),
            *_ways(blocks, config),
            *_for_the_link(blocks, config),
            *_senders(blocks, config.bridge),
            *_errors(),
            *_base_chains(config.bridge),
        ]
    )


def _denials(blocks: list[IPNetwork], config: NetworkConfig) -> Iterator[Value]:
    """The ways to a drop. Groups, and rules that deny, have asked what is never denied before they lead to theirs (`compiling`)."""
    yield chain("deny", _never_denied([block.version for block in blocks]), comment="what is never denied")
    for prefix, why in DENIALS.items():
        name, counted = denial_chain(prefix), counter(denial_counter(prefix), why)
        by_policies = prefix not in (GATE, FOREIGN)
        told = (rule(_told(prefix), comment="for podplane policy denied"),) if config.log_denied else ()
        yield counted
        taken_back = rule(
            r.has_mark(JUDGE_AGAIN | REVOKED), count_in(counted.name), goto("revoke"), comment="it was let pass once"
        )
        again = (taken_back,) if by_policies else ()
        yield chain(name, (*told, *again, rule(count_in(counted.name), verdict(DROP), comment=why)))
    yield from _revocations()


def _revocations() -> Iterator[Value]:
    """What becomes of connections that were let pass once."""
    counted, resets = counter("revoked", "of connections that policies took back"), counter(RESET, "answered with a reset")
    reset = rule(
        protocol("tcp"), count_in(counted.name), count_in(resets.name), r.reject_with_reset(), comment="both ends are told"
    )
    yield from (counted, resets)
    yield chain("revoked", (reset, rule(count_in(counted.name), verdict(DROP))), comment="what policies took back")
    yield chain("revoke", (rule(r.set_mark(REVOKED, on=True)), rule(goto("revoked"))))


def denial_chain(prefix: str) -> str:
    """The chain that drops."""
    return prefix if prefix in (GATE, FOREIGN) else f"deny-{prefix}"


def denial_counter(prefix: str) -> str:
    """What counts all packets that it drops."""
    return f"denied-{prefix}"


def _told(prefix: str) -> Row:
    return (Limit(rate=TOLD_A_SECOND, unit=1, burst=TOLD_A_SECOND), Log(group=LOG_GROUP, prefix=prefix))


def _never_denied(versions: Iterable[int]) -> Iterator[Rule]:
    for version in versions:
        yield rule(family(version), pair_in(version, f"self{version}"), verdict(ACCEPT), comment="a pod reaches itself")


def _for_the_link(blocks: list[IPNetwork], config: NetworkConfig) -> Iterator[Value]:
    """What pods say to their link by ICMPv6. Other messages go on where they came from."""
    yield counter(NEIGHBOURS, "neighbour discovery, router advertisements and the like, DHCP's answers: not for others")
    first, last = LINK_ONLY
    rules = [
        rule(r.type_is(0, first - 1), verdict(RETURN)),
        rule(r.type_is(last + 1, 255), verdict(RETURN)),
        rule(output_is(config.bridge), count_in(NEIGHBOURS), verdict(DROP), comment="nothing of it is for another pod"),
    ]
    if any(block.version == 6 for block in blocks):
        asks = [(r.type_is(kind, kind), family(6), r.hop_limit_is(255)) for kind in SOLICITATIONS]
        rules += [rule(*row, sender_in(6, "own6"), verdict(ACCEPT), comment="it asks by an address of its own") for row in asks]
        unused = rule(*asks[1], source_in(UNSPECIFIED), verdict(ACCEPT), comment="it asks whether an address is in use")
        rules.append(unused)
    dropped = rule(count_in(NEIGHBOURS), verdict(DROP), comment="the node takes no pod's word for who has an address")
    yield chain(NEIGHBOURS, (*rules, dropped), comment="ICMPv6 of pods")


def _from_pods(version: int, config: NetworkConfig) -> Iterator[Rule]:
    """What is looked at before the maps: what pods say to their link."""
    server, client = DHCP_ANSWERS[version]
    is_answer = (
        protocol("udp"),
        port_is(server, "source"),
        port_is(client),
        input_is(config.bridge),
        output_is_not(config.uplink),
    )
    yield rule(*is_answer, count_in(NEIGHBOURS), verdict(DROP), comment="a pod is no DHCP server of its neighbours")
    if version == 6:
        yield rule(r.is_icmp6(), input_is(config.bridge), jump(NEIGHBOURS))


def _ways(blocks: list[IPNetwork], config: NetworkConfig) -> Iterator[Chain]:
    bridge = config.bridge
    to_former = rule(output_is(config.former_bridge), goto("pass"), comment="to a pod of the former network")
    yield chain(
        MAPS[OUT], [*_by_sender(MAPS[OUT], blocks, config), rule(input_is(bridge), goto(FOREIGN)), rule(goto("ingress"))]
    )
    yield chain(TO_NODE, [*_by_sender(TO_NODE, blocks, config), rule(goto(FOREIGN))])
    yield chain(OWN_NODE, _to_node(blocks))
    yield chain(
        "ingress",
        [
            *(rule(family(b.version), r.verdict_of(b.version, r.DESTINATION, f"ingress{b.version}")) for b in blocks),
            *([to_former] if config.former_bridge else ()),
            *(rule(family(b.version), destination_in(b), goto("gate")) for b in blocks),
            rule(output_is(bridge), goto("foreign")),
            rule(goto("pass")),
        ],
    )
    both = JUDGE_AGAIN | REVOKED
    judged = rule(r.has_mark(both), r.set_mark(both, on=False), comment="it passes still, or again")
    yield chain("pass", (judged, rule(verdict(ACCEPT))))


def _by_sender(name: str, blocks: list[IPNetwork], config: NetworkConfig) -> Iterator[Rule]:
    """What pods send, to where the maps of this name lead them."""
    versions = sorted(block.version for block in blocks)
    for version in versions:
        yield from _from_pods(version, config)
        yield rule(family(version), r.verdict_of_sender(version, f"{name}{version}"))
    if 6 not in versions:
        yield rule(r.is_icmp6(), input_is(config.bridge), jump(NEIGHBOURS))
    if config.former_bridge and name == MAPS[OUT]:
        yield rule(input_is(config.former_bridge), goto("ingress"), comment="of a pod of the former network")
    yield from (rule(family(b.version), source_in(b), goto(GATE)) for b in blocks)


def _senders(blocks: list[IPNetwork], bridge: str) -> Iterator[Chain]:
    """Whose address a pod's packet has, before the node may answer it with an error: it would go to whoever has that address, with what
    was sent. Chains of type nat see the first packet of a connection only, and none of what is of no connection."""
    own = [rule(family(b.version), sender_in(b.version, f"own{b.version}"), verdict(ACCEPT)) for b in blocks]
    others = [rule(family(b.version), source_in(b), goto(GATE)) for b in blocks]
    yield chain("sender", (*own, *others, rule(goto(FOREIGN))), comment="a pod's own address")
    of_others = rule(input_is_not(bridge), verdict(ACCEPT))
    yield chain("senders", (of_others, rule(goto("sender"))), Hook("nat", "prerouting", SENDERS_PRIORITY))
    unspecified = rule(r.is_icmp6(), source_in(UNSPECIFIED), verdict(ACCEPT), comment="it has no address yet")
    yield chain("untracked", (unspecified, rule(goto("sender"))), comment="of no connection")
    of_none = rule(r.has_state(r.INVALID | r.UNTRACKED), goto("untracked"))
    yield chain("untracked-senders", (of_others, of_none), Hook("filter", "prerouting", SENDERS_PRIORITY + 1))


def _errors() -> Iterator[Value]:
    """What pods send as errors of ICMP about packets that nobody sent: who believes it sends smaller ones to that destination."""
    yield counter(ERRORS, "errors of pods about connections that there are not")
    kinds = (
        (r.is_icmp(), r.type_is(3, 5)),
        (r.is_icmp(), r.type_is(11, 12)),
        (r.is_icmp6(), r.type_is(1, 4)),
    )
    rules = [rule(*row, count_in(ERRORS), verdict(DROP)) for row in kinds]
    yield chain(ERRORS, rules, comment="of no connection, from a pod")


def _to_node(blocks: list[IPNetwork]) -> Iterator[Rule]:
    """What no policy forbids a pod: of its node's block it reaches the node's address here, and not the one that is everybody's."""
    for block in blocks:
        own = ipaddress.ip_network(block.network_address + 1)
        yield rule(family(block.version), destination_in(own), goto("pass"))
        yield rule(family(block.version), destination_in(block), goto(GATE))
    yield rule(goto("pass"))


def _base_chains(bridge: str) -> Iterator[Chain]:
    unmarked = r.has_mark(JUDGE_AGAIN | REVOKED, any_of=False)
    known = (
        rule(unmarked, r.is_confirmed(), verdict(ACCEPT), comment="of a connection that was let pass"),
        rule(r.has_mark(REVOKED), r.is_answer(), goto("revoked")),
        rule(r.has_mark(JUDGE_AGAIN), r.is_answer(), verdict(ACCEPT), comment="what its client sends is judged again"),
    )
    of_none = rule(input_is(bridge), r.has_state(r.INVALID), jump(ERRORS), comment="what it quotes was never sent")
    yield chain("forward", (*known, of_none, rule(goto("egress"))), Hook("filter", "forward", PRIORITY))
    yield chain("input", (*known, of_none, rule(input_is(bridge), goto(TO_NODE))), Hook("filter", "input", PRIORITY))
