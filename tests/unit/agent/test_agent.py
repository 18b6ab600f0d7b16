"""The agent over the fake kernel: whatever happens, and in whatever order, the kernel holds what the last picture asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.agent.agent import Agent
from podplane.agent.features import PeerPlans
from podplane.cni.network import NetworkError
from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeNamespace
from podplane.model.objects import NodeSpec
from podplane.model.service import EndpointSlice, Service
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value
from tests.plans import node
from tests.unit.agent.rig import DUAL, Choosy, Rig, cluster, frontends, served, service_of, slice_of


async def is_gone(rig: Rig, pod: str) -> bool:
    """Does the kernel lose the pod's link? It carries nothing from now on, and is taken apart when nobody waits for it."""
    assert not any(f'alias "{pod}"' in line and " up " in line for line in rig.host.objects.dump().splitlines())
    for _ in range(1000):
        if pod not in rig.host.objects.dump():
            return True
        await asyncio.sleep(0.001)
    return False


async def test_a_pod_gets_the_next_addresses_and_gives_them_back() -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2))
    pod = rig.opener.namespace()
    attached = await rig.agent.add(rig.attachment("a", pod))
    assert attached.ips == ("10.244.1.2", "fd00:10:244:1::2")
    assert attached.mac == "0a:58:0a:f4:01:02"
    assert "eth0 inet 10.244.1.2/32" in pod.objects.dump()
    assert 'alias "pod/default/a"' in rig.host.objects.dump()
    before = rig.agent.add(rig.attachment("b"))
    assert (await before).ips[0] == "10.244.1.3"
    await rig.agent.delete(rig.attachment("a", pod))
    assert await is_gone(rig, "pod/default/a")
    assert (await rig.agent.add(rig.attachment("c"))).ips[0] == "10.244.1.4"


async def test_on_a_kernel_without_the_bridge_family_pods_are_attached_without_its_table() -> None:
    rig = Rig()
    rig.host.objects.nft_families -= {"bridge"}
    rig.agent = rig.new_agent()
    assert not rig.agent.start(cluster(1, 2)).failed
    await rig.agent.add(rig.attachment("a"))
    await rig.agent.check(rig.attachment("a"))
    assert "table bridge" not in rig.host.objects.dump() and "10.244.1.2 dev cbr0 proto 80" in rig.host.objects.dump()


async def test_check_names_a_sysctl_of_a_pods_link_that_somebody_changed() -> None:
    rig = Rig()
    rig.agent.start(cluster(1))
    await rig.agent.add(rig.attachment("a"))
    await rig.agent.check(rig.attachment("a"))
    (name,) = (name for name in rig.host.objects.sysctls if name.endswith("disable_ipv6"))
    rig.host.objects.sysctls[name] = "0"
    with pytest.raises(NetworkError, match=name):
        await rig.agent.check(rig.attachment("a"))


async def test_pods_that_come_at_once_are_one_change() -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2))
    calls: list[int] = []
    apply = rig.agent._kernel.apply

    def counted(operations: Any) -> Any:
        calls.append(len(operations))
        return apply(operations)

    rig.agent._kernel.apply = counted  # type: ignore[method-assign]
    await asyncio.gather(*(rig.agent.add(rig.attachment(f"p{i}")) for i in range(10)))
    assert len(calls) == 1
    assert rig.host.objects.dump().count("type veth") == 10


async def test_a_pod_that_cannot_be_attached_leaves_nothing() -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2))
    taken = rig.opener.namespace()
    first = await rig.agent.add(rig.attachment("a", taken))
    before = rig.host.objects.dump()
    with pytest.raises(NetworkError, match="pod default/b"):
        await rig.agent.add(rig.attachment("b", taken))  # there is an eth0 already
    assert rig.host.objects.dump() == before
    assert first.ips[0] == "10.244.1.2"
    assert {"b"}.isdisjoint(rig.agent._addresses.owners)


async def test_a_full_block_says_so() -> None:
    rig = Rig()
    rig.agent.start(cluster(1))
    for i in range(253):
        rig.agent.reserve(f"p{i}", (f"10.244.1.{i + 2}", f"fd00:10:244:1::{i + 2:x}"))
    with pytest.raises(NetworkError, match=r"has 253 pod addresses, all in use: delete pods of node1"):
        await rig.agent.add(rig.attachment("x"))


