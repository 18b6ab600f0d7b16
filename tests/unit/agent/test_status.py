"""The state of an agent as others read it: counts, what is refused and why, repairs, tasks, and the same as figures for Prometheus."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from podplane.agent import status
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.supervise import TaskReport
from podplane.model.objects import Node as NodeModel
from podplane.servers.durations import BOUNDS, Durations
from podplane.servers.http import Call
from podplane.servers.report_thread import LIMIT
from podplane.state.ledger import Status
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Route, Sysctl
from podplane.state.nft import Chain, Element
from podplane.state.words import in_words
from tests.unit.agent.rig import Choosy, Rig, cluster, service_of, slice_of, wanting
from tests.unit.agent.test_reports import Node


async def asked(node: Node, path: str = "/status") -> Any:
    return json.loads((await node.reports.answer(Call(path, "reader"))).body)


def figures(text: str) -> dict[tuple[str, ...], float]:
    """Name and values of the labels, which come in alphabetical order, → figure."""
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def metrics(node: Node) -> dict[tuple[str, ...], float]:
    return figures((await node.reports.answer(Call("/metrics", "reader"))).body.decode())


async def test_an_agent_at_rest_has_everything_done() -> None:
    node = Node()
    await node.serve()
    found = await asked(node)
    assert {(one["pending"], one["refused"]) for one in found["objects"]} == {(0, 0)}
    assert {one["feature"] for one in found["objects"]} >= {"services"} and found["node"] == "node1"
    assert sum(one["done"] for one in found["objects"]) == len(node.agent.ledger.desired)
    assert found["refused_objects"] == found["blocked_keys"] == [] and found["dirty_keys"]["services"] == 0
    assert found["operations_applied"] == node.written > 0 and found["operations_refused"] == 0
    summary = {"node": "node1", "refused": 0, "blocked": 0, "restarts": 0, "api_error": "", "unreached": [], "unmet": []}
    summary |= {"first_refused": "", "first_blocked": ""}
    assert await asked(node, "/status/summary") == summary


async def test_what_a_node_does_without_is_told_with_the_reason_until_it_has_it() -> None:
    node = Node()
    await node.serve()
    uplink = node.host.objects.network[Link(name="eth0").identity]
    assert isinstance(uplink, Link)
    for mtu, expected in ((1200, 1), (1500, 0)):
        node.host.put(msgspec.structs.replace(uplink, mtu=mtu))
        await node.agent.poll()
        await node.agent.reconcile()
        told = (await asked(node, "/status/summary"))["unmet"]
        assert (await asked(node))["unmet"] == told and len(told) == expected
        assert all(why.startswith("its uplink eth0 carries packets of at most 1200 bytes") for why in told)
        assert not node.agent.ledger.refused
    assert [key for key, _, message in node.events if "needs 1280 (RFC 8200" in message] == ["node/node1"]


async def test_what_the_machine_keeps_from_a_node_is_told_first() -> None:
    node = Node()
    node.machine_without = ["rp_filter is 1 on eth0"]
    await node.serve()
    assert (await asked(node, "/status/summary"))["unmet"] == (await asked(node))["unmet"] == ["rp_filter is 1 on eth0"]


async def test_that_peers_cant_be_probed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    node, silent = Node(), type(status.NO_PEERS)()
    monkeypatch.setattr(silent, "unmet", lambda: ["peers can't be probed: EPERM"])
    node.peers = silent
    await node.serve()
    assert (await asked(node, "/status/summary"))["unmet"] == (await asked(node))["unmet"] == ["peers can't be probed: EPERM"]


async def test_what_several_keys_share_counts_once_and_each_change_is_seen() -> None:
    node = Node()
    await node.serve()
    before = {(one["feature"], one["kind"]): one["done"] for one in (await asked(node))["objects"]}
    node.put(service_of("other", "10.96.0.2"), slice_of("other", "10.244.1.6"))  # the chain for one endpoint is that of web
    await node.settle()
    after = {(one["feature"], one["kind"]): one["done"] for one in (await asked(node))["objects"]}
    assert after["services", "nft chain"] == before["services", "nft chain"]
    assert after["services", "nft element"] == before["services", "nft element"] + 2
    assert sum(after.values()) == len(node.agent.ledger.desired)


class ChoosyNode(Node):
    """Its kernel refuses the elements of one address."""

    def new_agent(self, kernel: Any = None) -> Any:
        return super().new_agent(Choosy)


async def refusing() -> ChoosyNode:
    node = ChoosyNode()
    await node.serve()
    node.agent._kernel.refused = "10.96.0.7"  # type: ignore[attr-defined]  # Choosy
    node.put(service_of("bad", "10.96.0.7"))
    await node.settle()
    return node


async def test_what_the_kernel_refuses_is_told_with_its_reason_and_its_times() -> None:
    node = await refusing()
    node.now = 3.0
    found = await asked(node)
    one = found["refused_objects"][0]
    summary = await asked(node, "/status/summary")
    assert found["refused"] == len(found["refused_objects"]) == summary["refused"]
    first = summary["first_refused"]
    assert first.startswith(f"{one['object']}: {one['why']}"[:100]) and len(first) <= 200
    assert one["wanted_by"] == ["service/default/bad"] and "Invalid argument" in one["why"]
    assert (one["age"], one["tries"], one["next_try_in"]) == (3.0, 1, 0.0)
    assert one["object"].startswith("nft element inet podplane-services ") and "10.96.0.7" in one["object"]
    assert sum(row["refused"] for row in found["objects"]) == found["refused"]
    await node.poll(3.0)
    again = (await asked(node))["refused_objects"][0]
    assert again["tries"] == 2 and again["age"] == 3.0 and again["next_try_in"] > 0


async def test_lists_are_cut_and_counts_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LISTED", 1)
    node = await refusing()
    node.put(service_of("worse", "10.96.0.70"))
    await node.settle()
    found = await asked(node)
    assert found["refused"] > 1 and len(found["refused_objects"]) == 1


async def test_a_blocked_key_is_told_with_its_reason() -> None:
    node = Node()
    await node.serve()
    node.put(wanting("first", "10.96.0.11", "1", "192.0.2.9"), wanting("second", "10.96.0.12", "2", "192.0.2.9"))
    await node.settle()
    found = await asked(node)
    (blocked,) = found["blocked_keys"]
    assert (blocked["key"], blocked["feature"], found["blocked"]) == ("service/default/second", "services", 1)
    assert "belongs to service/default/first" in blocked["why"]
    assert (await asked(node, "/status/summary"))["first_blocked"] == f"{blocked['key']}: {blocked['why']}"
    assert (await metrics(node))["podplane_blocked_keys", "services"] == 1
    node.remove(wanting("first", "10.96.0.11", "1", "192.0.2.9"))
    await node.settle()
    assert (await asked(node))["blocked"] == 0


async def test_repairs_and_audits_are_told() -> None:
    node = Node()
    await node.serve()
    chain = next(identity for identity in node.host.objects.nft if identity[4:] == ("refuse",))
    del node.host.objects.nft[chain]
    await node.poll(61.0)
    await node.poll(61.1)  # tells of what was repaired
    found = await asked(node)
    assert found["repaired"] == {"nft chain": 1}
    assert [one["part"] for one in found["audits"]] == ["network", "tables"]
    assert any(one["found_deviation"] for one in found["audits"]) and all(one["count"] for one in found["audits"])
    assert "repaired: 1 nft chain" in found["last_repairs"][0]["what"]
    seen = await metrics(node)
    assert seen["podplane_repairs_total", "nft chain"] == 1 and seen["podplane_audits_total", "tables"] >= 1


async def test_tasks_caches_and_the_api_are_told() -> None:
    node = Node()
    node.tasks["election"] = TaskReport(False, 3, "KeyError('x')", 0.0)
    await node.serve()

    class Refusing:
        async def list(self, *_: object, **__: object) -> bytes:
            raise ApiError(503, "ServiceUnavailable", "away")

    informer = Informer(Refusing(), "nodes", NodeModel, sleep=lambda _: asyncio.Event().wait())  # type: ignore[arg-type]
    task = asyncio.ensure_future(informer.run())
    await asyncio.sleep(0)
    node.caches.informers = {"nodes": informer}
    found = await asked(node)
    assert [(one["name"], one["is_running"], one["restarts"]) for one in found["tasks"]] == [
        ("agent", True, 0),
        ("election", False, 3),
    ]
    assert found["caches"] == [{"resource": "nodes", "objects": 0, "is_synced": False, "failures": {"list ApiError": 1}}]
    assert found["api"]["is_reached"] is True and found["longest_turn"] is None
    assert (await asked(node, "/status/summary"))["restarts"] == 3
    seen = await metrics(node)
    assert seen["podplane_task_restarts_total", "election"] == 3
    assert seen["podplane_informer_failures_total", "list ApiError", "nodes"] == 1
    task.cancel()


async def test_an_api_that_does_not_answer_is_told() -> None:
    node = Node()
    await node.serve()
    await asked(node)

    async def away(_: object) -> Any:
        raise ApiError(503, "ServiceUnavailable", "connection refused")

    node.client._handler = away
    with pytest.raises(ApiError):
        await node.client.get("nodes", "", "node1")
    found = await asked(node)  # who asks is still known
    assert found["api"]["is_reached"] is False and found["api"]["error"] == "connection refused"
    assert (await asked(node, "/status/summary"))["api_error"] == "connection refused"


async def test_figures_are_in_prometheus_format() -> None:
    node = Node()
    await node.serve()
    reply = await node.reports.answer(Call("/metrics", "reader"))
    assert reply.status == 200 and reply.content_type.startswith("text/plain; version=0.0.4")
    seen = figures(reply.body.decode())
    done = sum(figure for key, figure in seen.items() if key[0] == "podplane_objects")
    assert done == len(node.agent.ledger.desired)
    assert seen["podplane_operations_total", "applied"] == node.written
    assert seen["podplane_reconcile_duration_seconds_count",] == node.agent.reconciles.count == 1
    assert (await metrics(node))["podplane_http_requests_total", "200", "metrics"] == 1
    names = {family.name for family in text_string_to_metric_families(reply.body.decode())}
    assert all(name.startswith("podplane_") for name in names)


async def test_only_so_many_walks_wait() -> None:
    node = Node()
    await node.serve()
    await node.reports._counting.acquire()
    waiting = [asyncio.ensure_future(node.reports.answer(Call("/status", "reader"))) for _ in range(LIMIT + 3)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert [task.result().status for task in waiting if task.done()] == [429] * 3
    node.reports._counting.release()
    assert sorted(reply.status for reply in await asyncio.gather(*waiting)) == [200] * LIMIT + [429] * 3
    assert (await node.reports.answer(Call("/status", "reader"))).status == 200


async def test_what_nobody_wants_any_more_is_a_row_without_a_feature() -> None:
    node = Rig()
    agent = await node.start(*cluster(1, 2))
    sources = status.Sources(agent, node.caches, dict, lambda: None)
    stray = Route(destination=ipaddress.ip_network("10.9.0.0/16"), link="cbr0", protocol=80)
    agent.ledger.observe(stray.identity, stray)
    assert (await sources.counts())["", "Route"] == {Status.PENDING: 1}


# Histogram and words.


def test_durations_fall_into_the_first_bucket_that_holds_them() -> None:
    durations = Durations()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] + 1e-9, BOUNDS[-1], BOUNDS[-1] + 1):
        durations.add(seconds)
    counts = dict(durations.cumulative())
    assert [counts[bound] for bound in ("0.001", "0.0025", "5.0", "10.0", "+Inf")] == [2, 3, 3, 4, 5]
    assert durations.count == 5 and durations.total == pytest.approx(sum((0.0, 0.001, 0.001, 10.0, 11.0)))


IP = ipaddress.ip_address("10.0.0.1")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Link(name="cbr0"), "link cbr0"),
        (Address(link="eth0", ip=IP, prefix_length=24, netns="pod/1"), "address 10.0.0.1/24 on eth0 in pod/1"),
        (
            Route(destination=ipaddress.ip_network("10.1.0.0/16"), gateway=IP, link="eth0", protocol=80),
            "route 10.1.0.0/16 via 10.0.0.1 on eth0",
        ),
        (Route(destination=ipaddress.ip_network("10.1.0.0/16"), protocol=80), "route 10.1.0.0/16"),
        (Neighbour(link="eth0", ip=IP, mac="02:00:00:00:00:01"), "neighbour 10.0.0.1 on eth0"),
        (Proxy(link="eth0", ip=IP, protocol=80), "neighbour proxy 10.0.0.1 on eth0"),
        (Fdb(link="vx", mac="02:00:00:00:00:01"), "fdb entry 02:00:00:00:00:01 on vx"),
        (Sysctl(name="net.ipv4.ip_forward", value="1"), "sysctl net.ipv4.ip_forward = 1"),
        (
            Element(family="inet", table="t", set="s", key=(IP, "tcp", 80), data=None),
            "nft element inet t s { 10.0.0.1 . tcp . 80 }",
        ),
        (Chain(family="inet", table="t", name="c"), "nft chain inet t c"),
    ],
)
def test_an_object_in_words(value: Any, words: str) -> None:
    assert in_words(value.identity, value) == words
    assert in_words(value.identity)  # what is not wanted and not known has words, too
