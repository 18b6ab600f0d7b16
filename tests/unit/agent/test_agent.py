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

from podplane.agent import attachments
from podplane.agent.agent import MAX_INTERVAL, MIN_INTERVAL
from podplane.agent.pause import Pause
from podplane.cni.network import NetworkError, TryAgainError
from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeNamespace
from podplane.model.objects import NodeSpec
from podplane.model.service import EndpointSlice, Service
from podplane.model.view import HostPort
from podplane.state.ledger import SLICE
from podplane.state.nft import Element, Set
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value
from tests.plans import node
from tests.unit.agent.rig import DUAL, Choosy, Rig, cluster, frontends, served, service_of, slice_of


async def is_gone(rig: Rig, pod: str) -> bool:
    """Does the kernel lose the pod's link? It carries nothing from now on, and is taken apart when nobody waits for it."""
    assert not any(f'alias "podplane {pod}"' in line and " up " in line for line in rig.host.objects.dump().splitlines())
    for _ in range(1000):
        if pod not in rig.host.objects.dump():
            return True
        await asyncio.sleep(0.001)
    return False


async def test_a_pod_gets_the_next_addresses_and_gives_them_back() -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    pod = rig.opener.namespace()
    attached = await rig.agent.network.add(rig.attachment("a", pod))
    assert attached.ips == ("10.244.1.2", "fd00:10:244:1::2")
    assert attached.mac == "0a:58:0a:f4:01:02"
    assert "eth0 inet 10.244.1.2/32" in pod.objects.dump()
    assert 'alias "podplane pod/default/a"' in rig.host.objects.dump()
    before = rig.agent.network.add(rig.attachment("b"))
    assert (await before).ips[0] == "10.244.1.3"
    await rig.agent.network.delete(rig.attachment("a", pod))
    assert await is_gone(rig, "pod/default/a")
    assert (await rig.agent.network.add(rig.attachment("c"))).ips[0] == "10.244.1.4"


async def test_on_a_kernel_without_the_bridge_family_pods_are_attached_without_its_table() -> None:
    rig = Rig()
    rig.host.objects.nft_families -= {"bridge"}
    rig.new_agent()
    await rig.start(*cluster(1, 2))
    await rig.agent.network.add(rig.attachment("a"))
    await rig.agent.network.check(rig.attachment("a"))
    assert not rig.agent.ledger.refused
    assert "table bridge" not in rig.host.objects.dump() and "10.244.1.2 dev cbr0 proto 80" in rig.host.objects.dump()


async def test_check_names_a_sysctl_of_a_pods_link_that_somebody_changed() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    await rig.agent.network.add(rig.attachment("a"))
    await rig.agent.network.check(rig.attachment("a"))
    (name,) = (name for name in rig.host.objects.sysctls if name.endswith("disable_ipv6") and ".pp" in name)
    rig.host.set_sysctl(name, "0")
    with pytest.raises(NetworkError, match=name):
        await rig.agent.network.check(rig.attachment("a"))


async def test_pods_that_come_at_once_are_one_change(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    calls: list[int] = []
    steps = rig.agent._kernel.steps

    def counted(operations: Any) -> Any:
        calls.append(len(operations))
        return steps(operations)

    monkeypatch.setattr(rig.agent._kernel, "steps", counted)
    monkeypatch.setattr(attachments, "Pause", lambda: Pause(seconds=60.0))  # however slow this machine is
    await asyncio.gather(*(rig.agent.network.add(rig.attachment(f"p{i}")) for i in range(10)))
    assert len(calls) == 1
    assert rig.host.objects.dump().count("type veth") == 10


async def test_a_pod_that_cannot_be_attached_leaves_nothing() -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    taken = rig.opener.namespace()
    first = await rig.agent.network.add(rig.attachment("a", taken))
    before = rig.host.objects.dump()
    with pytest.raises(NetworkError, match="pod default/b"):
        await rig.agent.network.add(rig.attachment("b", taken))  # there is an eth0 already
    assert rig.host.objects.dump() == before
    assert first.ips[0] == "10.244.1.2"
    assert ("b", "eth0") not in rig.agent.network.addresses.owners


async def test_a_full_block_says_so() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    for i in range(253):
        rig.agent.network.reserve(f"p{i}", (f"10.244.1.{i + 2}", f"fd00:10:244:1::{i + 2:x}"))
    with pytest.raises(
        NetworkError, match=r"has 253 pod addresses, all in use \(253 kept for pods [^)]*\): delete pods of node1"
    ):
        await rig.agent.network.add(rig.attachment("x"))


async def test_a_node_without_blocks_says_so() -> None:
    rig = Rig()
    await rig.start(msgspec.structs.replace(node(1, DUAL), spec=NodeSpec()))
    with pytest.raises(TryAgainError, match="no pod block yet"):
        await rig.agent.network.add(rig.attachment("x"))


async def test_addresses_of_before_are_kept_for_who_had_them() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.agent.network.reserve("old", ("10.244.1.2", "fd00:10:244:1::2"))
    assert (await rig.agent.network.add(rig.attachment("new"))).ips[0] == "10.244.1.3"
    wanted = ("10.244.1.2", "fd00:10:244:1::2")
    assert (await rig.agent.network.add(rig.attachment("old", ips=wanted))).ips == wanted


async def test_an_audit_repairs_what_somebody_did() -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    good = rig.host.objects.dump()
    for identity in [i for i in rig.host.objects.network if i[0] in ("Route", "Neighbour")]:
        del rig.host.objects.network[identity]
    for identity in [i for i in rig.host.objects.nft if i[0] == "nft element"][:2]:
        del rig.host.objects.nft[identity]
    assert rig.host.objects.dump() != good
    assert await rig.agent.watcher.auditor.audit()
    await rig.settle()
    assert rig.host.objects.dump() == good
    assert not await rig.agent.watcher.auditor.audit()


async def test_a_new_agent_finds_everything_in_place_and_writes_nothing() -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2, 3))
    before = rig.host.objects.dump()
    rig.new_agent()
    await rig.start()
    assert rig.written == 0
    assert rig.host.objects.dump() == before


