"""Services, endpoints and what nodes say of them, as tests of `podplane services` need them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def service(**spec: Any) -> Object:
    spec = {"type": "ClusterIP", "clusterIPs": ["10.96.0.5"], "selector": {"app": "web"}, "ports": [{"port": 80}], **spec}
    return {"metadata": {"namespace": "default", "name": "web"}, "spec": spec, "status": {}}


def balanced(*ips: str, mode: str = "VIP", **spec: Any) -> Object:
    one = service(type="LoadBalancer", externalTrafficPolicy="Cluster", **spec)
    one["status"] = {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": mode} for ip in ips]}}
    return one


def endpoint(ip: str, node: str = "node1", pod: str = "", **conditions: bool) -> Object:
    reference = {"kind": "Pod", "name": pod or f"web-{ip[-1]}"}
    return {"addresses": [ip], "nodeName": node, "conditions": conditions, "targetRef": reference}


def slices(*endpoints: Object, kind: str = "IPv4", ports: tuple[Object, ...] = ({"port": 8080},)) -> list[Object]:
    return [{"metadata": {"name": "web-a"}, "addressType": kind, "ports": list(ports), "endpoints": list(endpoints)}]


def leads(address: str, port: int = 80, protocol: str = "tcp", group: str = "svc/default/web:80") -> Object:
    return {"address": address, "port": port, "protocol": protocol, "group": group}


def does(*endpoints: str, frontends: tuple[Object, ...] = (), group: str = "svc/default/web:80") -> Object:
    """What a node does for it."""
    own = [leads("10.96.0.5", group=group if endpoints else ""), *frontends]
    return {"frontends": own, "groups": {group: [[ip, 8080] for ip in endpoints]} if endpoints else {}}


def flow(endpoint: str, connections: int, octets: int, address: str = "10.96.0.5", port: int = 80, **other: Any) -> Object:
    row = {"address": address, "port": port, "protocol": "tcp", "endpoint": endpoint, "endpoint_port": 8080}
    return {**row, "service": "default/web", "connections": connections, "bytes": octets, **other}