async def test_a_node_without_blocks_says_so() -> None:
    rig = Rig()
    with pytest.raises(NetworkError, match="no pod block yet"):
        await rig.agent.add(rig.attachment("x"))


async def test_addresses_of_before_are_kept_for_who_had_them() -> None:
    rig = Rig()
    rig.agent.start(cluster(1))
    rig.agent.reserve("old", ("10.244.1.2", "fd00:10:244:1::2"))
    assert (await rig.agent.add(rig.attachment("new"))).ips[0] == "10.244.1.3"
    wanted = ("10.244.1.2", "fd00:10:244:1::2")
    assert (await rig.agent.add(rig.attachment("old", ips=wanted))).ips == wanted


async def test_an_audit_puts_right_what_somebody_did() -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2))
    good = rig.host.objects.dump()
    for identity in [i for i in rig.host.objects.network if i[0] in ("Route", "Neighbour")]:
        del rig.host.objects.network[identity]
    rig.host.objects.sysctls["net.ipv4.ip_forward"] = "0"
    for identity in [i for i in rig.host.objects.nft if i[0] == "nft element"][:2]:
        del rig.host.objects.nft[identity]
    assert rig.host.objects.dump() != good
    report = rig.agent.reconciler.audit()
    assert not report.failed
    assert rig.host.objects.dump() == good
    assert rig.agent.reconciler.audit().applied == []


async def test_a_new_agent_finds_everything_in_place_and_writes_nothing() -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2, 3))
    before = rig.host.objects.dump()
    report = rig.new_agent().start(cluster(1, 2, 3))
    assert [o for o in report.applied if o.old != o.new] == []
    assert rig.host.objects.dump() == before


async def test_a_new_agent_leaves_the_pods_of_the_one_before_as_they_are() -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2))
    request = rig.attachment("a")
    ips = (await rig.agent.add(request)).ips
    before = rig.host.objects.dump()
    fresh = rig.new_agent()
    report = fresh.start(cluster(1, 2), [(request, ips)])
    assert [o for o in report.applied if o.old != o.new] == []
    assert rig.host.objects.dump() == before
    assert (await fresh.add(rig.attachment("b"))).ips[0] == "10.244.1.3"
    await fresh.delete(request)
    assert await is_gone(rig, "pod/default/a")


async def test_a_kernel_that_fails_is_a_failed_pod_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2))
    kernel = rig.agent._kernel
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "apply", raising(OSError(24, "Too many open files")))
        with pytest.raises(NetworkError, match="Too many open files"):
            await asyncio.wait_for(rig.agent.add(rig.attachment("a")), 1)
    assert (await asyncio.wait_for(rig.agent.add(rig.attachment("b")), 1)).ips[0] == "10.244.1.3"


async def test_an_agent_goes_on_after_a_failed_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2))
    monkeypatch.setattr("podplane.agent.agent.RETRY_INTERVAL", 0.001)
    running = asyncio.create_task(rig.agent.run())
    with monkeypatch.context() as patch:
        patch.setattr(rig.agent, "reconcile", raising(ValueError("nonsense")))
        rig.agent.node_changed(None, node(3, DUAL))
        await asyncio.sleep(0.02)
    rig.agent.node_changed(None, node(4, DUAL))
    await asyncio.sleep(0.05)
    assert not running.done()
    assert "10.244.4.0/24" in rig.host.objects.dump()
    running.cancel()


async def test_a_node_that_makes_no_sense_spoils_no_other() -> None:
    rig = Rig()
    nonsense = msgspec.structs.replace(node(2, DUAL), spec=NodeSpec(pod_cidrs=("nonsense",)))
    rig.agent.start({**cluster(1, 3), "node2": nonsense})
    assert "10.244.3.0/24" in rig.host.objects.dump()


async def test_a_node_that_got_another_block_keeps_its_pods_running() -> None:
    rig = Rig()
    nodes = cluster(1)
    rig.agent.start(nodes)
    await rig.agent.add(rig.attachment("a"))
    rig.agent.node_changed(nodes["node1"], msgspec.structs.replace(node(5, DUAL), metadata=nodes["node1"].metadata))
    await rig.agent.reconcile()
    assert "pod/default/a" in rig.host.objects.dump()


def raising(error: Exception) -> Any:
    """A function that fails."""

    def fail(*_: Any) -> Any:
        raise error

    return fail