async def test_a_new_agent_leaves_the_pods_of_the_one_before_as_they_are() -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    request = rig.attachment("a")
    ips = (await rig.agent.network.add(request)).ips
    before = rig.host.objects.dump()
    rig.new_agent()
    await rig.start(attached=[(request, ips)])
    assert rig.written == 0
    assert rig.host.objects.dump() == before
    assert (await rig.agent.network.add(rig.attachment("b"))).ips[0] == "10.244.1.3"
    await rig.agent.network.delete(request)
    assert await is_gone(rig, "pod/default/a")


async def test_a_kernel_that_fails_is_a_failed_pod_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(rig.agent._kernel, "steps", raising(OSError(24, "Too many open files")))
        with pytest.raises(NetworkError, match="Too many open files"):
            await asyncio.wait_for(rig.agent.network.add(rig.attachment("a")), 1)
    assert (await asyncio.wait_for(rig.agent.network.add(rig.attachment("b")), 1)).ips[0] == "10.244.1.3"


async def test_an_agent_goes_on_after_a_failed_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    monkeypatch.setattr("podplane.agent.agent.RETRY_SECONDS", 0.001)
    running = asyncio.create_task(rig.agent.run())
    with monkeypatch.context() as patch:
        patch.setattr(rig.agent, "reconcile", raising(ValueError("nonsense")))
        rig.put(node(3, DUAL))
        await asyncio.sleep(0.02)
    rig.put(node(4, DUAL))
    for _ in range(1_000):
        if "10.244.4.0/24" in rig.host.objects.dump():
            break
        await asyncio.sleep(0.005)
    assert not running.done()
    assert "10.244.4.0/24" in rig.host.objects.dump()
    running.cancel()


async def test_a_node_that_makes_no_sense_spoils_no_other() -> None:
    rig = Rig()
    nonsense = msgspec.structs.replace(node(2, DUAL), spec=NodeSpec(pod_cidrs=("nonsense",)))
    await rig.start(*cluster(1, 3), nonsense)
    assert "10.244.3.0/24" in rig.host.objects.dump()
    assert ("node/node2", "NotApplied") in [event[:2] for event in rig.events]


async def test_a_node_that_got_another_block_keeps_its_pods_running() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    await rig.agent.network.add(rig.attachment("a"))
    rig.put(msgspec.structs.replace(node(5, DUAL), metadata=node(1, DUAL).metadata))
    await rig.settle()
    assert "pod/default/a" in rig.host.objects.dump()


def raising(error: Exception) -> Any:
    """A function that fails."""

    def fail(*_: Any) -> Any:
        raise error

    return fail


async def test_a_new_agent_removes_what_is_no_longer_wanted() -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2, 3))
    rig.new_agent()
    rig.subscribed = None
    rig.remove(node(3, DUAL))
    await rig.start()
    assert "node3" not in rig.host.objects.dump()
    assert "10.244.3.0/24" not in rig.host.objects.dump()


async def test_check_names_what_is_missing() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    request = rig.attachment("a")
    await rig.agent.network.add(request)
    await rig.agent.network.check(request)
    del rig.host.objects.network[next(i for i in rig.host.objects.network if i[0] == "Neighbour" and i[2] == "cbr0")]
    with pytest.raises(NetworkError, match="cbr0 is missing"):
        await rig.agent.network.check(request)
    with pytest.raises(NetworkError, match="is not attached"):
        await rig.agent.network.check(rig.attachment("b"))


