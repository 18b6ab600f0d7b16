"""An agent starts on a node of a large cluster that one before it left as it should be: how long does it take, and does its loop go on?

5,000 peers, 10,000 Services with 10 endpoints each, 250 pods that are attached. The agent runs over the real kernel in a network
namespace of its own, on a loop that measures each turn.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

from bench.agents import NAME, Attached, Cluster, OneAgent, make_uplink, node, pod
from bench.common import Row
from bench.judging import PYTHON
from bench.services import ENDPOINTS, SERVICES, endpoints, measured, service
from podplane.kernel.namespace import Workers
from podplane.loop_turns import TurnLoop, Turns
from podplane.model.objects import Node

PEERS, PODS = 5_000, 250
SECONDS, TURN_MILLISECONDS = 3.0, 20.0
"""What must be."""
AT_ONCE = 16


def run(short: bool) -> list[Row]:
    """Several runs, each in a process and a namespace of its own."""
    peers, services, pods, rounds = (50, 100, 10, 1) if short else (PEERS, SERVICES, PODS, 3)
    runs = [measured("bench.agent_start", peers, services, pods) for _ in range(rounds)]
    size = f"{peers:,} peers, {services:,} Services × {ENDPOINTS} endpoints"

    def row(what: str, name: str, unit: str, must: float | None) -> Row:
        samples = [found[name] for found in runs]
        return Row(f"{size}{what}", samples, unit, None if short else must, work=PYTHON)

    return [
        row(": an agent starts on an empty kernel", "empty", "s", None),
        row(": an agent starts on an empty kernel, longest turn of its loop", "empty turn", "ms", None),
        row(f", {pods} pods: an agent starts and finds nothing to write", "start", "s", SECONDS),
        row(
            f", {pods} pods: an agent starts and finds nothing to write, longest turn of its loop",
            "turn",
            "ms",
            TURN_MILLISECONDS,
        ),
    ]


# In the namespace.


def nodes(peers: int) -> dict[str, Node]:
    """node1 and so many others, each with a block of its own."""
    found = {NAME: node()}
    for number in range(1, peers + 1):
        block, ip = f"10.{128 + (number >> 8)}.{number & 255}.0/24", f"192.168.{100 + (number >> 8)}.{number & 255}"
        found[f"peer{number}"] = node(f"peer{number}", block, ip=ip)
    return found


async def attach(agent: OneAgent, workers: Workers, count: int) -> list[Attached]:
    """Attach so many pods, some at a time."""
    requests = [pod(number, workers) for number in range(count)]
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*map(agent.add, requests[start : start + AT_ONCE]))
    return agent.attached


async def started(agent: OneAgent, cluster: Cluster, turns: Turns) -> tuple[float, float, bool]:
    """(seconds, longest turn in milliseconds, was anything written) of a start. The caches are filled before, as informers do it."""
    agent.cache(cluster)
    turns.reset()
    await asyncio.sleep(0)  # what follows is in turns of its own
    began = time.perf_counter()
    written = await agent.begin(cluster.attached)
    seconds = time.perf_counter() - began
    await asyncio.sleep(0)
    return seconds, turns.longest.seconds * 1000, written


async def measure(turns: Turns, peers: int, services: int, pods: int) -> dict[str, float]:
    """Two starts, one after the other."""
    workers = Workers()
    everything = nodes(peers), [service(n) for n in range(services)], [endpoints(n) for n in range(services)]
    gc.collect()
    gc.disable()  # as in a lab: what a start makes stays
    first = OneAgent()
    empty, empty_turn, _ = await started(first, Cluster(*everything), turns)
    attached = await attach(first, workers, pods)
    again, turn, written = await started(OneAgent(), Cluster(*everything, attached), turns)
    if written:
        raise RuntimeError("there was something to write")
    print(turns.longest, file=sys.stderr)
    return {"empty": empty, "empty turn": empty_turn, "start": again, "turn": turn}


def main() -> None:
    """In the namespace: the figures as JSON."""
    make_uplink()
    turns = Turns()
    with asyncio.Runner(loop_factory=lambda: TurnLoop(turns)) as runner:
        print(json.dumps(runner.run(measure(turns, *map(int, sys.argv[1:4])))))


if __name__ == "__main__":
    main()
