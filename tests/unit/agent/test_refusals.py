"""What the kernel refuses, and what can't be read: it is told in bounds, tried again, and spoils nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import pytest

from podplane.agent.auditor import Part
from podplane.agent.keys import AdvertisementKey, NameServerKey, NodeKey, ServiceKey
from podplane.agent.refusals import EVENTS_A_REPORT
from podplane.kernel.door import Kernel
from podplane.kernel.errors import NotFound, Retry
from podplane.model.objects import Node
from podplane.state.ledger import Status
from podplane.state.nft import Element
from podplane.state.operations import Failure, LinkEvent, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value
from tests.plans import node
from tests.unit.agent.rig import DUAL, Choosy, Rig, cluster, frontends, service_of, slice_of


async def started(kernel: type[Kernel], count: int = 1) -> Rig:
    rig = Rig(("10.96.0.0/16",), kernel=kernel)
    services = [service_of(f"s{n}", f"10.96.{n // 200}.{1 + n % 200}") for n in range(count)]
    await rig.start(*cluster(1), *services, *(slice_of(f"s{n}", "10.244.1.2") for n in range(count)))
    return rig


class Recording(Choosy):
    """Remembers what it was asked for."""

    asked: list[Operation] = []

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        type(self).asked += operations
        yield from super().steps(operations)


async def test_after_a_refused_element_a_good_change_is_made_at_once() -> None:
    """It is computed against what the kernel has: the value that was refused never was there, and is not deleted."""
    rig = await started(Recording)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Recording)
    assert frontends(rig) == {"10.96.0.1 80": "svc/default/s0:80"}
    kernel.refused = "10.244.1.66"
    rig.put(slice_of("s0", "10.244.1.66"))
    await rig.settle()
    assert rig.agent.ledger.refused
    Recording.asked = []
    rig.put(slice_of("s0", "10.244.1.67"))
    await rig.settle()
    assert not rig.agent.ledger.refused, "no audit is needed for that"
    assert all("10.244.1.66" not in str(operation.old) for operation in Recording.asked)
    assert "10.244.1.67" in rig.host.objects.dump() and "10.244.1.66" not in rig.host.objects.dump()
    assert not await rig.agent.watcher.auditor.audit()


class NoTables(Kernel):
    """A kernel without nf_tables: everything there is refused."""

    refuses = True

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        bad = [o for o in operations if self.refuses and str(o.value.identity[0]).startswith("nft ")]
        yield from super().steps([o for o in operations if o not in bad] if bad else operations)
        for start in range(0, len(bad), 500):
            yield Report(failed=[Failure(o, NotFound("nft table", "No such file")) for o in bad[start : start + 500]])


async def test_a_refused_table_tells_a_few_users_and_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """All that is in it is refused with it: thousands of objects."""
    with caplog.at_level(logging.WARNING):
        rig = await started(NoTables, 300)
    refused = len(rig.agent.ledger.refused)
    assert refused > 600
    lines = [record.getMessage() for record in caplog.records if record.name == "podplane.agent.writer"]
    assert len(lines) == 1 and f"refused={refused}" in lines[0]
    assert rig.events == [], "a reading comes first: it may be that somebody has flushed the tables"
    caplog.clear()
    rig.agent.ledger.release_retries(0.0, every=True)
    await rig.settle()
    slices = -(-refused // 500)
    assert 1 <= len(rig.events) <= EVENTS_A_REPORT * slices
    assert all(reason == "NotApplied" and "No such file" in message for _, reason, message in rig.events)
    kernel = rig.agent._kernel
    assert isinstance(kernel, NoTables)
    kernel.refuses = False
    await rig.poll(1.0)
    await rig.poll(5.0)
    assert not rig.agent.ledger.refused and rig.agent.ledger.counts()[Status.PENDING] == 0
    assert len(frontends(rig)) == 300


async def test_an_event_is_written_of_what_is_refused_for_a_reason_that_no_reading_changes() -> None:
    rig = await started(Choosy)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    kernel.refused = "10.244.1.66"
    rig.put(slice_of("s0", "10.244.1.66"))
    await rig.settle()
    assert [event[:2] for event in rig.events] == [("service/default/s0", "NotApplied")]


async def test_a_contradiction_is_told_when_a_reading_did_not_help() -> None:
    """Once tried again in vain, it is a fault that users should know of."""
    rig = await started(NoTables, 0)
    assert rig.events == [] and rig.agent.ledger.refused
    now = 0.0
    for _ in range(4):
        now += 1
        await rig.poll(now)
        if rig.events:
            break
    assert ("node/node1", "NotApplied", "the kernel refuses it: nft table: No such file") in rig.events


class Unreadable(Kernel):
    """A kernel that can't be read for a while."""

    fails: Exception | None = None

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        if self.fails is not None:
            raise self.fails
        return super().read(owner, sysctls)