async def test_a_new_agent_removes_what_is_no_longer_wanted() -> None:
    rig = Rig()
    rig.agent.start(cluster(1, 2, 3))
    rig.new_agent().start(cluster(1, 2))
    assert "node3" not in rig.host.objects.dump()
    assert "10.244.3.0/24" not in rig.host.objects.dump()


async def test_check_names_what_is_missing() -> None:
    rig = Rig()
    rig.agent.start(cluster(1))
    request = rig.attachment("a")
    await rig.agent.add(request)
    await rig.agent.check(request)
    del rig.host.objects.network[next(i for i in rig.host.objects.network if i[0] == "Neighbour")]
    with pytest.raises(NetworkError, match="is not in the kernel as planned"):
        await rig.agent.check(request)
    with pytest.raises(NetworkError, match="is not attached"):
        await rig.agent.check(rig.attachment("b"))


async def test_gc_keeps_only_what_is_named() -> None:
    rig = Rig()
    rig.agent.start(cluster(1))
    keep, drop = rig.attachment("keep"), rig.attachment("drop")
    await rig.agent.add(keep)
    await rig.agent.add(drop)
    await rig.agent.gc([keep])
    assert "pod/default/keep" in rig.host.objects.dump()
    assert await is_gone(rig, "pod/default/drop")


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("node"), st.integers(1, 4), st.sampled_from([(4,), (6,), (4, 6), ()])),
        st.tuples(st.just("gone"), st.integers(2, 4), st.just(())),
        st.tuples(st.just("add"), st.integers(1, 3), st.just(())),
        st.tuples(st.just("delete"), st.integers(1, 3), st.just(())),
        st.tuples(st.just("serve"), st.integers(1, 5), st.lists(st.integers(2, 6), max_size=4, unique=True).map(tuple)),
        st.tuples(st.just("unserve"), st.integers(1, 5), st.just(())),
    ),
    max_size=20,
)


@given(EVENTS)
@settings(deadline=None, max_examples=60)
def test_any_order_of_events_ends_where_a_fresh_start_would(events: list[tuple[str, int, tuple[int, ...]]]) -> None:
    asyncio.run(_play(events))


async def _play(events: list[tuple[str, int, tuple[int, ...]]]) -> None:
    rig = Rig(("10.96.0.0/16", "fd00:10:96::/112"))
    services: dict[int, tuple[Service, EndpointSlice]] = {}
    nodes = cluster(1)
    rig.agent.start(nodes)
    pods: dict[int, FakeNamespace] = {}
    for kind, number, versions in events:
        name = f"node{number}"
        if kind == "node":
            new = node(number, DUAL if number == 1 else versions)
            rig.agent.node_changed(nodes.get(name), new)
            nodes[name] = new
        elif kind == "gone" and name in nodes:
            rig.agent.node_changed(nodes.pop(name), None)
        elif kind == "add" and number not in pods:
            pods[number] = rig.opener.namespace()
            await rig.agent.add(rig.attachment(f"p{number}", pods[number]))
        elif kind == "delete" and number in pods:
            await rig.agent.delete(rig.attachment(f"p{number}", pods.pop(number)))
        elif kind == "serve":
            old, new_ = services.get(number, (None, None)), served(number, versions)
            rig.agent.service_changed(old[0], new_[0])
            rig.agent.slice_changed(old[1], new_[1])
            services[number] = new_
            if number % 2:
                assert not (await rig.agent.reconcile()).failed
        elif kind == "unserve" and number in services:
            service, slice_ = services.pop(number)
            rig.agent.service_changed(service, None)
            rig.agent.slice_changed(slice_, None)
    assert not (await rig.agent.reconcile()).failed
    await rig.agent.reconciler.idle()
    fresh, attached = rig.new_agent(), rig.agent._sandboxes.values()
    again = [(rig.attachment(s.uid, pods[int(s.uid[1:])]), s.ips) for s in attached]
    report = fresh.start(nodes, again, (one for one, _ in services.values()), (slice_ for _, slice_ in services.values()))
    assert not [o for o in report.applied if o.old != o.new and not o.value.netns], "an agent that starts anew writes nothing"
    assert dict(rig.agent.reconciler.desired) == dict(fresh.reconciler.desired)
    found = rig.kernel.read(fresh.reconciler.ownership)
    assert {i for i, v in fresh.reconciler.desired.items() if not v.netns and i[0] != "Sysctl"} == set(found)


