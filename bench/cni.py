"""Attaching pods as a container engine does it, by processes: podplane-cni and its agent, beside Debian's bridge with host-local, alone and
in a chain with portmap and bandwidth.

    bench ── simulated API ──► `podplane agent` in one network namespace        its plugin is asked by a caller there
         └─ another caller, in a network namespace of its own                   bridge and host-local make a network there

Both take turns, pod by pod. Where the plugins of Debian's containernetworking-plugins are not there, ours are measured alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.agent_alone import OneProcess
from bench.agents import make_uplink
from bench.common import Row
from bench.judging import ABSOLUTE
from bench.services import measured
from bench.simulated_api import SimulatedApi, credentials, node
from podplane.apiserver.asgi import serve
from podplane.cni.install import SCRIPT
from podplane.cni.plugin import build
from podplane.kernel.namespace import NetworkNamespace, Workers

PLACES = (*filter(None, os.environ.get("CNI_PATH", "").split(":")), "/usr/lib/cni", "/opt/cni/bin")
NAMES = ("bridge", "host-local", "portmap", "bandwidth")
ROUNDS, CHAIN_ROUNDS, MANY, CALLERS = 300, 60, 500, 32
BLOCK, SUBNET = "10.128.0.0/21", "10.90.0.0/16"
ADD_P50, ADD_P99, DEL_P50, CHAIN_P50, MANY_TIMES = 0.33, 0.5, 0.2, 0.2, 4.0
"""What must be: of theirs, and how many times as many pods."""


def run(short: bool) -> list[Row]:
    """All of it in one run."""
    rounds, chain_rounds, many = (20, 5, 40) if short else (ROUNDS, CHAIN_ROUNDS, MANY)
    found: dict[str, Any] = measured("bench.cni", rounds, chain_rounds, many)
    ours, theirs = found["ours"], found["theirs"]
    rows = [
        *_compared("ADD", "bridge + host-local", ours["add"], theirs.get("add"), ADD_P50, ADD_P99),
        *_compared("DEL", "bridge + host-local", ours["del"], theirs.get("del"), DEL_P50),
        *_compared(f"ADD with {found['asks']}", "the chain", ours["chain add"], theirs.get("chain add"), CHAIN_P50),
        *_compared(f"DEL with {found['asks']}", "the chain", ours["chain del"], theirs.get("chain del"), CHAIN_P50),
    ]
    what = f"CNI, {many} pods added by {CALLERS} callers at once"
    rows.append(Row(what, [many / ours["many"]], "pods/s"))
    rows.append(Row(f"{what}: CPU of plugin and agent, each with its DEL", [ours["many cpu"] / many * 1000], "ms"))
    if theirs:
        rows[-1].note = f"bridge + host-local: {theirs['many cpu'] / many * 1000:.1f} ms"
        times = [theirs["many"] / ours["many"]]
        rows.append(
            Row(f"{what}, beside bridge + host-local", times, "times as many", MANY_TIMES, at_least=True, work=ABSOLUTE)
        )
    return rows


def _compared(
    what: str, others: str, ours: Sequence[float], theirs: Sequence[float] | None, must: float, slowest: float | None = None
) -> list[Row]:
    """The milliseconds of a call, and what part of theirs they are, for the median and the slowest one of a hundred."""
    rows = [Row(f"CNI {what}, whole process, p50", list(ours), "ms")]
    if theirs is None:
        return rows
    note = f"{median(ours):.1f} ms beside {median(theirs):.1f}"
    ratio = [median(ours) / median(theirs)]
    rows.append(Row(f"CNI {what}, p50, beside {others}", ratio, "of theirs", must, note=note, work=ABSOLUTE))
    if slowest is not None:
        last, their_last = (quantiles(one, n=100)[98] for one in (ours, theirs))
        note = f"{last:.1f} ms beside {their_last:.1f}"
        rows.append(
            Row(f"CNI {what}, p99, beside {others}", [last / their_last], "of theirs", slowest, note=note, work=ABSOLUTE)
        )
    return rows


# In the namespace.


class Caller:
    """A process that runs plugins in a network namespace, this one or another."""

    def __init__(self, fd: int | None = None, **env: str) -> None:
        words = [sys.executable, "-m", "bench.cni_caller"]
        if fd is not None:
            words = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{fd}", *words]
        self._env = {"PATH": os.environ["PATH"], "CNI_IFNAME": "eth0", **env}
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def __call__(self, chains: Sequence[dict[str, Any]], callers: int = 1) -> dict[str, Any]:
        """Run them."""
        return await asyncio.to_thread(self._ask, {"callers": callers, "chains": chains})

    def _ask(self, batch: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(batch).encode() + b"\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def chain(self, verb: str, number: int, netns: NetworkNamespace, calls: list[Any], result: Any = None) -> dict[str, Any]:
        """The calls of an attachment, for one pod."""
        name = f"own-{number}"
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={name}"
        env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": f"c{number}", "CNI_NETNS": f"/proc/{os.getpid()}/fd/{netns.fd}"}
        ordered = calls if verb == "ADD" else calls[::-1]
        return {"env": self._env | env | {"CNI_ARGS": arguments}, "calls": ordered, "passes": verb == "ADD", "result": result}

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def configuration(type_: str, **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "bench", "type": type_} | more


class Side:
    """Ours, or theirs: a caller, and the calls of a plain pod and of one that asks for more."""

    def __init__(self, caller: Caller, plain: list[Any], chain: list[Any]) -> None:
        self.caller, self.plain, self.chain = caller, plain, chain
        self.found: dict[str, Any] = {name: [] for name in ("add", "del", "chain add", "chain del")}

    async def once(self, number: int, netns: NetworkNamespace, *, is_chain: bool) -> None:
        """Attach a pod and detach it."""
        calls, prefix = (self.chain, "chain ") if is_chain else (self.plain, "")
        added = (await self.caller([self.caller.chain("ADD", number, netns, calls)]))["each"][0]
        done = (await self.caller([self.caller.chain("DEL", number, netns, calls, added[1])]))["each"][0]
        self.found[f"{prefix}add"].append(added[0])
        self.found[f"{prefix}del"].append(done[0])

    async def many(self, pods: list[NetworkNamespace], first: int) -> None:
        """Attach all of them, by several callers, and detach them."""
        numbered = list(enumerate(pods, first))
        added = await self.caller([self.caller.chain("ADD", n, netns, self.plain) for n, netns in numbered], CALLERS)
        self.found |= {"many": added["seconds"], "many cpu": added["cpu"]}
        results = [result for _, result in added["each"]]
        chains = [self.caller.chain("DEL", n, one, self.plain, r) for (n, one), r in zip(numbered, results, strict=True)]
        self.found["many cpu"] += (await self.caller(chains, CALLERS))["cpu"]


def asks_of(ifb: bool) -> dict[str, Any]:
    """What a pod asks for; to limit what a pod sends, the others need a kernel with ifb."""
    limits = {"ingressRate": 100_000_000, "ingressBurst": 10_000_000}
    limits |= {"egressRate": 100_000_000, "egressBurst": 10_000_000} if ifb else {}
    ports = [{"hostPort": 8000 + k, "containerPort": 80 + k, "protocol": "tcp"} for k in range(2)]
    return {"portMappings": ports, "bandwidth": limits}


def has_ifb() -> bool:
    """Does this kernel have the kind of link by which the others limit what a pod sends?"""
    return subprocess.run(["ip", "link", "add", "ifb0", "type", "ifb"], capture_output=True, check=False).returncode == 0


def their_place() -> str | None:
    """The folder of Debian's plugins, where there is one."""
    return next((place for place in PLACES if all(Path(place, name).exists() for name in NAMES)), None)


