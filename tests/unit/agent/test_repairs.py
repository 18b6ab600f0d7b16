"""What somebody else does to objects of which the kernel notifies nothing: it is found by polls, and repaired."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec
import pytest

from podplane.agent.auditor import EVERYTHING, Part
from podplane.agent.poller import POLL_SECONDS
from podplane.agent.watcher import AUDIT_SECONDS, LONGEST_REST, SYSCTL_SECONDS, UNREAD_SECONDS
from podplane.kernel.door import Kernel
from podplane.kernel.errors import NotFound
from podplane.kernel.fakes.world import FakeNamespace
from podplane.model.config import ROUTE_PROTOCOL
from podplane.state.ledger import Status
from podplane.state.network import Link, Neighbour, Proxy, Route
from podplane.state.network import Rule as PolicyRule
from podplane.state.nft import Element, UnreadElements
from podplane.state.operations import LinkEvent, Operation
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value
from tests.unit.agent.rig import Object, Rig, cluster, service_of, slice_of

MAIL = "192.168.1.250"


def announced() -> list[Object]:
    """A cluster with a load balancer that has an endpoint."""
    service = service_of("mail", "10.96.0.9")
    spec = msgspec.structs.replace(service.spec, type="LoadBalancer")
    status = {"ingress": [{"ip": MAIL}]}
    balanced = msgspec.convert(
        {**msgspec.to_builtins(service), "spec": msgspec.to_builtins(spec), "status": {"loadBalancer": status}}, type(service)
    )
    return [*cluster(1, 2), balanced, slice_of("mail", "10.244.1.9")]


def proxies(host: FakeNamespace) -> set[str]:
    return {str(value.ip) for value in host.objects.network.values() if isinstance(value, Proxy)}


async def test_a_proxy_that_somebody_took_is_back_after_one_poll_and_one_that_nobody_wants_is_gone() -> None:
    rig = Rig(("10.96.0.0/16",))
    agent = await rig.start(*announced())
    await agent.advertise("default/mail")
    assert proxies(rig.host) == {MAIL}
    (ours,) = (value for value in rig.host.objects.network.values() if isinstance(value, Proxy))
    rig.host.delete(ours)
    stray = Proxy(link="eth0", ip=ipaddress.ip_address("192.168.1.251"), protocol=ROUTE_PROTOCOL)
    rig.host.put(stray)
    await rig.poll(POLL_SECONDS)
    assert proxies(rig.host) == {MAIL}
    await rig.poll(2 * POLL_SECONDS)
    assert [(reason, message.rpartition(": ")[2]) for _, reason, message in rig.events] == [("Repaired", "2 proxies")]
    await agent.withdraw("default/mail")
    assert proxies(rig.host) == set()


async def test_proxies_are_not_read_while_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1, 2))

    asked: list[Ownership] = []

    def read(owner: Ownership) -> dict[Identity, Value]:
        asked.append(owner)
        return {}

    monkeypatch.setattr(agent._kernel, "read_proxies", read)
    await rig.poll(POLL_SECONDS)
    assert asked == []


async def test_the_namespace_of_each_pod_is_read_in_turn_once_a_minute() -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1))
    namespaces = [rig.opener.namespace() for _ in range(3)]
    for number, namespace in enumerate(namespaces):
        await agent.network.add(rig.attachment(f"p{number}", namespace))
    whole = [dict(namespace.objects.network) for namespace in namespaces]
    for namespace in namespaces:
        for value in [value for value in namespace.objects.network.values() if "Route" in value.identity]:
            namespace.delete(value)
    repaired, began = [], 0.0
    for third in range(3):
        began = agent.watcher._next_pod_at if third == 0 else began
        await rig.poll(began + third * AUDIT_SECONDS / 3)
        await rig.poll(began + 0.1 + third * AUDIT_SECONDS / 3)
        repaired.append(sum(dict(one.objects.network) == before for one, before in zip(namespaces, whole, strict=True)))
    assert repaired == [1, 2, 3]
    assert {message.rpartition(": ")[2] for _, _, message in rig.events} == {"2 routes"}


@pytest.mark.parametrize(("took", "rest"), [(0.1, AUDIT_SECONDS), (1.0, 400.0), (60.0, LONGEST_REST)])
async def test_readings_that_nothing_asks_for_take_a_small_part_of_the_time(
    took: float, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(("10.96.0.0/16",))
    agent = await rig.start(*cluster(1))
    audit = agent.watcher.auditor.audit

    async def slow(parts: frozenset[Part] = EVERYTHING) -> bool:
        rig.now += took
        return await audit(parts)

    monkeypatch.setattr(agent.watcher.auditor, "audit", slow)
    await rig.poll(2 * AUDIT_SECONDS)
    ended, count = rig.now, agent.watcher.audits[Part.TABLES].count
    rig.put(service_of("web", "10.96.0.8"))
    await agent.reconcile()
    await rig.poll(ended + rest - 1)
    assert agent.watcher.audits[Part.TABLES].count == count
    await rig.poll(ended + rest)
    assert agent.watcher.audits[Part.TABLES].count == count + 1


def table_readings(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """The tables of each reading from now on in which there are any."""
    readings = []
    read = rig.agent._kernel.read

    def counted(owner: Ownership) -> dict[Identity, Value]:
        if owner.tables:
            readings.append(frozenset(str(table) for table in owner.tables))
        return read(owner)

    monkeypatch.setattr(rig.agent._kernel, "read", counted)
    return readings


async def test_tables_that_nobody_changed_since_they_were_read_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(("10.96.0.0/16",))
    agent = await rig.start(*cluster(1))
    readings = table_readings(rig, monkeypatch)
    for minute in range(1, 61):
        await rig.poll(minute * AUDIT_SECONDS)
    assert len(readings) == 1
    assert agent.watcher.audits[Part.NETWORK].count > 50
    rig.put(service_of("web", "10.96.0.8"))  # the agent commits
    await agent.reconcile()
    for minute in range(61, 121):
        await rig.poll(minute * AUDIT_SECONDS)
    assert len(readings) == 2
    (gone,) = (one for one in rig.host.objects.nft.values() if isinstance(one, Element) and "default/web" in one.comment)
    del rig.host.objects.nft[gone.identity]  # somebody else does
    rig.host.objects.foreign_commits += 1
    await rig.poll(121 * AUDIT_SECONDS)
    assert rig.host.objects.nft[gone.identity] == gone
    for minute in range(122, 181):
        await rig.poll(minute * AUDIT_SECONDS)
    assert len(readings) == 4  # and the repair is read once


async def test_a_reading_of_the_network_goes_through_no_object_of_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(("10.96.0.0/16",))
    agent = await rig.start(*cluster(1), *(service_of(f"web{n}", f"10.96.1.{n}") for n in range(1, 40)))
    await rig.poll(2 * AUDIT_SECONDS)
    seen: list[Identity] = []
    correct = agent.ledger._correct
    monkeypatch.setattr(agent.ledger, "_correct", lambda identity, found: seen.append(identity) or correct(identity, found))
    (route,) = (one for one in rig.host.objects.network.values() if isinstance(one, Link) and one.name == "cbr0")
    rig.host.delete(route)
    await rig.poll(4 * AUDIT_SECONDS)
    assert seen and not [one for one in seen if str(one[0]).startswith("nft ")]
    assert any(isinstance(one, Link) and one.name == "cbr0" for one in rig.host.objects.network.values())


async def test_tables_of_which_a_reading_failed_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1))
    audit = agent.watcher.auditor.audit

    async def fails(parts: frozenset[Part] = EVERYTHING) -> bool:
        raise OSError("no answer")

    monkeypatch.setattr(agent.watcher.auditor, "audit", fails)
    await rig.poll(AUDIT_SECONDS)
    monkeypatch.setattr(agent.watcher.auditor, "audit", audit)
    readings = table_readings(rig, monkeypatch)
    await rig.poll(AUDIT_SECONDS + 1)
    assert len(readings) == 1


async def test_a_first_audit_waits_as_long_as_what_it_reads_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1))
    agent.watcher.put_off(50_000)
    readings = table_readings(rig, monkeypatch)
    await rig.poll(500 - 1)
    assert readings == []
    await rig.poll(500)
    assert len(readings) == 1


async def test_a_namespace_that_can_not_be_read_keeps_nothing_else_from_being_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1))
    await agent.network.add(rig.attachment("p1"))

    def fail(name: str) -> dict[Identity, Value]:
        raise NotFound(f"network namespace {name}", "it is not attached")

    monkeypatch.setattr(agent._kernel, "read_namespace", fail)
    rig.host.set_sysctl("net.ipv4.ip_forward", "0")
    await rig.poll(AUDIT_SECONDS)
    assert rig.host.objects.sysctls["net.ipv4.ip_forward"] == "1"


async def test_a_sysctl_of_forwarding_is_set_again_when_the_kernel_tells_of_it_and_others_are_looked_at_now_and_then() -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1))
    sysctls, redirects = rig.host.objects.sysctls, "net.ipv4.conf.all.send_redirects"
    rig.host.set_sysctl(redirects, "1")
    agent._look()
    agent.writer.wake()
    await agent.idle()
    assert sysctls[redirects] == "0"
    for name, value in (("net.ipv4.ip_forward", "0"), (redirects, "1")):
        rig.host.set_sysctl(name, value)
        rig.now += SYSCTL_SECONDS / 4
        agent._look()
        agent._notified()
        await agent.idle()
        assert (sysctls[name] == value) is (name == redirects)
    rig.now += SYSCTL_SECONDS
    agent._look()
    agent.writer.wake()
    await agent.idle()
    assert sysctls[redirects] == "0"


async def test_a_veth_that_somebody_deleted_comes_back_with_both_ends() -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1))
    namespace = rig.opener.namespace()
    await agent.network.add(rig.attachment("p1", namespace))
    inside, outside = dict(namespace.objects.network), dict(rig.host.objects.network)
    (link,) = (value for value in outside.values() if isinstance(value, Link) and value.name.startswith("pp"))
    rig.host.delete(link)
    agent._notified()
    await agent.writer.idle()
    await rig.poll(POLL_SECONDS)
    assert dict(namespace.objects.network) == inside
    assert dict(rig.host.objects.network) == outside
    await rig.poll(2 * POLL_SECONDS)
    assert {reason for _, reason, _ in rig.events} == {"Repaired"}


async def test_what_others_put_beside_podplanes_objects_stays_and_is_no_repair() -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1, 2))
    neighbour = Neighbour(link="eth0", ip=ipaddress.ip_address("192.168.1.99"), mac="02:00:00:00:00:09")
    network, gateway = ipaddress.ip_network("10.99.0.0/16"), ipaddress.ip_address("192.168.1.1")
    route = Route(destination=network, gateway=gateway, link="eth0", protocol=3)
    theirs = [neighbour, route, PolicyRule(priority=7, family=4, table=90), Link(name="pppoe0", kind="bridge")]
    for value in theirs:
        rig.host.put(value)
    for at in (POLL_SECONDS, 2 * POLL_SECONDS, 2 * AUDIT_SECONDS):
        agent._notified()
        await rig.poll(at)
    assert [value for value in theirs if rig.host.objects.network.get(value.identity) != value] == []
    assert rig.events == []


async def test_a_sysctl_of_a_link_that_somebody_deleted_is_set_again_with_the_link() -> None:
    rig = Rig()
    agent = await rig.start(*cluster(1))
    await agent.network.add(rig.attachment("p1"))
    (name,) = (name for name in rig.host.objects.sysctls if name.endswith("disable_ipv6") and ".pp" in name)
    rig.host.delete(rig.host.objects.network[Link(name=name.split(".")[3]).identity])
    agent._notified()
    await rig.poll(POLL_SECONDS)
    assert rig.host.objects.sysctls[name] == "1"


class Busy(Kernel):
    """A kernel of which it can't be said what is in sets with elements of some Services, so often."""

    times = 0

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        found = super().read(owner, sysctls)
        if not owner.tables or not self.times:
            return found
        self.times -= 1
        elements = [one for one in found.values() if isinstance(one, Element) and "default/web" in one.comment]
        unread = [UnreadElements(family=one.family, table=one.table, set=one.set) for one in elements]
        sets = {one.set for one in elements}
        found = {i: v for i, v in found.items() if not (isinstance(v, Element) and v.set in sets)}
        return found | {one.identity: one for one in unread}


