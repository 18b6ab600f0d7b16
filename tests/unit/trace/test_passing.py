"""What becomes of a packet in chains of others, however these jump to each other."""

from __future__ import annotations

from collections import Counter

from podplane.machine import firewalls
from podplane.machine.firewalls import Way
from podplane.state.nft import ACCEPT, DROP, GOTO, JUMP, Chain, Cmp, Hook, Immediate, Meta, Opaque, Rule, Verdict
from podplane.state.value import address_of
from podplane.trace.packet import Packet
from podplane.trace.passing import Answer, Chains

BASE = Chain(family="inet", table="t", name="base", hook=Hook("filter", "forward", 0))
WAY = Way("a", "forward", "a", "b", Packet(source=address_of("10.1.0.2"), destination=address_of("10.2.0.2")))
MARK = 3
UNKNOWN = Opaque(name="match", content=b"")


def end(code: int, chain: str = "") -> Immediate:
    return Immediate(data=Verdict(code, chain))


def judge(chains: dict[str, list[Rule]]) -> tuple[Answer, int, Counter[str]]:
    """The answer, how many rules the packet came to, and how often each chain was read."""
    read, visits = Counter[str](), 0

    def rules(name: str) -> list[Rule]:
        read[name] += 1
        return chains[name]

    def visit() -> None:
        nonlocal visits
        visits += 1
        assert visits < 1000

    answer = Chains("inet", "t", rules, visit).judge(BASE, firewalls._context(WAY))
    return answer, visits, read


def test_chains_of_jumps_cost_what_their_rules_are() -> None:
    """Six to the power of fourteen ways lead to the last rule."""
    levels = 14
    chains = {f"c{n}": [Rule((end(JUMP, f"c{n + 1}"),))] * 6 for n in range(levels)}
    answer, visits, read = judge({"base": [Rule((end(JUMP, "c0"),))], **chains, f"c{levels}": []})
    assert answer == Answer.PASS and visits == 1 + 6 * levels
    assert set(read.values()) == {1}


def test_a_chain_is_answered_anew_for_a_packet_that_is_another_now() -> None:
    marked = Rule((Meta(key=MARK, dreg=1), Cmp(data=b"\1\0\0\0"), end(DROP)))
    mark = Rule((Immediate(dreg=1, data=b"\1\0\0\0"), Meta(key=MARK, sreg=1)))
    to = Rule((end(JUMP, "c"),))
    assert judge({"base": [to, to], "c": [marked]})[0] == Answer.PASS
    assert judge({"base": [to, mark, to], "c": [marked]})[0] == Answer.DROP


def test_what_a_chain_did_to_the_packet_it_does_each_time() -> None:
    """The second jump leads to a chain with a known answer: it gives the packet its mark all the same."""
    one, two = (Immediate(dreg=1, data=bytes((n, 0, 0, 0))) for n in (1, 0))
    put, clear = Rule((one, Meta(key=MARK, sreg=1))), Rule((two, Meta(key=MARK, sreg=1)))
    marked = Rule((Meta(key=MARK, dreg=1), Cmp(data=b"\1\0\0\0"), end(DROP)))
    to = Rule((end(JUMP, "c"),))
    assert judge({"base": [to, clear, to, marked], "c": [put]})[0] == Answer.DROP
    assert judge({"base": [to, clear, marked], "c": [put]})[0] == Answer.PASS


def test_verdicts_behind_jumps_are_known_as_before() -> None:
    maybe = Rule((UNKNOWN, end(DROP)))
    to = Rule((end(JUMP, "c"),))
    assert judge({"base": [to, to], "c": [maybe]})[0] == Answer.PASS | Answer.DROP_BY_RULE
    assert judge({"base": [Rule((UNKNOWN, end(GOTO, "c"))), to], "c": [Rule((end(ACCEPT),))]})[0] == Answer.PASS
    assert judge({"base": [to], "c": [Rule((end(DROP),))]})[0] == Answer.DROP


def test_what_all_meet_that_come_so_far_is_told_from_what_a_rule_does_to_some() -> None:
    """The second may drop what nobody else takes, as firewalld does; the first passes all but what somebody chose."""
    maybe_passes, maybe_drops, drops = Rule((UNKNOWN, end(ACCEPT))), Rule((UNKNOWN, end(DROP))), Rule((end(DROP),))
    assert judge({"base": [maybe_drops]})[0] == Answer.PASS | Answer.DROP_BY_RULE
    assert judge({"base": [maybe_passes, drops]})[0] == Answer.PASS | Answer.DROP
    assert judge({"base": [Rule((UNKNOWN, end(JUMP, "c")))], "c": [drops]})[0] == Answer.PASS | Answer.DROP_BY_RULE
    assert judge({"base": [maybe_drops, drops]})[0] == Answer.DROP_BY_RULE | Answer.DROP
