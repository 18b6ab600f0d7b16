"""Objects as the tables that kubectl users know."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from podplane.cli.characters import are_few, escaped_json

Object = dict[str, Any]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, three spaces apart, the first row as their names."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def document_text(document: Any, output: str) -> str:
    """A document as JSON or YAML, with escapes where standard output has not all characters."""
    ascii_only = are_few()
    if output == "json":
        import msgspec

        formatted = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
        return escaped_json(formatted) if ascii_only else formatted
    import yaml

    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=not ascii_only)
    return text.rstrip("\n")


def age(timestamp: str, now: datetime.datetime) -> str:
    """The time since then in one unit, as kubectl shortens it (two for minutes and hours that are few)."""
    seconds = max(0, int((now - datetime.datetime.fromisoformat(timestamp)).total_seconds()))
    for unit, size, below in (("s", 1, 120), ("m", 60, 180 * 60), ("h", 3600, 48 * 3600)):
        if seconds < below:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def nodes(objects: Iterable[Object], wide: bool, now: datetime.datetime) -> str:
    """`get nodes`."""
    rows = [["NAME", "STATUS", "AGE", "PODS-IN"] + (["INTERNAL-IP"] if wide else [])]
    for node in objects:
        conditions = node.get("status", {}).get("conditions", ())
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        row = [
            node["metadata"]["name"],
            "Ready" if ready else "NotReady",
            age(node["metadata"]["creationTimestamp"], now),
            ",".join(node["spec"].get("podCIDRs", ())) or "<none>",
        ]
        if wide:
            found = node.get("status", {}).get("addresses", ())
            row.append(",".join(a["address"] for a in found if a["type"] == "InternalIP") or "<none>")
        rows.append(row)
    return table(rows)


def pods(objects: Iterable[Object], wide: bool, now: datetime.datetime, namespaces: bool = False) -> str:
    """`get pods`."""
    head = (["NAMESPACE"] if namespaces else []) + ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    rows = [head + (["IP", "NODE"] if wide else [])]
    for pod in objects:
        meta, status = pod["metadata"], pod.get("status", {})
        containers = status.get("containerStatuses", ())
        ready = sum(bool(c.get("ready")) for c in containers)
        row = ([meta["namespace"]] if namespaces else []) + [
            meta["name"],
            f"{ready}/{len(pod['spec']['containers'])}",
            pod_state(pod),
            str(sum(c.get("restartCount", 0) for c in containers)),
            age(meta["creationTimestamp"], now),
        ]
        if wide:
            row.append(",".join(ip["ip"] for ip in status.get("podIPs", ())) or "<none>")
            row.append(pod["spec"].get("nodeName") or "<none>")
        rows.append(row)
    return table(rows)


def is_ready(pod: Object) -> bool:
    """Does the pod serve: does its condition Ready hold?"""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))


def is_completed(pod: Object) -> bool:
    """Has the pod done its work? It is not to be ready any more."""
    return bool(pod.get("status", {}).get("phase") == "Succeeded")


def readiness(pods: Sequence[Object]) -> str:
    """How many pods are ready of those that are to be: `2 of 3 ready, 1 completed`."""
    completed = sum(map(is_completed, pods))
    text = f"{sum(map(is_ready, pods))} of {len(pods) - completed} ready"
    return f"{text}, {completed} completed" if completed else text


def pod_state(pod: Object) -> str:
    """The word that says most: of a container that waits or failed, else the phase."""
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    status = pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        state = container.get("state", {})
        details = state.get("waiting") or state.get("terminated") or {}
        if details.get("reason") not in (None, "", "ContainerCreating"):
            return str(details["reason"])
    return str(status.get("phase", "Pending"))


def trouble(pod: Object) -> str:
    """Why the pod doesn't run or isn't ready, in the words of its status; "" when they say nothing."""
    return failure(pod) or _unmet(pod, "Initialized", "Ready")


def failure(pod: Object) -> str:
    """What went wrong with the pod; "" as well when it only has not come so far yet."""
    status = pod.get("status", {})
    for container in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
        state = container.get("state", {})
        if state.get("waiting", {}).get("reason") == "CrashLoopBackOff":
            state = container.get("lastState", state)
        for details in state.values():
            if details.get("message"):
                return str(details["message"]).strip()
            if details.get("exitCode"):
                return f"container {container['name']} ended with exit code {details['exitCode']}"
    return _unmet(pod, "PodScheduled")


def _unmet(pod: Object, *kinds: str) -> str:
    """What the first of these conditions says that does not hold."""
    conditions = pod.get("status", {}).get("conditions", ())
    said = {c["type"]: c["message"] for c in conditions if c.get("message") and c["status"] != "True"}
    return next((said[kind] for kind in kinds if kind in said), "")
