"""What counts the decisions of policies: a counter for each rule and for each group, whose names change with what they say alone."""

from __future__ import annotations

import msgspec

from podplane.model.policy import PodSelector, PolicyPort, PolicyRule
from podplane.policy import tables
from podplane.policy.compiling import Program, compile_policy, group
from podplane.policy.enforced import AllEnforced, Enforced
from podplane.state.nft import Chain, CounterReference, NamedCounter
from tests.plans import config, node
from tests.policed import policy, select

WEB = PolicyRule((PodSelector("a", select(app="client")),), (PolicyPort("TCP", (80, 80)),))
DB = PolicyRule((PodSelector("a", select(app="web")),), (PolicyPort("TCP", (5432, 5432)),))
BOTH = (4, 6)


def compiled(*rules: PolicyRule, name: str = "web") -> Program:
    return compile_policy(policy(name, select(app="web"), rules), "ingress", BOTH)


def names(program: Program) -> list[str]:
    """Of the counters, in the order of the rules."""
    assert [one.rule for one in program.counters] == list(range(1, len(program.counters) + 1))
    return [one.name for one in program.counters]


def referred(program: Program) -> set[str]:
    chains = (value for value in program.fragment.values() if isinstance(value, Chain))
    return {e.name for one in chains for r in one.rules for e in r.expressions if isinstance(e, CounterReference)}


def test_a_rule_counts_in_both_families_in_one_counter_that_is_there() -> None:
    program = compiled(WEB, DB)
    assert len(set(names(program))) == 2
    assert referred(program) == set(names(program))
    there = {value.name: value.comment for value in program.fragment.values() if isinstance(value, NamedCounter)}
    assert there == dict.fromkeys(names(program), "np/a/web ingress")


def test_a_counter_stays_when_other_rules_change_or_change_places() -> None:
    (web,) = names(compiled(WEB))
    assert names(compiled(DB, WEB))[1] == web
    assert names(compiled(WEB, name="other")) != [web]
    assert names(compiled(WEB._replace(ports=None))) != [web]


def test_equal_rules_have_counters_of_their_own() -> None:
    first, second = names(compiled(WEB, WEB))
    assert first != second and names(compiled(WEB)) == [first]


def test_the_counter_of_a_group_stays_when_its_policies_change_what_they_allow() -> None:
    before, after = group([compiled(WEB)], "in"), group([compiled(WEB, DB)], "in")
    assert before.chain.name != after.chain.name and before.denied == after.denied
    assert before.policies == ("a/web",)
    assert group([compiled(WEB)], "out").denied != before.denied
    assert group([compiled(WEB), compiled(WEB, name="x")], "in").denied != before.denied


def test_a_node_logs_what_it_denies_only_if_it_is_to() -> None:
    said = config(BOTH)
    for wanted in (True, False):
        fragment = tables.on_node(node(1, BOTH), msgspec.structs.replace(said, log_denied=wanted))
        chains = {value.name: value for value in fragment.values() if isinstance(value, Chain)}
        logs = {name: any("Log" in str(r) for r in one.rules) for name, one in chains.items()}
        assert {name for name, logged in logs.items() if logged} == (
            {"deny-in", "deny-out", "deny-cnp-in", "deny-cnp-out", "gate", "foreign"} if wanted else set()
        )
        counted = {value.name for value in fragment.values() if isinstance(value, NamedCounter)}
        assert counted == {f"denied-{one}" for one in tables.DENIALS} | {"revoked", "resets", "neighbours", "errors"}


def test_what_is_enforced_is_known_by_address_until_it_goes() -> None:
    every, its = AllEnforced(), group([compiled(WEB)], "in")
    web, free = Enforced("a/web", ("10.0.0.1", "fd00::1"), (compiled(WEB),), {"in": its}), Enforced("a/free", ("10.0.0.2",))
    every.put("free", free)
    assert not every.any_under_policies and not list(every.groups())
    every.put("web", web)
    every.put("same", Enforced("a/same", ("10.0.0.3",), web.programs, {"in": its}))
    assert every.any_under_policies and every.at("fd00::1") is web and every.at("10.0.0.2") is free
    assert list(every.groups()) == [("in", its)] and list(every.programs()) == list(web.programs)
    every.put("later", Enforced("a/later", ("10.0.0.1",)))
    every.put("web", None)
    every.put("same", None)
    assert every.at("fd00::1") is None
    assert (found := every.at("10.0.0.1")) is not None and found.path == "a/later"
    assert not every.any_under_policies and not list(every.programs())