async def test_gc_keeps_only_what_is_named() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    keep, drop = rig.attachment("keep"), rig.attachment("drop")
    await rig.agent.network.add(keep)
    await rig.agent.network.add(drop)
    await rig.agent.network.gc([keep])
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

HOST_PORTS = {
    1: (HostPort(8080, 80), HostPort(53, 53, "UDP")),
    2: (HostPort(8080, 80), HostPort(8080, 80, "TCP", "127.0.0.1")),
    3: (HostPort(8080, 80), HostPort(53, 53, "UDP"), HostPort(8083, 80)),
}
"""Pods want the same ports: who is attached first has them."""


@given(EVENTS)
@settings(deadline=None, max_examples=60)
def test_any_order_of_events_ends_where_a_fresh_start_would(events: list[tuple[str, int, tuple[int, ...]]]) -> None:
    asyncio.run(_play(events))


async def _play(events: list[tuple[str, int, tuple[int, ...]]]) -> None:
    rig = Rig(("10.96.0.0/16", "fd00:10:96::/112"))
    services: dict[int, tuple[Service, EndpointSlice]] = {}
    await rig.start(*cluster(1))
    pods: dict[int, FakeNamespace] = {}
    for kind, number, versions in events:
        if kind == "node":
            rig.put(node(number, DUAL if number == 1 else versions))
        elif kind == "gone":
            rig.remove(node(number, DUAL))
        elif kind == "add" and number not in pods:
            pods[number] = rig.opener.namespace()
            await rig.agent.network.add(rig.attachment(f"p{number}", pods[number], host_ports=HOST_PORTS[number]))
        elif kind == "delete" and number in pods:
            await rig.agent.network.delete(rig.attachment(f"p{number}", pods.pop(number)))
        elif kind == "serve":
            services[number] = served(number, versions)
            rig.put(*services[number])
            if number % 2:
                await rig.settle()
        elif kind == "unserve" and number in services:
            rig.remove(*services.pop(number))
    await rig.settle()
    assert not rig.agent.ledger.refused
    before = rig.agent
    rig.new_agent()
    await rig.start(attached=before.network.attached)
    assert rig.written == 0, "an agent that starts anew writes nothing"
    assert dict(before.ledger.desired) == dict(rig.agent.ledger.desired)
    found = rig.kernel.read(rig.agent.watcher.ownership)
    assert {i for i, v in rig.agent.ledger.desired.items() if not v.netns and i[0] != "Sysctl"} == set(found)


async def test_a_table_of_another_version_whose_set_has_another_shape_is_made_anew() -> None:
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1), *served(1, (4,)))
    good, commits = rig.host.objects.dump(), rig.host.objects.commits
    rig.new_agent()
    await rig.start()
    of_a_start = rig.host.objects.commits - commits
    identity, one = next(
        (i, v) for i, v in rig.host.objects.nft.items() if isinstance(v, Set) and v.table == "podplane-services"
    )
    rig.host.objects.nft[identity] = msgspec.structs.replace(one, key=("ether_addr",))
    for other in [i for i, v in rig.host.objects.nft.items() if isinstance(v, Element) and v.set == one.name]:
        del rig.host.objects.nft[other]
    assert rig.host.objects.dump() != good
    before = rig.host.objects.commits
    rig.new_agent()
    await rig.start()
    assert rig.host.objects.dump() == good
    assert rig.host.objects.commits - before == of_a_start + 1, (
        "each packet finds the former table, or the whole of the new one"
    )
    assert not rig.agent.ledger.refused


async def test_a_set_that_a_stranger_made_anew_with_another_shape_is_as_it_was_after_an_audit() -> None:
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1), *served(1, (4,)))
    good, nft = rig.host.objects.dump(), rig.host.objects.nft
    identity, one = next((i, v) for i, v in nft.items() if isinstance(v, Set) and v.table == "podplane-services")
    nft[identity] = msgspec.structs.replace(one, key=("ether_addr",))
    for other in [i for i, v in nft.items() if isinstance(v, Element) and v.set == one.name]:
        del nft[other]
    rig.host.objects.foreign_commits += 1
    for at in (1.0, 2.0):
        await rig.poll(at)
    assert rig.host.objects.dump() == good and not rig.agent.ledger.refused


async def test_a_failure_that_nobody_foresaw_is_told_to_who_waits_and_the_next_change_is_made() -> None:
    rig = Rig(kernel=Choosy)

    def record(key: object, message: str, reason: str = "") -> None:
        raise RuntimeError("nobody listens")

    rig.agent._record_event = record
    await rig.start(*cluster(1))
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    kernel.refused = "pod/default/a"
    with pytest.raises(NetworkError, match="Invalid argument"):
        await asyncio.wait_for(rig.agent.network.add(rig.attachment("a")), 1)
    kernel.refused = ""
    assert (await asyncio.wait_for(rig.agent.network.add(rig.attachment("b")), 1)).ips


