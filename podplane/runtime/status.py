"""A pod's status as its kubelet reports it, made of what is known of its containers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podplane.model import quantity
from podplane.model.pod import Container, Pod

WAITING, RUNNING, TERMINATED = "waiting", "running", "terminated"
INIT, SIDECAR, MAIN, EPHEMERAL = "init", "sidecar", "main", "ephemeral"
"""What a container is to its pod; a sidecar is an init container that goes on (KEP-753), an ephemeral one looks into it (KEP-277)."""
OVER = ("Succeeded", "Failed")
"""Phases of a pod that has ended for good."""


@dataclass(slots=True)
class ContainerState:
    """What is known of one container; times are RFC 3339 texts."""

    name: str
    image: str
    role: str = MAIN
    state: str = WAITING
    reason: str = "ContainerCreating"
    message: str = ""
    exit_code: int = 0
    restarts: int = 0
    started_at: str = ""
    finished_at: str = ""
    container_id: str = ""
    started: bool = False
    ready: bool = False
    last: Mapping[str, Any] | None = None

    @property
    def succeeded(self) -> bool:
        """Did it end well?"""
        return self.state == TERMINATED and self.exit_code == 0

    def take_end(self, end: Mapping[str, Any]) -> None:
        """It ended as this ContainerStateTerminated says."""
        self.state, self.reason, self.message = TERMINATED, end.get("reason", ""), end.get("message", "")
        self.exit_code, self.container_id = end.get("exitCode", 0), end.get("containerID", "")
        self.started_at, self.finished_at = end.get("startedAt", ""), end.get("finishedAt", "")

    def details(self) -> dict[str, Any]:
        """ContainerStateWaiting, -Running or -Terminated."""
        if self.state == RUNNING:
            return {"startedAt": self.started_at}
        words: dict[str, Any] = {"reason": self.reason}
        if self.message:
            words["message"] = self.message
        if self.state == TERMINATED:
            words |= {"exitCode": self.exit_code, "startedAt": self.started_at, "finishedAt": self.finished_at}
            words["containerID"] = self.container_id
        return words

    def status(self) -> dict[str, Any]:
        """ContainerStatus."""
        known = {} if self.last is None else {TERMINATED: dict(self.last)}
        status: dict[str, Any] = {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": self.ready and self.role != EPHEMERAL,
            "started": self.started,
            "restartCount": self.restarts,
            "state": {self.state: self.details()},
            "lastState": known,
        }
        if self.container_id:
            status["containerID"] = self.container_id
        return status


@dataclass(frozen=True, slots=True)
class Known:
    """What a kubelet knows of a pod: its containers in the order of the spec, addresses, and what ended it, if something did."""

    containers: Sequence[ContainerState]
    ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    started_at: str = ""
    has_network: bool = False
    failure: tuple[str, str] | None = None
    over: str = ""
    gates: Sequence[str] = field(default=())

    def of(self, *roles: str) -> list[ContainerState]:
        """The containers of these roles."""
        return [c for c in self.containers if c.role in roles]


def is_initialized(known: Known) -> bool:
    """Are all init containers done, and all sidecars started?"""
    return all(c.succeeded if c.role == INIT else c.started for c in known.of(INIT, SIDECAR))


def phase(known: Known, restart_policy: str) -> str:
    """Pending until all have begun; Running while one runs or will; then Succeeded or Failed (Pod lifecycle, "Pod phase")."""
    if known.over:
        return known.over
    if known.failure is not None:
        return "Failed"
    if any(c.state == TERMINATED and c.exit_code for c in known.of(INIT)) and restart_policy == "Never":
        return "Failed"
    mains = known.of(MAIN)
    if any(not c.started_at for c in mains):
        return "Pending"
    if any(c.state != TERMINATED for c in mains):
        return "Running"
    failed = any(c.exit_code for c in mains)
    if restart_policy == "Always" or (restart_policy == "OnFailure" and failed):
        return "Running"
    return "Failed" if failed else "Succeeded"


def pod_status(pod: Pod, known: Known, now: str) -> dict[str, Any]:
    """The whole status; conditions of others are kept, and times of those that are as they were."""
    is_now = phase(known, pod.spec.restart_policy)
    status: dict[str, Any] = {
        "phase": is_now,
        "conditions": conditions(pod, known, is_now, now),
        "hostIP": known.host_ips[0] if known.host_ips else "",
        "hostIPs": [{"ip": ip} for ip in known.host_ips],
        "startTime": known.started_at,
        "qosClass": qos_class((*pod.spec.init_containers, *pod.spec.containers)),
        "containerStatuses": [c.status() for c in known.of(MAIN)],
        "reason": known.failure[0] if known.failure else None,
        "message": known.failure[1] if known.failure else None,
    }
    if inits := known.of(INIT, SIDECAR):
        status["initContainerStatuses"] = [c.status() for c in inits]
    if ephemerals := known.of(EPHEMERAL):
        status["ephemeralContainerStatuses"] = [c.status() for c in ephemerals]
    if known.ips:
        status |= {"podIP": known.ips[0], "podIPs": [{"ip": ip} for ip in known.ips]}
    return status


def conditions(pod: Pod, known: Known, is_now: str, now: str) -> list[dict[str, Any]]:
    """The kubelet's conditions, in its order, and those that others have set."""
    done = is_now in OVER
    initialized = is_initialized(known) or is_now == "Succeeded"
    unready = [c.name for c in known.of(SIDECAR, MAIN) if not c.ready]
    all_ready = initialized and not unready and not done
    before = {c.type: c for c in pod.status.conditions}
    missing = [gate for gate in known.gates if gate not in before or before[gate].status != "True"]
    why = (
        ("PodCompleted", "")
        if is_now == "Succeeded"
        else ("ContainersNotReady", _named("containers with unready status", unready))
    )
    gated = ("ReadinessGatesNotReady", _named("corresponding conditions are not True", missing))
    incomplete = [c.name for c in known.of(INIT, SIDECAR) if not (c.succeeded if c.role == INIT else c.started)]
    own = [
        ("PodReadyToStartContainers", known.has_network, ("", "")),
        ("Initialized", initialized, ("ContainersNotInitialized", _named("containers with incomplete status", incomplete))),
        ("Ready", all_ready and not missing, gated if all_ready else why),
        ("ContainersReady", all_ready, why),
        ("PodScheduled", True, ("", "")),
    ]
    found: list[dict[str, Any]] = []
    for kind, holds, (reason, message) in own:
        condition: dict[str, Any] = {"type": kind, "status": "True" if holds else "False"}
        old = before.get(kind)
        same = old is not None and old.status == condition["status"] and old.last_transition_time
        condition["lastTransitionTime"] = old.last_transition_time if old is not None and same else now
        if not holds and reason:
            condition |= {"reason": reason, "message": message} if message else {"reason": reason}
        found.append(condition)
    mine = {kind for kind, *_ in own}
    return found + [c.whole() for c in pod.status.conditions if c.type not in mine]


def _named(what: str, names: Sequence[str]) -> str:
    return f"{what}: [{' '.join(names)}]"


def qos_class(containers: Iterable[Container]) -> str:
    """Guaranteed when all that is limited is asked for in full, BestEffort when nothing is said, else Burstable (qos.go)."""
    guaranteed, said = True, False
    for container in containers:
        limits, requests = container.resources.get("limits", {}), container.resources.get("requests", {})
        said = said or any(name in part for part in (limits, requests) for name in ("cpu", "memory"))
        for name in ("cpu", "memory"):
            limit = limits.get(name)
            if limit is None or quantity.parse(requests.get(name, limit)) != quantity.parse(limit):
                guaranteed = False
    return "BestEffort" if not said else "Guaranteed" if guaranteed else "Burstable"
