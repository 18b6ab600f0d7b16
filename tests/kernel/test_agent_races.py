"""An agent on a real kernel while others change it: another program's commits, refusals, and readings during writes."""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
import threading
from collections.abc import Hashable, Iterable

import msgspec
import pytest

from bench.agents import Cluster, OneAgent, cancelled, make_uplink, pod
from bench.foreign_commits import AT_ONCE, come, leave, other_program
from bench.services import endpoints, service
from podplane.agent.agent import Agent
from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.state.ledger import Status
from podplane.state.network import Neighbour
from podplane.state.nft import GOTO, Element, Verdict
from podplane.state.operations import Failure, Operation
from podplane.state.value import Fragment
from tests.plans import OWNER, agent_settings, node
from tests.unit.agent.rig import caches_of, served

pytestmark = pytest.mark.kernel
ADDS, COMMITS, MOST_ADDS = 120, 60, 1200
"""So many pods come, and then more until there were so many commits: on a busy machine the other program commits less often than it is to,
and may have begun late."""


def test_no_add_fails_while_another_program_commits() -> None:
    """An operation is computed against what is known of the kernel when it is sent, whatever the readings say that the other
    program's commits ask for."""
    make_uplink()
    asyncio.run(_add_while_another_program_commits())
    assert "veth" not in subprocess.run(["ip", "-d", "link"], capture_output=True, text=True, check=True).stdout


async def _add_while_another_program_commits() -> None:
    agent, workers = OneAgent(), Workers()
    await agent.start(Cluster(services=map(service, range(50)), slices=map(endpoints, range(50))))
    going: asyncio.Queue[Attachment] = asyncio.Queue()
    running, leaving = asyncio.create_task(agent.run()), asyncio.create_task(leave(agent, going))
    refused: list[str] = []
    with other_program({}) as committed:
        for number in range(0, MOST_ADDS, AT_ONCE):
            if number >= ADDS and committed() >= COMMITS:
                break
            came = await asyncio.gather(*(come(agent, [pod(number + n, workers)], going) for n in range(AT_ONCE)))
            refused += [why for some in came for why in some]
        assert committed() >= COMMITS
    assert refused == []
    await cancelled(leaving)
    while not going.empty():
        await agent.delete(going.get_nowait())
    await agent.settle()
    await agent.idle()
    await cancelled(running)
    assert not agent.attached
    workers.close()


def test_after_a_refused_element_a_good_change_is_made_at_once() -> None:
    """The value that was refused never was there: it is not deleted before the good one is added, which the kernel would refuse too."""
    make_uplink()
    own = agent_settings((4,), service_cidrs=("10.96.0.0/16",))
    agent = Agent("node1", own, Kernel(CurrentNamespace(), KernelOpener()), caches_of(node(1, (4,)), *served(1, (2,))))
    asyncio.run(_change_after_refusal(agent))


async def _change_after_refusal(agent: Agent) -> None:
    await agent.start()
    book, before = agent.ledger, agent.ledger.desired
    good = next(v for v in before.values() if isinstance(v, Element) and isinstance(v.data, Verdict))
    key = book.desired.owners(good.identity)[0]
    whole = book.desired.fragment(key)
    bad = msgspec.structs.replace(good, data=Verdict(GOTO, "no-such-chain"))
    assert await _replaced(agent, key, {**whole, good.identity: bad})
    assert book.status(good.identity) is Status.REFUSED
    better = msgspec.structs.replace(good, comment="better")
    assert await _replaced(agent, key, {**whole, good.identity: better}) == []
    assert book.status(good.identity) is Status.DONE and not book.refused
    found = Kernel(CurrentNamespace(), KernelOpener()).read(agent.watcher.ownership)
    assert found[good.identity] == better


async def _replaced(agent: Agent, key: Hashable, wanted: Fragment) -> list[Failure]:
    return await agent.writer.settled(agent.ledger.replace(key, wanted))


def test_what_is_read_in_a_thread_does_not_disturb_what_is_written_meanwhile() -> None:
    """Neither gets the other's answers: a socket serves one thread at a time, so a reading has its own."""
    make_uplink()
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    values = list(_neighbours(2000))
    assert not kernel.apply([Operation(None, value) for value in values]).failed
    readings: list[int] = []
    failures: list[str] = []
    threads = [
        threading.Thread(target=lambda: readings.extend(len(kernel.read(OWNER)) for _ in range(30)), daemon=True),
        threading.Thread(target=_write, args=(kernel, values[:10], failures), daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "one waits for an answer that the other one took"
    assert failures == []
    assert len(readings) == 30 and min(readings) >= 1990


def _neighbours(count: int) -> Iterable[Neighbour]:
    first = ipaddress.ip_address("192.168.4.0")
    for number in range(count):
        yield Neighbour(link="eth0", ip=first + number, mac="0a:00:00:00:00:01", protocol=OWNER.route_protocol)


def _write(kernel: Kernel, values: list[Neighbour], failures: list[str]) -> None:
    for _ in range(100):
        for step in ([Operation(v, None) for v in values], [Operation(None, v) for v in values]):
            failures += [str(one) for one in kernel.apply(step).failed]