async def test_what_somebody_else_changes_in_nf_tables_is_read_back_and_a_busy_stranger_costs_little() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    good = rig.host.objects.dump()

    async def is_repaired(at: float) -> bool:
        """Somebody takes an element and commits; is it there again after a poll?"""
        del rig.host.objects.nft[next(i for i in rig.host.objects.nft if i[0] == "nft element")]
        rig.host.objects.foreign_commits += 1
        await rig.poll(at)
        await rig.poll(at)
        return rig.host.objects.dump() == good

    assert await is_repaired(0.1)
    message = "somebody else changed podplane's objects in the kernel; repaired: 1 nft element"
    assert rig.events == [("node/node1", "Repaired", message)]
    assert await is_repaired(0.2), "a reading that found something makes nobody wait"
    rig.agent.watcher._patience_until = 10.0
    assert not await is_repaired(0.3)
    await rig.poll(11.0)
    assert rig.host.objects.dump() == good


class Slow(Kernel):
    """A kernel that takes its time to be read."""

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        found = super().read(owner, sysctls)
        if owner.tables:
            time.sleep(0.05)
        return found


async def test_while_much_is_read_the_loop_goes_on_and_changes_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(("10.96.0.0/16",), kernel=Slow)
    await rig.start(*cluster(1), service_of("a", "10.96.0.1"), slice_of("a", "10.244.1.2"))
    monkeypatch.setattr("podplane.agent.auditor.LARGE", 0)
    rig.host.objects.nft.clear()
    auditing = asyncio.create_task(rig.agent.watcher.auditor.audit())
    await asyncio.sleep(0.01)
    assert not auditing.done()
    rig.put(service_of("b", "10.96.0.2"), slice_of("b", "10.244.1.3"))
    await rig.settle()
    assert await auditing
    await rig.poll(1.0)
    await rig.poll(2.0)
    assert frontends(rig) == {"10.96.0.1 80": "svc/default/a:80", "10.96.0.2 80": "svc/default/b:80"}


async def test_while_what_was_read_is_compared_others_have_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1), service_of("a", "10.96.0.1"), slice_of("a", *(f"10.244.1.{i}" for i in range(2, 252))))
    monkeypatch.setattr("podplane.agent.auditor.AUDIT_TURN_SECONDS", 0)
    monkeypatch.setattr("podplane.agent.auditor.FREED_AT_ONCE", SLICE)
    auditing = asyncio.create_task(rig.agent.watcher.auditor.audit())
    turns = 0
    while not auditing.done():
        turns += 1
        await asyncio.sleep(0)
    assert not await auditing
    assert turns > 3 * len(rig.agent.ledger.desired) // SLICE >= 6  # compared, looked for, freed


async def test_what_the_kernel_refuses_is_told_tried_again_and_holds_up_nobody_else() -> None:
    rig = Rig(("10.96.0.0/16",), kernel=Choosy)
    await rig.start(*cluster(1))
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    kernel.refused = "10.244.1.66"
    for name, ip, target in (("bad", "10.96.0.8", "10.244.1.66"), ("good", "10.96.0.9", "10.244.1.7")):
        rig.put(service_of(name, ip), slice_of(name, target))
    await rig.settle()
    assert len(rig.agent.ledger.refused) == 1
    assert rig.events == [("service/default/bad", "NotApplied", "the kernel refuses it: nft element: Invalid argument")]
    assert "10.244.1.7" in rig.host.objects.dump() and "10.244.1.66" not in rig.host.objects.dump()
    kernel.refused = ""
    await rig.poll(2.0)
    assert "10.244.1.66" in rig.host.objects.dump()
    assert not rig.agent.ledger.refused


@pytest.mark.parametrize(("seconds", "interval"), [(0.001, MIN_INTERVAL), (0.03, 0.03), (5.0, MAX_INTERVAL)])
async def test_the_longer_a_plan_takes_the_more_changes_it_is_for(
    seconds: float, interval: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    replan = rig.agent.planner.replan

    async def slow(pause: Pause) -> None:
        rig.now += seconds
        await replan(pause)

    monkeypatch.setattr(rig.agent.planner, "replan", slow)
    await rig.agent.reconcile()
    slept = list[float]()

    async def sleep(delay: float) -> None:
        slept.append(delay)
        rig.now += delay

    monkeypatch.setattr("podplane.agent.agent.asyncio.sleep", sleep)
    rig.agent._wake.set()
    await rig.agent._reconcile_changes()
    assert slept == [pytest.approx(interval)]
