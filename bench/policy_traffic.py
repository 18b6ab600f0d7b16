"""What policies and the spoof guard cost packets, beside the same node without them.

Worlds stand beside each other, each a network namespace that is a node with two pods, made by an agent over the real kernel. From two of
them the table of policies is deleted, and what else keeps pods from addresses of others; the others have policies of different
numbers. One thread has sockets in both pods of a world: the whole way of a packet is in the time of this thread, and what other programs
do is not. In a round each world is measured in turns of random order; a round's ratio is that of two worlds.
The second world without them shows how much of it is noise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.agents import Cluster, OneAgent, delete_policies, delete_spoof_guard, kernel_of, make_uplink, node, sandbox_of
from bench.common import Row
from bench.services import measured
from podplane.agent.caches import Caches
from podplane.cni.network import Attachment
from podplane.kernel import syscalls
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy

NODE = node("node1", "10.128.0.0/24", "fd00:10:128::/64")
PORT, FIRST_PORT, PORTS = 8000, 2000, 60_000
ROUNDS, CHUNK = 21, 1 << 15
KINDS = {
    "round trips": (1_000, 0.975),
    "stream": (200, 0.97),
    "new TCP connections": (150, 0.955),
    "first UDP packets": (400, 0.82),
}
"""How many of each are measured at a time, and what their rate must be beside no policies."""
WITHIN, HUNDRED = 0.97, 0.85
"""The same at other numbers of policies and peers, beside few of them; a pod under a hundred policies, beside no policies."""
NONE, AGAIN, TABLE, FEW = "no guard", "no guard again", "no policy", "2 policies each way"
MANY, PEERS, ALL_ON_ONE = "{:,} policies", "{:,} peers", "100 policies on one pod"
SELECTORS, OTHERS = 1_000, 40
"""Of many policies together; pods of the node that they select."""


def run(short: bool) -> list[Row]:
    """All rows, of one process in a namespace of its own."""
    rows: Any = measured("bench.policy_traffic", 3 if short else ROUNDS, 500 if short else 10_000, 5_000 if short else 100_000)
    return [Row(**row) for row in rows]


# Objects.


def pod(name: str, labels: Mapping[str, str], ips: Sequence[str] = ()) -> PodInfo:
    """A pod of the namespace default."""
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels}
    status = {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips]}
    return PodInfo.from_json(json.dumps({"metadata": metadata, "status": status}).encode())


def policy(name: str, subject: Mapping[str, str], side: str, peer: Mapping[str, str], port: int = PORT) -> NetworkPolicy:
    """A policy of one rule: TCP and UDP of one port from, or to, the pods with a label."""
    ports = [{"port": port, "protocol": protocol} for protocol in ("TCP", "UDP")]
    rule = {"from" if side == "Ingress" else "to": [{"podSelector": {"matchLabels": peer}}], "ports": ports}
    spec = {"podSelector": {"matchLabels": subject}, "policyTypes": [side], side.lower(): [rule]}
    return NetworkPolicy.from_json(
        json.dumps({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec}).encode()
    )


CLIENT, SERVER, CROWD = {"app": "client", "side": "crowd"}, {"app": "server"}, {"side": "crowd"}


def few(ingress: int = 2) -> Iterator[NetworkPolicy]:
    """So many policies for what the server is sent, and two for what the client sends: the last one of each lets it pass."""
    for number in range(ingress - 1):
        yield policy(f"in-{number:03}", SERVER, "Ingress", {"app": f"another-{number}"})
    yield policy("in-last", SERVER, "Ingress", CROWD)
    yield policy("out-0", {"app": "client"}, "Egress", {"app": "another"})
    yield policy("out-1", {"app": "client"}, "Egress", SERVER)


def many(count: int) -> Iterator[NetworkPolicy]:
    """So many more, for other pods of the node."""
    for number in range(count):
        subject, peer = {"other": str(number % OTHERS)}, {"app": f"other-{number % SELECTORS}"}
        yield policy(f"many-{number}", subject, "Ingress", peer, port=1 + number % PORTS)


def crowd(count: int) -> Iterator[PodInfo]:
    """So many pods elsewhere that the last policy lets send to the server."""
    for number in range(count):
        ips = f"10.{200 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", f"fd00:20::{number >> 16:x}:{number & 0xFFFF:x}"
        yield pod(f"crowd-{number}", CROWD, ips)


# Worlds.


class World:
    """A node with the two pods that are measured, and others."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._node = NetworkNamespace.create(workers)
        self._requests: dict[str, Attachment] = {}
        self.ips: dict[int, str] = {}
        self._port = 0

    async def make(
        self, policies: Sequence[NetworkPolicy] = (), peers: int = 0, others: int = 0, *, is_guarded: bool = True
    ) -> None:
        """Attach the pods, and bring what policies say to the kernel."""
        self._node.run(make_uplink)
        caches = Caches()
        caches.namespaces.set(NamespaceInfo.from_json(b'{"metadata": {"name": "default"}}'))
        agent = OneAgent(kernel_of(self._node), caches)
        await agent.start(Cluster(nodes={"node1": NODE}))
        infos = {"client": pod("client", CLIENT), "server": pod("server", SERVER)}
        infos |= {f"other-{k}": pod(f"other-{k}", {"other": str(k)}) for k in range(others)}
        for name, info in infos.items():
            caches.pods.set(info)
            request = self._requests[name] = sandbox_of(info, self._workers)
            ips = await agent.add(request)
            caches.pods.set(pod(name, dict(info.metadata.labels), ips))
            if name == "server":
                self.ips = {6 if ":" in ip else 4: ip for ip in ips}
        for peer in crowd(peers):
            caches.pods.set(peer)
        for one in policies:
            caches.policies.set(one)
        await agent.settle()
        await agent.stop()
        if not is_guarded:
            self._node.run(delete_policies)
            self._node.run(delete_spoof_guard)
        self._node.run(Path("/proc/sys/net/netfilter/nf_conntrack_udp_timeout").write_text, "5")

    def denies(self) -> bool:
        """Is a packet to another port dropped? Policies are in force then."""
        with contextlib.ExitStack() as stack:
            server = self._server(stack, socket.AF_INET, socket.SOCK_DGRAM, PORT + 1)
            server.settimeout(0.2)
            (client,) = self._datagrams(stack, "client", socket.AF_INET, 1)
            client.sendto(b"x", (self.ips[4], PORT + 1))
            try:
                server.recv(1)
            except TimeoutError:
                return True
            return False

    def _in(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._requests[name].netns.run(function, *arguments)

    def measure(self, kind: str, version: int) -> float:
        """How many a second of this thread's time."""
        measure = {
            "round trips": self._round_trips,
            "stream": self._stream,
            "new TCP connections": self._connections,
            "first UDP packets": self._first,
        }
        count = KINDS[kind][0]
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with contextlib.ExitStack() as stack:
            return count / measure[kind](stack, family, self.ips[version], count)

    def _datagrams(self, stack: contextlib.ExitStack, name: str, family: int, count: int) -> list[socket.socket]:
        """Sockets in a pod, each at a port that was not used for a while."""
        return self._in(name, self._bound, stack, family, count)  # type: ignore[no-any-return]

    def _bound(self, stack: contextlib.ExitStack, family: int, count: int) -> list[socket.socket]:
        made = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(count)]
        for one in made:
            one.bind(("", FIRST_PORT + self._port % PORTS))
            self._port += 1
        return made

    def _server(self, stack: contextlib.ExitStack, family: int, kind: int, port: int = PORT) -> socket.socket:
        made: socket.socket = stack.enter_context(self._in("server", socket.socket, family, kind))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(5)
        made.bind(("", port))
        return made

    def _first(self, stack: contextlib.ExitStack, family: int, ip: str, count: int) -> float:
        server = self._server(stack, family, socket.SOCK_DGRAM)
        clients = self._datagrams(stack, "client", family, count)
        for client in clients:
            client.connect((ip, PORT))
        began = time.thread_time()
        for client in clients:
            client.send(b"x")
            server.recv(1)
        return time.thread_time() - began

    def _round_trips(self, stack: contextlib.ExitStack, family: int, ip: str, count: int) -> float:
        server = self._server(stack, family, socket.SOCK_DGRAM)
        (client,) = self._datagrams(stack, "client", family, 1)
        client.connect((ip, PORT))
        client.send(b"x")
        server.connect(server.recvfrom(1)[1])
        began = time.thread_time()
        for _ in range(count):
            server.send(b"x")
            client.recv(1)
            client.send(b"x")
            server.recv(1)
        return time.thread_time() - began

    def _connected(self, stack: contextlib.ExitStack, family: int, ip: str) -> tuple[socket.socket, socket.socket]:
        listener = self._server(stack, family, socket.SOCK_STREAM)
        listener.listen()
        client: socket.socket = stack.enter_context(self._in("client", socket.create_connection, (ip, PORT), 5))
        return client, stack.enter_context(listener.accept()[0])

    def _stream(self, stack: contextlib.ExitStack, family: int, ip: str, count: int) -> float:
        client, server = self._connected(stack, family, ip)
        data, buffer = bytes(CHUNK), bytearray(CHUNK)
        began = time.thread_time()
        for _ in range(count):
            client.sendall(data)
            left = CHUNK
            while left:
                left -= server.recv_into(buffer, left)
        return time.thread_time() - began

    def _connections(self, stack: contextlib.ExitStack, family: int, ip: str, count: int) -> float:
        listener = self._server(stack, family, socket.SOCK_STREAM)
        listener.listen(16)
        home = CurrentNamespace()
        stack.callback(home.close)
        syscalls.setns(self._requests["client"].netns.fd, syscalls.CLONE_NEWNET)
        try:
            began = time.thread_time()
            for _ in range(count):
                client = socket.socket(family, socket.SOCK_STREAM)
                client.connect((ip, PORT))
                server = listener.accept()[0]
                server.close()
                client.close()
            return time.thread_time() - began
        finally:
            syscalls.setns(home.fd, syscalls.CLONE_NEWNET)


