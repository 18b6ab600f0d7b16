"""How nodes are cleaned: the DaemonSet that does it takes the agents' place, and what its pods say is read until each node is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from podplane.kubeapi.errors import ApiError, NotFound
from podplane.lab.errors import LabError
from podplane.machine import removal, uninstall
from podplane.machine.removal import AGENT, CLEANS, NAMESPACE, PLUGIN, UNINSTALL

Object = dict[str, Any]
SETS = "daemonsets.apps"
SELECTED = ",".join(f"{name}={value}" for name, value in removal.LABELS.items())
AGENTS = f"{removal.NAME_LABEL}=podplane,{removal.COMPONENT_LABEL}=agent"
POLL_SECONDS = 1.0


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

    def installed(self) -> tuple[Object | None, Object | None]:
        """The DaemonSets: of agents, and what cleans nodes."""
        return self._set(AGENT), self._set(UNINSTALL)

    def _set(self, name: str) -> Object | None:
        try:
            found: Object = self._client.get(SETS, NAMESPACE, name)
        except NotFound:
            return None
        return found

    def begin(self, agents: Object, *, detach: bool, seconds: float) -> None:
        """Replace agents by what cleans their nodes. LabError when these are no agents, or do not end in time."""
        try:
            cleans = removal.daemonset(agents, detach=detach)
        except KeyError as error:
            raise LabError(f"{error.args[0]}: what is that? Remove it as docs/install.md says") from None
        for name in (AGENT, UNINSTALL):  # one that is there already may be for some nodes alone
            with contextlib.suppress(NotFound):
                self._client.delete(SETS, NAMESPACE, name, policy="Background")
        end = self._clock() + seconds
        while any(map(self._set, (AGENT, UNINSTALL))) or any(self._runs(one) for one in self._all_pods()):
            if self._clock() > end:
                raise LabError(f"the agents' pods do not end within {seconds:g} s: kubectl -n {NAMESPACE} get pods -l {AGENTS}")
            self._sleep(POLL_SECONDS)
        self._client.create(SETS, NAMESPACE, cleans)

    def _all_pods(self) -> list[Object]:
        return [*self._pods(AGENTS), *self._pods(SELECTED)]

    def _runs(self, pod: Object) -> bool:
        """Does it run on a node that is there? Of one that is away nobody knows, and it will be told to end when it is back."""
        return pod["spec"].get("nodeName") not in self.away()

    def _pods(self, labels: str) -> list[Object]:
        found: list[Object] = self._client.objects("pods", NAMESPACE, labelSelector=labels)
        return found

    def away(self) -> set[str]:
        """Nodes whose kubelet says nothing."""
        return {one["metadata"]["name"] for one in self._client.objects("nodes") if _status(one, "Ready") == "Unknown"}

    def nodes(self) -> list[Node]:
        """Those that are to be cleaned, each as it is now."""
        away = self.away()
        pods = {one["spec"].get("nodeName") or _wanted(one): one for one in self._pods(SELECTED)}
        found = [self._node(name, pod, is_away=name in away) for name, pod in pods.items() if name]
        return sorted(found, key=lambda one: one.name)

    def _node(self, name: str, pod: Object, *, is_away: bool) -> Node:
        states = {one["name"]: one.get("state", {}) for one in pod.get("status", {}).get("initContainerStatuses") or ()}
        ended = {kind for kind, state in states.items() if state.get("terminated", {}).get("exitCode") == 0}
        if {CLEANS, PLUGIN} <= ended:
            said = [line for kind in (CLEANS, PLUGIN) for line in self._log(pod, kind)]
            return Node(name, _proof(said), tuple(said))
        if is_away:
            return Node(name, lines=("it is away: its kubelet says nothing",))
        return Node(name, lines=(self._why(pod, states),))

    def _why(self, pod: Object, states: Mapping[str, Object]) -> str:
        """Why it is not done yet."""
        kind = PLUGIN if states.get(CLEANS, {}).get("terminated", {}).get("exitCode") == 0 else CLEANS
        said = self._log(pod, kind)
        reason = states.get(kind, {}).get("waiting", {}).get("reason") or "it has not begun"
        return said[-1].removeprefix("podplane: ") if said else reason

    def _log(self, pod: Object, kind: str) -> list[str]:
        try:
            text: str = self._client.logs(NAMESPACE, pod["metadata"]["name"], kind)
        except ApiError:
            return []
        return text.splitlines()

    def wait(self, seconds: float, tell: Callable[[Node], None]) -> list[Node]:
        """Until all nodes are clean, or so long; `tell` each that is done."""
        end, told = self._clock() + seconds, set[str]()
        while True:
            nodes = self.nodes()
            for one in nodes:
                if one.is_done and one.name not in told:
                    told.add(one.name)
                    tell(one)
            cleans = self._set(UNINSTALL)
            wanted = (cleans or {}).get("status", {}).get("desiredNumberScheduled", 0)
            seen = (cleans or {}).get("status", {}).get("observedGeneration", 0)
            if seen and len(nodes) >= wanted and all(one.is_done for one in nodes):
                return nodes
            left = [one for one in nodes if not one.is_done]
            if self._clock() > end or (seen and left and {one.name for one in left} <= self.away()):
                return nodes
            self._sleep(POLL_SECONDS)


def _proof(lines: list[str]) -> str:
    """The line that compares; where the log is not to be had, nothing is known."""
    known = (uninstall.SAME, uninstall.OTHERWISE, uninstall.UNKNOWN)
    return next((line for line in lines if line.startswith(known)), uninstall.UNKNOWN)


def _status(node: Mapping[str, Any], kind: str) -> str:
    conditions = node.get("status", {}).get("conditions") or ()
    return next((one["status"] for one in conditions if one["type"] == kind), "Unknown")


def _wanted(pod: Mapping[str, Any]) -> str:
    """The node that a pod of a DaemonSet is for, which is not bound yet."""
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in affinity.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            return str(next(iter(field.get("values") or ()), ""))
    return ""