async def test_a_failure_that_nobody_foresaw_is_told_to_who_waits_and_the_next_change_is_made() -> None:
    rig = Rig()

    def tell(key: str, why: str, reason: str = "") -> None:
        raise RuntimeError("nobody listens")

    kernel = Choosy(rig.host, rig.opener)
    agent = Agent("node1", rig.config, kernel, PeerPlans(), lambda: 0.0, tell)
    agent.start(cluster(1))
    kernel.refused = "pod/default/a"
    with pytest.raises(NetworkError, match="nobody listens"):
        await agent.add(rig.attachment("a"))
    kernel.refused = ""
    assert (await agent.add(rig.attachment("b"))).ips


async def test_what_somebody_else_changes_in_nf_tables_is_looked_at_and_a_busy_stranger_costs_little() -> None:
    rig = Rig()
    now = 0.0
    told: list[tuple[str, str]] = []
    rig.agent = Agent(
        "node1", rig.config, rig.kernel, PeerPlans(), lambda: now, lambda key, why, reason="": told.append((key, reason))
    )
    rig.agent.start(cluster(1))
    good = rig.host.objects.dump()

    async def has_foreign_commit() -> bool:
        """Somebody takes an element and commits; is it there again after a look?"""
        del rig.host.objects.nft[next(i for i in rig.host.objects.nft if i[0] == "nft element")]
        rig.host.objects.foreign_commits += 1
        await rig.agent.reconciler.look()
        return rig.host.objects.dump() == good

    assert await has_foreign_commit()
    assert told == [("node/node1", "Repaired")]
    assert await has_foreign_commit(), "an audit that took no time makes nobody wait"
    rig.agent.reconciler._patience_until = 10.0
    assert not await has_foreign_commit()
    now = 11.0
    await rig.agent.reconciler.look()
    assert rig.host.objects.dump() == good


class Slow(Kernel):
    """A kernel that takes its time to be read."""

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        found = super().read(owner, sysctls)
        if owner.tables:
            time.sleep(0.05)
        return found


async def test_while_much_is_compared_the_loop_goes_on_and_changes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, now = Rig(("10.96.0.0/16",)), 0.0
    agent = Agent("node1", rig.config, Slow(rig.host, rig.opener), PeerPlans(), lambda: now)
    agent.start(cluster(1), services=[service_of("a", "10.96.0.1")], slices=[slice_of("a", "10.244.1.2")])
    monkeypatch.setattr("podplane.agent.reconciler.LARGE", 0)
    rig.host.objects.nft.clear()
    rig.host.objects.foreign_commits += 1
    now = 1.0
    looking = asyncio.create_task(agent.reconciler.look())
    await asyncio.sleep(0.01)
    assert not looking.done()
    agent.service_changed(None, service_of("b", "10.96.0.2"))
    agent.slice_changed(None, slice_of("b", "10.244.1.3"))
    assert not (await agent.reconcile()).failed
    assert await looking
    assert frontends(rig) == {"10.96.0.1 80": "svc/default/a:80", "10.96.0.2 80": "svc/default/b:80"}


async def test_what_the_kernel_refuses_is_told_tried_again_and_holds_up_nobody_else() -> None:
    rig = Rig(("10.96.0.0/16",))
    told: list[tuple[str, str]] = []
    now = 0.0
    kernel = Choosy(rig.host, rig.opener)
    agent = Agent("node1", rig.config, kernel, PeerPlans(), lambda: now, lambda key, why, reason="": told.append((key, why)))
    agent.start(cluster(1))
    kernel.refused = "10.244.1.66"
    for name, ip, target in (("bad", "10.96.0.8", "10.244.1.66"), ("good", "10.96.0.9", "10.244.1.7")):
        agent.service_changed(None, service_of(name, ip))
        agent.slice_changed(None, slice_of(name, target))
    report = await agent.reconcile()
    assert len(report.failed) == 1
    assert told == [("service/default/bad", "the kernel refuses it: nft element: Invalid argument")]
    assert "10.244.1.7" in rig.host.objects.dump() and "10.244.1.66" not in rig.host.objects.dump()
    kernel.refused = ""
    now = 2.0
    await agent.reconciler.look()
    assert "10.244.1.66" in rig.host.objects.dump()
