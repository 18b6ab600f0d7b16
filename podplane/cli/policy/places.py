"""What users write for the ends of a flow, and which ends those are."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cli.policy.cluster import DNS_SERVICE, Cluster
from podplane.lab.errors import LabError
from podplane.model.pod_info import PodInfo
from podplane.model.policy import PROTOCOLS
from podplane.policy.ends import End, ends_of, node_ips

Object = dict[str, Any]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
KINDS = {
    "pod": "pod",
    "pods": "pod",
    "po": "pod",
    "svc": "svc",
    "service": "svc",
    "services": "svc",
    "node": "node",
    "nodes": "node",
}
PORT = re.compile(r"(?P<port>[0-9]{1,5}|[a-z0-9-]*[a-z][a-z0-9-]*)(?:/(?P<protocol>[A-Za-z]+))?")
NAME = re.compile("[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?")
BRACKETS = re.compile(r"\[(?P<ip>[0-9A-Fa-f:.]+)\](?::(?P<port>.+))?", re.DOTALL)
NOBODYS: Mapping[str, Callable[[Address], bool]] = {
    "a loopback address": lambda ip: ip.is_loopback,
    "the unspecified address": lambda ip: ip.is_unspecified,
    "a link-local address": lambda ip: ip.version == 6 and ip.is_link_local,
    "a multicast address": lambda ip: ip.is_multicast,
    "a broadcast address": lambda ip: str(ip) == "255.255.255.255",
}
"""Addresses by which pods and others never meet: what is sent to them is dropped, or leaves no pod."""
HOW = "write web:80, shop/web:80/udp, svc/web:http, node/node1 or 10.0.0.1:443"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A place as it was written: an address, or a name with a kind or without one; a port (by number or name) or none."""

    text: str
    kind: str = ""
    namespace: str = ""
    name: str = ""
    ip: str = ""
    port: int | str | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One end that a flow comes to, with the port that it has there (None: no port was asked for)."""

    end: End
    port: int | None
    protocol: str


def wanted(text: str, namespace: str) -> Wanted:
    """Read a place. LabError when it can't be read."""
    where, port = _without_port(text)
    with contextlib.suppress(ValueError):
        return Wanted(text, ip=str(ipaddress.ip_address("" if "%" in where else where)), **_port(text, port))
    kind, slash, rest = where.partition("/")
    if not slash or kind not in KINDS:
        kind, rest = "", where
    space, slash, name = rest.rpartition("/")
    if not NAME.fullmatch(name) or (slash and not NAME.fullmatch(space)):
        raise LabError(f"{text!r} is no place: {HOW}")
    if KINDS.get(kind) == "node" and space:
        raise LabError(f"{text!r} is no place: nodes are in no namespace")
    return Wanted(text, KINDS.get(kind, ""), space or namespace, name, **_port(text, port))


def port_of(text: str) -> tuple[str, int]:
    """Protocol and number of `80`, `53/udp`. LabError when it is no such port."""
    found = _port(text, text)
    if not isinstance(number := found.get("port"), int):
        raise LabError(f"{text!r} is no port: write 80, or 53/udp")
    return found["protocol"], number


def pod_path(text: str, namespace: str) -> str:
    """`namespace/name` of a pod as users write it: `web`, `shop/web`, `pod/web`. LabError when it is none."""
    found = wanted(text, namespace)
    if found.kind not in ("", "pod") or found.port is not None or not found.name:
        raise LabError(f"{text!r} is no pod: write web-1, or shop/web-1 for one of namespace shop")
    return f"{found.namespace}/{found.name}"


def sources(wanted: Wanted, cluster: Cluster) -> list[End]:
    """The ends of who opens a flow. LabError when there is none."""
    if wanted.port is not None:
        raise LabError(f"{wanted.text!r}: the port of who opens a flow is by chance, and decides nothing: leave it out")
    if wanted.ip:
        return [_at_address(wanted, cluster)]
    if _kind(wanted, cluster) == "svc":
        raise LabError(f"{wanted.text!r}: a Service opens no flows: name a pod, a node or an address")
    return _ends(wanted, cluster)