def our_side(folder: Path, asks: dict[str, Any]) -> Side:
    program = folder / build.NAME
    if build.build(program):
        program = build.FOLDER / SCRIPT
    plain = [(str(program), configuration("podplane-cni"))]
    chain = [(str(program), configuration("podplane-cni", runtimeConfig=asks))]
    return Side(Caller(PODPLANE_CNI_SOCKET=str(folder / "cni.sock")), plain, chain)


def their_side(folder: Path, netns: NetworkNamespace, place: str, asks: dict[str, Any]) -> Side:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(folder / "ipam"),
    }
    bridge = [f"{place}/bridge", configuration("bridge", bridge="cni0", isGateway=True, hairpinMode=True, ipam=ipam)]
    meta = [
        [f"{place}/{name}", configuration(name, runtimeConfig={capability: asks[capability]})]
        for name, capability in (("bandwidth", "bandwidth"), ("portmap", "portMappings"))
    ]
    return Side(Caller(netns.fd, CNI_PATH=place), [bridge], [bridge, *meta])


async def measure(folder: Path, rounds: int, chain_rounds: int, many: int) -> dict[str, Any]:
    workers = Workers()
    api = SimulatedApi(0, 0, peers=0, own_pods=rounds + chain_rounds + many)
    api.changed("nodes", node(0) | {"spec": {"podCIDR": BLOCK, "podCIDRs": [BLOCK]}})
    listener = socket.create_server(("127.0.0.1", 0))
    certificates, kubeconfig = credentials(folder, *listener.getsockname())
    served = asyncio.create_task(serve(api.handle, [listener], certificates.certificate, certificates.key))
    logging.disable()  # of watches that end with the bench
    agent = OneProcess(folder, kubeconfig)
    place, asks = their_place(), asks_of(has_ifb())
    other = NetworkNamespace.create(workers)
    sides = [our_side(folder, asks), *([their_side(folder, other, place, asks)] if place else [])]
    try:
        await agent.start()
        for number in range(rounds + chain_rounds):
            for side in sides:
                with NetworkNamespace.create(workers) as pod:
                    await side.once(number, pod, is_chain=number >= rounds)
        for side in sides:
            pods = [NetworkNamespace.create(workers) for _ in range(many)]
            before = agent.cpu_seconds
            await side.many(pods, rounds + chain_rounds)
            if side is sides[0]:
                side.found["many cpu"] += agent.cpu_seconds - before
            for pod in pods:
                pod.close()
    finally:
        for side in sides:
            side.caller.close()
        agent.process.kill()
        agent.process.wait()
        served.cancel()
        await asyncio.wait([served])
    limits = "portMappings and bandwidth" + ("" if "egressRate" in asks["bandwidth"] else " (ingress: no ifb here)")
    return {"ours": sides[0].found, "theirs": sides[1].found if place else {}, "asks": limits}


def main() -> None:
    """In the namespace: the figures as JSON."""
    make_uplink()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), *map(int, sys.argv[1:4])))))


if __name__ == "__main__":
    main()
