"""The API of a large cluster, for one agent: lists and watches of objects that were encoded before, over HTTPS.

What an agent writes is acknowledged and forgotten. A watch brings what `changed` is given, and nothing else.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from bench.agent_start import PEERS
from bench.agents import NAME
from bench.services import ENDPOINTS
from bench.slim_pods import pod
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.lab import certificates
from podplane.lab.certificate_maker import Certificates

OWN_PODS, BY_NAME = 250, "metadata.name="
FIRST_VERSION = 1_000_000


def peer_of(number: int, peers: int) -> int:
    """The peer on which pod `number` of the cluster runs."""
    return number % peers + 1


def address_of(number: int, peers: int) -> str:
    """The address of a pod of a peer, of the peer's own block."""
    peer = peer_of(number, peers)
    return f"10.{128 + (peer >> 8)}.{peer & 255}.{number // peers + 2}"


def node(number: int) -> dict[str, Any]:
    """node1 (0), or a peer."""
    block = f"10.{128 + (number >> 8)}.{number & 255}.0/24"
    ip = f"192.168.{100 + (number >> 8)}.{number & 255}" if number else "192.168.1.10"
    status = {"addresses": [{"type": "InternalIP", "address": ip}], "conditions": [{"type": "Ready", "status": "True"}]}
    metadata = {"name": f"peer{number}" if number else NAME}
    return {"metadata": metadata, "spec": {"podCIDR": block, "podCIDRs": [block]}, "status": status}


def remote_pod(number: int, peers: int) -> dict[str, Any]:
    """A pod of a peer, some 3 KB, as a cluster has it."""
    found, ip = pod(number), address_of(number, peers)
    found["spec"]["nodeName"] = f"peer{peer_of(number, peers)}"
    found["status"] |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    return found


def own_pod(number: int) -> dict[str, Any]:
    """A pod of node1 that is not attached yet."""
    found = pod(number)
    found["metadata"] |= {"name": f"own-{number}", "namespace": "default", "uid": f"own-{number}"}
    found["spec"]["nodeName"] = NAME
    found["status"] = {"phase": "Pending"}
    return found


def service(number: int) -> dict[str, Any]:
    """A Service with one port."""
    ip = f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    spec = {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}
    return {"metadata": {"name": f"s{number}", "namespace": "default"}, "spec": spec | {"type": "ClusterIP"}}


def slice_of(number: int, peers: int, without: int = -1) -> dict[str, Any]:
    """The endpoints of a Service, with or without one of them."""
    numbers = [number * ENDPOINTS + k for k in range(ENDPOINTS) if k != without]
    ready = {"ready": True, "serving": True, "terminating": False}
    endpoints = [
        {"addresses": [address_of(n, peers)], "conditions": ready, "nodeName": f"peer{peer_of(n, peers)}"} for n in numbers
    ]
    metadata = {"name": f"s{number}-a", "namespace": "default", "labels": {"kubernetes.io/service-name": f"s{number}"}}
    port = {"name": "http", "protocol": "TCP", "port": 8080}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [port]}


class Resource:
    """The objects of one kind, encoded, and those who watch them."""

    def __init__(self, objects: Iterable[dict[str, Any]] = ()) -> None:
        self.encoded: list[bytes] = []
        self.places: dict[str, int] = {}
        self.watches: set[asyncio.Queue[bytes]] = set()
        self.is_watched = asyncio.Event()
        for one in objects:
            self.set(one, FIRST_VERSION)

    def set(self, one: dict[str, Any], version: int) -> bytes:
        """Keep an object; as it is encoded."""
        metadata = one["metadata"] | {"resourceVersion": str(version)}
        metadata.setdefault("uid", f"{metadata.get('namespace', '')}-{metadata['name']}")
        raw = json.dumps(one | {"metadata": metadata}, separators=(",", ":")).encode()
        place = self.places.setdefault(metadata["name"], len(self.encoded))
        self.encoded[place : place + 1] = [raw]
        return raw


class SimulatedApi:
    """`handle` is a `Handler`; all methods run on one event loop. Names of objects of one kind are unique."""

    def __init__(self, services: int, pods: int, peers: int = PEERS, own_pods: int = OWN_PODS) -> None:
        self.version = FIRST_VERSION
        self._resources = {
            "nodes": Resource(map(node, range(peers + 1))),
            "namespaces": Resource([{"metadata": {"name": "default"}}]),
            "services": Resource(map(service, range(services))),
            "endpointslices": Resource(slice_of(n, peers) for n in range(services)),
            "pods": Resource([*(remote_pod(n, peers) for n in range(pods)), *(own_pod(pods + n) for n in range(own_pods))]),
        }

    def changed(self, resource: str, one: dict[str, Any]) -> None:
        """Tell who watches that an object is this now."""
        self.version += 1
        kind = self._resources[resource]
        event = b'{"type":"MODIFIED","object":' + kind.set(one, self.version) + b"}\n"
        for queue in kind.watches:
            queue.put_nowait(event)

    async def watched(self, resource: str) -> None:
        """Wait until somebody watches objects of this kind."""
        await self._resources[resource].is_watched.wait()

    async def handle(self, request: Request) -> Answer:
        """Answer as an API server does."""
        if request.method != "GET":
            return Response(201 if request.method == "POST" else 200, request.body or b"{}")
        kind = self._resources.setdefault(request.path.rpartition("/")[2], Resource())
        if request.flag("watch"):
            return Stream(self._events(kind), 200, "application/json")
        return Response(200, self._page(kind, request))

    async def _events(self, kind: Resource) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        kind.watches.add(queue)
        kind.is_watched.set()
        try:
            while True:
                yield await queue.get()
        finally:
            kind.watches.discard(queue)

    def _page(self, kind: Resource, request: Request) -> bytes:
        name = request.parameter("fieldSelector").removeprefix(BY_NAME)
        found = [kind.encoded[kind.places[name]]] if name in kind.places else [] if name else kind.encoded
        start, limit = int(request.parameter("continue") or 0), int(request.parameter("limit") or 0) or len(found)
        more = str(start + limit) if start + limit < len(found) else ""
        metadata = json.dumps({"resourceVersion": str(self.version), "continue": more}).encode()
        items = b",".join(found[start : start + limit])
        return b'{"kind":"List","apiVersion":"v1","metadata":' + metadata + b',"items":[' + items + b"]}"


def credentials(folder: Path, host: str, port: int) -> tuple[Certificates, Path]:
    """Certificates for a server here, and a kubeconfig that leads to it."""
    made = certificates.prepare(folder / "pki", ("localhost",), certificates.LOOPBACK, datetime.datetime.now(datetime.UTC))
    authority = folder / "ca.crt"
    authority.write_text(made.authority)
    content = {
        "clusters": [{"name": "c", "cluster": {"server": f"https://{host}:{port}", "certificate-authority": str(authority)}}],
        "users": [{"name": "u", "user": {"token": "a"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(content))
    return made, kubeconfig