def arrivals(wanted: Wanted, cluster: Cluster, slices: Sequence[Object]) -> list[Arrival]:
    """Where a flow to that place comes to: behind a Service, at each of its endpoints. LabError when nowhere."""
    if wanted.ip:
        service = next((path for path, one in cluster.services.items() if wanted.ip in _service_ips(one)), "")
        if service:
            return list(_behind(service, wanted, cluster, slices, (wanted.ip,)))
        return list(_at([_at_address(wanted, cluster)], wanted))
    if _kind(wanted, cluster) == "svc":
        path = f"{wanted.namespace}/{wanted.name}"
        return list(_behind(path, wanted, cluster, slices, _service_ips(cluster.services[path])))
    return list(_at(_ends(wanted, cluster), wanted))


def service_of(wanted: Wanted, cluster: Cluster) -> str:
    """The path of the Service that a place is; "" when it is none."""
    if wanted.ip:
        return next((path for path, one in cluster.services.items() if wanted.ip in _service_ips(one)), "")
    return f"{wanted.namespace}/{wanted.name}" if _kind(wanted, cluster) == "svc" else ""


def _without_port(text: str) -> tuple[str, str]:
    """A place and its port, of which ":" is none that could be; "" is that there is no port."""
    if found := BRACKETS.fullmatch(text):
        return found["ip"], found["port"] or ""
    where, colon, port = text.partition(":")
    return (text, "") if not colon or ":" in port else (where, port or colon)


def _port(text: str, port: str) -> dict[str, Any]:
    if not port:
        return {}
    found = PORT.fullmatch(port)
    protocol = ((found and found["protocol"]) or "TCP").upper()
    if found is None or (found["port"].isdigit() and not 1 <= int(found["port"]) <= 65535):
        raise LabError(
            f"{text!r}: {port.strip(':')!r} is no port: write a number up to 65535, or a name of at most 15 letters and digits"
        )
    if protocol not in PROTOCOLS:
        raise LabError(f"{text!r}: {protocol!r} has no ports: write TCP, UDP or SCTP")
    return {"port": int(found["port"]) if found["port"].isdigit() else found["port"], "protocol": protocol}


def _kind(wanted: Wanted, cluster: Cluster) -> str:
    """The kind of what has that name: a pod before a Service before a node. LabError when nothing has it."""
    path = f"{wanted.namespace}/{wanted.name}"
    there = {"pod": path in cluster.pods, "svc": path in cluster.services, "node": wanted.name in cluster.nodes}
    for kind in (wanted.kind,) if wanted.kind else there:
        if there[kind]:
            return kind
    what = {"pod": f"pod {path}", "svc": f"Service {path}", "node": f"node {wanted.name}"}
    if wanted.kind:
        raise LabError(f"there is no {what[wanted.kind]}")
    raise LabError(f"there is no pod and no Service {path}, and no node {wanted.name}")


def _at_address(wanted: Wanted, cluster: Cluster) -> End:
    """The end with an address. LabError for one that no flow of a pod comes from or goes to, whatever policies say."""
    if what := next((what for what, is_it in NOBODYS.items() if is_it(ipaddress.ip_address(wanted.ip))), ""):
        raise LabError(f"{wanted.text!r} is {what}: no pod reaches it and none is reached from it, whatever policies say")
    return cluster.ends.at(wanted.ip)