async def test_what_is_in_a_set_that_could_not_be_read_is_not_repaired_and_is_read_again_soon() -> None:
    rig = Rig(("10.96.0.0/16",), Busy)
    agent = await rig.start(*cluster(1), *(service_of(f"web{n}", f"10.96.1.{n}") for n in range(1, 9)))
    kernel = agent._kernel
    assert isinstance(kernel, Busy)
    kernel.times, written = 1, rig.written
    rig.host.objects.foreign_commits += 1
    await rig.poll(2.0)
    assert kernel.times == 0 and agent.watcher.auditor.unread and rig.events == [] and rig.written == written
    (gone, *_) = (one for one in rig.host.objects.nft.values() if isinstance(one, Element) and "default/web1" in one.comment)
    del rig.host.objects.nft[gone.identity]
    for late in (0, 0.1):
        await rig.poll(2.0 + UNREAD_SECONDS + late)
    assert not agent.watcher.auditor.unread and rig.host.objects.nft[gone.identity] == gone
    assert [reason for _, reason, _ in rig.events] == ["Repaired"]


async def test_at_a_start_sets_are_read_until_it_can_be_said_what_is_in_them() -> None:
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1), *(service_of(f"web{n}", f"10.96.1.{n}") for n in range(1, 9)))
    await rig.agent.stop()
    agent = rig.new_agent(Busy)
    kernel = agent._kernel
    assert isinstance(kernel, Busy)
    kernel.times = 2
    await rig.start()
    assert kernel.times == 0 and rig.written == 0


