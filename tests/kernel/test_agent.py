"""An agent on a real kernel that is not as it should be."""

from __future__ import annotations

import asyncio
import subprocess

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.kernel.door import Kernel, KernelOpener
from podplane.kernel.namespace import CurrentNamespace
from podplane.services import tables
from podplane.state.nft import Set, Table
from podplane.state.operations import Operation
from tests.plans import agent_settings, node
from tests.unit.agent.rig import Object, caches_of, served

pytestmark = pytest.mark.kernel


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
