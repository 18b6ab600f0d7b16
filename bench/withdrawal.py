"""A node among 5,000 dies: how long after the API says that it is not ready is what is sent to its pods refused? And when it is back, sent?

The agent runs over the real kernel in a network namespace of its own, with its probes. Another namespace has the addresses of all other
nodes and the gateways of their pods (a local route for all of them); of the one that is dead it drops what comes. The node is one that the
agent does not watch, so the probes begin with the API's word.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time

import msgspec

from bench.agent_start import nodes
from bench.agents import NAME, Cluster, OneAgent, by_backend
from bench.common import Row
from bench.services import measured
from podplane.agent.poller import Poller
from podplane.model.objects import Node, NodeCondition

PEERS, DEATHS = 5_000, 5
SECONDS = 1.0
"""What must be."""
PATIENCE = 30.0


def run(short: bool) -> list[Row]:
    """Several runs, each in a process and namespaces of its own."""
    peers, rounds = (50, 1) if short else (PEERS, 3)
    runs = [measured("bench.withdrawal", peers, 1 if short else DEATHS) for _ in range(rounds)]
    what = f"{peers:,} peers by host-gw: a node that is not watched"
    must = None if short else SECONDS
    return [
        Row(
            f"{what} dies, from NotReady to refused",
            [one["slowest"] for one in runs],
            "s",
            must,
            note="the slowest of each run",
        ),
        Row(f"{what} is ready again, until packets are sent", [one["back"] for one in runs], "s", must),
    ]


# In the namespace.


def make_network() -> int:
    """The uplink, and at its other end all other nodes; the id of a process in their namespace."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit("this part of a bench runs in a network namespace of its own: python -m bench.run withdrawal")
    others = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    time.sleep(0.2)
    ip("link set lo up", "link add eth0 type veth peer name eth0 netns " + str(others.pid))
    ip("addr add 192.168.1.10/16 dev eth0", "link set eth0 up")
    there(others.pid, "link set lo up", "link set eth0 up", "route add local 192.168.0.0/16 dev lo")
    there(others.pid, "route add 192.168.1.10 dev eth0", "route add local 10.128.0.0/9 dev lo")
    return others.pid


def ip(*commands: str) -> None:
    """`ip`, here."""
    for words in commands:
        subprocess.run(["ip", *words.split()], check=True)


def there(pid: int, *commands: str) -> None:
    """`ip`, at the other nodes."""
    for words in commands:
        subprocess.run(["nsenter", "--net", "--target", str(pid), "ip", *words.split()], check=True)


def ready(one: Node, status: str) -> Node:
    """A node of which the API says this."""
    told = msgspec.structs.replace(one.status, conditions=(NodeCondition("Ready", status),))
    return msgspec.structs.replace(one, status=told)


async def until(refused: bool, address: str) -> float:
    """Seconds until what is sent to an address is refused, or is not any more."""
    began = time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        while time.perf_counter() < began + PATIENCE:
            try:
                one.sendto(b"", (address, 9))
                is_refused = False
            except OSError:
                is_refused = True
            if is_refused == refused:
                return time.perf_counter() - began
            await asyncio.sleep(0.001)
    raise RuntimeError(f"{address} is {'not ' if refused else ''}refused after {PATIENCE:g} s")


async def measure(peers: int, deaths: int, others: int) -> dict[str, float]:
    """All figures of a run."""
    everything = {name: ready(one, "True") for name, one in nodes(peers).items()}
    agent, poller = OneAgent(settings=by_backend("host-gw")), Poller()
    await agent.start(Cluster(everything))
    probing = agent.probing(poller)
    tasks = [asyncio.create_task(one) for one in (agent.run(), probing.run())]
    began = time.perf_counter()
    while not probing.table.rows or not probing.is_settled:
        await asyncio.sleep(0.1)
        if time.perf_counter() > began + PATIENCE:
            raise RuntimeError("the watched peers do not answer")
    strangers = [name for name in everything if name != NAME and not probing.table.of(name)]
    died, back = [], []
    for name in strangers[:deaths]:
        one = everything[name]
        block = one.spec.pod_cidrs[0]
        there(others, f"route add blackhole {block} table local")
        agent.node_changed(one, ready(one, "Unknown"))
        died.append(await until(True, block.replace(".0/24", ".7")))
        agent.node_changed(ready(one, "Unknown"), one)
        back.append(await until(False, block.replace(".0/24", ".7")))
        there(others, f"route del blackhole {block} table local")
    for task in tasks:
        task.cancel()
    return {"slowest": max(died), "back": max(back)}


def main() -> None:
    """In the namespace: the figures as JSON."""
    others = make_network()
    try:
        print(json.dumps(asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]), others))))
    finally:
        subprocess.run(["kill", str(others)], check=True)


if __name__ == "__main__":
    main()
