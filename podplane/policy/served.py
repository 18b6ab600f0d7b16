"""Which ports pods have, as far as their containers declare them and Services lead to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from podplane.model.pod_info import PodInfo

Object = dict[str, Any]


class ServicePort(NamedTuple):
    """A port of a Service, and the one of the pods behind it that it leads to: a number, or the name that they have for it."""

    service: str
    protocol: str
    port: int
    target: int | str


class Services:
    """Those with a selector, as JSON has them, by namespace; and whose each cluster address is."""

    def __init__(self, services: Mapping[str, Object]) -> None:
        self.by_ip: dict[str, str] = {}
        self._of: defaultdict[str, list[tuple[Mapping[str, str], tuple[ServicePort, ...]]]] = defaultdict(list)
        for path, service in services.items():
            spec = service.get("spec") or {}
            self.by_ip |= dict.fromkeys((ip for ip in spec.get("clusterIPs") or () if ip != "None"), path)
            if spec.get("selector"):
                self._of[path.partition("/")[0]].append((spec["selector"], tuple(_ports(path, spec))))

    def ports(self, pod: PodInfo) -> Iterator[ServicePort]:
        """All of those that lead to a pod."""
        for selector, ports in self._of[pod.metadata.namespace]:
            if selector.items() <= dict(pod.metadata.labels).items():
                yield from ports


def declared(pod: PodInfo) -> set[tuple[str, int]]:
    """Protocols and ports that its containers declare."""
    return {(one.protocol, one.port) for one in pod.ports.named} | set(pod.ports.nameless)


class Serving:
    """The ports of some pods, looked up once for all questions about them."""

    def __init__(self, pods: Iterable[PodInfo], services: Services) -> None:
        alike = {(pod.metadata.namespace, pod.metadata.labels, pod.ports): pod for pod in pods}
        self._declared = [declared(pod) for pod in alike.values()]
        self._named = {(one.name, one.protocol) for pod in alike.values() for one in pod.ports.named}
        self._leading = list(dict.fromkeys(port for pod in alike.values() for port in services.ports(pod)))

    def why_not(self, protocol: str, port: int | str) -> str:
        """Why a port is probably a mistake; "" when it may be right, or when there are no pods. The protocol of a name may be any ("").

        Containers need not declare their ports: a number is a mistake if all pods declare some, and none this one, nor a Service leads
        to it; or if a Service has that number for another one of theirs.
        """
        if isinstance(port, str):
            return self._why_no_name(protocol, port)
        if any((protocol, port) in one for one in self._declared):
            return ""
        if any((one.protocol, one.target) == (protocol, port) for one in self._leading):
            return ""
        for one in self._leading:
            if (one.protocol, one.port) == (protocol, port):
                of = f"the port of Service {one.service}; policies are about the port of its pods, {one.target}"
                return f"{protocol} {port} is {of}"
        if not self._declared or not all(self._declared):
            return ""
        return f"none of the pods declares {protocol} {port}, and no Service leads to it"

    def _why_no_name(self, protocol: str, port: str) -> str:
        if not self._declared or any(name == port and of in (protocol or of,) for name, of in self._named):
            return ""
        others = sorted(other for name, other in self._named if name == port)
        return f"none of the pods has a {f'{protocol} ' * bool(protocol)}port named {port}" + (
            f", but a {others[0]} port" if others else ""
        )


def _ports(path: str, spec: Object) -> Iterator[ServicePort]:
    for one in spec.get("ports") or ():
        yield ServicePort(path, one.get("protocol", "TCP"), one["port"], one.get("targetPort") or one["port"])
