"""Where several ways lead to the same place, connections take all of them."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from podplane.agent.agent import Agent
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from tests.kernel.test_foreign import run
from tests.plans import agent_settings, node
from tests.unit.agent.rig import DUAL, caches_of

pytestmark = pytest.mark.kernel
UPLINK = """
ip link set lo up
ip link add eth0 type bridge
ip link set eth0 up
ip addr add 192.168.1.10/24 dev eth0
ip addr add fd00:192:168:1::10/64 dev eth0 nodad
ip route add 198.51.100.11 nexthop via 192.168.1.1 dev eth0 nexthop via 192.168.1.2 dev eth0
ip -6 route add fd00:198::11 nexthop via fd00:192:168:1::1 dev eth0 nexthop via fd00:192:168:1::2 dev eth0
"""
PEER = {4: ("198.51.100.11", "192.168.1.10"), 6: ("fd00:198::11", "fd00:192:168:1::10")}
FLOWS = range(50_000, 50_032)
"""Source ports."""


def gateways(version: int) -> set[str]:
    """Of the routes that datagrams take, as those of a tunnel do: one source port for each connection within (udp_flow_src_port).

    A tunnel over IPv4 that is bound to a link, as podplane's is, always takes the first way (fib_select_path, flowi4_oif).
    """
    peer, own = PEER[version]
    bound = "oif eth0" if version == 6 else ""
    ways = (run(f"ip route get {peer} from {own} {bound} ipproto udp sport {port} dport 4789") for port in FLOWS)
    return {found for way in ways for found in re.findall(r"via (\S+)", way)}


def test_connections_between_the_same_nodes_take_all_ways() -> None:
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed")
    run(UPLINK)
    assert [len(gateways(version)) for version in DUAL] == [1, 1], "the kernel looks at addresses alone"
    agent = Agent(
        "node1", agent_settings(DUAL, backend="vxlan"), Kernel(CurrentNamespace(), KernelOpener()), caches_of(node(1, DUAL))
    )
    asyncio.run(agent.start())
    assert not agent.ledger.refused
    assert [len(gateways(version)) for version in DUAL] == [2, 2]
    policy = Path("/proc/sys/net/ipv4/fib_multipath_hash_policy")
    policy.write_text("0")
    asyncio.run(agent.poll())
    assert policy.read_text() == "1\n"
