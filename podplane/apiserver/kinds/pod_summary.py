"""What a table says of a pod: ready containers, the word that says most, restarts (pkg/printers/internalversion, printPod). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from podplane.model.phases import ENDED

Object = dict[str, Any]


class Summary(msgspec.Struct, frozen=True):
    """Of so many containers, sidecars among them, so many are ready; how often they were started again, and when that was last due."""

    ready: int
    containers: int
    state: str
    restarts: int
    restarted_at: str


def summary(pod: Object) -> Summary:
    """The summary of a pod."""
    status = pod.get("status", {})
    specs = pod["spec"].get("initContainers", ())
    sidecars = {c["name"] for c in specs if c.get("restartPolicy") == "Always"}
    inits: Sequence[Object] = status.get("initContainerStatuses", ())
    mains: Sequence[Object] = status.get("containerStatuses", ())
    reached, starting = _starting(inits, sidecars, len(specs))
    ready = sum(bool(c.get("started") and c.get("ready")) for c in reached if c.get("name") in sidecars and not _ended(c))
    if starting and not _holds(status, "Initialized"):
        counted, state = reached, starting
    else:
        running = [c for c in mains if c.get("ready") and "running" in c.get("state", {})]
        ready += len(running)
        counted = [*(c for c in reached if c.get("name") in sidecars), *mains]
        state = _state(status, starting or _word(status), mains, bool(running))
    return Summary(
        ready,
        len(pod["spec"]["containers"]) + len(sidecars),
        _leaving(pod, state),
        sum(c.get("restartCount", 0) for c in counted),
        max(((c.get("lastState", {}).get("terminated") or {}).get("finishedAt", "") for c in counted), default=""),
    )


def _word(status: Object) -> str:
    if any(c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in status.get("conditions", ())):
        return "SchedulingGated"
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _holds(status: Object, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in status.get("conditions", ()))


def _ended(container: Object) -> Object | None:
    found: Object | None = container.get("state", {}).get("terminated")
    return found


def _starting(statuses: Iterable[Object], sidecars: set[str], total: int) -> tuple[list[Object], str]:
    """The init containers up to the first that isn't done, and what that one does; "" when all are done."""
    reached = []
    for i, container in enumerate(statuses):
        reached.append(container)
        ended, waiting = _ended(container), container.get("state", {}).get("waiting") or {}
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        if ended is not None:
            return reached, f"Init:{_end(ended)}"
        if waiting.get("reason") not in (None, "", "PodInitializing"):
            return reached, f"Init:{waiting['reason']}"
        return reached, f"Init:{i}/{total}"
    return reached, ""


def _end(ended: Object) -> str:
    signal, code = ended.get("signal"), ended.get("exitCode", 0)
    return str(ended.get("reason") or (f"Signal:{signal}" if signal else f"ExitCode:{code}"))


def _state(status: Object, word: str, containers: Sequence[Object], running: bool) -> str:
    """What the first container says that waits or has ended, else the word."""
    for container in containers:
        ended, waiting = _ended(container), container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") or ended is not None:
            word = str(waiting.get("reason")) if waiting.get("reason") else _end(ended or {})
            break
    if word == "Completed" and running:
        return "Running" if _holds(status, "Ready") else "NotReady"
    return word


def _leaving(pod: Object, state: str) -> str:
    """Terminating from the deletion to the end of its containers; Unknown when its node is lost."""
    status = pod.get("status", {})
    if not pod["metadata"].get("deletionTimestamp"):
        return state
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return state if status.get("phase") in ENDED else "Terminating"
