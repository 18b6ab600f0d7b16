"""Which flows were there lately: on a node, and beside the flows that a change would deny."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Collection
from typing import Any

import pytest

from podplane.agent.seen import CHECK_PORT, CHECK_SECONDS, LOOK_SECONDS
from podplane.kernel.netlink import DumpInterrupted
from podplane.model.answers import Party, SeenFlow
from podplane.model.config import CHECK_NAMESPACE
from podplane.model.pod_info import NamespaceInfo, SlimMetadata
from podplane.policy.difference import differences
from podplane.policy.gap import Gap
from podplane.policy.reach import Ports
from podplane.policy.seen import KEPT_OUTSIDE, KEPT_SECONDS, FlowKey, Seen
from podplane.policy.told import Told, told
from podplane.runtime.probe import USUAL_PORT
from podplane.state.conntrack import TrackedFlow
from podplane.state.value import IPAddress, address_of
from tests.unit.agent.rig import Rig, cluster
from tests.unit.policy.cluster import index_of, namespace, policy
from tests.unit.policy.test_denied import pod as pod_info
from tests.unit.policy.test_difference import CLUSTER, FROM_CLIENT, NODES, PodInfo, edit

CLIENT, WEB = Party("10.244.1.2", "pod", "a/client"), Party("10.244.1.3", "pod", "a/web")


def key(number: int = 1, kind: str = "pod") -> FlowKey:
    return FlowKey(Party(str(number), kind), WEB, "TCP", 80)


# What a node remembers.


def test_flows_are_kept_for_an_hour_after_they_were_seen_last() -> None:
    seen = Seen()
    seen.add(key(1), 0.0)
    seen.add(key(2), 10.0)
    seen.add(key(1), 20.0)
    assert list(seen.lately(30.0)) == [(key(1), 10.0), (key(2), 20.0)]
    assert [one for one, _ in seen.lately(KEPT_SECONDS + 15.0)] == [key(1)]
    assert list(seen.lately(KEPT_SECONDS + 20.5)) == []


def test_many_addresses_outside_leave_room_for_flows_of_the_cluster() -> None:
    seen = Seen()
    seen.add(key(0), 0.0)
    for number in range(KEPT_OUTSIDE + 5):
        seen.add(key(number, ""), 1.0 + number)
    found = [one for one, _ in seen.lately(2000.0)]
    assert len(found) == KEPT_OUTSIDE + 1 and key(0) in found and key(4, "") not in found and key(5, "") in found


class Watched(Rig):
    """A node with two pods, and what its kernel tracks."""

    def track(self, source: str, destination: str, port: int = 80, protocol: int = 6) -> None:
        self.opener.flows.add(TrackedFlow(address_of(source).packed, address_of(destination).packed, protocol, port))

    async def begin(self) -> None:
        await self.start(*cluster(1, 2))
        self.put(NamespaceInfo(SlimMetadata("a")), pod_info("client", "10.244.1.2"), pod_info("web", "10.244.1.3"))
        for name in ("client", "web"):
            await self.agent.network.add(dataclasses.replace(self.attachment(name), namespace="a"))
        await self.settle()

    async def flows(self) -> set[tuple[str, str, str, int, float]]:
        said = await self.agent.flows.answer()
        assert said.node == "node1" and not said.error
        return {
            (one.source.name or one.source.address, one.destination.name, one.protocol, one.port, one.age) for one in said.flows
        }


async def test_what_a_node_tracks_of_its_pods_is_told_with_their_names() -> None:
    rig = Watched()
    await rig.begin()
    rig.put(pod_info("far", "10.244.2.9"))
    rig.track("10.244.1.2", "10.244.1.3")
    rig.track("fd00:10:244:1::2", "fd00:10:244:1::3", 0, 58)
    rig.track("10.244.2.9", "10.244.1.3", 53, 17)
    rig.track("203.0.113.7", "10.244.1.3")
    rig.track("10.244.1.1", "10.244.1.3")  # a probe
    rig.track("10.244.2.9", "203.0.113.7")  # of no pod of this node
    whole = {
        ("a/client", "a/web", "TCP", 80, 0.0),
        ("a/client", "a/web", "ICMP", 0, 0.0),
        ("a/far", "a/web", "UDP", 53, 0.0),
        ("203.0.113.7", "a/web", "TCP", 80, 0.0),
    }
    assert await rig.flows() == whole
    rig.opener.flows.clear()
    rig.remove(pod_info("far", "10.244.2.9"))
    rig.put(pod_info("another", "10.244.2.9"))
    rig.now = 60.0
    assert await rig.flows() == {(*one[:4], 60.0) for one in whole}, "names of the moment when it was seen"
    rig.now = KEPT_SECONDS + 1
    assert await rig.flows() == set()


async def test_it_looks_by_itself_more_often_than_an_ended_connection_leaves_the_table() -> None:
    rig = Watched()
    await rig.begin()
    flows = rig.agent.flows
    rig.track("10.244.1.2", "10.244.1.3")
    flows.begin()
    await flows.idle()
    rig.now = LOOK_SECONDS - 1
    flows.begin()
    await flows.idle()
    rig.opener.flows.clear()
    assert await rig.flows() == set(), "it was not time yet"
    rig.track("10.244.1.2", "10.244.1.3")
    rig.now = 2 * LOOK_SECONDS + 1
    flows.begin()
    await flows.idle()
    rig.opener.flows.clear()
    rig.now += 500.0
    assert [age for *_, age in await rig.flows()] == [500.0]


async def test_what_a_check_tries_was_not_seen() -> None:
    assert CHECK_PORT == USUAL_PORT
    rig, check = Watched(), NamespaceInfo(SlimMetadata(CHECK_NAMESPACE))
    await rig.begin()
    rig.put(check)
    rig.agent.flows.begin()
    rig.remove(check)
    for port, protocol in ((CHECK_PORT, 6), (0, 1), (80, 6)):
        rig.track("10.244.1.2", "10.244.1.3", port, protocol)
    rig.now = 100.0
    assert {port for *_, port, _ in await rig.flows()} == {80}
    rig.now = CHECK_SECONDS + 1
    assert {port for *_, port, _ in await rig.flows()} == {80, CHECK_PORT, 0}


@pytest.mark.parametrize("error", [OSError("no"), DumpInterrupted("changed"), RuntimeError("no thread")])
async def test_what_the_kernel_does_not_tell_is_said(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Watched()
    await rig.begin()

    def fails(ips: Collection[IPAddress]) -> set[TrackedFlow]:
        raise error

    monkeypatch.setattr(rig.agent.flows._kernel, "flows", fails)
    said = await rig.agent.flows.answer()
    assert said.error == str(error) and said.flows == []
    monkeypatch.undo()
    rig.now = 5.0
    assert (await rig.agent.flows.answer()).error == ""


async def test_many_questions_at_once_are_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Watched()
    await rig.begin()
    asked: list[Any] = []

    def flows(ips: Collection[IPAddress]) -> set[TrackedFlow]:
        asked.append(ips)
        return set()

    monkeypatch.setattr(rig.agent.flows._kernel, "flows", flows)
    await asyncio.gather(*(rig.agent.flows.answer() for _ in range(5)))
    await rig.agent.flows.answer()
    assert len(asked) == 1


# Beside the flows that a change would deny.

DENY = policy("default/web", podSelector={"matchLabels": {"app": "web"}}, ingress=FROM_CLIENT)


def seen(source: str, destination: str, port: int, age: float, protocol: str = "TCP", kinds: str = "pod pod") -> SeenFlow:
    first, second = (
        Party("10.1.1.1" if kind else name, kind, name if kind else "")
        for name, kind in zip((source, destination), kinds.split(" "), strict=True)
    )
    return SeenFlow(first, second, protocol, port, age)


def changed(*flows: SeenFlow, each: bool = False) -> Told:
    pods = [PodInfo.from_json(json.dumps(one)) for one in CLUSTER if one["kind"] == "Pod"]
    (found,) = told(differences(index_of(CLUSTER), pods, NODES, [edit(DENY)]), each=each)
    return found.with_seen(flows)


def test_those_that_were_seen_come_first_with_when_and_at_their_ports_alone() -> None:
    web = "default/web-7d4b9c-bbbbb"
    cart, lately = seen("shop/cart", web, 9000, 300.0), seen("default/client", web, 9090, 5.0)
    found = changed(cart, lately, seen("shop/cart", web, 80, 200.0), seen("default/client", web, 8080, 1.0))
    assert list(found.lines())[:2] == [
        "default/client → default/web-* (2 pods) (all but TCP 8080) (seen in the last 2 min)",
        "shop/cart → default/web-* (2 pods) (seen 3 min ago)",
    ]
    assert ", 2 of them seen in the last hour: default/client → " in found.sentence()
    assert [one.get("seenSecondsAgo") for one in found.documents()][:3] == [5, 200, None]
    assert len(list(found.lines())) == found.number
    each = list(changed(cart, each=True).lines())
    assert each[0] == f"shop/cart → {web} (seen 5 min ago)" and not any("seen" in line for line in each[1:])


def test_flows_of_others_the_other_way_round_or_that_stay_are_not_meant() -> None:
    web = "default/web-7d4b9c-bbbbb"
    none = (seen(web, "shop/cart", 80, 1.0), seen("default/gone", web, 80, 1.0), seen("default/client", web, 8080, 1.0))
    assert changed(*none).ages == {} and "seen" not in changed(*none).sentence()
    nothing = told([])
    assert nothing == []


def test_nodes_and_addresses_outside_are_seen_by_what_they_are_called() -> None:
    web = "default/web-7d4b9c-bbbbb"
    found = list(changed(seen("node1", web, 80, 1.0, kinds="node pod")).lines())
    one = seen("shop/cart", web, 9000, 300.0)
    assert changed(one)._replace(number=1).head == "1 flow would be denied that was allowed, and seen in the last hour"
    assert found[0].startswith("2 nodes → ") and found[0].endswith("(seen in the last 2 min)")
    found = list(changed(seen("203.0.113.9", web, 0, 600.0, "ICMP", kinds=" pod")).lines())
    assert found[0] == "other addresses outside → default/web-* (2 pods) (seen 10 min ago)"


def test_an_address_outside_is_of_the_smallest_block_that_is_named() -> None:
    rule = [{"from": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}], "ports": [{"port": 80}]}]
    index = index_of([*CLUSTER, policy("default/web", podSelector={}, ingress=rule)])
    pods = [PodInfo.from_json(json.dumps(one)) for one in CLUSTER if one["kind"] == "Pod"]
    (found,) = told(differences(index, pods, NODES, [edit(policy("default/web", podSelector={}, ingress=[]))]))
    web = "default/web-7d4b9c-bbbbb"
    lines = list(found.with_seen([seen("203.0.113.9", web, 80, 1.0, kinds=" pod")]).lines())
    assert (
        lines[0].startswith("203.0.113.0/24 → ") and "(seen" in lines[0] and len([one for one in lines if "seen" in one]) == 1
    )
    assert not any("seen" in one for one in found.with_seen([seen("203.0.113.200", web, 80, 1.0, kinds=" pod")]).lines())


def test_what_would_be_allowed_was_not_seen_but_tried() -> None:
    index = index_of([*CLUSTER, DENY, namespace("default")])
    pods = [PodInfo.from_json(json.dumps(one)) for one in CLUSTER if one["kind"] == "Pod"]
    (found,) = told(differences(index, pods, NODES, [edit(DENY, gone=True)]))
    web = "default/web-7d4b9c-bbbbb"
    said = found.with_seen([seen("shop/cart", web, 80, 1.0)], [seen("default/client", web, 81, 12.0)])
    assert next(said.lines()) == "default/client → default/web-* (2 pods) (all but TCP 8080) (tried 12 s ago)"
    assert ", 1 of them tried in the last 10 min: " in said.sentence() and next(said.documents())["triedSecondsAgo"] == 12
    assert found.word == "allowed" and len(said.ages) == 1
    late = found.with_seen([], [seen("default/client", web, 81, 240.0)])
    assert next(late.lines()).endswith("(tried 4 min ago)")


@pytest.mark.parametrize(
    ("protocol", "port", "rest"), [("TCP", 80, False), ("TCP", 81, True), ("UDP", 80, True), ("ICMP", 0, True)]
)
def test_a_gap_has_ports_or_all_but_those(protocol: str, port: int, rest: bool) -> None:
    ports = (Ports("TCP", 80, 80),)
    assert Gap(ports, is_rest=True).has(protocol, port) is rest and Gap(ports).has(protocol, port) is not rest
