"""DaemonSet: a pod on each node that it fits (kube-controller-manager, pkg/controller/daemon)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence

from podplane.apiserver.controllers import revisions
from podplane.apiserver.controllers.decision import (
    Action,
    Again,
    Controller,
    Create,
    Delete,
    Note,
    Patch,
    View,
    its_controller,
    itself,
)
from podplane.apiserver.controllers.placement import REFUSING, REQUIRED, is_chosen, taints_of, tolerates
from podplane.apiserver.controllers.pods import BURST, available_in, is_active, is_ready, made_of, share
from podplane.apiserver.controllers.replica_set import adopt, release
from podplane.controllers.objects import Key, Object, controller_of, key_of
from podplane.model.phases import ENDED

RESOURCE, KIND = "daemonsets.apps", "DaemonSet"
TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
NETWORK_UNAVAILABLE = ("node.kubernetes.io/network-unavailable", "NoSchedule")


def _all(view: View, _: Object) -> Iterable[Key]:
    """A node concerns all DaemonSets."""
    return map(key_of, view.all(RESOURCE))


def _decide(view: View, key: Key) -> Iterator[Action]:
    daemon_set = view.get(RESOURCE, key)
    if daemon_set is None:
        return
    if "deletionTimestamp" not in daemon_set["metadata"]:
        yield from release(view, daemon_set)
        adopted = list(adopt(view, daemon_set, KIND, "apps/v1"))
        yield from adopted
        if len(adopted) == BURST:
            return
        in_use = {_hash(pod) for pod in view.controlled("pods", daemon_set)}
        yield from revisions.keep(view, daemon_set, KIND, in_use)
        yield from _place(view, daemon_set)
        if daemon_set["spec"].get("updateStrategy", {}).get("type") == "RollingUpdate":
            yield from _roll(view, daemon_set)
    yield from _status(view, key)


def _hash(pod: Object) -> str:
    found: str = pod["metadata"].get("labels", {}).get(revisions.HASH, "")
    return found


def node_of(pod: Object) -> str:
    """The node that a pod is on, or is meant for."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    terms = _terms(pod["spec"])
    return str(terms[0]["matchFields"][0]["values"][0]) if terms and terms[0].get("matchFields") else ""


def _terms(spec: Object) -> list[Object]:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    found: list[Object] = affinity.get(REQUIRED, {}).get("nodeSelectorTerms", [])
    return found


def _spec_for(daemon_set: Object, node: str) -> Object:
    """The pod's spec for one node: only that node, and what a DaemonSet's pods tolerate."""
    spec: Object = copy.deepcopy(daemon_set["spec"]["template"]["spec"])
    field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    affinity[REQUIRED] = {"nodeSelectorTerms": [field]}
    tolerations = spec.setdefault("tolerations", [])
    for key, effect in (*TOLERATED, *((NETWORK_UNAVAILABLE,) if spec.get("hostNetwork") else ())):
        tolerations.append({"key": key, "operator": "Exists", "effect": effect})
    return spec


def _fits(daemon_set: Object, node: Object) -> bool:
    """Should a pod run there? What its own template chooses counts too."""
    return _is_for(daemon_set, node, *REFUSING)


def _may_stay(daemon_set: Object, node: Object) -> bool:
    """May a pod that runs there go on? Taints that only keep new pods away don't end it."""
    return _is_for(daemon_set, node, "NoExecute")


def _is_for(daemon_set: Object, node: Object, *effects: str) -> bool:
    name, template = node["metadata"]["name"], daemon_set["spec"]["template"]["spec"]
    spec = {**_spec_for(daemon_set, name), "affinity": template.get("affinity", {})}
    tolerated = all(tolerates(spec, taint) for taint in taints_of(node, *effects))
    return template.get("nodeName", name) == name and tolerated and is_chosen(spec, node)


def _by_node(pods: Iterable[Object]) -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = {}
    for pod in pods:
        found.setdefault(node_of(pod), []).append(pod)
    return found


