"""Pods that come and go at the same time as everything else: an attachment is (container id, interface name), nothing is had twice, and
nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import pytest

from podplane.agent.pause import Pause
from podplane.cni.network import Attached, Attachment, NetworkError
from podplane.kernel.door import Kernel
from podplane.kernel.errors import Exists, Retry
from podplane.kernel.fakes.world import FakeNamespace
from podplane.model.view import HostPort
from podplane.pods.plan import veth_name
from podplane.state.ledger import Status
from podplane.state.network import Address, Link, Route
from podplane.state.nft import Element
from podplane.state.operations import Failure, Operation, Report
from tests.plans import node
from tests.unit.agent.rig import DUAL, Choosy, Rig, cluster


class Fickle(Kernel):
    """A kernel whose answers to some operations are lost, or that holds them up: whatever has this text in it."""

    lost = ""
    """Carried out, but nobody learns of it."""
    unsent = ""
    """Not carried out, and nobody learns of it."""

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        for report in super().steps([o for o in operations if not self.unsent or self.unsent not in str(o.value)]):
            lost = [o for o in report.applied if self.lost and self.lost in str(o.value)]
            yield Report([o for o in report.applied if o not in lost], report.failed + _unknown(lost), report.recreated)
        yield Report(failed=_unknown(o for o in operations if self.unsent and self.unsent in str(o.value)))


def _unknown(operations: Iterable[Operation]) -> list[Failure]:
    return [Failure(operation, Retry("apply", "No buffer space available")) for operation in operations]


async def started(kernel: type[Kernel] = Kernel) -> Rig:
    rig = Rig(("10.96.0.0/16",), kernel=kernel)
    await rig.start(*cluster(1, 2))
    return rig


async def until(condition: Callable[[], bool]) -> None:
    """Give others turns until this is so."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come about")


async def soon(work: Awaitable[Attached]) -> Attached:
    return await asyncio.wait_for(work, 5)


def clean(rig: Rig) -> str:
    """The kernel as it is without pods."""
    assert rig.agent.ledger.counts()[Status.PENDING] == 0
    assert not rig.agent.ledger.refused
    return rig.host.objects.dump()


def assert_nothing_is_left(rig: Rig) -> None:
    """Of any attachment, anywhere."""
    network = rig.agent.network
    assert not network.attached and not network.addresses.owners
    assert not network._interfaces and not network._sandboxes
    assert not rig.agent.watcher._pods and not rig.agent.writer._detached
    assert set(rig.agent._kernel._namespaces) == {""}  # type: ignore[attr-defined]  # the door's
    assert not any(i[1] for i in rig.agent.ledger.desired)
    assert rig.agent.ledger.counts()[Status.PENDING] == 0 and not rig.agent.ledger.refused
    assert not [link for link in rig.host.objects.links() if link.name.startswith("pp")]


IPS = (("10.244.1.2", "fd00:10:244:1::2"), ("10.244.1.3", "fd00:10:244:1::3"))


def default_routes(namespace: FakeNamespace) -> set[str]:
    """Their links."""
    routes = [v for v in namespace.objects.network.values() if isinstance(v, Route) and not v.destination.prefixlen]
    assert len(routes) == 2
    return {route.link for route in routes}


def addresses(namespace: FakeNamespace, link: str = "eth0") -> set[str]:
    return {str(v.ip) for v in namespace.objects.network.values() if isinstance(v, Address) and v.link == link}


async def test_a_second_interface_of_a_pod_is_an_attachment_of_its_own() -> None:
    rig = await started()
    before, pod = clean(rig), rig.opener.namespace()
    first, second = rig.attachment("a", pod), rig.attachment("a", pod, ifname="net1")
    one, two = await rig.agent.network.add(first), await rig.agent.network.add(second)
    assert not set(one.ips) & set(two.ips) and one.mac != two.mac
    assert set(one.ips) <= addresses(pod) and set(two.ips) <= addresses(pod, "net1")
    await rig.agent.network.delete(second)
    await rig.settle()
    assert addresses(pod) == set(one.ips), "eth0 is as it was"
    await rig.agent.network.check(first)
    await rig.agent.network.delete(first)
    await rig.settle()
    assert clean(rig) == before
    assert_nothing_is_left(rig)


