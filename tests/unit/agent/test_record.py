"""What is remembered of attachments: before the kernel has them, and until it has nothing of them any more."""

from __future__ import annotations

import errno
import os
import re

import pytest

from podplane.agent.planner import REPAIRED
from podplane.cni.network import Attachment, NetworkError
from podplane.kernel.door import Kernel
from podplane.model.view import BridgeNetwork
from tests.unit.agent.rig import Choosy, Rig, cluster

IPS = ("10.244.1.2", "fd00:10:244:1::2")


class Remembering:
    """Remembers everything with the number of links that the machine had then; `error` is raised instead of it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.said: list[tuple[str, str, int]] = []
        self.macs: list[str] = []
        self.error: OSError | None = None

    def _say(self, what: str, container_id: str) -> None:
        self.said.append((what, container_id, sum(link.name.startswith("pp") for link in self.rig.host.objects.links())))

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        if self.error is not None:
            raise self.error
        self._say("attaching", request.container_id)
        self.macs.append(request.mac)

    def detached(self, id_: tuple[str, str]) -> None:
        self._say("detached", id_[0])


async def started(kernel: type[Kernel] = Kernel) -> tuple[Rig, Remembering]:
    rig = Rig()
    rig.record = record = Remembering(rig)
    rig.new_agent(kernel)
    await rig.start(*cluster(1, 2))
    return rig, record


async def test_an_attachment_is_remembered_before_the_kernel_has_it() -> None:
    rig, record = await started()
    request = rig.attachment("a")
    await rig.agent.network.add(request)
    assert record.said == [("attaching", "a", 0)]
    await rig.agent.network.delete(request)
    assert [what for what, _, _ in record.said] == ["attaching", "detached"]


async def test_a_namespace_that_can_not_be_entered_is_no_fault_of_a_disk() -> None:
    rig, record = await started()
    record.error = OSError(errno.EPERM, "setns: Operation not permitted")
    with pytest.raises(NetworkError, match="its network namespace can't be entered: setns: Operation not permitted"):
        await rig.agent.network.add(rig.attachment("a"))
    assert not rig.agent.network.addresses.owners


async def test_what_is_attached_once_more_is_remembered_with_the_mac_that_it_has() -> None:
    rig, record = await started()
    pod = rig.opener.namespace()
    await rig.agent.network.add(rig.attachment("a", pod, mac="02:00:00:00:00:07"))
    await rig.agent.network.add(rig.attachment("a", pod))
    assert record.macs == ["02:00:00:00:00:07"] * 2


async def test_what_an_agent_before_attached_is_not_told_again() -> None:
    rig, record = await started()
    await rig.start(attached=[(rig.attachment("a"), IPS)])
    assert record.said == []


async def test_what_can_not_be_remembered_is_not_attached() -> None:
    rig, record = await started()
    record.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/podplane/attachments.journal")
    with pytest.raises(NetworkError, match=r"pod default/a: .*/run/podplane/attachments\.journal: No space left on device"):
        await rig.agent.network.add(rig.attachment("a"))
    assert not rig.agent.network.attached and not rig.agent.network.addresses.owners
    record.error = None
    assert (await rig.agent.network.add(rig.attachment("a"))).ips, "it can be once there is space again"


async def test_an_attachment_that_fails_is_forgotten() -> None:
    rig, record = await started(Choosy)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    kernel.refused = "10.244.1.2"
    with pytest.raises(NetworkError, match="Invalid argument"):
        await rig.agent.network.add(rig.attachment("a"))
    assert [what for what, _, _ in record.said] == ["attaching", "detached"]


async def test_what_an_agent_that_was_killed_left_half_made_is_whole_when_it_is_attached_again() -> None:
    rig, _ = await started()
    request = rig.attachment("a")
    await rig.start(attached=[(request, IPS)])  # nothing of it is in the pod's namespace
    assert (await rig.agent.network.add(request)).ips == IPS
    await rig.agent.network.check(request)
    written = rig.written
    await rig.agent.network.add(request)
    assert rig.written == written, "it is known to be whole by now"
    for second in (1.0, 100.0):
        await rig.poll(second)
    assert not [message for _, reason, message in rig.events if reason == REPAIRED], "nobody else has changed anything"


async def test_of_two_that_are_said_to_have_one_address_the_later_one_has_it(caplog: pytest.LogCaptureFixture) -> None:
    rig, record = await started()
    blue = BridgeNetwork("default/blue", ("10.244.1.0/24",))
    first, second, third = rig.attachment("a"), rig.attachment("b"), rig.attachment("a", ifname="net1", further=blue)
    rig.new_agent()
    one, two, further = ("10.244.1.2", "fd00:10:244:1::2"), ("10.244.1.3", "fd00:10:244:1:0::2"), ("10.244.1.2",)
    await rig.start(attached=[(first, one), (second, two), (third, further)])
    assert [request.id for request, _ in rig.agent.network.attached] == [second.id, third.id]
    assert "container a: fd00:10:244:1::2 is had by pod default/b, too" in caplog.text
    assert record.said == [("detached", "a", 0)]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("is_real", [True, False])
async def test_a_damaged_record_takes_no_address_from_the_pod_that_has_it(
    caplog: pytest.LogCaptureFixture, is_first: bool, is_real: bool
) -> None:
    """Whether it is of no pod at all, or of one that has other addresses."""
    rig, record = await started()
    own, other = rig.attachment("a"), rig.attachment("b")
    ips = (await rig.agent.network.add(own)).ips
    if is_real:
        await rig.agent.network.add(other)
    record.said.clear()
    rig.new_agent()
    said = [(own, ips), (other, ips)]
    await rig.start(attached=said if is_first else said[::-1])
    assert [request.id for request, _ in rig.agent.network.attached] == [own.id]
    assert [one[:2] for one in record.said] == [("detached", "b")]
    assert re.search("container b: .* is had by pod default/a, too", caplog.text)
    await rig.agent.network.check(own)