def _place(view: View, daemon_set: Object) -> Iterator[Action]:
    """One pod for each node that fits, none where none may stay; of two the older stays. Pods that ended are replaced."""
    nodes = view.all("nodes")
    fitting = {node["metadata"]["name"] for node in nodes if _fits(daemon_set, node)}
    staying = {node["metadata"]["name"] for node in nodes if _may_stay(daemon_set, node)}
    there = _by_node(pod for pod in view.controlled("pods", daemon_set) if not _is_over(pod))
    for node, pods in there.items():
        for pod in pods:
            if pod.get("status", {}).get("phase") in ENDED:
                yield _ended(daemon_set, pod, node)
                yield Delete("pods", pod)
        living = [pod for pod in pods if is_active(pod)]
        for pod in _spare(view, daemon_set, living) if node in staying else living:
            yield Note(daemon_set, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
            yield Delete("pods", pod)
    for node in sorted(fitting - there.keys())[:BURST]:
        yield _new(daemon_set, node)


def _is_over(pod: Object) -> bool:
    """Has it ended, and is it only waiting to be forgotten?"""
    return "deletionTimestamp" in pod["metadata"] and pod.get("status", {}).get("phase") in ENDED


def _ended(daemon_set: Object, pod: Object, node: str) -> Note:
    """What is said of a pod that ended though it should run for ever."""
    path = "/".join(key_of(pod))
    if pod["status"]["phase"] == "Failed":
        text = f"Found failed daemon pod {path} on node {node}, will try to kill it"
        return Note(daemon_set, "FailedDaemonPod", text, "Warning")
    text = f"Found succeeded daemon pod {path} on node {node}, will try to delete it"
    return Note(daemon_set, "SucceededDaemonPod", text)


def _new(daemon_set: Object, node: str) -> Create:
    made = made_of(daemon_set["spec"]["template"], daemon_set, KIND, "apps/v1")
    made["metadata"]["labels"] = {**made["metadata"].get("labels", {}), revisions.HASH: revisions.hash_of_owner(daemon_set)}
    made["spec"] = _spec_for(daemon_set, node)
    return Create("pods", daemon_set["metadata"]["namespace"], made)


def _spare(view: View, daemon_set: Object, living: Sequence[Object]) -> list[Object]:
    """Those beyond one; in a surge the old and the new one live side by side, until the new one serves or the old one fails."""
    newest = revisions.hash_of_owner(daemon_set)
    new = sorted((p for p in living if _hash(p) == newest), key=_age)
    old = sorted((p for p in living if _hash(p) != newest), key=_age)
    if new and old:
        serves = available_in(new[0], daemon_set["spec"].get("minReadySeconds", 0), view.now) == 0
        return [*new[1:], *(old if serves or not is_ready(old[0]) else old[1:])]
    return [*new[1:], *old[1:]]


def _age(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]


def _roll(view: View, daemon_set: Object) -> Iterator[Action]:
    """Replace pods of older templates, so many at a time that no more than maxUnavailable nodes are without one."""
    there = _by_node(pod for pod in view.controlled("pods", daemon_set) if "deletionTimestamp" not in pod["metadata"])
    fitting = {node["metadata"]["name"] for node in view.all("nodes") if _fits(daemon_set, node)}
    rolling, newest = daemon_set["spec"]["updateStrategy"].get("rollingUpdate", {}), revisions.hash_of_owner(daemon_set)
    surge, missing = (share(rolling.get(name), len(fitting), up=True) for name in ("maxSurge", "maxUnavailable"))
    seconds = daemon_set["spec"].get("minReadySeconds", 0)
    working = [node for node, pods in there.items() if any(available_in(p, seconds, view.now) == 0 for p in pods)]
    room = max(missing, 0 if surge else 1) - len((fitting | there.keys()) - set(working))
    surging = sum(len(pods) > 1 for pods in there.values())
    for node, pods in sorted(there.items()):
        if any(_hash(pod) == newest for pod in pods):
            continue
        if surge and (node not in working or surging < surge):
            surging += node in working
            yield _new(daemon_set, node)
        elif not surge and (node not in working or room > 0):
            room -= node in working
            for pod in pods:
                yield Note(daemon_set, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
                yield Delete("pods", pod)


def _status(view: View, key: Key) -> Iterator[Action]:
    daemon_set = view.get(RESOURCE, key)
    if daemon_set is None:
        return
    spec, old = daemon_set["spec"], daemon_set.get("status", {})
    fitting = {node["metadata"]["name"] for node in view.all("nodes") if _fits(daemon_set, node)}
    there = _by_node(filter(is_active, view.controlled("pods", daemon_set)))
    newest = revisions.hash_of_owner(daemon_set)
    waits = {
        n: [available_in(p, spec.get("minReadySeconds", 0), view.now) for p in pods]
        for n, pods in there.items()
        if n in fitting
    }
    available = sum(0 in found for found in waits.values())
    new: Object = {
        "currentNumberScheduled": len(fitting & there.keys()),
        "desiredNumberScheduled": len(fitting),
        "numberMisscheduled": len(there.keys() - fitting),
        "numberReady": sum(any(map(is_ready, there[node])) for node in fitting & there.keys()),
        "updatedNumberScheduled": sum(any(_hash(p) == newest for p in there[node]) for node in fitting & there.keys()),
        "numberAvailable": available,
        "numberUnavailable": len(fitting) - available,
        "observedGeneration": daemon_set["metadata"].get("generation", 0),
    }
    if any(old.get(field) != value for field, value in new.items()):
        yield Patch(RESOURCE, daemon_set, {"status": new}, "status")
    if pending := [wait for found in waits.values() for wait in found if wait]:
        yield Again(min(pending) + 0.01)


def _of_pod(view: View, pod: Object) -> Iterable[Key]:
    yield from its_controller(KIND)(view, pod)
    if controller_of(pod) is None and pod["metadata"].get("labels"):
        yield from _all(view, pod)


CONTROLLER = Controller("daemonset-controller", {RESOURCE: itself, "pods": _of_pod, "nodes": _all}, _decide)