async def test_the_default_routes_of_a_pod_are_those_of_the_interface_with_the_least_name() -> None:
    rig = await started()
    pod = rig.opener.namespace()
    first, second = rig.attachment("a", pod, ifname="net1"), rig.attachment("a", pod)
    for request in (first, second):
        await rig.agent.network.add(request)
    assert default_routes(pod) == {"eth0"}
    rig.new_agent()
    await rig.start(attached=[(request, tuple(ips)) for request, ips in ((first, IPS[0]), (second, IPS[1]))])
    assert rig.written == 0
    await rig.agent.network.delete(second)
    await rig.settle()
    assert default_routes(pod) == {"net1"}
    await rig.agent.network.check(first)


async def test_a_new_sandbox_of_a_pod_is_not_detached_with_the_old_one() -> None:
    rig = await started()
    before = clean(rig)
    old = rig.attachment("old", pod_uid="uid", name="web")
    new = rig.attachment("new", pod_uid="uid", name="web")
    was, now = await rig.agent.network.add(old), await rig.agent.network.add(new)
    assert not set(was.ips) & set(now.ips)
    await rig.agent.network.delete(old)
    await rig.settle()
    assert isinstance(new.netns, FakeNamespace) and addresses(new.netns) == set(now.ips)
    await rig.agent.network.check(new)
    await rig.agent.network.delete(new)
    await rig.settle()
    assert clean(rig) == before
    assert_nothing_is_left(rig)


async def test_an_add_again_is_the_same_attachment() -> None:
    rig = await started()
    request = rig.attachment("a")
    first = await rig.agent.network.add(request)
    written = rig.written
    assert await rig.agent.network.add(request) == first
    assert rig.written == written, "all is there"
    await rig.agent.network.delete(request)
    await rig.settle()
    assert_nothing_is_left(rig)


async def test_two_adds_of_one_attachment_at_once_end_attached() -> None:
    rig = await started()
    request = rig.attachment("a")
    results = await asyncio.gather(*(rig.agent.network.add(request) for _ in range(2)), return_exceptions=True)
    assert any(isinstance(one, Attached) for one in results)
    await rig.agent.network.check(request)
    assert len(rig.agent.network.attached) == 1


async def test_the_failure_of_one_of_two_adds_does_not_detach_the_other() -> None:
    """The first is refused; until it is told so, the second one has come, and the kernel is well again."""
    rig = await started(Choosy)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    request = rig.attachment("a")
    kernel.refused = "pod/default/a"
    first = asyncio.create_task(rig.agent.network.add(request))
    await until(lambda: bool(rig.agent.ledger.refused))
    kernel.refused = ""
    second = asyncio.create_task(rig.agent.network.add(request))
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(results[1], Attached)
    await rig.agent.network.check(request)


