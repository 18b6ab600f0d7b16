"""Objects as the tables that kubectl users know."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from podplane.cli.characters import are_few, escaped_json
from podplane.model.phases import ENDED

Object = dict[str, Any]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, three spaces apart, the first row as their names."""
    rows = [list(map(plain, row)) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def plain(text: str) -> str:
    """Text in one line that does nothing to a terminal: what objects say is anybody's, and control characters are written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
        row = [
            node["metadata"]["name"],
            "Ready" if is_ready(node) else "NotReady",
            age(node["metadata"]["creationTimestamp"], now),
            ",".join(node.get("spec", {}).get("podCIDRs", ())) or "<none>",
        ]
        if wide:
            row.append(",".join(internal_ips(node)) or "<none>")
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
            row.append(",".join(pod_ips(pod)) or "<none>")
            row.append(pod["spec"].get("nodeName") or "<none>")
        rows.append(row)
    return table(rows)


def is_ready(object_: Object) -> bool:
    """Does a pod serve, or is a node one for pods: does its condition Ready hold?

    Anybody may write a status, and the API asks less of it than of what is wanted: nothing in one is certain to be there.
    """
    conditions = object_.get("status", {}).get("conditions", ())
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def pod_ips(pod: Object) -> list[str]:
    """The addresses of a pod."""
    return [one["ip"] for one in pod.get("status", {}).get("podIPs", ()) if one.get("ip")]


def internal_ips(node: Object) -> list[str]:
    """The addresses of a node by which others reach it."""
    found = node.get("status", {}).get("addresses", ())
    return [one["address"] for one in found if one.get("type") == "InternalIP" and one.get("address")]


def is_completed(pod: Object) -> bool:
    """Has the pod done its work?"""
    return bool(pod.get("status", {}).get("phase") == "Succeeded")


def has_ended(pod: Object) -> bool:
    """Has the pod ended, well or not? It is not to be ready any more."""
    return pod.get("status", {}).get("phase") in ENDED


def readiness(pods: Sequence[Object]) -> str:
    """How many pods are ready of those that are to be: `2 of 3 ready, 1 completed, 1 failed`."""
    ended, completed = sum(map(has_ended, pods)), sum(map(is_completed, pods))
    text = f"{sum(map(is_ready, pods))} of {len(pods) - ended} ready"
    rest = ((completed, "completed"), (ended - completed, "failed"))
    return ", ".join([text, *(f"{count} {what}" for count, what in rest if count)])


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
    return why_waiting(pod) or _unmet(pod, "Initialized", "Ready")


def why_waiting(pod: Object) -> str:
    """What went wrong, or what its node waits for before containers can start; "" for nothing."""
    return failure(pod) or _unmet(pod, "PodReadyToStartContainers")


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
                return f"container {container.get('name')} ended with exit code {details['exitCode']}"
    return _unmet(pod, "PodScheduled")


def _unmet(pod: Object, *kinds: str) -> str:
    """What the first of these conditions says that does not hold."""
    conditions = pod.get("status", {}).get("conditions", ())
    said = {c.get("type"): c["message"] for c in conditions if c.get("message") and c.get("status") != "True"}
    return next((said[kind] for kind in kinds if kind in said), "")
