"""NetworkPolicy a second time, straight from the documentation of its fields, over JSON objects: what verdicts are held against."""

from __future__ import annotations

import ipaddress
from typing import Any

Object = dict[str, Any]


def is_allowed(flow: Object, objects: list[Object]) -> bool:
    """`flow`: source and destination (`{"ip": …}`, with `pod` or `node`), protocol, port."""
    source, destination = flow["source"], flow["destination"]
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    if "pod" in source and source.get("pod") == destination.get("pod"):
        return True
    leaves = _passes("Egress", source, destination, flow, policies, objects)
    if "node" in source and "pod" in destination and destination["pod"]["spec"]["nodeName"] == source["node"]:
        return leaves
    return leaves and _passes("Ingress", destination, source, flow, policies, objects)


def _passes(kind: str, own: Object, other: Object, flow: Object, policies: list[Object], objects: list[Object]) -> bool:
    if "pod" not in own:
        return True
    isolated = False
    for policy in policies:
        spec = policy["spec"]
        if policy["metadata"]["namespace"] != own["pod"]["metadata"]["namespace"] or not _chosen(
            spec.get("podSelector", {}), own["pod"]
        ):
            continue
        if kind not in spec.get("policyTypes", ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]):
            continue
        isolated = True
        for rule in spec.get(kind.lower(), []):
            peers, ports = rule.get({"Ingress": "from", "Egress": "to"}[kind]), rule.get("ports")
            if peers and not any(_is(peer, other, policy, objects) for peer in peers):
                continue
            if ports and not any(_fits(port, flow) for port in ports):
                continue
            return True
    return not isolated


def _is(peer: Object, end: Object, policy: Object, objects: list[Object]) -> bool:
    if "ipBlock" in peer:
        block, ip = peer["ipBlock"], ipaddress.ip_address(end["ip"])
        nets = [ipaddress.ip_network(text) for text in (block["cidr"], *block.get("except", []))]
        return ip in nets[0] and not any(ip in net for net in nets[1:])
    if "pod" not in end:
        return False
    pod = end["pod"]
    if "namespaceSelector" in peer:
        spaces = [one for one in objects if one["kind"] == "Namespace" and _chosen(peer["namespaceSelector"], one)]
        if pod["metadata"]["namespace"] not in [one["metadata"]["name"] for one in spaces]:
            return False
    elif pod["metadata"]["namespace"] != policy["metadata"]["namespace"]:
        return False
    return _chosen(peer.get("podSelector", {}), pod)


def _fits(port: Object, flow: Object) -> bool:
    if flow["protocol"] != port.get("protocol", "TCP"):
        return False
    number = port.get("port")
    if number is None:
        return True
    if isinstance(number, int):
        return bool(number <= flow["port"] <= port.get("endPort", number))
    pod = flow["destination"].get("pod")
    declared = [one for container in pod["spec"]["containers"] for one in container["ports"]] if pod else []
    return any(
        (one["name"], one.get("protocol", "TCP"), one["containerPort"]) == (number, flow["protocol"], flow["port"])
        for one in declared
    )


def _chosen(selector: Object, thing: Object) -> bool:
    labels = thing["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for term in selector.get("matchExpressions", []):
        has, value = term["key"] in labels, labels.get(term["key"])
        match term["operator"]:
            case "In":
                if not has or value not in term["values"]:
                    return False
            case "NotIn":
                if has and value in term["values"]:
                    return False
            case "Exists":
                if not has:
                    return False
            case _:
                if has:
                    return False
    return True
