"""NetworkPolicy and ClusterNetworkPolicy a second time, straight from the documentation of their fields, over JSON objects: what verdicts
are held against."""

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
    action = _of_tier("Admin", kind, own, other, flow, objects)
    if action in ("Accept", "Deny"):
        return action == "Accept"
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
    return not isolated and _of_tier("Baseline", kind, own, other, flow, objects) != "Deny"


def _of_tier(tier: str, kind: str, own: Object, other: Object, flow: Object, objects: list[Object]) -> str:
    """The action of the first rule that matches; "" when none does."""
    found = [one for one in objects if one["kind"] == "ClusterNetworkPolicy" and one["spec"]["tier"] == tier]
    for policy in sorted(found, key=lambda one: (one["spec"]["priority"], one["metadata"]["name"])):
        if not _is_among(policy["spec"]["subject"], own, objects):
            continue
        for rule in policy["spec"].get(kind.lower(), []):
            peers, action = rule[{"Ingress": "from", "Egress": "to"}[kind]], rule["action"]
            if action != "Accept" and any("domainNames" in peer for peer in peers):
                return "Deny"
            if any(_is_among(peer, other, objects) for peer in peers) and _has_protocol(rule, flow):
                return str(action)
    return ""


def _is_among(peer: Object, end: Object, objects: list[Object]) -> bool:
    if "networks" in peer:
        return any(ipaddress.ip_address(end["ip"]) in ipaddress.ip_network(cidr) for cidr in peer["networks"])
    if "nodes" in peer:
        nodes = [one for one in objects if one["kind"] == "Node" and _chosen(peer["nodes"], one)]
        return end["ip"] in [address["address"] for one in nodes for address in one["status"]["addresses"]]
    if "pod" not in end or "domainNames" in peer:
        return False
    where = peer["namespaces"] if "namespaces" in peer else peer["pods"]["namespaceSelector"]
    spaces = [one["metadata"]["name"] for one in objects if one["kind"] == "Namespace" and _chosen(where, one)]
    if end["pod"]["metadata"]["namespace"] not in spaces:
        return False
    return "namespaces" in peer or _chosen(peer["pods"]["podSelector"], end["pod"])


def _has_protocol(rule: Object, flow: Object) -> bool:
    if "protocols" not in rule:
        return True
    for one in rule["protocols"]:
        if "destinationNamedPort" in one:
            if _fits({"port": one["destinationNamedPort"], "protocol": flow["protocol"]}, flow):
                return True
        elif flow["protocol"].lower() in one:
            port = one[flow["protocol"].lower()]["destinationPort"]
            first, last = (port["number"],) * 2 if "number" in port else (port["range"]["start"], port["range"]["end"])
            if first <= flow["port"] <= last:
                return True
    return False


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
