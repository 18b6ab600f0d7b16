"""Programs of nf_tables on one packet: verdicts, jumps, priorities, what is not known, and choices."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from podplane.services import rules as r
from podplane.state import nft
from podplane.state.network import Link
from podplane.state.nft import ACCEPT, DROP, GOTO, JUMP, RETURN, Chain, Element, Hook, NftValue, Rule, Set, Table, Verdict
from podplane.state.nft_rules import Row, rule
from podplane.state.value import Identity, Value
from podplane.trace.evaluator import evaluate, outcomes
from podplane.trace.expressions import Context, write_payload
from podplane.trace.memory import Memory
from podplane.trace.packet import OTHER, Packet
from podplane.trace.trace import Delivered, Dropped, Rejected, Unknown
from podplane.trace.world import World, of

PLACE: dict[str, Any] = {"family": "inet", "table": "t"}
LOCALHOST = ipaddress.ip_address("127.0.0.1")
PACKET = Packet(source=LOCALHOST, destination=LOCALHOST)
PORT = nft.Payload(base=2, offset=2, length=2)


class SomethingElse(NftValue, frozen=True, gc=False, kw_only=True):
    """A value of a later version, of which nothing is known here but its identity."""

    kind: str
    name: str = ""

    @property
    def identity(self) -> Identity:
        return (f"nft {self.kind}", self.netns, self.family, self.table, self.name, 0)


def verdict(code: int, chain: str = "") -> Row:
    return (nft.Immediate(data=Verdict(code, chain)),)


def chain(name: str, *rows: Row) -> Chain:
    return Chain(**PLACE, name=name, rules=tuple(rule(row, comment=f"{name} {n}") for n, row in enumerate(rows)))


def base(
    *rows: Row, hook: str = "input", kind: str = "filter", priority: int = 0, policy: str = "accept", name: str = ""
) -> Chain:
    rules = tuple(rule(row, comment=f"{name or hook} {n}") for n, row in enumerate(rows))
    return Chain(**PLACE, name=name or hook, hook=Hook(kind, hook, priority, policy), rules=rules)


def world(*values: Value) -> World:
    return of([Link(name="lo"), Table(**PLACE), *values])


def end_of(*values: Value, **more: Any) -> object:
    return evaluate(world(*values), PACKET, **more).end


def passes(*values: Value) -> bool:
    end = end_of(*values)
    assert isinstance(end, Delivered | Dropped), end
    return isinstance(end, Delivered)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([verdict(JUMP, "c"), verdict(DROP)], False),
        ([verdict(GOTO, "c"), verdict(DROP)], True),
        ([verdict(RETURN), verdict(DROP)], True),
        ([verdict(ACCEPT), verdict(DROP)], True),
        ([(nft.Counter(),), (nft.Log(group=1),), verdict(DROP)], False),
        ([verdict(JUMP, "drops")], False),
    ],
)
def test_verdicts_within_a_base_chain(rows: list[Row], expected: bool) -> None:
    assert passes(base(*rows), chain("c"), chain("drops", verdict(RETURN)), chain("unused", verdict(DROP))) or not expected
    other = chain("drops", verdict(DROP))
    assert passes(base(*rows), chain("c", verdict(RETURN), verdict(DROP)), other) is expected


def test_the_policy_counts_at_the_end_of_the_base_chain_also_after_goto_and_return() -> None:
    for row in ((), verdict(GOTO, "c"), verdict(RETURN)):
        assert not passes(base(row, policy="drop"), chain("c", verdict(RETURN)))
    assert passes(base(verdict(GOTO, "c"), policy="drop"), chain("c", verdict(ACCEPT)))


def test_accept_ends_one_base_chain_and_drop_the_packet() -> None:
    early, late = base(verdict(ACCEPT), name="early", priority=-5), base(verdict(DROP), name="late", priority=5)
    trace = evaluate(world(late, early), PACKET)
    assert isinstance(trace.end, Dropped) and trace.end.by.comment == "late 0"
    assert [hop.comment for hop in trace.hops if hop.comment] == ["early 0", "late 0"]


def test_tables_of_a_family_see_its_packets_only() -> None:
    for family, expected in (("ip", False), ("inet", False), ("ip6", True), ("bridge", True)):
        place = {"family": family, "table": "u"}
        drops = Chain(**place, name="i", hook=Hook("filter", "input", 0), rules=(rule(verdict(DROP)),))
        assert passes(Table(**place), drops) is expected


def test_a_row_of_jumps_that_is_too_deep_drops() -> None:
    chains = [chain(f"c{n}", verdict(JUMP, f"c{n + 1}")) for n in range(17)]
    assert not passes(base(verdict(JUMP, "c0")), *chains, chain("c17"))
    assert passes(base(verdict(JUMP, "c2")), *chains, chain("c17"))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ((nft.Expression(),), "is not known"),
        ((nft.Meta(key=4, dreg=1),), "meta key 4"),
        ((nft.Ct(key=17, dreg=1),), "ct key 17"),
        ((nft.Lookup(set="absent"),), "set absent"),
        (verdict(JUMP, "absent"), "chain absent"),
        ((nft.Fib(result=1, flags=2),), "index of a link"),
    ],
)
def test_what_is_not_known_is_said_and_not_guessed(rows: Row, why: str) -> None:
    end = end_of(base(rows, verdict(DROP)))
    assert isinstance(end, Unknown) and why in end.why
    port_81 = (PORT, nft.Cmp(data=b"\0\x51"), *rows)
    assert isinstance(end_of(base(port_81)), Delivered), "a packet that never gets there is not concerned"


def test_tables_with_chains_or_elements_that_are_not_known_leave_it_open() -> None:
    looks = base((PORT, nft.Lookup(set="ports"), *verdict(DROP)))
    ports = Set(**PLACE, name="ports", key=("inet_service",))
    http = Element(**PLACE, set="ports", key=(80,))
    strange = SomethingElse(**PLACE, kind="element", name="ports")
    assert isinstance(end_of(SomethingElse(**PLACE, kind="chain", name="x")), Unknown)
    assert isinstance(end_of(SomethingElse(**PLACE, kind="object", name="x")), Delivered)
    assert isinstance(end_of(looks, ports), Delivered)
    assert isinstance(end_of(looks, ports, strange), Unknown)
    assert isinstance(end_of(looks, ports, http, strange), Dropped)


def test_an_element_that_decides_is_named() -> None:
    by_port = Set(**PLACE, name="by", key=("inet_service",), data=("verdict",))
    element = Element(**PLACE, set="by", key=(80,), data=Verdict(DROP), comment="svc/default/web:http")
    trace = evaluate(world(base((PORT, nft.Lookup(set="by", dreg=0))), by_port, element), PACKET)
    assert isinstance(trace.end, Dropped) and trace.end.by.elements == (element,)
    assert "svc/default/web:http" in trace.comments and "svc/default/web:http" in str(trace)


def test_limits_are_a_question_to_the_caller() -> None:
    under, over = (nft.Limit(rate=5, unit=1),), (nft.Limit(rate=5, unit=1, flags=1),)
    for row, exceeded, drops in ((under, False, True), (under, True, False), (over, False, False), (over, True, True)):
        end = end_of(base((*row, *verdict(DROP))), exceeds=lambda _, e=exceeded: e)
        assert isinstance(end, Dropped) is drops


@pytest.mark.parametrize(
    ("row", "how"),
    [
        ((nft.Reject(type=1),), "tcp reset"),
        ((nft.Reject(type=2, code=1),), "icmp port unreachable"),
        ((nft.Reject(type=2, code=3),), "icmp admin prohibited"),
        ((nft.Reject(type=0, code=13),), "icmp admin prohibited"),
        ((nft.Reject(type=0, code=1),), "icmp host unreachable"),
    ],
)
def test_rejections_say_how(row: Row, how: str) -> None:
    end = end_of(base(row))
    assert isinstance(end, Rejected) and end.how == how
    udp = evaluate(world(base(row)), Packet(source=LOCALHOST, destination=LOCALHOST, protocol="udp")).end
    assert isinstance(udp, Dropped if how == "tcp reset" else Rejected), "nobody resets what is not TCP"


def choices(*moduli: int) -> Sequence[Rule]:
    """Each chooses once, and drops at 0; the ports tell which one it was."""
    return [
        Rule((nft.Numgen(modulus=n, type=1), nft.Cmp(op=4, data=bytes(4)), nft.Meta(key=3, sreg=1)), f"of {n}") for n in moduli
    ]


def test_outcomes_are_all_rows_of_choices_once() -> None:
    own = Chain(**PLACE, name="c", hook=Hook("filter", "input", 0), rules=tuple(choices(2, 3)))
    found = outcomes(world(own), PACKET)
    assert len(found) == 6 and sorted(t.packet.mark for t in found) == [0, 1, 1, 1, 2, 2]
    assert len(outcomes(world(), PACKET)) == 1
    with pytest.raises(ValueError, match="more than 1000 outcomes"):
        outcomes(world(Chain(**PLACE, name="c", hook=Hook("filter", "input", 0), rules=tuple(choices(2000)))), PACKET)


def test_a_packet_without_tracking_is_untracked_and_not_translated() -> None:
    early = base((nft.Notrack(),), hook="output", priority=-300, name="raw")
    to = base((nft.Immediate(dreg=1, data=b"\0\x51"), nft.Redirect(port=1, flags=2)), hook="output", kind="nat", name="nat")
    untracked = base((nft.Ct(key=0, dreg=1), nft.Cmp(data=b"\x40\0\0\0"), *verdict(DROP)))
    end = evaluate(world(to), PACKET).end
    assert isinstance(end, Delivered) and end.port == 81
    assert isinstance(end_of(early, to), Delivered) and end_of(early, to) != end
    assert isinstance(end_of(early, untracked), Dropped) and isinstance(end_of(untracked), Delivered)


def remember(op: int) -> Row:
    return (PORT, nft.Meta(key=3, dreg=9), nft.Dynset(set="seen", op=op, data=9))


def test_a_dynamic_set_remembers_from_packet_to_packet_until_it_is_full() -> None:
    seen = Set(**PLACE, name="seen", key=("inet_service",), data=("mark",), size=1)
    drop_known = (PORT, nft.Lookup(set="seen", dreg=1), *verdict(DROP))
    own = world(seen, base(drop_known, remember(1)))
    first = evaluate(own, PACKET)
    assert isinstance(first.end, Delivered)
    again = evaluate(own, Packet(source=LOCALHOST, destination=LOCALHOST, source_port=1), memory=first.memory)
    assert isinstance(again.end, Dropped)
    for _ in range(2):  # there is no room for another one
        other = evaluate(own, Packet(source=LOCALHOST, destination=LOCALHOST, destination_port=81), memory=first.memory)
        assert isinstance(other.end, Delivered) and other.memory.elements == first.memory.elements
    forgets = evaluate(world(seen, base(remember(2))), PACKET, memory=first.memory)
    assert forgets.memory.elements["", "inet", "t", "seen"] == {}
    assert isinstance(evaluate(own, PACKET, memory=Memory()).end, Delivered)


def test_what_is_written_into_a_header_is_the_packets_own_and_nothing_beyond_it_is() -> None:
    context = context_of(PACKET)
    assert write_payload(context, 2, 2, b"\0\x51") and context.packet.destination_port == 81
    assert write_payload(context, 0, 0, b"\x0a\x58\0\0\0\1") and context.packet.destination_mac == "0a:58:00:00:00:01"
    assert write_payload(context, 1, 8, b"\5") and context.packet.ttl == 5
    assert not write_payload(context, 2, 19, b"\0\0") and context.packet.tcp_flags == PACKET.tcp_flags


def test_the_kind_of_packet_can_be_set() -> None:
    other = (nft.Immediate(dreg=1, data=bytes((OTHER,))), nft.Meta(key=19, sreg=1))
    assert evaluate(world(base((*r.is_new(), *other))), PACKET).packet.pkttype == OTHER


def context_of(packet: Packet) -> Context:
    """A packet at a hook of a namespace without routes."""

    def nothing(*_: object) -> Any:
        raise AssertionError("it is not asked for")

    return Context(packet, "", "input", Memory(), nothing, nothing, nothing, nothing)
