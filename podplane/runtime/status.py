"""A pod's status as its kubelet reports it, made of what is known of its containers. Pure.

Sources: kubelet, pkg/kubelet/kubelet_pods.go (getPhase), status/generate.go (conditions), status/status_manager.go (mergePodStatus,
TerminatePod), prober/prober_manager.go (UpdatePodStatus).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from podplane.model.phases import ENDED
from podplane.model.pod import Pod, PodCondition
from podplane.model.qos import qos_class

WAITING, RUNNING, TERMINATED = "waiting", "running", "terminated"
INIT, SIDECAR, MAIN, EPHEMERAL = "init", "sidecar", "main", "ephemeral"
"""What a container is to its pod; a sidecar is an init container that goes on (KEP-753), an ephemeral one looks into it (KEP-277)."""
UNKNOWN_END = ("ContainerStatusUnknown", "The container could not be located when the pod was terminated", 137)
"""Reason, message and exit code of a container that nobody saw end."""


class ContainerState(msgspec.Struct):
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

    @property
    def is_ready(self) -> bool:
        """What its status says: an init container is ready once it is done, an ephemeral one never."""
        return self.succeeded if self.role == INIT else self.ready and self.role != EPHEMERAL

    @property
    def has_stopped(self) -> bool:
        """Has it ended, if it is going to be started again or not?"""
        return self.state == TERMINATED or (self.state == WAITING and self.last is not None)

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
            words["exitCode"] = self.exit_code
            known = {"startedAt": self.started_at, "finishedAt": self.finished_at, "containerID": self.container_id}
            words |= {name: text for name, text in known.items() if text}
        return words

    def status(self) -> dict[str, Any]:
        """ContainerStatus."""
        known = {} if self.last is None else {TERMINATED: dict(self.last)}
        status: dict[str, Any] = {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": self.is_ready,
            "restartCount": self.restarts,
            "state": {self.state: self.details()},
            "lastState": known,
        }
        if self.role != EPHEMERAL:
            status["started"] = self.started
        if self.container_id:
            status["containerID"] = self.container_id
        return status


@dataclass(frozen=True, slots=True)
class Known:
    """What a kubelet knows of a pod: its containers in the order of the spec, addresses, and what ended it, if something did.

    `is_gone`: the pod was deleted, and all that it had has ended.
    """

    containers: Sequence[ContainerState]
    ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    started_at: str = ""
    has_network: bool = False
    no_network: str = ""
    """Why it has waited long for one."""
    failure: tuple[str, str] | None = None
    over: str = ""
    gates: Sequence[str] = field(default=())
    is_gone: bool = False

    def of(self, *roles: str) -> list[ContainerState]:
        """The containers of these roles."""
        return [c for c in self.containers if c.role in roles]

    @property
    def has_begun(self) -> bool:
        """Has one of its main containers been started in this sandbox?"""
        return any(c.started_at for c in self.of(MAIN))

    @property
    def incomplete(self) -> list[str]:
        """The init containers that are not done and the sidecars that have not started, by name."""
        return [c.name for c in self.of(INIT, SIDECAR) if not (c.succeeded if c.role == INIT else c.started)]


def phase(known: Known, restart_policy: str) -> str:
    """Pending until all have begun; Running while one runs or will; then Succeeded or Failed (Pod lifecycle, "Pod phase")."""
    if known.over:
        return known.over
    if known.failure is not None or (restart_policy == "Never" and init_has_failed(known)):
        return "Failed"
    end = _end_of(known)
    if known.is_gone:
        return end
    restarts = restart_policy == "Always" or (restart_policy == "OnFailure" and end == "Failed")
    return _phase_of_living(known) or ("Running" if restarts else end)


def init_has_failed(known: Known) -> bool:
    """Has an init container ended, and not well?"""
    return any(c.state == TERMINATED and c.exit_code for c in known.of(INIT))


def _phase_of_living(known: Known) -> str:
    """Pending or Running; "" when all main containers and sidecars have stopped."""
    if not known.has_begun and any(map(_is_initializing, known.of(INIT, SIDECAR))):
        return "Pending"
    others = known.of(SIDECAR, MAIN)
    if any(c.state == WAITING and c.last is None for c in others):
        return "Pending"
    return "Running" if any(c.state == RUNNING for c in others) else ""


def _is_initializing(container: ContainerState) -> bool:
    """Does the pod wait for this init container or sidecar?"""
    if container.state == RUNNING:
        return container.role == INIT or not container.started
    return not container.has_stopped


def _end_of(known: Known) -> str:
    return "Succeeded" if all(c.succeeded for c in known.of(MAIN)) else "Failed"


def pod_status(pod: Pod, known: Known, now: str) -> dict[str, Any]:
    """The kubelet's part of the status; times of conditions that are as they were are kept.

    A phase that is an end is told once nothing runs any more; until then the conditions alone say it.
    """
    is_now, told = phase(known, pod.spec.restart_policy), known.failure
    known = _when_gone(known)
    own = conditions(pod, known, is_now, now)
    if is_now in ENDED and not known.over and any(c.state == RUNNING for c in known.containers):
        is_now, told = "Running" if known.has_begun else "Pending", None
    status: dict[str, Any] = {
        "phase": is_now,
        "conditions": own,
        "hostIP": known.host_ips[0] if known.host_ips else "",
        "hostIPs": [{"ip": ip} for ip in known.host_ips],
        "startTime": known.started_at,
        "qosClass": qos_class(c.resources for c in (*pod.spec.init_containers, *pod.spec.containers)),
        "containerStatuses": [c.status() for c in known.of(MAIN)],
        "reason": told[0] if told else None,
        "message": told[1] if told else None,
    }
    if pod.metadata.generation:
        status["observedGeneration"] = pod.metadata.generation
    if inits := known.of(INIT, SIDECAR):
        status["initContainerStatuses"] = [c.status() for c in inits]
    if ephemerals := known.of(EPHEMERAL):
        status["ephemeralContainerStatuses"] = [c.status() for c in ephemerals]
    if known.ips:
        status |= {"podIP": known.ips[0], "podIPs": [{"ip": ip} for ip in known.ips]}
    return status


def as_patch(status: Mapping[str, Any]) -> dict[str, Any]:
    """A strategic merge patch that makes the stored status say this, and leaves the conditions of others as they are."""
    gone = {"reason": None, "message": None}
    conditions_ = [gone | condition for condition in status["conditions"]]
    addresses = {name: [{"$patch": "replace"}, *status[name]] for name in ("podIPs", "hostIPs") if name in status}
    return {**status, **addresses, "conditions": conditions_}


def _when_gone(known: Known) -> Known:
    """What has not ended in a pod that is gone, though it was its turn, has ended as nobody knows."""
    if not known.is_gone or known.over:
        return known
    inits = known.of(INIT, SIDECAR)
    tried = max((i for i, c in enumerate(inits) if c.state != WAITING or c.last is not None), default=0)
    due = inits[: tried + 1] + ([] if known.incomplete and not known.has_begun else known.of(MAIN))
    return replace(known, containers=[_lost(c) if c in due and c.state != TERMINATED else c for c in known.containers])


def _lost(container: ContainerState) -> ContainerState:
    reason, message, code = UNKNOWN_END
    end = msgspec.structs.replace(
        container, state=TERMINATED, reason=reason, message=message, exit_code=code, started=False, ready=False
    )
    return msgspec.structs.replace(end, started_at="", finished_at="")


def conditions(pod: Pod, known: Known, is_now: str, now: str) -> list[dict[str, Any]]:
    """The kubelet's conditions, in its order."""
    before = {c.type: c for c in pod.status.conditions}
    contained = _containers_ready(known, is_now)
    own = (
        ("PodReadyToStartContainers", _has_network(known)),
        ("Initialized", _initialized(known, is_now)),
        ("Ready", _gates_open(known, before) if contained[0] else contained),
        ("ContainersReady", contained),
        ("PodScheduled", (True, "", "")),
    )
    found: list[dict[str, Any]] = []
    for kind, (holds, reason, message) in own:
        condition: dict[str, Any] = {"type": kind, "status": "True" if holds else "False"}
        if pod.metadata.generation:  # the spec that it was told of (KEP-5067)
            condition["observedGeneration"] = pod.metadata.generation
        old = before.get(kind)
        same = old is not None and old.status == condition["status"] and old.last_transition_time
        condition["lastTransitionTime"] = old.last_transition_time if old is not None and same else now
        condition |= {name: text for name, text in (("reason", reason), ("message", message)) if text}
        found.append(condition)
    return found


