"""Pods as the lab and the command line create them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podplane.lab.underlay import OUTSIDE

ECHO_IMAGE, HOST_IMAGE = "podplane/echo", "host/command"
GRACE_SECONDS = 2
"""The grace period of pods of `podplane run` and `up`, which have nothing to save."""


def pod(
    name: str,
    *,
    node: str = "",
    command: Sequence[str] = (),
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    port: int | None = None,
) -> dict[str, Any]:
    """A pod of one container: `command`, or the echo server."""
    container: dict[str, Any] = {"name": "main", "image": HOST_IMAGE if command else ECHO_IMAGE}
    if command:
        container["command"] = list(command)
    if port is not None:
        container["env"] = [{"name": "PORT", "value": str(port)}]
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": GRACE_SECONDS}
    if node:
        spec["nodeName"] = node
    if node == OUTSIDE:
        spec["hostNetwork"] = True
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels or {"run": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def node_name(number: int) -> str:
    """node1, node2, …"""
    return f"node{number}"


def wanted_pods(nodes: int, pods_per_node: int) -> list[dict[str, Any]]:
    """`--pods-per-node`: the pods `echo-<node>-<n>` of all nodes."""
    return [
        pod(f"echo-{node_name(n)}-{i}", node=node_name(n), labels={"run": "echo"})
        for n in range(1, nodes + 1)
        for i in range(1, pods_per_node + 1)
    ]
