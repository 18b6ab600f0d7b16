"""How nodes are cleaned: the DaemonSet that does it takes the agents' place, and what its pods say is read until each node is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from podplane.cli.cluster.facts import ClusterNode
from podplane.cli.cluster.many import each
from podplane.cli.cluster.reads import all_nodes, paged
from podplane.cli.errors import ClusterError
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.machine import removal, uninstall
from podplane.machine.removal import AGENT, CLEANS, NAMESPACE, PLUGIN, UNINSTALL

Object = dict[str, Any]
SETS = "daemonsets.apps"
SELECTED = ",".join(f"{name}={value}" for name, value in removal.LABELS.items())
AGENTS = f"{removal.NAME_LABEL}=podplane,{removal.COMPONENT_LABEL}=agent"
POLL_SECONDS = 1.0
TELL_SECONDS, TELL_NODES = 10.0, 10
"""So often, and of so many nodes, it is asked why they wait."""
NOT_SEEN = (
    f"not each node has a pod yet that cleans it: kubectl -n {NAMESPACE} describe daemonset {UNINSTALL}; then call this again"
)


class Node(msgspec.Struct, frozen=True):
    """What became of a node: `proof` is the line that compares it with how it was before the first start ("": it is not done), `lines` what
    was done there, or why it is not done."""

    name: str
    proof: str = ""
    lines: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Is nothing of podplane's left there?"""
        return bool(self.proof)

    @property
    def differences(self) -> tuple[str, ...]:
        """What is otherwise than before, a line each."""
        return tuple(line for line in self.lines if line.startswith(uninstall.INDENT) and not self.is_same)

    @property
    def is_same(self) -> bool:
        """Is it as it was before the first start?"""
        return self.proof.startswith(uninstall.SAME)


