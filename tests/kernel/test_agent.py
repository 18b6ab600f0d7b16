"""An agent on a real kernel that is not as it should be."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.pods import bridge
from podplane.services import tables
from podplane.state.nft import Set, Table
from podplane.state.operations import Operation
from tests.kernel.cluster import Talk
from tests.kernel.pods import Pod, wait_for_links
from tests.plans import agent_settings, node
from tests.unit.agent.rig import Object, caches_of, served

pytestmark = pytest.mark.kernel
VERSIONS = (4, 6)


def started(*objects: Object) -> Agent:
    """An agent of node1, which is this namespace, that has started in a cluster with these objects."""
    own = agent_settings((4,), service_cidrs=("10.96.0.0/16",))
    agent = Agent("node1", own, Kernel(CurrentNamespace(), KernelOpener()), caches_of(*objects))
    asyncio.run(agent.start())
    assert not agent.ledger.refused, [str(one.error) for one in agent.ledger.refused.values()]
    return agent


def uplink() -> None:
    for words in ("link set lo up", "link add eth0 type bridge", "addr add 192.168.1.10/24 dev eth0", "link set eth0 up"):
        subprocess.run(["ip", *words.split()], check=True)


async def interrupted() -> list[int]:
    """TTLs of datagrams from one pod to another: before and after somebody deletes the bridge's table, and after an audit."""
    own = Agent("node1", agent_settings((4,)), Kernel(CurrentNamespace(), KernelOpener()), caches_of(node(1, (4,))))
    await own.start()
    first, second = (Pod(number, (4,), Workers(1)) for number in (1, 2))
    for pod in (first, second):
        uid, name = f"uid-{pod.number}", f"pod{pod.number}"
        attached = await own.network.add(Attachment(uid, uid, "default", name, pod.namespace))
        assert attached.ips == (pod.ip(4),)
        pod.open()
    wait_for_links([first, second])
    await own.poll()
    ttls = [ttl_between(first, second)]
    family, table = bridge.TABLE
    Kernel(CurrentNamespace(), KernelOpener()).apply([Operation(Table(family=family, table=table), None)])
    ttls += [ttl_between(first, second) for _ in range(5)]
    await own.poll()
    return [*ttls, ttl_between(first, second)]


async def talking_while_the_node_is_deleted() -> None:
    """A connection of two pods, and one of the node to a pod, go on while the Node is deleted, and when it is registered again."""
    caches = caches_of(own := node(1, VERSIONS))
    agent = Agent("node1", agent_settings(VERSIONS), Kernel(CurrentNamespace(), KernelOpener()), caches)
    await agent.start()
    caches.subscribe(agent.changed)
    first, second = (Pod(number, VERSIONS, Workers(1)) for number in (1, 2))
    for pod in (first, second):
        uid = f"uid-{pod.number}"
        await agent.network.add(Attachment(uid, uid, "default", f"pod{pod.number}", pod.namespace))
    talks = [Talk(first.namespace, (ip, 80), second.namespace, (ip, 80)) for ip in map(second.ip, VERSIONS)]
    talks.append(Talk(CurrentNamespace(), (first.ip(4), 80), first.namespace, (first.ip(4), 80)))
    written = agent.writer.operations_applied
    for change in (lambda: caches.nodes.remove("node1"), lambda: caches.nodes.set(own)):
        change()
        await agent.reconcile()
        await agent.idle()
        await agent.poll()
        for talk in talks:
            talk.exchange()
    assert agent.writer.operations_applied == written
    for talk in talks:
        talk.close()


def test_connections_go_on_while_the_node_is_deleted() -> None:
    uplink()
    asyncio.run(talking_while_the_node_is_deleted())


def ttl_between(source: Pod, target: Pod) -> int:
    source.send(4, target.ip(4), b"x")
    return target.receive(4)[1]


def test_a_bridge_table_that_somebody_deleted_interrupts_nothing_and_comes_back() -> None:
    uplink()
    assert asyncio.run(interrupted()) == [64, *[63] * 5, 64]


def test_tables_of_another_version_are_made_anew() -> None:
    """The kernel can't change a set's type, nor delete a set that rules look into."""
    uplink()
    objects = [node(1, (4,)), *served(1, (2, 3)), *served(2, (2, 3))]
    wanted = {i: v for i, v in started(*objects).ledger.desired.items() if i[0].startswith("nft")}
    family, table = tables.TABLE
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    kernel.apply([Operation(Table(family=family, table=table), None)])
    mine = [v for v in wanted.values() if getattr(v, "table", "") == table]
    old = [msgspec.structs.replace(v, key=("mark",)) if isinstance(v, Set) and v.name == "local4" else v for v in mine]
    kernel.apply([Operation(None, v) for v in old])
    found = kernel.read(started(*objects).watcher.ownership)
    tables_now = {i: v for i, v in found.items() if i[0].startswith("nft")}
    assert tables_now.keys() == wanted.keys()
    assert all(kernel.matches(wanted[i], v) for i, v in tables_now.items())


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("nf_conntrack_tcp_timeout_close_wait", "3600"), ("nf_conntrack_tcp_timeout_established", "86400")],
)
def test_connections_are_remembered_as_kube_proxy_has_it(name: str, seconds: str) -> None:
    """kube-proxy's defaults of --conntrack-tcp-timeout-close-wait and -established; what somebody else sets is put right."""
    uplink()
    path = Path("/proc/sys/net/netfilter") / name
    assert path.read_text().strip() != seconds
    agent = started(node(1, (4,)))
    assert path.read_text().strip() == seconds
    path.write_text("61")
    asyncio.run(agent.poll())
    assert path.read_text().strip() == seconds
