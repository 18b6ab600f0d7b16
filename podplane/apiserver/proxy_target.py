"""What a path of a `proxy` subresource means: which node, pod or Service, by which scheme, and which path there.

    /api/v1/namespaces/NAMESPACE/pods/[SCHEME:]NAME[:PORT]/proxy/PATH      services and nodes likewise

Sources: apimachinery, net.SplitSchemeNamePort; kube-apiserver, registry/core/{pod,service,node}, ResourceLocation.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec

from podplane.apiserver.problems import Problem
from podplane.model.config import AGENT_PORT

Object = dict[str, Any]
Get = Callable[[str, str, str], Object]
"""The object of a resource, a namespace and a name. Problem when there is none."""
PATH = re.compile(
    r"(?P<prefix>/api/v1/(?:namespaces/(?P<namespace>[^/]+)/(?P<namespaced>pods|services)|nodes)/(?P<id>[^/]+)/proxy)(?P<rest>/.*)?",
    re.DOTALL,
)
NUMBER = re.compile("[0-9]{1,18}")
"""One of more digits is none (int() refuses thousands of them)."""
SCHEMES = ("", "http", "https")
BROADCAST = ipaddress.IPv4Address("255.255.255.255")
DEFAULT_PORTS = {"http": 80, "https": 443}


class Wish(msgspec.Struct, frozen=True):
    """What is asked of which object; `prefix` is the path up to `proxy`, and `path` what follows: "" or with a slash."""

    resource: str
    namespace: str
    id: str
    prefix: str
    path: str


class Destination(msgspec.Struct, frozen=True):
    """Where a request goes; without a pod it is an address of the nodes' network."""

    host: str
    port: int
    tls: bool = False
    namespace: str = ""
    pod: str = ""

    @property
    def authority(self) -> str:
        """As a URL has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(path: str) -> Wish | None:
    """What a path asks to be passed on; None when it is no such path."""
    found = PATH.fullmatch(path) if "/proxy" in path else None
    if found is None:
        return None
    return Wish(found["namespaced"] or "nodes", found["namespace"] or "", found["id"], found["prefix"], found["rest"] or "")


def locate(wish: Wish, get: Get) -> Destination:
    """Where the object is reached. Problem when it is nowhere."""
    parts = wish.id.split(":")
    scheme, name, port = ("", *parts, "")[:3] if len(parts) < 3 else parts[:3]
    if len(parts) > 3 or scheme not in SCHEMES or not name:
        raise Problem("BadRequest", f'invalid {wish.resource.removesuffix("s")} request "{wish.id}"')
    if wish.resource == "nodes":
        host, number = _node(get("nodes", "", name), name, port)
        return Destination(host, number, scheme == "https")
    if wish.resource == "pods":
        host, number = _pod(get("pods", wish.namespace, name), port, scheme or "http")
        return Destination(host, number, scheme == "https", wish.namespace, name)
    host, number, name = _service(wish, name, port, get)
    return Destination(host, number, scheme == "https", wish.namespace, name)


def _node(node: Object, name: str, port: str) -> tuple[str, int]:
    if not port:
        raise Problem("ServiceUnavailable", f"node {name} has no kubelet port here: say which one, {name}:{AGENT_PORT} say")
    addresses = [a["address"] for a in node.get("status", {}).get("addresses", ()) if a["type"] == "InternalIP"]
    if not addresses:
        raise Problem("ServiceUnavailable", f"this API server has no way to node {name}")
    return _allowed(addresses[0]), _number(port)


def _pod(pod: Object, port: str, scheme: str) -> tuple[str, int]:
    """The pod's first address, and the port that is asked for, else the first that a container has, else the scheme's."""
    ip = pod.get("status", {}).get("podIP", "")
    _allowed(ip)
    declared = (ports[0]["containerPort"] for c in pod["spec"]["containers"] if (ports := c.get("ports")))
    return ip, _number(port) if port else next(declared, DEFAULT_PORTS[scheme])


def _allowed(address: str) -> str:
    """This address, if it is one of the network; a machine's own are out of reach (net.IP.IsGlobalUnicast)."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        raise Problem("BadRequest", "address not allowed") from None
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip == BROADCAST:
        raise Problem("BadRequest", "address not allowed")
    return address


def _number(port: str) -> int:
    if not NUMBER.fullmatch(port) or not 0 < int(port) < 65536:
        raise Problem("ServiceUnavailable", f'error trying to reach service: "{port}" is no port number')
    return int(port)


def _service(wish: Wish, name: str, port: str, get: Get) -> tuple[str, int, str]:
    """Address, port and name of one of the Service's ready pods, at random."""
    if NUMBER.fullmatch(port):
        ports = get("services", wish.namespace, name).get("spec", {}).get("ports", ())
        names = [entry.get("name", "") for entry in ports if entry["port"] == int(port)]
        if not names:
            raise Problem("ServiceUnavailable", f'no service port {int(port)} found for service "{name}"')
        port = names[0]
    subsets = get("endpoints", wish.namespace, name).get("subsets", ())
    if not subsets:
        raise Problem("ServiceUnavailable", f'no endpoints available for service "{name}"')
    for subset in random.sample(subsets, len(subsets)):
        numbers = [entry["port"] for entry in subset.get("ports", ()) if entry.get("name", "") == port]
        addresses = subset.get("addresses", ()) if numbers else ()
        for address in random.sample(addresses, len(addresses)):
            if pod := _pod_of(address, wish.namespace, get):
                return _allowed(address["ip"]), numbers[0], pod
    raise Problem("ServiceUnavailable", f'no endpoints available for service "{wish.id}"')


def _pod_of(address: Object, namespace: str, get: Get) -> str:
    """The pod of an endpoint, "" when it has none any more: nothing but pods is reached through the API (isValidAddress)."""
    reference: Object = address.get("targetRef", {})
    name: str = reference.get("name", "")
    if not name or reference.get("namespace") != namespace:
        return ""
    try:
        status = get("pods", namespace, name).get("status", {})
    except Problem:
        return ""
    return name if any(entry["ip"] == address["ip"] for entry in status.get("podIPs", ())) else ""
