"""Which probes of a check policies deny: these are not tried, and what denies them is told."""

from __future__ import annotations

import pytest

from podplane.cli.check import permitted, promises, services, users
from podplane.cli.check.names import Lookup
from podplane.cli.check.permitted import Permitted
from podplane.cli.check.promises import NODE_TO_POD, REACH, Party, Probe, Verdict
from podplane.cli.check.services import FROM_OUTSIDE, REFUSED, SERVICES, Own, Vip
from tests.unit.cli.policies import ALLOW_WEB, known
from tests.unit.cli.test_check_policies import NODES, PATHS, PODS
from tests.unit.policy.cluster import Object, policy

CLIENT, WEB1, WEB2, DB = PODS
OUTSIDE = Party("outside", "outside", "", ("192.168.9.1", "fd00:9::1"), 8080)
PARTIES = {party.name: party for party in (*PODS, *NODES, OUTSIDE)}
WEBS = frozenset({"web-1", "web-2"})
INWARD = policy("default/none", podSelector={"matchLabels": {"app": "web"}}, policyTypes=["Ingress"])
OUTWARD = policy("default/none", podSelector={"matchLabels": {"app": "web"}}, policyTypes=["Egress"])
BY = "default deny by default/none"


def under(*policies: Object, judged: frozenset[str] = WEBS) -> Permitted:
    return Permitted(known(*policies), PARTIES, PATHS, judged)


def test_without_policies_all_is_tried() -> None:
    probes = promises.plan(PODS, NODES, OUTSIDE, everything=True)
    assert permitted.parted(probes, under(judged=frozenset()).probe_denied_by) == (probes, {})
    assert promises.plan(PODS, NODES, OUTSIDE, everything=True, may=under().may) == probes


def test_pods_that_nobody_may_reach_are_tried_from_their_own_node_and_reach_others() -> None:
    probes = promises.plan(PODS, NODES, OUTSIDE, everything=True)
    tried, denied = permitted.parted(probes, under(INWARD).probe_denied_by)
    assert set(denied.values()) == {BY} and {probe.target for probe in denied} == WEBS
    assert {probe.source for probe in tried if probe.target in WEBS} == {"node2"}
    assert [probe for probe in probes if probe.target not in WEBS and probe not in tried] == []
    verdicts = [Verdict(REACH, proved=1), Verdict(NODE_TO_POD), Verdict("another")]
    permitted.note(verdicts, denied)
    assert verdicts[0].ok and verdicts[0].denied.total() == 2 * len(WEBS) * 3 and not verdicts[0].is_denied
    assert verdicts[1].is_denied and verdicts[1].ok and not verdicts[2].ok


def test_what_pods_may_not_send_is_not_tried_neither_to_nodes_nor_outside_nor_to_servers_of_names() -> None:
    denied = permitted.parted(promises.plan(PODS, NODES, OUTSIDE, everything=True), under(OUTWARD).probe_denied_by)[1]
    assert {probe.source for probe in denied} == WEBS
    assert {"node1", "node2", "outside", "client"} <= {probe.target for probe in denied}
    lookup = Lookup("service-names", "web-1", "10.96.0.10", "a.", "A", ())
    assert under(OUTWARD).lookup_denied_by(lookup) == BY and under(INWARD).lookup_denied_by(lookup) == ""


def test_ports_and_protocols_are_judged_each() -> None:
    allowed = under(ALLOW_WEB)
    assert allowed.denied_by("client", "10.244.2.2", "TCP", 8080) == ""
    assert (
        allowed.denied_by("client", "10.244.2.2", "TCP", 7000) == allowed.denied_by("client", "10.244.2.2", "ICMP", None) != ""
    )
    assert not allowed.may(CLIENT, WEB1) and allowed.may(WEB1, CLIENT) and allowed.may(WEB1, CLIENT, "ICMP")


