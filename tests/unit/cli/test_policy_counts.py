"""How often policies decided, in `podplane policy list`: sums of what nodes say, and nothing where they say nothing."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from podplane.cli.policy import counts, listed
from podplane.cli.policy.counts import Decided
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import DenialCount, PolicyCounts, RuleCount
from tests.unit.cli.policies import ALLOW_WEB, DENY_DB, known
from tests.unit.policy.cluster import policy

NODE1 = PolicyCounts(
    [RuleCount("default/web", "ingress", 1, 12), RuleCount("default/web", "egress", 1, 5)],
    [
        DenialCount("ingress", ("default/web",), 7),
        DenialCount("ingress", ("default/other", "default/web"), 1000),
        DenialCount("egress", ("default/web",), 1),
    ],
    {},
)
NODE2 = PolicyCounts([RuleCount("default/web", "ingress", 1, 3)], [DenialCount("ingress", ("default/web",), 2)], {})


def test_nodes_are_summed_up() -> None:
    decided = Decided((NODE1, NODE2))
    assert decided.rule("default/web", "ingress", 1) == 15 and decided.rule("default/web", "ingress", 2) == 0
    assert decided.allowed("default/web") == 20 and decided.allowed("default/other") == 0
    assert decided.denied("default/web") == 1010 and decided.denied("default/other") == 1000
    assert decided.denied_by("ingress", ("default/web",)) == 9


def test_the_list_has_what_all_nodes_counted() -> None:
    found = listed.of_namespace(known(ALLOW_WEB), "default")
    head, row = listed.overview(found, Decided((NODE1, NODE2))).splitlines()
    assert head.split()[-2:] == ["ALLOWED", "DENIED"] and row.split()[-2:] == ["20", "1,010"]
    document = found[0].document(Decided((NODE1,)))
    assert (document["allowedConnections"], document["deniedPackets"]) == (17, 1008)


def test_a_pod_has_what_its_node_counted_rule_by_rule() -> None:
    asked = []

    def ask(node: str) -> Decided:
        asked.append(node)
        return Decided((NODE2,))

    found = listed.of_pod(known(ALLOW_WEB, DENY_DB), "default/web-1", ask)
    lines = found.text().splitlines()
    assert asked == ["node2"]
    assert "  TCP 8080 from pods with app=client   (default/web ingress rule 1: 3 connections)" in lines
    assert "  all else is denied: 2 packets" in lines
    assert lines[-1] == "Counted on node2, for all its pods under a policy, since the first of them is."
    document = found.document()
    assert document["deniedPackets"] == {"ingress": 2}
    assert document["policies"][0]["allowedConnections"] == {"egress": [], "ingress": [3]}


def test_of_a_pod_that_no_policy_selects_nobody_is_asked() -> None:
    def never(node: str) -> Decided:
        raise AssertionError(node)

    assert listed.of_pod(known(ALLOW_WEB), "shop/db", never).text().startswith("No policy selects")


def test_what_is_denied_is_that_of_the_policies_of_this_direction() -> None:
    other = policy("default/other", podSelector={}, policyTypes=["Ingress"])
    out = policy("default/out", podSelector={}, policyTypes=["Egress"])
    found = listed.of_pod(known(ALLOW_WEB, other, out), "default/web-1", lambda node: Decided((NODE1,)))
    assert found.document()["deniedPackets"] == {"egress": 0, "ingress": 1000}


class Client:
    """Asks nothing: what `ask` would say is given."""


@pytest.mark.parametrize(
    ("answers", "there", "said"),
    [
        ({"node1": NODE1, "node2": NODE2}, True, ""),
        ({"node1": NODE1, "node2": ApiError(504, "Timeout", "slow")}, True, "node2 does not say how often rules decided: "),
        ({"node1": ApiError(504, "Timeout", "slow")}, False, "node1 does not say how often rules decided: "),
        ({}, True, ""),
    ],
)
def test_nodes_that_do_not_answer_are_told(
    answers: Mapping[str, PolicyCounts | ApiError],
    there: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ask(client: object, questions: list[counts.Question]) -> dict[counts.Question, object]:
        assert all(one.path == "policies" for one in questions)
        given = {one: answers[one.node] for one in questions}
        return {q: a if isinstance(a, ApiError) else msgspec.to_builtins(a) for q, a in given.items()}

    monkeypatch.setattr(counts, "ask", ask)
    assert (counts.decided(Client(), answers) is not None) == there
    assert capsys.readouterr().err.startswith(said)


def test_what_is_counted_per_group_is_said_to_be() -> None:
    groups = [DenialCount("ingress", ("default/web", "default/other"), 7, ("default/web",), 1234)]
    alone, some = PolicyCounts([], groups, {}), PolicyCounts([RuleCount("default/web", "ingress", 1, 3)], groups, {})
    found = listed.of_namespace(known(ALLOW_WEB), "default")
    assert listed.overview(found, Decided((some,))).splitlines()[1].split()[-7:] == [
        "3",
        "+",
        "1,234",
        "of",
        "its",
        "group",
        "7",
    ]
    assert found[0].document(Decided((some, alone)))["allowedByGroup"] == 2468

    def lines(counted: PolicyCounts) -> list[str]:
        return listed.of_pod(known(ALLOW_WEB), "default/web-1", lambda node: Decided((counted,))).text().splitlines()

    assert "  TCP 8080 from pods with app=client   (default/web ingress rule 1: counted per group)" in lines(alone)
    assert "  TCP 8080 from pods with app=client   (default/web ingress rule 1: 3 connections, and counted per group)" in lines(
        some
    )
    assert "  1,234 connections of those counted per group" in lines(alone)
    one = listed.of_pod(known(ALLOW_WEB), "default/web-1", lambda node: Decided((alone,)))
    assert one.document()["policies"][0]["allowedByGroup"] == {"ingress": 1234}
