"""Policies of a large cluster on one node: start, restart, memory; a label of a pod changes, a policy comes or goes, a pod is attached.

The agent runs over the real kernel in a network namespace of its own, with the caches that informers fill. A start is all of it: objects
are decoded from JSON into the caches, the index is filled, everything is planned, and the kernel has acknowledged it. A change begins
when it comes to the cache, and ends when the kernel has acknowledged what follows. Notes have the time of the process' CPU, which other
programs on the machine lengthen less.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median, quantiles

from bench import policy_cluster as cluster
from bench.agents import Attached, Cluster, OneAgent, WatchedKernel, delete_policies, make_uplink, node, sandbox_of
from bench.common import Row
from bench.judging import ABSOLUTE, PYTHON
from bench.services import measured
from bench.slim_pods import NAMESPACES, REPLICAS, pod
from podplane import pauses
from podplane.agent.caches import Caches
from podplane.kernel.namespace import CurrentNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.model.pod_info import PodInfo
from podplane.model.policy import NetworkPolicy

PODS, POLICIES, LOCAL, CHANGES = 100_000, 10_000, 250, 400
START, RESTART, MEMORY = 8.0, 4.0, 300.0
"""What must be: seconds, megabytes."""
LABEL, SLOW_LABEL, SLOW_POLICY, ADDED = 2.0, 20.0, 30.0, 2.0
"""Milliseconds: half of the changes of labels, 99 of 100 of them, and of policies; a pod that policies select beside one without any."""
Times = tuple[list[float], list[float], list[float]]
"""Milliseconds until the kernel has a change; of CPU until then; until the flows that it takes back have ended, too."""


def run(short: bool) -> list[Row]:
    """Several runs, each in a process and a namespace of its own."""
    pods, policies, local, changes, rounds = (20_000, 2_000, 50, 100, 1) if short else (PODS, POLICIES, LOCAL, CHANGES, 3)
    runs = [measured("bench.policy_changes", pods, policies, local, changes) for _ in range(rounds)]
    of = f"{policies:,} policies, {pods:,} pods, {2 * local} policies concern the node"

    def row(what: str, name: str, unit: str, must: float | None, work: str = PYTHON) -> Row:
        cpu = [found[f"{name}, CPU"] for found in runs if f"{name}, CPU" in found]
        note = f"{median(cpu):.2f} {unit} of CPU" if cpu else ""
        samples = [found[name] for found in runs]
        return Row(f"{of}: {what}", samples, unit, None if short else must, work=work, note=note)

    added = [row(f"a pod is attached {how}", name, "ms", None) for how, name in POD_STARTS.items()]
    more = [found["a policed pod"] - found["a free pod"] for found in runs]
    return [
        replace(row("start from nothing until all is in force", "start", "s", START), note=_parts(runs)),
        row("restart, nothing to write", "restart", "s", RESTART),
        row("peak memory of the agent", "memory", "MB", MEMORY, ABSOLUTE),
        row("a label of a peer changes, in force, p50", "peer p50", "ms", LABEL),
        row("a label of a peer changes, in force, p99", "peer p99", "ms", SLOW_LABEL),
        row("a label of a pod of the node changes, in force, p50", "local p50", "ms", LABEL),
        row("a label of a pod of the node changes, in force, p99", "local p99", "ms", SLOW_LABEL),
        row("a label of a peer changes, flows that it takes back have ended, p50", "peer p50, ended", "ms", None),
        row("a policy comes, in force, p50", "policy p50", "ms", None),
        row("a policy comes, in force, p99", "policy p99", "ms", SLOW_POLICY),
        row("a policy goes, p99", "end p99", "ms", None),
        *added,
        Row(
            f"{of}: added to the attaching of a pod by policies that select it",
            more,
            "ms",
            None if short else ADDED,
            work=PYTHON,
        ),
    ]


POD_STARTS = {
    "that no policy selects": "a free pod",
    "that policies select, which other pods of the node are under": "a policed pod",
    "that policies select, which no other pod of the node is under": "a first pod",
}


def _parts(runs: list[dict[str, float]]) -> str:
    decoded, begun = (median(found[name] for found in runs) for name in ("decoded", "begun"))
    elements = median(found["elements"] for found in runs)
    return f"{decoded:.1f} s: objects are decoded and the index filled; {begun:.1f} s: {elements:,.0f} objects are planned and written"


# In the namespace.


class Measured:
    """One node of the cluster."""

    def __init__(self, pods: int, policies: int, local: int) -> None:
        self.pods, self.workloads, self.policies = pods, pods // REPLICAS, policies
        self.local = cluster.local_pods(local)
        self.workers = Workers()
        self.caches = Caches()
        self.kernel = WatchedKernel(CurrentNamespace(), KernelOpener())
        self.agent = OneAgent(self.kernel, self.caches)

    def decode(self) -> float:
        """Fill caches from JSON; seconds without the making of the JSON."""
        self.caches, seconds = Caches(), 0.0
        policies = [cluster.policy_json(number, self.workloads) for number in range(self.policies)]
        began = time.perf_counter()
        for namespace in cluster.namespaces():
            self.caches.namespaces.set(namespace)
        for raw in policies:
            self.caches.policies.set(NetworkPolicy.from_json(raw))
        seconds += time.perf_counter() - began
        for batch in cluster.batches(self.pods):
            began = time.perf_counter()
            for raw in batch:
                self.caches.pods.set(PodInfo.from_json(raw))
            seconds += time.perf_counter() - began
        return seconds

    async def begin(self, attached: list[Attached]) -> tuple[float, bool]:
        """An agent starts on the caches: seconds, and was there anything to write?"""
        self.kernel = WatchedKernel(CurrentNamespace(), KernelOpener())
        self.agent = OneAgent(self.kernel, self.caches)
        self.agent.cache(Cluster(nodes={"node1": NODE}))
        began = time.perf_counter()
        written = await self.agent.begin(attached)
        return time.perf_counter() - began, written

    async def attach_local(self) -> list[Attached]:
        """Attach the node's pods while nobody knows any policy."""
        await self.begin([])
        infos = [PodInfo.from_json(json.dumps(pod(number)).encode()) for number in self.local]
        for info in infos:
            await self.agent.add(sandbox_of(info, self.workers))
        attached = self.agent.attached
        await self.agent.stop()
        return attached

    async def timed(self, change: Callable[[], None], times: Times) -> None:
        """Bring one change to the kernel."""
        await asyncio.sleep(random.random() * 0.005)
        written = self.agent.written
        began, used = time.perf_counter(), time.process_time()
        change()
        await self.agent.settle()
        times[0].append((self.kernel.done_at - began) * 1000)
        times[1].append((self.kernel.used - used) * 1000)
        times[2].append((time.perf_counter() - began) * 1000)
        if self.agent.written == written:
            raise RuntimeError("the change had no effect in the kernel")

    def relabel(self, path: str, workload: int) -> None:
        """Make a pod one of another workload."""
        old = self.caches.pods.objects[path]
        self.agent.pod_changed(old, cluster.relabelled(old, workload))

    def paths(self, workload: int) -> list[str]:
        """The pods of a workload that are elsewhere."""
        first = workload * REPLICAS
        return [cluster.path_of(number) for number in range(first + 1, first + REPLICAS)]

    async def relabel_peers(self, count: int) -> Times:
        """A pod that is a peer of policies of the node becomes one of another workload, and is a peer of others."""
        times: Times = ([], [], [])
        moved: dict[str, int] = {}
        for _ in range(count):
            workload = random.choice(cluster.peers_of(random.randrange(len(self.local)), self.workloads))
            path = random.choice(self.paths(workload))
            now = moved.get(path, workload)
            moved[path] = (now + NAMESPACES) % self.workloads if now == workload else workload
            await self.timed(functools.partial(self.relabel, path, moved[path]), times)
        for path in moved:
            self.relabel(path, cluster.workload_of(path))
        await self.agent.settle()
        return times

    async def relabel_local(self, count: int) -> Times:
        """A pod of the node comes under other policies, and back."""
        times: Times = ([], [], [])
        for _ in range(count // 2):
            number = random.choice(self.local)
            path, workload = cluster.path_of(number), number // REPLICAS
            for to in ((workload + NAMESPACES) % self.workloads, workload):
                await self.timed(functools.partial(self.relabel, path, to), times)
        return times

    async def policies_come_and_go(self, count: int) -> tuple[Times, Times]:
        """A policy for a pod of the node comes, with peers that the node has none of yet; then it goes."""
        comes: Times = ([], [], [])
        goes: Times = ([], [], [])
        for turn in range(count):
            number = random.choice(self.local) // REPLICAS + 3 * self.workloads
            new = cluster.policy(number, self.workloads, name=f"new{turn}-")
            await self.timed(functools.partial(self.agent.policy_changed, None, new), comes)
            await self.timed(functools.partial(self.agent.policy_changed, new, None), goes)
        return comes, goes

    async def attach_more(self, count: int) -> dict[str, Times]:
        """Pods are attached and detached, of each kind in turns."""
        found: dict[str, Times] = {name: ([], [], []) for name in POD_STARTS.values()}
        for turn in range(count):
            local = random.choice(self.local)
            numbers = {
                "a policed pod": local + 1 + turn % (REPLICAS - 1),
                "a first pod": (self.workloads - 1 - turn % 100) * REPLICAS,
            }
            infos = {name: self.caches.pods.objects[cluster.path_of(number)] for name, number in numbers.items()}
            infos["a free pod"] = cluster.free_pod(turn)
            self.agent.pod_changed(None, infos["a free pod"])
            for name in random.sample(list(infos), len(infos)):
                await self._attach(infos[name], found[name])
            self.agent.pod_changed(infos["a free pod"], None)
            await self.agent.settle()
        return found

    async def _attach(self, info: PodInfo, times: Times) -> None:
        request = sandbox_of(info, self.workers)
        began, used = time.perf_counter(), time.process_time()
        await self.agent.add(request)
        times[0].append((time.perf_counter() - began) * 1000)
        times[1].append((time.process_time() - used) * 1000)
        await self.agent.delete(request)
        await self.agent.settle()
        request.netns.close()


NODE = node("node1", "10.128.0.0/22", "fd00:10:128::/64")


async def measure(pods: int, policies: int, local: int, changes: int) -> dict[str, float]:
    """All of it, one after the other."""
    one = Measured(pods, policies, local)
    attached = await one.attach_local()
    delete_policies()
    gc.collect()
    gc.disable()  # as in a lab: what a start makes stays
    found = {"decoded": one.decode()}
    found["begun"], _ = await one.begin(attached)
    found |= {"start": found["decoded"] + found["begun"], "elements": one.agent.written}
    gc.enable()
    pauses.shorten()
    found |= _cuts("peer", await one.relabel_peers(changes))
    found |= _cuts("local", await one.relabel_local(changes))
    comes, goes = await one.policies_come_and_go(changes)
    found |= _cuts("policy", comes) | _cuts("end", goes)
    for name, (passed, used, _) in (await one.attach_more(changes // 4)).items():
        found |= {name: median(passed), f"{name}, CPU": median(used)}
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    await one.agent.stop()
    gc.disable()
    decoded = one.decode()
    begun, written = await one.begin(attached)
    if written:
        raise RuntimeError("there was something to write")
    return found | {"restart": decoded + begun}


def _cuts(name: str, times: Times) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, of in (("", times[0]), (", CPU", times[1]), (", ended", times[2])):
        cuts = quantiles(of, n=100)
        found |= {f"{name} p50{kind}": cuts[49], f"{name} p99{kind}": cuts[98]}
    return found


def main() -> None:
    """In the namespace: the figures as JSON."""
    make_uplink()
    print(json.dumps(asyncio.run(measure(*map(int, sys.argv[1:5])))))


if __name__ == "__main__":
    main()
