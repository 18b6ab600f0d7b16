"""Pods with several interfaces, and pods with several sandboxes: each attachment has what is its own."""

from __future__ import annotations

import pytest

from podplane.kernel.fakes.world import FakeNamespace
from podplane.state.network import Link, Route
from tests.unit.agent.rig import Rig, cluster


def default_links(pod: FakeNamespace) -> set[str]:
    """The links of the pod's default routes."""
    routes = (value for value in pod.objects.network.values() if isinstance(value, Route))
    return {route.link for route in routes if route.destination.prefixlen == 0}


def interfaces(pod: FakeNamespace) -> set[str]:
    """The pod's links."""
    return {value.name for value in pod.objects.network.values() if isinstance(value, Link)} - {"lo"}


@pytest.mark.parametrize("order", [("eth0", "net1"), ("net1", "eth0")])
@pytest.mark.parametrize("removed", ["eth0", "net1"])
async def test_the_interface_with_the_least_name_has_the_default_routes(order: tuple[str, str], removed: str) -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    pod = rig.opener.namespace()
    requests = {name: rig.attachment("a", pod, ifname=name) for name in order}
    ips = {name: (await rig.agent.network.add(requests[name])).ips for name in order}
    assert not set(ips["eth0"]) & set(ips["net1"])
    assert interfaces(pod) == {"eth0", "net1"} and default_links(pod) == {"eth0"}
    for request in requests.values():
        await rig.agent.network.check(request)
    await rig.agent.network.delete(requests[removed])
    await rig.settle()
    (left,) = set(order) - {removed}
    assert interfaces(pod) == {left} and default_links(pod) == {left}
    await rig.agent.network.check(requests[left])
    dump = rig.host.objects.dump()
    assert all(ip in dump for ip in ips[left]) and not any(f"{ip} " in dump for ip in ips[removed])
    assert not rig.agent.ledger.refused


async def test_a_new_sandbox_of_a_pod_stays_when_the_old_one_is_detached() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    old, new = rig.opener.namespace(), rig.opener.namespace()
    first = rig.attachment("a", old, container_id="sandbox1")
    second = rig.attachment("a", new, container_id="sandbox2")
    before, after = await rig.agent.network.add(first), await rig.agent.network.add(second)
    assert not set(before.ips) & set(after.ips)
    assert interfaces(old) == interfaces(new) == {"eth0"}
    await rig.agent.network.delete(first)
    await rig.settle()
    await rig.agent.network.check(second)
    assert interfaces(new) == {"eth0"} and default_links(new) == {"eth0"}
    assert f"{before.ips[0]} " not in rig.host.objects.dump()