def _ends(wanted: Wanted, cluster: Cluster) -> list[End]:
    """Those of a pod or a node."""
    if _kind(wanted, cluster) == "node":
        return [End(ip, node=wanted.name) for ip in node_ips(cluster.nodes[wanted.name])]
    path = f"{wanted.namespace}/{wanted.name}"
    pod = cluster.pods[path]
    if pod.has_ended:
        raise LabError(f"pod {path} has ended ({cluster.states[path]}): it talks to nobody any more, and no policy is about it")
    if not pod.ips:
        raise LabError(f"pod {path} has no address yet ({cluster.states[path]})")
    return ends_of(pod)


def _at(ends: Sequence[End], wanted: Wanted) -> Iterator[Arrival]:
    """Ends with the port that is asked for, whose name is a pod's own."""
    for end in ends:
        port = wanted.port
        if isinstance(port, str):
            port = _named(end.pod, port, wanted)
        yield Arrival(end, port, wanted.protocol)


def _named(pod: PodInfo | None, name: str, wanted: Wanted) -> int:
    if pod is None:
        raise LabError(f"{wanted.text!r}: only ports of pods and Services have names")
    found = next((one.port for one in pod.ports.named if (one.name, one.protocol) == (name, wanted.protocol)), None)
    if found is None:
        raise LabError(f"{wanted.text!r}: no container of pod {pod.metadata.path} has a {wanted.protocol} port {name!r}")
    return found


def _service_ips(service: Object) -> tuple[str, ...]:
    spec = service["spec"]
    ips = [*spec.get("clusterIPs", ()), *spec.get("externalIPs", ())]
    ips += [one["ip"] for one in service.get("status", {}).get("loadBalancer", {}).get("ingress", ()) if one.get("ip")]
    return tuple(ip for ip in ips if ip and ip != "None")


def _behind(path: str, wanted: Wanted, cluster: Cluster, slices: Sequence[Object], ips: Sequence[str]) -> Iterator[Arrival]:
    """The endpoints of a Service, of the families of these addresses (of all, when it has none)."""
    port = _service_port(path, wanted, cluster.services[path])
    if path == DNS_SERVICE and cluster.dns is not None:
        yield from (Arrival(End(ip, cluster.dns), port["port"], port.get("protocol", "TCP")) for ip in ips)
        return
    versions = {":" in ip for ip in ips}
    found = [one for one in _endpoints(slices, port, cluster) if not versions or (":" in one.end.ip) in versions]
    if not found:
        raise LabError(f"Service {path} has no endpoint for port {port['port']}: whoever asks for it is refused, by no policy")
    yield from found


def _endpoints(slices: Sequence[Object], port: Object, cluster: Cluster) -> Iterator[Arrival]:
    for slice_ in slices:
        numbers = [one["port"] for one in slice_.get("ports") or () if _name(one) == _name(port) and one.get("port")]
        for endpoint in slice_.get("endpoints") or ():
            if endpoint.get("conditions", {}).get("ready") is not False:
                for address in endpoint["addresses"]:
                    yield from (Arrival(cluster.ends.at(address), number, port.get("protocol", "TCP")) for number in numbers)


def _name(port: Mapping[str, Any]) -> tuple[str, str]:
    return port.get("name") or "", port.get("protocol", "TCP")


def _service_port(path: str, wanted: Wanted, service: Object) -> Object:
    """The port of a Service that is asked for; its only one if none is. LabError when there is no such port."""
    ports: list[Object] = service["spec"].get("ports", [])
    texts = ", ".join(f"{one['port']}/{one.get('protocol', 'TCP')}" for one in ports) or "none"
    if service["spec"].get("type") == "ExternalName":
        raise LabError(f"Service {path} is another name for {service['spec'].get('externalName')}: ask for an address of that")
    if wanted.port is None:
        if len(ports) != 1:
            raise LabError(f"{wanted.text!r}: say which port of Service {path}: {texts}")
        return ports[0]
    for one in ports:
        if wanted.port in (one["port"], one.get("name")) and one.get("protocol", "TCP") == wanted.protocol:
            return one
    raise LabError(f"Service {path} has no {wanted.protocol} port {wanted.port}; it has {texts}")
