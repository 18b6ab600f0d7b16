"""An agent over the fake kernel, and Services for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from podplane.agent.agent import Agent
from podplane.agent.features import PeerPlans
from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel
from podplane.kernel.errors import KernelError
from podplane.kernel.fakes.world import FakeNamespace, FakeOpener
from podplane.model.objects import Metadata, Node
from podplane.model.service import SERVICE_NAME, Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.state.nft import Element
from podplane.state.operations import Failure, Operation, Report
from tests.plans import config, node, uplink

DUAL = (4, 6)


class Rig:
    """An agent of node1 on a fake machine with an uplink."""

    def __init__(self, service_cidrs: tuple[str, ...] = ()) -> None:
        self.config = msgspec.structs.replace(config(DUAL), service_cidrs=service_cidrs)
        self.opener = FakeOpener()
        self.host = self.opener.namespace()
        self.kernel = Kernel(self.host, self.opener)
        self.kernel.apply([Operation(None, value) for value in uplink(DUAL).values()])
        self.agent = self.new_agent()

    def new_agent(self) -> Agent:
        return Agent("node1", self.config, Kernel(self.host, self.opener), PeerPlans(), lambda: 0.0)

    def attachment(self, uid: str, namespace: FakeNamespace | None = None, ips: tuple[str, ...] = ()) -> Attachment:
        return Attachment(uid, "default", uid, namespace or self.opener.namespace(), requested_ips=ips)


def cluster(*numbers: int) -> dict[str, Node]:
    return {f"node{n}": node(n, DUAL) for n in numbers}


def service_of(name: str, ip: str, affinity: str = "None") -> Service:
    spec = ServiceSpec(cluster_ip=ip, cluster_ips=(ip,), ports=(ServicePort(80),), session_affinity=affinity)
    return Service(metadata=Metadata(name=name, namespace="default"), spec=spec)


def slice_of(name: str, *ips: str) -> EndpointSlice:
    metadata = Metadata(name=f"{name}-a", namespace="default", labels={SERVICE_NAME: name})
    return EndpointSlice(
        metadata=metadata, endpoints=tuple(Endpoint(addresses=(ip,)) for ip in ips), ports=(EndpointPort(port=8080),)
    )


SPECS: dict[int, dict[str, Any]] = {
    1: {"external_ips": ("192.0.2.1",)},
    2: {"session_affinity": "ClientIP"},
    3: {"internal_traffic_policy": "Local", "external_traffic_policy": "Local", "external_ips": ("192.0.2.3",)},
    4: {"ports": (ServicePort(53, protocol="UDP", node_port=30053),), "type": "NodePort"},
    5: {"session_affinity": "ClientIP", "external_traffic_policy": "Local", "external_ips": ("192.0.2.5",)},
}


def served(number: int, numbers: Sequence[int]) -> tuple[Service, EndpointSlice]:
    """A Service of each kind, and its endpoints, of which every second is on node1."""
    one = service_of(f"s{number}", f"10.96.0.{number}")
    spec = msgspec.structs.replace(one.spec, **SPECS[number])
    port = EndpointPort("", spec.ports[0].protocol, 8080)
    endpoints = tuple(Endpoint((f"10.244.1.{n}",), node_name=f"node{1 + n % 2}") for n in numbers)
    slice_ = msgspec.structs.replace(slice_of(f"s{number}"), endpoints=endpoints, ports=(port,))
    return msgspec.structs.replace(one, spec=spec), slice_


def frontends(rig: Rig) -> dict[str, str]:
    """Which Service has which address and port."""
    elements = (v for v in rig.host.objects.nft.values() if isinstance(v, Element) and v.set == "frontends4")
    return {f"{v.key[0]} {v.key[2]}": v.comment for v in elements}


def wanting(name: str, ip: str, since: str, *external: str) -> Service:
    one = service_of(name, ip)
    metadata = msgspec.structs.replace(one.metadata, creation_timestamp=f"2026-01-0{since}T00:00:00Z")
    return Service(metadata, msgspec.structs.replace(one.spec, external_ips=external))


class Choosy(Kernel):
    """A kernel that refuses whatever has this text in it."""

    refused = ""

    def apply(self, operations: Sequence[Operation]) -> Report:
        bad = [o for o in operations if self.refused and self.refused in str(o.value)]
        report = super().apply([o for o in operations if o not in bad])
        report.failed += [Failure(o, KernelError("nft element", "Invalid argument")) for o in bad]
        return report
