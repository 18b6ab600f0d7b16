"""A pod's status as its kubelet reports it, made of what is known of its containers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WAITING, RUNNING, TERMINATED = "waiting", "running", "terminated"


@dataclass(slots=True)
class ContainerState:
    """What is known of one container; times are RFC 3339 texts."""

    name: str
    image: str
    state: str = WAITING
    reason: str = "ContainerCreating"
    message: str = ""
    exit_code: int = 0
    restarts: int = 0
    started_at: str = ""
    finished_at: str = ""
    container_id: str = ""
    last: dict[str, Any] | None = None


def phase(containers: Sequence[ContainerState], restart_policy: str) -> str:
    """Pending until all have begun; Running while one runs or will; then Succeeded or Failed (Pod lifecycle, "Pod phase")."""
    if any(c.state == WAITING and not c.started_at for c in containers):
        return "Pending"
    if any(c.state != TERMINATED for c in containers):
        return "Running"
    failed = any(c.exit_code for c in containers)
    if restart_policy == "Always" or (restart_policy == "OnFailure" and failed):
        return "Running"
    return "Failed" if failed else "Succeeded"


def pod_status(
    containers: Sequence[ContainerState], restart_policy: str, ips: Sequence[str], host_ips: Sequence[str], started_at: str
) -> dict[str, Any]:
    """The whole status: phase, addresses, conditions, containers."""
    now = phase(containers, restart_policy)
    ready = all(c.state == RUNNING for c in containers) and bool(containers)
    why = "" if ready else "PodCompleted" if now == "Succeeded" else "ContainersNotReady"
    conditions = [
        _condition("PodReadyToStartContainers", bool(ips)),
        _condition("Initialized", True),
        _condition("Ready", ready, why),
        _condition("ContainersReady", ready, why),
        _condition("PodScheduled", True),
    ]
    status: dict[str, Any] = {
        "phase": now,
        "conditions": conditions,
        "hostIP": host_ips[0] if host_ips else "",
        "hostIPs": [{"ip": ip} for ip in host_ips],
        "startTime": started_at,
        "containerStatuses": [container_status(c) for c in containers],
        "reason": None,
        "message": None,
    }
    if ips:
        status |= {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    return status


def _condition(kind: str, holds: bool, reason: str = "") -> dict[str, Any]:
    return {"type": kind, "status": "True" if holds else "False"} | ({"reason": reason} if reason else {})


def container_status(container: ContainerState) -> dict[str, Any]:
    """ContainerStatus of one container."""
    running = container.state == RUNNING
    status: dict[str, Any] = {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "ready": running,
        "started": running,
        "restartCount": container.restarts,
        "state": {container.state: state_of(container)},
    }
    if container.container_id:
        status["containerID"] = container.container_id
    if container.last is not None:
        status["lastState"] = {TERMINATED: container.last}
    return status


def state_of(container: ContainerState) -> dict[str, Any]:
    """The details of the container's state: ContainerStateWaiting, -Running or -Terminated."""
    if container.state == RUNNING:
        return {"startedAt": container.started_at}
    words: dict[str, Any] = {"reason": container.reason}
    if container.message:
        words["message"] = container.message
    if container.state == TERMINATED:
        words |= {"exitCode": container.exit_code, "startedAt": container.started_at, "finishedAt": container.finished_at}
    return words
