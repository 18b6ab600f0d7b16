"""Clusters as `cluster status` reads them: three nodes that are well, and what is changed about them."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from podplane.cli.cluster.facts import AgentPod, ClusterNode, Facts

NOW = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)
IMAGE = "localhost/podplane:0.1.0"
NAMES = ("w1", "w2", "w3")
READY = {"type": "Ready", "status": "True", "message": "kubelet is posting ready status"}
STATUS: dict[str, Any] = {
    "objects": [{"feature": "services", "kind": "nft element", "done": 120, "pending": 0, "refused": 0}],
    "refused": 0,
    "refused_objects": [],
    "blocked": 0,
    "blocked_keys": [],
    "unmet": [],
    "dirty_keys": {},
    "operations_applied": 120,
    "operations_refused": 0,
    "audits": [{"part": "tables", "count": 2, "age": 30.0, "took": 0.004, "found_deviation": False}],
    "repaired": {},
    "last_repairs": [],
    "tasks": [{"name": "agent", "is_running": True, "restarts": 0, "last_error": ""}],
    "caches": [{"resource": "nodes", "objects": 3, "is_synced": True, "failures": {}}],
    "api": {"is_reached": True, "age": 2.0, "error": ""},
    "reconcile_age": 1.0,
    "longest_turn": None,
    "version": "0.1.0",
    "unreached": [],
}


def node(name: str, **changes: Any) -> ClusterNode:
    """A node of which some fields are otherwise: `conditions` in place of Ready, `cidrs`, `ips`, `os`, `annotations`, `taints`."""
    number = int("".join(c for c in name if c.isdecimal()) or 0)
    addresses = [{"type": "InternalIP", "address": ip} for ip in changes.get("ips", [f"192.168.1.{10 + number}"])]
    body = {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": changes.get("annotations", {})},
        "spec": {"podCIDRs": changes.get("cidrs", [f"10.244.{number}.0/24"]), "taints": changes.get("taints", [])},
        "status": {
            "addresses": addresses,
            "conditions": changes.get("conditions", [READY]),
            "nodeInfo": {"operatingSystem": changes.get("os", "linux")},
        },
    }
    return msgspec.convert(body, ClusterNode)


def pod(node: str, **changes: Any) -> AgentPod:
    """The agent's pod on a node."""
    return AgentPod(
        **{"name": f"agent-{node}", "node": node, "is_ready": True, "image": IMAGE, "image_id": "sha256:a", **changes}
    )


def daemon_set(wanted: int = 3, **status: int) -> dict[str, Any]:
    """The DaemonSet, rolled out."""
    rolled = dict.fromkeys(("desiredNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"), wanted)
    return {"metadata": {"generation": 2}, "status": {**rolled, "observedGeneration": 2, **status}}


def answer(name: str, **changes: Any) -> dict[str, Any]:
    """What the agent of a node says."""
    return {"node": name, **STATUS, **changes}


def facts(*nodes: ClusterNode, **changes: Any) -> Facts:
    """All is well, but for what is changed."""
    found = {one.name: one for one in nodes or map(node, NAMES)}
    well: dict[str, Any] = {
        "address": "192.168.1.1:6443",
        "now": NOW,
        "nodes": found,
        "version": "v1.36.3",
        "daemon_set": daemon_set(len(found)),
        "pods": tuple(map(pod, found)),
        "network": {},
        "cluster_cidrs": ("10.244.0.0/16",),
        "service_cidrs": ("10.96.0.0/16",),
        "name_servers": 2,
        "answers": {name: answer(name) for name in found},
    }
    return Facts(**well | changes)