async def test_a_del_during_an_add_wins() -> None:
    rig = await started()
    before, request = clean(rig), rig.attachment("a")
    adding = asyncio.create_task(rig.agent.network.add(request))
    await asyncio.sleep(0)
    await rig.agent.network.delete(request)
    with pytest.raises(NetworkError, match="was detached"):
        await adding
    await rig.settle()
    assert clean(rig) == before
    assert_nothing_is_left(rig)


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("seed", [None, 11, 33])
async def test_an_add_during_a_del_of_the_same_attachment_succeeds(
    turns: int, seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it comes: before the link is set down, before the namespace is forgotten, while the link is removed in a thread; also where
    long work gives others turns, at moments that a seed names."""
    chance = random.Random(seed)

    async def pause(self: Pause) -> None:
        for _ in range(chance.choice([0, 0, 1, 2, 5])):
            await asyncio.sleep(0)

    if seed is not None:
        monkeypatch.setattr(Pause, "__call__", pause)
    rig = await started()
    request = rig.attachment("a")
    await rig.agent.network.add(request)
    going = asyncio.create_task(rig.agent.network.delete(request))
    other = rig.attachment("b")
    busy = asyncio.create_task(rig.agent.network.add(other))
    for _ in range(turns):
        await asyncio.sleep(0)
    attached = await soon(rig.agent.network.add(request))
    await asyncio.gather(going, busy)
    await rig.settle()
    assert isinstance(request.netns, FakeNamespace) and addresses(request.netns) == set(attached.ips)
    await rig.agent.network.check(request)
    for one in (request, other):
        await rig.agent.network.delete(one)
    await rig.settle()
    assert_nothing_is_left(rig)


async def test_gc_leaves_what_is_attached_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is one that was to go, and was attached once more."""
    rig = await started()
    stays, goes, back = (rig.attachment(name) for name in ("stays", "goes", "back"))
    for one in (stays, goes, back):
        await rig.agent.network.add(one)
    collecting = asyncio.create_task(rig.agent.network.gc([stays]))
    await asyncio.sleep(0)
    assert not collecting.done()
    new = rig.attachment("new")
    await asyncio.gather(rig.agent.network.add(back), rig.agent.network.add(new))
    await collecting
    for one in (stays, back, new):
        await rig.agent.network.check(one)
    await rig.agent.network.idle()
    assert rig.agent.network.addresses.owners == {("stays", "eth0"), ("back", "eth0"), ("new", "eth0")}
    with pytest.raises(NetworkError, match="is not attached"):
        await rig.agent.network.check(goes)


async def test_a_check_of_what_is_detached_while_the_kernel_is_read_fails_as_others_do() -> None:
    rig = await started()
    request = rig.attachment("web")
    await rig.agent.network.add(request)
    checking = asyncio.create_task(rig.agent.network.check(request))
    await asyncio.sleep(0)
    assert not checking.done()
    await rig.agent.network.delete(request)
    with pytest.raises(NetworkError, match="was detached meanwhile"):
        await checking


async def test_a_pod_that_is_attached_once_more_in_another_namespace_waits_for_its_former_link() -> None:
    rig = await started()
    for _ in range(20):
        request = rig.attachment("web", rig.opener.namespace(), host_ports=(HostPort(8080, 80),))
        await rig.agent.network.add(request)
        await rig.agent.network.check(request)
        await rig.agent.network.delete(request)


class Vanished:
    """A namespace that its owner has closed."""

    @property
    def fd(self) -> int:
        raise ValueError("the network namespace was closed")

    def run(self, *_: object) -> object:
        raise ValueError("the network namespace was closed")

    def close(self) -> None:
        """Nothing."""


async def test_a_namespace_that_vanished_is_a_failed_add_that_leaves_nothing_and_harms_nobody() -> None:
    rig = await started()
    before = clean(rig)
    broken = Attachment("a", "a", "default", "a", Vanished())  # type: ignore[arg-type]  # fails as a closed one does
    well = rig.attachment("b")
    results = await asyncio.gather(
        soon(rig.agent.network.add(broken)), soon(rig.agent.network.add(well)), return_exceptions=True
    )
    assert isinstance(results[0], NetworkError) and "was closed" in str(results[0])
    assert isinstance(results[1], Attached), results[1]
    await rig.agent.network.delete(well)
    await rig.agent.network.delete(broken)
    for now in range(1, 20):
        await rig.poll(float(now))
    assert clean(rig) == before
    await rig.agent.network.idle()
    assert_nothing_is_left(rig)


async def test_a_full_block_has_room_again_when_a_pod_goes() -> None:
    rig = await started()
    for i in range(252):
        rig.agent.network.reserve(f"p{i}", (f"10.244.1.{i + 3}", f"fd00:10:244:1::{i + 3:x}"))
    last = rig.attachment("last")
    had = await rig.agent.network.add(last)
    with pytest.raises(NetworkError, match="all in use"):
        await rig.agent.network.add(rig.attachment("x"))
    await rig.agent.network.delete(last)
    other = rig.attachment("y")
    got = await rig.agent.network.add(other)
    assert got.ips[0] == had.ips[0], "an address is used again, by another pod with another link"
    await rig.settle()
    await rig.agent.network.check(other)
    assert rig.host.objects.dump().count("type veth") == 1


async def test_an_add_whose_answer_is_lost_is_read_back_and_succeeds() -> None:
    """An operation of unknown outcome (ENOBUFS) leads to a reading and the right state, whether it took effect or not."""
    rig = await started(Fickle)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Fickle)
    before = clean(rig)
    requests = []
    for which in ("lost", "unsent"):
        setattr(kernel, which, "pod/default/")
        request = rig.attachment(which)
        adding = asyncio.create_task(rig.agent.network.add(request))
        await until(lambda: bool(rig.agent.ledger.refused))
        setattr(kernel, which, "")
        assert (await soon(adding)).ips
        await rig.agent.network.check(request)
        requests.append(request)
    assert not rig.events
    for request in requests:
        await rig.agent.network.delete(request)
    await rig.settle()
    assert clean(rig) == before


