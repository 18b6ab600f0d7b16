"""What a check tries of policies, and what it says of what became of it."""

from __future__ import annotations

from podplane.cli.check.policies import REFUSED, judge, plan, verdict
from podplane.cli.check.promises import Party
from podplane.cli.policy.cluster import Cluster
from tests.unit.cli.policies import ALLOW_WEB, DENY_DB, known

PATHS = {name: f"default/{name}" for name in ("client", "web-1", "web-2")} | {"shop/db": "shop/db"}
PODS = [
    Party("client", "pod", "node1", ("10.244.1.2", "fd00:1::2"), 7000),
    Party("web-1", "pod", "node2", ("10.244.2.2", "fd00:2::2"), 7000),
    Party("web-2", "pod", "node2", ("10.244.2.3", "fd00:2::3"), 7000),
    Party("shop/db", "pod", "node1", ("10.244.1.3", "fd00:1::3"), 7000),
]
NODES = [Party(f"node{n}", "node", f"node{n}", (f"192.168.1.1{n}", f"fd00:f::{n}"), 7000) for n in (1, 2)]


def planned(cluster: Cluster, *, everything: bool = True) -> dict[tuple[str, str, str, int], bool]:
    judged = plan(PODS, NODES, PATHS, cluster, everything)
    return {(probe.source, probe.target, probe.ip, probe.port): said.allowed for probe, said in judged.items()}


def test_without_policies_nothing_is_tried() -> None:
    assert planned(known()) == {}


def test_pods_under_policies_are_tried_from_and_to_others_at_ports_that_are_named_and_from_their_node() -> None:
    found = planned(known(ALLOW_WEB))
    for ip in PODS[1].ips:
        assert found["client", "web-1", ip, 8080] and not found["client", "web-1", ip, 7000]
        assert not found["shop/db", "web-1", ip, 8080] and not found["web-2", "web-1", ip, 8080]
        assert found["node2", "web-1", ip, 7000] and ("node1", "web-1", ip, 7000) not in found
    assert found["web-1", "client", "10.244.1.2", 7000], "it may send"
    assert not any({"client", "shop/db"} == {source, target} for source, target, _, _ in found), "no policy is about them"


def test_of_many_pods_some_are_tried_and_each_that_a_policy_selects() -> None:
    some = planned(known(ALLOW_WEB, DENY_DB), everything=False)
    everything = planned(known(ALLOW_WEB, DENY_DB))
    assert some.items() < everything.items()
    assert {"web-1", "web-2", "shop/db"} <= {source for source, *_ in some} & {target for _, target, *_ in some}


def test_what_passes_and_should_not_and_what_does_not_and_should() -> None:
    judged = plan(PODS, NODES, PATHS, known(ALLOW_WEB), True)
    right = {probe: {"ok": True} if said.allowed else {"ok": False, "error": "no answer"} for probe, said in judged.items()}
    assert verdict(judged, right).ok and verdict(judged, right).proved == len(judged)
    for probe, said in judged.items():
        if said.allowed:
            assert not judge(probe, said, {"ok": False, "error": REFUSED}), "it passed, and nobody listens there"
            assert "it is allowed" in judge(probe, said, {"ok": False, "error": "no answer"})
        else:
            for answer in ({"ok": True}, {"ok": False, "error": REFUSED}):
                text = judge(probe, said, answer)
                assert text.endswith("it is denied (default deny by default/web), and passed")
        assert judge(probe, said, None).endswith(f"no result from {probe.source}")
    wrong = right | {probe: {"ok": True} for probe in judged}
    assert not verdict(judged, wrong).ok
