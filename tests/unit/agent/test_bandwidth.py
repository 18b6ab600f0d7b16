"""Limits of bandwidth on a node: they come and go with the pod, a check names what is missing, and what somebody deletes is repaired."""

from __future__ import annotations

import pytest

from podplane.cni.network import NetworkError
from podplane.kernel.fakes.world import FakeNamespace
from podplane.model.view import Bandwidth
from podplane.pods.plan import veth_name
from podplane.state.network import Link, Qdisc, Redirect
from podplane.state.value import Value
from tests.unit.agent.rig import Rig, cluster

LIMITS = Bandwidth(ingress_rate=10_000_000, egress_rate=20_000_000)
VETH = veth_name("a", "eth0")


async def started() -> Rig:
    rig = Rig()
    await rig.start(*cluster(1))
    return rig


def there(host: FakeNamespace) -> dict[str, int]:
    """The shapers that there are: bit/s by link."""
    return {value.link: 8 * value.rate for value in host.objects.network.values() if isinstance(value, Qdisc)}


async def test_limits_come_and_go_with_the_pod() -> None:
    rig = await started()
    before = rig.host.objects.dump()
    request = rig.attachment("a", bandwidth=LIMITS)
    await rig.agent.network.add(request)
    await rig.settle()
    assert there(rig.host) == {VETH: 10_000_000, f"{VETH}i": 20_000_000}
    await rig.agent.network.check(request)
    await rig.agent.network.add(rig.attachment("b"))
    assert len(there(rig.host)) == 2, "one without limits has no shaper"
    await rig.agent.network.delete(rig.attachment("b"))
    await rig.agent.network.delete(request)
    await rig.settle()
    assert rig.host.objects.dump() == before and not rig.agent.ledger.refused


async def test_other_limits_change_the_shapers_in_place() -> None:
    rig = await started()
    pod = rig.opener.namespace()
    await rig.agent.network.add(rig.attachment("a", pod, bandwidth=LIMITS))
    await rig.settle()
    written = rig.written
    await rig.agent.network.add(rig.attachment("a", pod, bandwidth=Bandwidth(ingress_rate=5_000_000)))
    await rig.settle()
    assert there(rig.host) == {VETH: 5_000_000}
    assert rig.written - written <= 6, "the shaper changes; the filter goes, and the link with what is on it, set down first"


@pytest.mark.parametrize(
    "value",
    [Qdisc(link=VETH), Qdisc(link=f"{VETH}i"), Redirect(link=VETH, to=""), Link(name=f"{VETH}i")],
    ids=["to it", "from it", "filter", "link"],
)
async def test_what_somebody_deletes_is_missed_by_a_check_and_repaired(value: Value) -> None:
    rig = await started()
    request = rig.attachment("a", bandwidth=LIMITS)
    await rig.agent.network.add(request)
    await rig.settle()
    before = rig.host.objects.dump()
    rig.host.delete(value)
    with pytest.raises(NetworkError, match=f"pod default/a: .*{VETH}.* (is missing|has to none)"):
        await rig.agent.network.check(request)
    rig.agent._notified()
    await rig.settle()
    for now in (1.0, 2.0):  # what went with a link is read
        await rig.poll(now)
        await rig.settle()
    assert rig.host.objects.dump() == before
    await rig.agent.network.check(request)
    assert any(reason == "Repaired" for _, reason, _ in rig.events)


async def test_a_restart_writes_nothing() -> None:
    rig = await started()
    request = rig.attachment("a", bandwidth=LIMITS)
    got = await rig.agent.network.add(request)
    await rig.settle()
    rig.new_agent()
    await rig.start(attached=[(request, got.ips)])
    await rig.settle()
    assert rig.written == 0 and len(there(rig.host)) == 2


async def test_limits_that_make_no_sense_are_refused_and_nothing_is_left() -> None:
    rig = await started()
    before = rig.host.objects.dump()
    with pytest.raises(NetworkError, match="pod default/a: bandwidth: ingressRate 10 is not within 1k and 1P bit/s"):
        await rig.agent.network.add(rig.attachment("a", bandwidth=Bandwidth(ingress_rate=10)))
    assert rig.host.objects.dump() == before and not rig.agent.network.addresses.owners