async def test_what_was_refused_is_tried_again_at_once_when_a_link_of_others_goes() -> None:
    rig = Rig()
    foreign = Link(name="cbr0", kind="bridge")
    assert not Kernel(rig.host, rig.opener).apply([Operation(None, foreign)]).failed
    agent = await rig.start(*cluster(1))
    assert foreign.identity in agent.ledger.refused
    others = Kernel(rig.host, rig.opener)
    assert not others.apply([Operation(foreign, None)]).failed
    agent._notified()
    agent.writer.wake()
    await agent.idle()
    assert foreign.identity not in agent.ledger.refused and agent.ledger.status(foreign.identity) is Status.DONE


async def test_the_network_is_read_soon_after_a_link_lost_something_and_seldom_when_links_lose_something_all_the_time() -> None:
    """NetworkManager takes all IPv6 from an uplink, and all IPv4 some milliseconds later, of which the kernel announces no route."""
    rig = Rig()
    agent = await rig.start(*cluster(1, 2))
    (monitor,) = rig.host.objects.monitors
    lost = LinkEvent(True, True, may_have_lost=True)

    async def event(at: float) -> None:
        rig.now = at
        monitor.report_link("eth0", lost)
        agent.watcher.take_notifications()
        await rig.poll(at)

    def reads() -> int:
        return agent.watcher.audits[Part.NETWORK].count

    await event(10.0)
    assert reads() == 1
    await event(10.005)
    await rig.poll(10.03)
    assert reads() == 2, "20 ms after the first one"
    for number in range(1000):
        await event(11.0 + number / 100)
    assert reads() <= 2 + 5 + 20, "ten seconds, twice a second"
    before = reads()
    await event(30.0)
    await event(30.005)
    await rig.poll(30.03)
    assert reads() == before + 2
