"""How long does it take from a change that another program makes to podplane's objects until the kernel has them again?

The agent runs as in production over the real kernel in a network namespace of its own, in this process; the changes are made by a
thread, over sockets of its own, and the same thread asks the kernel until the object is there. Of nf_tables the time to read the tables
comes on top of the must, and is the floor that the row shows.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import msgspec

from bench.agents import NAME, SETTINGS, Cluster, OneAgent, cancelled, make_uplink, node, pod
from bench.common import Row
from bench.services import ENDPOINTS, endpoints, measured, service
from podplane.agent.agent import ownership
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.lab.faults import foreign
from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.nodes.plan import TABLE
from podplane.state.network import Neighbour, Proxy
from podplane.state.nft import Chain
from podplane.state.operations import Operation
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value

SERVICES, ROUNDS, MUST_MILLISECONDS, LIMIT_SECONDS = 100, 9, 100.0, 20.0
PEER_IP, PEER_BLOCK = "192.168.1.11", "10.128.1.0/24"
NFT, READING = "adds a rule to a chain", "reading"
LOOK_SECONDS = 0.004
PROXY = Proxy(link="eth0", ip=ipaddress.ip_address("192.168.1.250"), protocol=ROUTE_PROTOCOL)
NEIGHBOUR = Neighbour(link="eth0", ip=ipaddress.ip_address(PEER_IP), mac="02:00:00:00:00:11", protocol=ROUTE_PROTOCOL)


def run(short: bool) -> list[Row]:
    """A row for each kind of object."""
    found: dict[str, list[float]] = {}
    for name, milliseconds in measured("bench.repairs", 3 if short else ROUNDS).items():
        found.setdefault(name.partition(" #")[0], []).append(milliseconds)
    reading = found.pop(READING)
    rows = []
    for kind, samples in found.items():
        is_nft = kind == NFT
        must = MUST_MILLISECONDS + (median(reading) if is_nft else 0.0)
        note = f"{SERVICES} Services × {ENDPOINTS}; beside it: reading all tables" if is_nft else ""
        what = f"another program {kind}: repaired after"
        rows.append(Row(what, samples, "ms", must, note=note, floor=reading if is_nft else []))
    return rows


# In the namespace.


@dataclass(frozen=True)
class NodeContext:
    """The node whose machine is this namespace: the `Place` of foreign changes."""

    sysctls: Mapping[str, str]
    name: str = NAME
    namespace: Namespace = field(default_factory=CurrentNamespace)
    ownership: Ownership = field(default_factory=lambda: ownership(SETTINGS.network))
    config: NetworkConfig = SETTINGS.network

    def objects(self, *tables: tuple[str, str]) -> dict[Identity, Value]:
        """What the kernel holds of podplane now: all but nf_tables, and of those these tables."""
        kernel = Kernel(self.namespace, KernelOpener())
        try:
            return kernel.read(msgspec.structs.replace(self.ownership, tables=frozenset(tables)))
        finally:
            kernel.close()

    def chains(self) -> list[Value]:
        """The chains of one small table, with their rules."""
        return [value for value in self.objects(TABLE).values() if isinstance(value, Chain)]

    def forwards(self) -> bool:
        """Is the sysctl as podplane wants it?"""
        return KernelOpener().sysctls(self.namespace).read([foreign.SYSCTL])[foreign.SYSCTL] == self.sysctls[foreign.SYSCTL]


def changes(node: NodeContext) -> dict[str, tuple[Callable[[], str], Callable[[], bool]]]:
    """What another program does, by name, and how it is seen that this is repaired."""
    network, chains = node.objects().keys(), node.chains()

    def is_whole() -> bool:
        return node.objects().keys() >= network

    return {
        "deletes a route": (lambda: foreign.delete_route(node, PEER_BLOCK), is_whole),
        "deletes a neighbour": (lambda: foreign.delete_neighbour(node, ""), is_whole),
        "deletes an address": (lambda: foreign.delete_address(node, ""), is_whole),
        "deletes a pod's link": (lambda: foreign.delete_link(node, "pod-1"), is_whole),
        "changes a sysctl": (lambda: foreign.change_sysctl(node, foreign.SYSCTL), node.forwards),
        "deletes a proxy": (lambda: delete_proxy(node), is_whole),
        NFT: (lambda: foreign.add_rule(node, ""), lambda: node.chains() == chains),
    }


def delete_proxy(node: NodeContext) -> str:
    """What `ip neighbour delete proxy` does."""
    kernel = Kernel(node.namespace, KernelOpener())
    try:
        report = kernel.apply([Operation(PROXY, None)])
    finally:
        kernel.close()
    if report.failed:
        raise RuntimeError(str(report.failed[0]))
    return "the proxy was deleted"


def milliseconds_of(change: Callable[[], str], is_repaired: Callable[[], bool]) -> float:
    """From the change to the repair. RuntimeError when nothing was broken, or it is not repaired."""
    change()
    began = time.monotonic()
    while not is_repaired():
        time.sleep(LOOK_SECONDS)  # the agent is in the same process, and has its turn now
        if time.monotonic() - began > LIMIT_SECONDS:
            raise RuntimeError("it is not repaired")
    return (time.monotonic() - began) * 1000


def measure(node: NodeContext, rounds: int) -> dict[str, float]:
    """All changes, several times; runs beside the loop."""
    found: dict[str, float] = {}
    for name, (change, is_repaired) in changes(node).items():
        for number in range(rounds):
            time.sleep(0.15 + 0.07 * number / rounds)  # at another time between two polls
            found[f"{name} #{number}"] = milliseconds_of(change, is_repaired)
    for number in range(rounds):
        began = time.monotonic()
        node.objects(*node.ownership.tables)
        found[f"{READING} #{number}"] = (time.monotonic() - began) * 1000
    return found


async def main(rounds: int) -> dict[str, float]:
    """An agent with a peer, Services, a pod and a proxy, and what happens to it."""
    agent, workers = OneAgent(), Workers()
    nodes = {NAME: node(), "node2": node("node2", PEER_BLOCK, ip=PEER_IP)}
    await agent.start(Cluster(nodes, map(service, range(SERVICES)), map(endpoints, range(SERVICES))))
    await agent.add(pod(1, workers))
    agent.want([PROXY, NEIGHBOUR])
    await agent.settle()
    running = asyncio.create_task(agent.run())
    found = await asyncio.to_thread(measure, NodeContext(agent.sysctls), rounds)
    await cancelled(running)
    return found


if __name__ == "__main__":
    make_uplink()
    print(json.dumps(asyncio.run(main(int(sys.argv[1])))))
