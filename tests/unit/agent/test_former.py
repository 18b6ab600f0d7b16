"""A node that is migrated from another network: what an agent makes for it, and takes away when it is over."""

from __future__ import annotations

import ipaddress

import msgspec

from podplane.pods import former
from podplane.routes.behind import METRIC
from podplane.state.effects import Announce
from podplane.state.network import Link, Proxy, Route, Sysctl
from podplane.state.operations import Operation
from podplane.state.value import Value
from tests.plans import config, node, sandbox
from tests.unit.agent.rig import DUAL, Rig

BLOCKS = {"10.244.1.0/24", "10.244.2.0/24", "fd00:10:244:1::/64", "fd00:10:244:2::/64"}


def on_node(rig: Rig) -> list[Value]:
    """What is desired of the node's own namespace."""
    return [value for value in map(rig.agent.ledger.desired.get, list(rig.agent.ledger.desired)) if value and not value.netns]


def metrics(rig: Rig) -> dict[str, int]:
    """Those of routes to blocks, by their destinations."""
    routes = [one for one in on_node(rig) if isinstance(one, Route)]
    return {str(one.destination): one.metric for one in routes if str(one.destination) in BLOCKS}


async def test_routes_come_behind_and_the_node_answers_for_its_pods_until_it_is_over() -> None:
    rig = Rig()
    rig.kernel.apply([Operation(None, Link(name="cni0", kind="bridge"))])
    usual = rig.settings
    migrated = msgspec.structs.replace(usual.network, former_bridge="cni0", route_metric=METRIC)
    rig.settings = msgspec.structs.replace(usual, network=migrated)
    rig.new_agent()
    await rig.start(node(1, DUAL), node(2, DUAL))
    request = rig.attachment("a")
    ips = (await rig.agent.network.add(request)).ips
    assert metrics(rig) == dict.fromkeys(BLOCKS, METRIC)
    assert {str(one.ip) for one in on_node(rig) if isinstance(one, Proxy) and one.link == "cni0"} == set(ips)
    assert {one.name: one.value for one in on_node(rig) if isinstance(one, Sysctl) and ".cni0." in one.name} == {
        "net.ipv4.neigh.cni0.proxy_delay": "0",
        "net.ipv6.neigh.cni0.proxy_delay": "0",
        "net.ipv6.conf.cni0.proxy_ndp": "1",
    }
    assert not rig.agent.ledger.refused
    rig.settings = usual
    rig.new_agent()
    await rig.start(attached=[(request, ips)])
    assert metrics(rig) == dict.fromkeys(BLOCKS, 0)
    assert not [one for one in on_node(rig) if isinstance(one, Proxy)]
    assert not rig.agent.ledger.refused and not rig.agent.ledger.deviations, "what was behind is gone from the kernel, too"


def test_a_node_with_one_ip_version_needs_the_sysctls_of_that_alone() -> None:
    found = former.on_node(node(1, (4,)), msgspec.structs.replace(config((4,)), former_bridge="cni0"))
    assert [one.name for one in found.values() if isinstance(one, Sysctl)] == ["net.ipv4.neigh.cni0.proxy_delay"]


def test_who_is_on_the_former_bridge_is_told_of_a_new_pod_and_nobody_without_one() -> None:
    settings = msgspec.structs.replace(config((4,)), former_bridge="cni0")
    pod = sandbox(1, (4,))
    assert former.effects(pod, settings) == (Announce("cni0", (ipaddress.ip_address("10.244.1.2"),)),)
    assert former.effects(pod, config((4,))) == () and former.of_pod(pod, config((4,))) == {}
    assert former.on_node(node(1, (4,)), config((4,))) == {}