class Cleaning:
    """Of the cluster of this client. Methods raise ApiError."""

    def __init__(
        self, client: Any, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client, self._clock, self._sleep = client, clock, sleep
        self._done = dict[str, Node]()
        """By the pod that cleaned it: what it wrote is read once."""
        self._detaches = False

    def installed(self) -> tuple[Object | None, Object | None]:
        """The DaemonSets: of agents, and what cleans nodes."""
        return self._set(AGENT), self._set(UNINSTALL)

    def _set(self, name: str) -> Object | None:
        try:
            found: Object = self._client.get(SETS, NAMESPACE, name)
        except NotFound:
            return None
        return found

    def begin(self, agents: Object, *, detach: bool) -> None:
        """Replace agents by what is to clean their nodes. ClusterError when these are no agents. What cleans is there before they go, and
        waits: whenever this is interrupted, a later call knows how to go on."""
        try:
            cleans = removal.waiting(agents, detach=detach)
        except KeyError as error:
            raise ClusterError(f"{error.args[0]}: what is that? Remove it as docs/install.md says") from None
        self._delete(UNINSTALL)  # one that is there already may be for some nodes alone
        self._client.create(SETS, NAMESPACE, cleans)
        self._delete(AGENT)

    def _delete(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self._client.delete(SETS, NAMESPACE, name, policy="Background")

    def clean(self, seconds: float) -> None:
        """Let what waits begin, once the agents have ended. ClusterError when they do not in time."""
        cleans, end = self._set(UNINSTALL), self._clock() + seconds
        if cleans is None or not removal.is_waiting(cleans):
            return
        while self._set(AGENT) or self._runs():
            if self._clock() > end:
                look = f"kubectl -n {NAMESPACE} get pods -l {AGENTS}"
                raise ClusterError(f"the agents' pods do not end within {seconds:g} s: {look}; then call this again")
            self._sleep(POLL_SECONDS)
        self._client.patch(SETS, NAMESPACE, UNINSTALL, removal.BEGINS)

    def detach(self) -> None:
        """What cleans nodes is to do so although they have pods. Pods that do not know of it yet are replaced while they are waited for."""
        cleans = self._set(UNINSTALL)
        if cleans is not None and (body := removal.detaching(cleans)):
            self._client.patch(SETS, NAMESPACE, UNINSTALL, body)
        self._detaches = True

    def _renew(self, pods: Iterable[Object]) -> None:
        for pod in pods:
            if not removal.detaches(pod) and not pod["metadata"].get("deletionTimestamp"):
                with contextlib.suppress(NotFound):
                    self._client.delete("pods", NAMESPACE, pod["metadata"]["name"])

    def _runs(self) -> bool:
        """Is there a pod on a node that is not away? Of one that is away nobody knows, and it will be told to end when it is back."""
        on = {one["spec"].get("nodeName") or _wanted(one) for labels in (AGENTS, SELECTED) for one in self._pods(labels)}
        return bool(on) and bool(on & {one.name for one in all_nodes(self._client) if not _is_away(one)})

    def _pods(self, labels: str) -> list[Object]:
        return paged(self._client, "pods", NAMESPACE, labelSelector=labels)

    def away(self) -> set[str]:
        """Nodes whose kubelet says nothing."""
        return {one.name for one in all_nodes(self._client) if _is_away(one)}

    def _look(self) -> tuple[list[Node], dict[str, Object]]:
        """The nodes that are done, and of the others the pods that clean them. A log is read when its node gets done, and never again."""
        pods = {one["spec"].get("nodeName") or _wanted(one): one for one in self._pods(SELECTED)}
        pods.pop("", None)
        new = [name for name, pod in pods.items() if _is_done(pod) and pod["metadata"]["name"] not in self._done]
        for name, node in zip(new, each(self._client, new, lambda client, name: _done(client, name, pods[name])), strict=True):
            self._done[pods[name]["metadata"]["name"]] = node
        done = [self._done[pod["metadata"]["name"]] for pod in pods.values() if _is_done(pod)]
        return done, {name: pod for name, pod in pods.items() if not _is_done(pod)}

    def _left(self, pods: Mapping[str, Object], away: Collection[str]) -> list[Node]:
        """Those that are not done, with why."""
        silent = ("it is away: its kubelet says nothing",)
        asked = [name for name in pods if name not in away]
        why = each(self._client, asked, lambda client, name: Node(name, lines=(_why(client, pods[name]),)))
        return [*why, *(Node(name, lines=silent) for name in pods if name in away)]

    def _wanted(self) -> int | None:
        """How many nodes are to be cleaned; None while the controller of DaemonSets has not seen the latest change."""
        cleans = self._set(UNINSTALL) or {}
        status = cleans.get("status", {})
        is_seen = status.get("observedGeneration", 0) >= cleans.get("metadata", {}).get("generation", 1)
        return int(status.get("desiredNumberScheduled", 0)) if is_seen else None

    def _waits(self, left: Mapping[str, Object], why: Callable[[Node], None], told: dict[str, Node]) -> None:
        """Tell of some nodes why they are not done, where it is something else than before."""
        some = {name: left[name] for name in sorted(left)[:TELL_NODES]}
        for one in self._left(some, self.away()):
            if told.get(one.name) != one:
                told[one.name] = one
                why(one)

    def wait(self, seconds: float, tell: Callable[[Node], None], why: Callable[[Node], None] = lambda _: None) -> list[Node]:
        """Until all nodes are clean, or so long; `tell` each that is done, and `why` others are not.

        ClusterError when it is not known by then which nodes there are."""
        end, told = self._clock() + seconds, set[str]()
        next_why, reasons = self._clock() + TELL_SECONDS, dict[str, Node]()
        while True:
            done, left = self._look()
            for one in done:
                if one.name not in told:
                    told.add(one.name)
                    tell(one)
            if self._detaches:
                self._renew(left.values())
            wanted = self._wanted()
            is_all = wanted is not None and not left and len(done) >= wanted
            away = self.away() if left else set[str]()
            if is_all or self._clock() > end or (wanted is not None and left and left.keys() <= away):
                if not is_all and not left:
                    raise ClusterError(NOT_SEEN)
                return sorted((*done, *self._left(left, away)), key=lambda one: one.name)
            if left and self._clock() >= next_why:
                self._waits(left, why, reasons)
                next_why = self._clock() + TELL_SECONDS
            self._sleep(POLL_SECONDS)


def _is_away(node: ClusterNode) -> bool:
    return node.condition("Ready").status in ("", "Unknown")


def _states(pod: Object) -> dict[str, Object]:
    return {one["name"]: one.get("state", {}) for one in pod.get("status", {}).get("initContainerStatuses") or ()}


def _has_ended(state: Object) -> bool:
    return bool(state.get("terminated", {}).get("exitCode") == 0)


def _is_done(pod: Object) -> bool:
    states = _states(pod)
    return all(_has_ended(states.get(kind, {})) for kind in (CLEANS, PLUGIN))


def _done(client: Any, name: str, pod: Object) -> Node:
    said = [line for kind in (CLEANS, PLUGIN) for line in _log(client, pod, kind)]
    return Node(name, _proof(said), tuple(said))


def _why(client: Any, pod: Object) -> str:
    """Why it is not done yet."""
    states = _states(pod)
    kind = PLUGIN if _has_ended(states.get(CLEANS, {})) else CLEANS
    said = _log(client, pod, kind)
    reason = states.get(kind, {}).get("waiting", {}).get("reason") or "it has not begun"
    return said[-1].removeprefix("podplane: ") if said else reason


def _log(client: Any, pod: Object, kind: str) -> list[str]:
    try:
        text: str = client.logs(NAMESPACE, pod["metadata"]["name"], kind)
    except ApiError:
        return []
    return text.splitlines()


def _proof(lines: list[str]) -> str:
    """The line that compares; where the log is not to be had, nothing is known."""
    known = (uninstall.SAME, uninstall.OTHERWISE, uninstall.UNKNOWN)
    return next((line for line in lines if line.startswith(known)), uninstall.UNKNOWN)


def _wanted(pod: Mapping[str, Any]) -> str:
    """The node that a pod of a DaemonSet is for, which is not bound yet."""
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in affinity.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            return str(next(iter(field.get("values") or ()), ""))
    return ""