@pytest.mark.parametrize("everything", [True, False])
def test_of_a_few_pods_of_a_node_one_is_chosen_that_may_be_reached(everything: bool) -> None:
    free = Party("free", "pod", "node2", ("10.244.2.9",), 7000)
    allowed = Permitted(known(INWARD), {**PARTIES, "free": free}, {**PATHS, "free": "default/free"}, WEBS)
    probes = promises.plan([*PODS, free], NODES, None, everything, allowed.may)
    tried = {(probe.source, probe.target) for probe in permitted.parted(probes, allowed.probe_denied_by)[0]}
    assert any(target == "free" and source in ("client", "shop/db") for source, target in tried)
    sizes = [probe for probe in probes if probe.size]
    assert sizes and not permitted.parted(sizes, allowed.probe_denied_by)[1]


def service(endpoints: list[Party]) -> Own:
    vips = {name: [Vip(name, f"10.96.1.{number}", 80)] for number, name in enumerate(services.NAMES)}
    balanced = {name: [Vip(name, "10.97.0.1", 80)] for name in services.NAMES}
    return Own(vips, balanced, dict.fromkeys(services.NAMES, 30000), endpoints, {"node1": ("192.168.1.11",), "node2": ()})


def test_a_service_is_asked_by_who_reaches_all_endpoints() -> None:
    own = service([DB, WEB1])
    behind, allowed = services.behind(own), under(INWARD)
    assert behind["10.96.1.0", 80] == [("10.244.1.3", 7000), ("10.244.2.2", 7000)]
    assert behind["10.96.1.3", 80] == [("10.244.1.3", 7000)] and behind["10.96.1.4", 80] == []

    def denied(promise: str, source: str, ip: str, port: int = 80, seen: str = "") -> str:
        return allowed.probe_denied_by(Probe(promise, source, "Service x", "tcp", ip, port, seen=seen), behind)

    assert denied(SERVICES, "client", "10.96.1.0") == BY and denied(SERVICES, "client", "10.96.1.3") == ""
    assert denied(SERVICES, "node2", "10.96.1.0") == "" and denied(SERVICES, "node1", "10.96.1.0") == BY
    assert denied(REFUSED, "client", "10.96.1.4") == ""
    assert denied(FROM_OUTSIDE, "outside", "10.97.0.1") == BY
    chosen = {probe.source for probe in services.plan(own, PODS, NODES, None, allowed.may) if probe.promise == services.SPREAD}
    assert chosen == {"web-1"}, "it reaches itself, and the other one"
    chosen = {probe.source for probe in services.plan(service([DB]), [WEB1, CLIENT], NODES, None, under(OUTWARD).may)}
    assert "client" in chosen


def test_from_outside_an_endpoint_sees_another_node_unless_the_policy_is_local() -> None:
    block = {"ipBlock": {"cidr": "192.168.9.0/24"}}
    from_outside = policy("default/outside", podSelector={}, ingress=[{"from": [block]}])
    allowed, behind = under(from_outside), {("10.97.0.1", 80): [("10.244.2.2", 7000)]}
    probe = Probe(FROM_OUTSIDE, "outside", "Service local", "tcp", "10.97.0.1", 80, seen="192.168.9.1")
    assert allowed.probe_denied_by(probe, behind) == ""
    assert allowed.probe_denied_by(Probe(FROM_OUTSIDE, "outside", "Service x", "tcp", "10.97.0.1", 80), behind) != ""


def test_endpoints_are_asked_by_their_own_nodes() -> None:
    way = users.Way(Vip("default/web", "10.96.2.1", 80), (Vip("default/web", "10.244.2.2", 8080),), frozenset({"node1"}))
    assert users.behind([way]) == {("10.96.2.1", 80): [("10.244.2.2", 8080)]}
    assert {probe.source for probe in users.direct([way, way], NODES, PODS)} == {"node2"}


def test_pods_that_are_hidden_from_all_prove_nothing_of_ports() -> None:
    assert promises.same_port(PODS, {}, dict.fromkeys(PATHS, BY)).is_denied
    assert promises.same_port(PODS, {"client": 1, "shop/db": 1}, {"web-1": BY, "web-2": BY}).ok
    assert not promises.same_port(PODS, {"client": 1}, {"web-1": BY, "web-2": BY}).ok
