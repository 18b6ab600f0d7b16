"""What benches measure is what they say: a floor has a whole lab's links, a replay the agent's tables, and the other program commits."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from bench import agent_start, factor, floors, foreign_commits, services, services_replay
from bench.agents import SETTINGS, Cluster, OneAgent, make_uplink, recorded
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.loop_turns import TurnLoop, Turns
from podplane.services import tables
from podplane.state.nft import Element
from podplane.state.ownership import Ownership

pytestmark = pytest.mark.kernel


def test_the_floor_of_a_lab_has_each_node_and_pod() -> None:
    home = CurrentNamespace().fd
    seconds, namespaces = floors.build(nodes=2, pods=3)
    assert seconds > 0
    factor.enter(home)
    assert {name for _, name in socket.if_nameindex()} == {"lo", "switch0", "port0", "port1"}
    links = []
    for fd in namespaces:
        factor.enter(fd)
        links.append(frozenset(name for _, name in socket.if_nameindex()))
    pod = frozenset({"lo", "eth0"})
    node = frozenset({"lo", "eth0", "cbr0", "pod0", "pod1", "pod2"})
    assert links == [node, pod, pod, pod] * 2


def elements_here() -> set[tuple[object, ...]]:
    """The elements of podplane's Services in this namespace."""
    found = Kernel(CurrentNamespace(), KernelOpener()).read(Ownership(tables=frozenset({tables.TABLE})))
    return {(value.set, value.key, value.comment) for value in found.values() if isinstance(value, Element)}


def test_a_replay_leaves_the_tables_that_the_agent_left() -> None:
    make_uplink()
    start, filling = asyncio.run(services_replay.transactions(20))
    ours = elements_here()
    assert len(ours) >= 20 * services.ENDPOINTS
    factor.new_namespace()  # where nothing is
    assert not elements_here()
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, factor.NETLINK_NETFILTER)
    factor.send_all(netlink, start)
    assert not [element for element in elements_here() if "s1" in str(element)]
    factor.send_all(netlink, filling)
    assert elements_here() == ours


def test_a_replay_of_nothing_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no transaction was recorded"):
        services_replay.replay([], [])


def test_nothing_is_recorded_after_the_end() -> None:
    make_uplink()

    async def main() -> None:
        agent = OneAgent()
        with recorded() as sent:
            await agent.start(Cluster())
        count = len(sent)
        assert count > 0
        await services.fill(agent, 3)
        assert len(sent) == count

    asyncio.run(main())


def test_an_agent_that_starts_again_with_its_pods_writes_nothing() -> None:
    make_uplink()
    turns = Turns()
    with asyncio.Runner(loop_factory=lambda: TurnLoop(turns)) as runner:
        found = runner.run(agent_start.measure(turns, 5, 5, 4))
    assert found.keys() == {"empty", "empty turn", "start", "turn"}
    assert 0 < found["turn"] <= found["start"] * 1000 + 1000


def test_the_other_program_commits_where_the_agent_is() -> None:
    make_uplink()
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    assert not kernel.foreign_commit()
    found: dict[str, float] = {}
    with foreign_commits.other_program(found):
        for _ in range(1000):
            if kernel.foreign_commit():
                break
            time.sleep(0.02)
        else:
            raise AssertionError("nothing was committed")
    assert found["commits a second"] > 0


def test_a_node_has_room_for_the_pods_of_a_bench() -> None:
    assert SETTINGS.network.cluster_cidrs == ("10.128.0.0/9",)
    blocks = [one.spec.pod_cidrs for one in agent_start.nodes(agent_start.PEERS).values()]
    assert len(set(blocks)) == agent_start.PEERS + 1
    with NetworkNamespace.create(Workers(1)) as namespace:
        assert namespace.inode