async def test_a_failed_reading_ends_and_is_tried_again() -> None:
    """What is written meanwhile is not remembered for it any more."""
    rig = await started(Unreadable)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Unreadable)
    kernel.fails = OSError(24, "Too many open files")
    rig.host.objects.nft.clear()
    rig.host.objects.foreign_commits += 1
    await rig.poll(0.1)
    assert rig.agent.ledger._readings == []
    assert frontends(rig) == {}
    kernel.fails = None
    await rig.poll(0.25)
    assert len(frontends(rig)) == 1


async def test_of_one_part_only_that_part_is_judged() -> None:
    """A reading of the network says nothing of the tables, and the other way round."""
    rig = await started(Kernel)
    rig.put(node(2, DUAL))
    await rig.settle()
    rig.host.objects.nft.clear()
    auditor = rig.agent.watcher.auditor
    rig.host.objects.network.pop(next(i for i in rig.host.objects.network if i[0] == "Route"))
    assert await auditor.audit(frozenset({Part.NETWORK}))
    assert not any(str(i[0]).startswith("nft") for i in rig.agent.ledger._deviations)
    await rig.settle()
    assert await auditor.audit(frozenset({Part.TABLES}))
    assert all(str(i[0]).startswith("nft") for i in rig.agent.ledger._deviations)
    await rig.settle()
    assert not await auditor.audit()


async def test_a_running_agent_hears_notifications_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when it polls."""
    monkeypatch.setattr("podplane.agent.poller.POLL_SECONDS", 3600.0)
    rig = await started(Kernel)
    rig.put(node(2, DUAL))
    await rig.settle()
    running = asyncio.create_task(rig.agent.run())
    await asyncio.sleep(0)
    route = next(v for i, v in rig.host.objects.network.items() if i[0] == "Route" and "10.244.2.0" in str(v))
    rig.host.delete(route)
    for _ in range(1000):
        if route.identity in rig.host.objects.network:
            break
        await asyncio.sleep(0.001)
    assert route.identity in rig.host.objects.network
    running.cancel()


async def test_a_pod_whose_link_loses_its_carrier_is_read_and_repaired() -> None:
    """Of its namespace only what podplane made is judged: the rest is the pod's own. Sysctls there can't be read."""
    rig = await started(Kernel)
    request = rig.attachment("a")
    await rig.agent.network.add(request)
    inside = rig.opener._by_fd[request.netns.fd]
    good = inside.objects.dump()
    inside.set_link("eth0", up=False)
    rig.agent._notified()
    await rig.poll(0.1)
    await rig.poll(0.2)
    assert inside.objects.dump() == good
    assert not rig.agent.ledger._deviations
    assert [reason for _, reason, _ in rig.events] == ["Repaired"]


async def test_a_change_of_the_own_node_plans_what_depends_on_it_anew() -> None:
    """Addresses that are advertised for a Service, too."""
    rig = await started(Kernel)
    one = service_of("lb", "10.96.9.9")
    spec = msgspec.structs.replace(one.spec, type="LoadBalancer")
    rig.put(msgspec.structs.replace(one, spec=spec))
    await rig.settle()
    await rig.agent.advertise("default/lb")
    found = set(rig.agent.planner.keys_of(Node, node(1, DUAL), node(1, (4,))))
    lb = "default/lb"
    assert found == {NodeKey("node1"), NameServerKey("node1"), ServiceKey("default/s0"), ServiceKey(lb), AdvertisementKey(lb)}
    assert set(rig.agent.planner.keys_of(Node, node(1, DUAL), node(1, DUAL))) == set(), "nothing changed that plans read"


async def test_unknown_outcomes_are_no_events() -> None:
    rig = await started(Kernel)
    element = next(v for v in rig.host.objects.nft.values() if isinstance(v, Element))
    operation = Operation(None, element)
    rig.agent.ledger._deviations[element.identity] = None
    rig.agent.ledger.acknowledge(Report(failed=[Failure(operation, Retry("apply", "lost"))]), 0.0)
    rig.agent._sent(Report(failed=[Failure(operation, Retry("apply", "lost"))]))
    assert rig.events == []


@pytest.mark.parametrize(
    ("link", "event", "is_made"),
    [
        ("eth0", LinkEvent(True, True, has_address=True), True),
        ("eth0", LinkEvent(True, True, has_network=True), True),
        ("eth1", LinkEvent(True, True, has_network=True), False),
    ],
)
async def test_a_refused_route_is_made_at_once_when_its_gateway_can_be_reached_again(
    link: str, event: LinkEvent, is_made: bool
) -> None:
    """However often it was tried before: the uplink has an address that was tentative for a second (RFC 4862, 5.4), or the route to its
    network, which NetworkManager makes apart from the address."""
    rig = await started(Choosy)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    kernel.refused = "10.244.2.0/24"
    rig.put(*cluster(1, 2))
    await rig.settle()
    for at in range(1, 60):
        await rig.poll(float(at))
    (refused,) = rig.agent.ledger.refused.values()
    assert refused.next_try > 61
    kernel.refused = ""
    (monitor,) = rig.host.objects.monitors
    monitor.report_link(link, event)
    rig.agent.watcher.take_notifications()
    await rig.settle()
    assert (not rig.agent.ledger.refused, "10.244.2.0/24" in rig.host.objects.dump()) == (is_made, is_made)
