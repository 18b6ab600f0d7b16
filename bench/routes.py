"""Routes to 5,000 nodes, by each backend: from nothing, one node that comes or goes, and all planned again with nothing to change.

The agent runs over the real kernel in a network namespace of its own. What it sends to program all peers is sent again from bytes into
another namespace: that is what the kernel alone takes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import sys
import time
from dataclasses import replace
from statistics import quantiles

from bench import factor
from bench.agent_start import nodes
from bench.agents import NAME, Cluster, OneAgent, as_sent, by_backend, make_uplink, node, recorded_routes
from bench.common import Row
from bench.judging import ABSOLUTE, PYTHON
from bench.services import measured
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.loop_turns import TurnLoop, Turns
from podplane.model.objects import Node

BACKENDS = ("host-gw", "vxlan")
PEERS, JOINS = 5_000, 200
PROGRAM = {"host-gw": 0.5, "vxlan": 1.0}
RATE, ONE, AGAIN, TURN, MEMORY = 2.0, 5.0, 50.0, 20.0, 150.0
"""What must be: seconds; how many times as long as the kernel alone; milliseconds from event to kernel, of all peers planned again, and of
the longest turn; the most memory in MB, up to when all peers are programmed."""


def run(short: bool) -> list[Row]:
    """Several runs, each in a process and a namespace of its own."""
    peers, rounds = (100, 1) if short else (PEERS, 5)
    return [row for number, name in enumerate(BACKENDS) for row in _rows(name, number, peers, rounds, short)]


def _rows(name: str, number: int, peers: int, rounds: int, short: bool) -> list[Row]:
    runs = [measured("bench.routes", number, peers) for _ in range(rounds)]

    def row(what: str, figure: str, unit: str, must: float, work: str = PYTHON) -> Row:
        return Row(
            f"{peers:,} peers by {name}: {what}", [one[figure] for one in runs], unit, None if short else must, work=work
        )

    program = row("programmed from nothing", "program", "s", PROGRAM[name])
    return [
        replace(program, floor=[one["replay"] for one in runs], floor_must=None if short else RATE),
        row("a node comes or goes, event to kernel, p50", "half", "ms", ONE),
        row("a node comes or goes, event to kernel, p99", "slowest", "ms", ONE),
        row("all planned again, nothing to write", "again", "ms", AGAIN),
        row("all planned again, longest turn of the loop", "turn", "ms", TURN),
        row("memory of the process, Nodes and bench included", "memory", "MB", MEMORY, ABSOLUTE),
    ]


# In the namespace.


async def measure(turns: Turns, backend: str, peers: int) -> dict[str, float]:
    """All figures of a run."""
    everything = nodes(peers)
    gc.collect()
    gc.disable()  # as in a lab: what a start makes stays
    agent = OneAgent(settings=by_backend(backend))
    with recorded_routes() as sent:
        await agent.start(Cluster({NAME: everything.pop(NAME)}))
        started = len(sent)
        began = time.perf_counter()
        for one in everything.values():
            agent.node_changed(None, one)
        await agent.settle()
        program = time.perf_counter() - began
        filling = list(map(as_sent, sent[started:]))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = await joins(agent)
    written = agent.written
    turns.reset()
    await asyncio.sleep(0)
    agent.plan_peers_again()
    began = time.perf_counter()
    await agent.settle()
    again = time.perf_counter() - began
    await asyncio.sleep(0)
    if agent.written != written:
        raise RuntimeError("there was something to write")
    longest = turns.longest.seconds
    return {
        **figures,
        "program": program,
        "replay": replay(list(map(as_sent, sent[:started])), filling),
        "again": again * 1000,
        "turn": longest * 1000,
        "memory": memory,
    }


async def joins(agent: OneAgent) -> dict[str, float]:
    """A node that comes and goes, again and again: milliseconds from the event until the kernel has what follows."""
    newcomer: Node = node("newcomer", "10.250.1.0/24", ip="192.168.200.1")
    took = []
    for number in range(JOINS):
        old, new = (None, newcomer) if number % 2 == 0 else (newcomer, None)
        began = time.perf_counter()
        agent.node_changed(old, new)
        await agent.settle()
        took.append((time.perf_counter() - began) * 1000)
    marks = quantiles(took, n=100)
    return {"half": marks[49], "slowest": marks[98]}


def replay(start: list[bytes], filling: list[bytes]) -> float:
    """Seconds in which the kernel takes the second part, after the first one, in a namespace that has an uplink and nothing else."""
    if not filling:
        raise RuntimeError("nothing was recorded: does bench.agents still look where the agent sends?")
    workers = Workers(1)
    with NetworkNamespace.create(workers) as empty:
        empty.run(make_uplink)
        route = empty.run(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, factor.NETLINK_ROUTE)
        for part in start:
            route.send(part)
            route.recv(1 << 20)  # what can't be made twice, as a link that is there already, is refused
        seconds = factor.send_all(route, filling)
        route.close()
    workers.close()
    return seconds


def main() -> None:
    """In the namespace: the figures as JSON."""
    make_uplink()
    turns = Turns()
    with asyncio.Runner(loop_factory=lambda: TurnLoop(turns)) as runner:
        print(json.dumps(runner.run(measure(turns, BACKENDS[int(sys.argv[1])], int(sys.argv[2])))))


if __name__ == "__main__":
    main()