Verdict = tuple[bool, str, str]
"""Whether a condition holds, its reason and its message."""


def _has_network(known: Known) -> Verdict:
    if known.has_network or not known.no_network:
        return known.has_network, "", ""
    return False, "NetworkNotReady", known.no_network


def _initialized(known: Known, is_now: str) -> Verdict:
    if is_now == "Succeeded":
        return True, "PodCompleted", ""
    if known.has_begun or not known.incomplete:
        return True, "", ""
    return False, "ContainersNotInitialized", _named("containers with incomplete status", known.incomplete)


def _containers_ready(known: Known, is_now: str) -> Verdict:
    if is_now in ENDED:
        return False, "PodCompleted" if is_now == "Succeeded" else "PodFailed", ""
    unready = [c.name for c in known.of(SIDECAR, MAIN) if not c.is_ready]
    return (False, "ContainersNotReady", _named("containers with unready status", unready)) if unready else (True, "", "")


def _gates_open(known: Known, before: Mapping[str, PodCondition]) -> Verdict:
    """Are the conditions of all readiness gates True?"""
    missing = []
    for gate in known.gates:
        if gate not in before:
            missing.append(f'corresponding condition of pod readiness gate "{gate}" does not exist.')
        elif before[gate].status != "True":
            missing.append(f'the status of pod readiness gate "{gate}" is not "True", but {before[gate].status}')
    return (False, "ReadinessGatesNotReady", ", ".join(missing)) if missing else (True, "", "")


def _named(what: str, names: Sequence[str]) -> str:
    return f"{what}: [{' '.join(names)}]"