def rounds(worlds: Mapping[str, World], kind: str, version: int, count: int) -> dict[str, list[float]]:
    """The rates of all worlds, round by round."""
    found: dict[str, list[float]] = {name: [] for name in worlds}
    for _ in range(count):
        for name in random.sample(list(worlds), len(worlds)):
            found[name].append(worlds[name].measure(kind, version))
    return found


def compare(found: Mapping[str, list[float]], name: str, base: str, what: str, must: float | None) -> Row:
    """One world beside another."""
    ratios = [a / b for a, b in zip(found[name], found[base], strict=True)]
    noise = median(a / b for a, b in zip(found[AGAIN], found[NONE], strict=True))
    mine, theirs = (1e6 / median(found[one]) for one in (name, base))
    note = f"{mine:.2f} beside {theirs:.2f} µs each; two nodes without guard: {noise:.3f}"
    return Row(f"{what}, {name} / {base}", ratios, "ratio", must, at_least=True, note=note)


async def measure(count: int, policies: int, peers: int) -> list[Row]:
    """All rows."""
    workers, names = Workers(), (MANY.format(policies), PEERS.format(peers))
    worlds = {name: World(workers) for name in (NONE, AGAIN, TABLE, FEW, *names, ALL_ON_ONE)}
    await worlds[NONE].make(is_guarded=False)
    await worlds[AGAIN].make(is_guarded=False)
    await worlds[TABLE].make()
    await worlds[FEW].make(list(few()), peers=peers // 100)
    await worlds[names[0]].make([*few(), *many(policies)], peers=peers // 100, others=OTHERS)
    await worlds[names[1]].make(list(few()), peers=peers)
    await worlds[ALL_ON_ONE].make(list(few(100)), peers=peers // 100)
    if [name for name, world in worlds.items() if not world.denies()] != [NONE, AGAIN, TABLE]:
        raise RuntimeError("policies are not in force where they should be, or are where there is none")
    rows = []
    for kind, (_, must) in KINDS.items():
        for version in (4, 6):
            found = rounds(worlds, kind, version, count)
            what = f"{kind}, IPv{version}"
            rows += [compare(found, TABLE, NONE, what, must), compare(found, FEW, NONE, what, must)]
            rows += [compare(found, name, FEW, what, WITHIN) for name in names]
            rows.append(compare(found, ALL_ON_ONE, NONE, what, HUNDRED))
    return rows


def main() -> None:
    """In the namespace: the rows as JSON."""
    print(json.dumps([asdict(row) for row in asyncio.run(measure(*map(int, sys.argv[1:4])))]))


if __name__ == "__main__":
    main()