async def test_what_became_of_a_change_is_read_when_the_answer_was_lost() -> None:
    rig = await started(Fickle)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Fickle)
    kernel.lost = "10.244.3.0/24"
    rig.put(node(3, DUAL))
    await rig.settle()
    assert rig.agent.ledger.refused
    kernel.lost = ""
    for at in (0.15, 0.3, 0.6):
        await rig.poll(at)
    assert not rig.agent.ledger.refused and rig.agent.ledger.counts()[Status.PENDING] == 0
    assert not rig.events
    assert "10.244.3.0/24" in rig.host.objects.dump()


async def test_an_add_after_a_stranger_has_flushed_the_tables_succeeds() -> None:
    """Before the agent has noticed: the elements of the pod are refused, the tables are read and made anew, and then they are added."""
    rig = await started()
    rig.put(*cluster(1))
    rig.host.objects.nft.clear()
    rig.host.objects.foreign_commits += 1
    attached = await soon(rig.agent.network.add(rig.attachment("a")))
    assert attached.ips
    await rig.poll(1.0)
    await rig.poll(2.0)
    assert not rig.agent.ledger.refused
    assert any(isinstance(v, Element) for v in rig.host.objects.nft.values())


async def test_a_stranger_who_takes_the_name_of_a_pods_link_is_named() -> None:
    """The ADD is tried a few times, and then fails: it does not try for ever, nor take the stranger's link."""
    rig = await started()
    name = veth_name("a", "eth0")
    rig.host.put(Link(name=name, kind="dummy"))
    with pytest.raises(NetworkError):
        await soon(rig.agent.network.add(rig.attachment("a")))
    assert Link(name=name).identity in rig.host.objects.network
    assert ("a", "eth0") not in rig.agent.network.addresses.owners


class Contrary(Choosy):
    """Refuses by saying that it is there already."""

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        for report in super().steps(operations):
            yield Report(
                report.applied, [Failure(f.operation, Exists("it", "File exists")) for f in report.failed], report.recreated
            )


async def test_an_add_that_is_refused_again_and_again_fails_after_a_few_tries() -> None:
    rig = await started(Contrary)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Contrary)
    kernel.refused = "pod/default/a"
    with pytest.raises(NetworkError, match="File exists"):
        await soon(rig.agent.network.add(rig.attachment("a")))
    await rig.settle()
    assert_nothing_is_left(rig)


class Slow(Kernel):
    """A kernel that takes packets for a new pod only when it was asked for the third time; `asked` counts."""

    asked = 0

    def takes_packets(self, name: str) -> bool:
        type(self).asked += 1
        return self.asked % 3 == 0


async def test_an_add_returns_when_the_kernel_takes_packets_for_the_pod() -> None:
    rig = await started(Slow)
    Slow.asked = 0
    await soon(rig.agent.network.add(rig.attachment("a", rig.opener.namespace())))
    assert Slow.asked == 3


async def test_what_an_attachment_got_is_known_as_long_as_it_is_there() -> None:
    rig = await started()
    network, pod = rig.agent.network, rig.attachment("a")
    assert network.find(pod.id) is None
    attached = await network.add(pod)
    assert network.find(pod.id) == attached
    assert (attached.ips, attached.gateways) == (("10.244.1.2", "fd00:10:244:1::2"), ("10.244.1.1", "fd00:10:244:1::1"))
    assert (attached.has_default_routes, attached.mtu) == (True, 1500)
    assert Link(name=attached.host_interface).identity in rig.agent.ledger.desired
    assert network.attachments() == [pod]
    await network.delete(pod)
    assert (network.find(pod.id), network.attachments()) == (None, [])
