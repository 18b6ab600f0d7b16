"""An agent goes on when the kernel refuses, when somebody else is quicker, and when a part of it fails."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import threading
from collections.abc import Iterable, Iterator, Sequence

import pytest

from podplane.agent.effects import Effects
from podplane.agent.kernel import SysctlWatch
from podplane.agent.writer import Interrupted
from podplane.kernel.door import Kernel
from podplane.kernel.errors import KernelError
from podplane.kernel.netlink import DumpInterrupted
from podplane.pods.plan import veth_name
from podplane.state.conntrack import Allowed, Frontend
from podplane.state.effects import FlushConntrack
from podplane.state.network import Link, Proxy
from podplane.state.operations import Failure, Operation, Report
from tests.unit.agent.rig import Rig, cluster, service_of, slice_of, until
from tests.unit.agent.test_repairs import MAIL, announced, proxies


@pytest.mark.parametrize("is_seen_before", [False, True])
async def test_a_link_of_somebody_else_in_the_place_of_a_pods_stays_when_the_pod_goes(is_seen_before: bool) -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1, 2))
    request = rig.attachment("p1")
    await agent.network.add(request)
    name = veth_name("p1", "eth0")
    rig.host.delete(Link(name=name))
    theirs = Link(name=name, kind="bridge", up=True, mtu=1500)
    rig.host.put(theirs)
    agent.watcher.take_notifications()
    if is_seen_before:
        agent.writer.wake()
        await agent.writer.idle()
        rig.host.put(Link(name=name, kind="bridge", up=True, mtu=1400))
        agent.watcher.take_notifications()
    await agent.network.delete(request)
    await agent.writer.idle()
    left = rig.host.objects.network[theirs.identity]
    assert isinstance(left, Link) and left.up


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_links_that_vanish_while_they_are_removed_are_not_sent_again_and_again(turns: int) -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1, 2))
    run = asyncio.create_task(agent.run())
    requests = [rig.attachment(f"p{n}") for n in range(40)]
    for request in requests:
        await agent.network.add(request)
    await agent.writer.idle()
    refused = agent.writer.operations_refused
    deletions = asyncio.gather(*map(agent.network.delete, requests))
    for _ in range(turns):
        await asyncio.sleep(0)
    for n in range(40):
        with contextlib.suppress(KeyError):  # the agent removes it in a thread, and may have been quicker
            rig.host.delete(Link(name=veth_name(f"p{n}", "eth0")))
    await asyncio.wait_for(deletions, 60)
    await asyncio.wait_for(agent.writer.idle(), 60)
    run.cancel()
    assert agent.writer.operations_refused - refused <= 80


async def test_proxies_are_polled_while_a_thread_removes_a_link_over_a_socket_of_its_own() -> None:
    rig = Rig(("10.96.0.0/16",))
    agent = await rig.start(*announced())
    await agent.advertise("default/mail")
    request = rig.attachment("p1")
    await agent.network.add(request)
    assert isinstance(agent._kernel, Kernel)
    part = agent._kernel._rtnl
    entered, go_on = threading.Event(), threading.Event()
    remove_links = agent._kernel.remove_links

    def slowly(operations: Sequence[Operation]) -> Report:
        assert threading.current_thread() is not threading.main_thread()
        entered.set()
        assert go_on.wait(5)
        return remove_links(operations)

    def used(owner: object) -> None:
        raise AssertionError("the writer has this socket")

    part.read_proxies = used  # type: ignore[assignment, method-assign]
    agent._kernel.remove_links = slowly  # type: ignore[method-assign]
    deletion = asyncio.create_task(agent.network.delete(request))
    await until(entered.is_set)
    agent.watcher._poll_proxies()
    go_on.set()
    await deletion


async def test_changes_of_the_api_and_polls_go_on_while_pods_come_and_go_without_a_pause() -> None:
    rig = Rig(("10.96.0.0/16",))
    agent = await rig.start(*cluster(1, 2))
    is_over = False

    async def churn(number: int) -> None:
        for n in range(100_000):
            request = rig.attachment(f"p{number}-{n}")
            await agent.network.add(request)
            await agent.network.delete(request)
            if is_over:
                break

    clients = [asyncio.create_task(churn(number)) for number in range(8)]
    await asyncio.sleep(0.05)
    try:
        for number in range(1, 6):
            rig.put(service_of(f"s{number}", f"10.96.0.{number}"), slice_of(f"s{number}", "10.244.2.9"))
            await asyncio.wait_for(agent.reconcile(), 60)
            await asyncio.wait_for(agent.poll(), 60)
    finally:
        is_over = True
        await asyncio.gather(*clients)
    assert "10.96.0.5" in rig.host.objects.dump()


async def test_what_can_not_be_polled_keeps_nothing_else_from_being_looked_at() -> None:
    rig = Rig(("10.96.0.0/16",))
    agent = await rig.start(*announced())
    await agent.advertise("default/mail")

    def fail(owner: object) -> dict[object, object]:
        raise DumpInterrupted("the neighbours changed")

    agent._kernel.read_proxies = fail  # type: ignore[assignment, method-assign]
    for n in range(1, 10):
        rig.put(service_of("web", f"10.96.0.{10 + n}"))  # tables are read after a commit
        await agent.reconcile()
        await rig.poll(n * 30.0)
    assert all(audit.count >= 3 for audit in agent.watcher.audits.values()) and len(agent.watcher.audits) == 2


@pytest.mark.parametrize(
    ("error", "counts"),
    [(DumpInterrupted("it changed"), False), (OSError(24, "Too many open files"), False), (KeyError("x"), True)],
)
async def test_of_what_nobody_thought_of_the_log_has_the_traceback(
    error: Exception, counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(("10.96.0.0/16",))
    agent = await rig.start(*announced())
    await agent.advertise("default/mail")

    def fail(owner: object) -> dict[object, object]:
        raise error

    agent._kernel.read_proxies = fail  # type: ignore[assignment, method-assign]
    await rig.poll(30.0)
    said = [record for record in caplog.records if record.message.startswith("poll node=")]
    assert said and all(bool(record.exc_info) is counts for record in said)


class NoProxyRemoval(Kernel):
    """Refuses to delete proxies."""

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        refused = [o for o in operations if o.new is None and isinstance(o.old, Proxy)]
        yield from super().steps([o for o in operations if o not in refused])
        yield Report(failed=[Failure(o, KernelError("delete proxy", "Operation not permitted")) for o in refused])


async def test_a_withdrawal_that_the_kernel_refuses_fails() -> None:
    """The Lease is released after a withdrawal: two nodes would answer for one address."""
    rig = Rig(("10.96.0.0/16",), kernel=NoProxyRemoval)
    agent = await rig.start(*announced())
    await agent.advertise("default/mail")
    with pytest.raises(KernelError, match="Operation not permitted"):
        await agent.withdraw("default/mail")
    assert proxies(rig.host) == {MAIL}


async def test_a_writer_that_fails_tells_nobody_that_all_is_well_and_begins_again() -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1, 2))
    detach = agent._kernel.detach

    def fail(netns: str) -> None:
        agent._kernel.detach = detach  # type: ignore[method-assign]
        raise OSError("it failed")

    agent._kernel.detach = fail  # type: ignore[method-assign]
    changed = agent.ledger.replace("x", {link.identity: link for link in (Link(name="pp1", kind="veth", alias="podplane"),)})
    agent.writer.detach("pod/x")
    with pytest.raises(Interrupted):
        await agent.writer.settled(changed)
    assert await agent.writer.settled(changed) == []


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), DumpInterrupted("connections")])
async def test_a_flush_that_fails_is_tried_again(error: Exception) -> None:
    calls: list[Allowed] = []
    sent: list[int] = []

    class Actor:
        def flush_conntrack(self, allowed: Allowed) -> int:
            calls.append(allowed)
            if len(calls) == 1:
                raise error
            return 0

        def announce(self, link: str, ips: object) -> None:
            raise NotImplementedError

        def judge_again(self, ips: object) -> int:
            raise NotImplementedError

        def forget_connections(self, ips: object) -> int:
            raise NotImplementedError

    async def committed() -> None:
        sent.append(len(calls))

    effects = Effects("node1", Actor(), committed, asyncio.Lock())
    effects.add([FlushConntrack({Frontend("udp", ipaddress.ip_address("10.96.0.1"), 53): frozenset()})])
    for _ in range(3):
        effects.begin()
        await effects.idle()
    assert len(calls) == 2 and calls[0] == calls[1]
    assert sent == [0, 1], "what was planned with it is in the kernel before"


async def test_one_more_pod_opens_no_sysctl_of_the_others() -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1, 2))
    for n in range(20):
        await agent.network.add(rig.attachment(f"p{n}"))
    await rig.poll(0.08)
    watch, opened = agent._kernel.sysctl_watch, list[str]()

    def counted(names: Iterable[str]) -> SysctlWatch:
        opened.extend(names)
        return watch(names)

    agent._kernel.sysctl_watch = counted  # type: ignore[method-assign]
    await agent.network.add(rig.attachment("one-more"))
    await rig.poll(0.16)
    assert len(opened) <= 1


async def test_the_sysctl_of_a_pods_link_is_repaired_when_its_turn_comes() -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1, 2))
    await agent.network.add(rig.attachment("p1"))
    ((name, value),) = agent.ledger.sysctls_of(veth_name("p1", "eth0")).items()
    rig.host.objects.sysctls[name] = "0"
    for n in range(1, 4):
        await rig.poll(n * 60.0)
    assert rig.host.objects.sysctls[name] == value
