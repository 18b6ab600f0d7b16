"""Who takes part in a check: the lab's pods, and what the check adds so that every promise has somebody to prove it.

In a namespace of its own, which it deletes in the end, the check runs: on each node a pod in the node's own network, which
speaks for the node; one on the host outside, which speaks for the world; a pod of two containers; and pods where the lab has
too few of them to show anything.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from podplane.cli.check.patience import patient
from podplane.cli.names import some
from podplane.cli.nodes import Question, active_names, ask, why_silent
from podplane.cli.policy.cluster import Cluster, cluster
from podplane.cli.tables import has_ended, is_ready, pod_ips, pod_state, trouble
from podplane.cli.waiting import telling
from podplane.kernel.rights import NAMES
from podplane.kubeapi.errors import AlreadyExists, ApiError, NotFound
from podplane.lab.errors import LabError
from podplane.lab.faults.table import CUT_API
from podplane.lab.underlay import OUTSIDE
from podplane.model.answers import Summary
from podplane.model.config import AGENT_PORT, CHECK_NAMESPACE
from podplane.model.pod import Pod
from podplane.runtime.security import rights
from podplane.runtime.users import User, asked_user

Object = dict[str, Any]
NAMESPACE = CHECK_NAMESPACE
CONTAINERS = ("first", "second")
SLEEP = ("sleep", "infinity")
WAIT_SECONDS, STALLED_SECONDS, SILENT_SECONDS = 60.0, 10.0, 2.0
"""For the check's own pods, at the most; while none of them comes to run; and on nodes whose agents don't answer, and for those."""
GONE_SECONDS = 10.0
"""For the namespace of the check to go."""
OUT_OF_REACH = ("Timeout", "ServiceUnavailable")
"""Reasons of the API, not of a node: nobody answered."""
NODES_TO_FILL = 3
NET_RAW = NAMES.index("NET_RAW")


@dataclass(frozen=True, slots=True)
class Member:
    """A container that a prober runs in; `kind` is "pod", "node" or "container". One that `pings` may have a raw socket."""

    name: str
    kind: str
    namespace: str
    pod: str
    container: str
    node: str
    ips: tuple[str, ...]
    pings: bool = True


def _pod(name: str, node: str, containers: Sequence[str] = CONTAINERS[:1], *, host_network: bool = False) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "dnsPolicy": "ClusterFirstWithHostNet" if host_network and node != OUTSIDE else "ClusterFirst",
            "containers": [{"name": c, "image": "host/sleep", "command": list(SLEEP)} for c in containers],
        },
    }


def additions(nodes: Sequence[str], pods: Sequence[Object], silent: Collection[str] = ()) -> list[Object]:
    """The pods that the check adds to these; where it has the choice, on a node that is not silent."""
    on = Counter(pod["spec"].get("nodeName", "") for pod in pods)
    wanted = [_pod(f"in-{node}", node, host_network=True) for node in nodes]
    empty = [node for node in nodes[:NODES_TO_FILL] if not on[node]]
    wanted += [_pod(f"on-{node}", node) for node in empty]
    on.update(empty)
    able = [node for node in nodes if node not in silent] or nodes
    busiest = max(able, key=lambda node: on[node])
    if on[busiest] < 2:
        wanted.append(_pod(f"also-on-{busiest}", busiest))
    return [*wanted, _pod("two-containers", able[0], CONTAINERS), _pod(f"at-{OUTSIDE}", OUTSIDE, host_network=True)]


def runs(pod: Object) -> bool:
    """On a node, ready, with addresses, and not about to end."""
    return (
        bool(pod["spec"].get("nodeName"))
        and is_ready(pod)
        and bool(pod_ips(pod))
        and "deletionTimestamp" not in pod["metadata"]
    )


RECENT = datetime.timedelta(seconds=30)
"""A container that has been restarted, and runs for less than this, may end again while the check asks it."""


def restarts(pod: Object, now: datetime.datetime) -> bool:
    """Does one of its containers run again since just now? Of a crash loop that is most of its time."""
    for status in pod.get("status", {}).get("containerStatuses", ()):
        began = (status.get("state", {}).get("running") or {}).get("startedAt")
        if began and status.get("restartCount") and now - datetime.datetime.fromisoformat(began) < RECENT:
            return True
    return False


def why_left_out(pod: Object, now: datetime.datetime) -> str:
    """Why a pod of the users' does not take part; "" for one that does, or that is not to run any more."""
    if not runs(pod):
        return "" if has_ended(pod) else "it does not run"
    return "it was restarted just now" if restarts(pod, now) else ""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Who takes part; the pods that don't because they don't run; and what is known of those that should and can't.

    `judged` are the names of the pods that a policy selects, and `cluster` what the API says of policies.

    `lost` says of nodes, the host outside and pods of the check's own why nobody speaks for them. `silent` says of nodes why their agents
    do not answer, or don't reach the API; `unreached` are those of them that no packet seems to reach.
    """

    members: Sequence[Member]
    left_out: Mapping[str, str]
    lost: Mapping[str, str]
    silent: Mapping[str, str]
    unreached: frozenset[str]
    judged: frozenset[str]
    cluster: Cluster


@contextlib.contextmanager
def gathered(client: Any, undo: Callable[[str], str]) -> Iterator[Gathered]:
    """All members; what was added goes again in the end. `undo` is the command that ends a node's faults."""
    objects = {n["metadata"]["name"]: n for n in client.objects("nodes")}
    nodes = sorted(objects, key=lambda name: (len(name), name))
    if not nodes:
        raise LabError("there is nothing to check: this lab has no nodes")
    dismiss(client)
    answers = ask(client, [Question(node, AGENT_PORT, "status/summary", Summary) for node in nodes], patient(SILENT_SECONDS))
    errors = {one.node: answer for one, answer in answers.items() if isinstance(answer, ApiError)}
    said = {one.node: _why_not(objects[one.node], answer) for one, answer in answers.items()}
    silent = {node: why_silent(objects[node], why, undo(node)) for node, why in said.items() if why}
    for node, text in silent.items():
        click.echo(f"{node} can't be asked: {text}.", err=True)
    pods = [pod for pod in client.objects("pods") if not pod["spec"].get("hostNetwork")]
    left_out = {_name(pod): why for pod in pods if (why := why_left_out(pod, datetime.datetime.now(datetime.UTC)))}
    able = [pod for pod in pods if runs(pod) and _name(pod) not in left_out]
    judged = _judged(able, cluster(client))
    try:
        with contextlib.suppress(AlreadyExists):
            client.create("namespaces", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for pod in additions(nodes, [pod for pod in able if _name(pod) not in judged and may_ping(pod)], silent):
            client.create("pods", NAMESPACE, pod)
        added = _started(client, silent)
        lost = {_speaks_for(pod): _why(pod, silent) for pod in added if not runs(pod)}
        unreached = frozenset(node for node, error in errors.items() if error.reason in OUT_OF_REACH)
        running = [pod for pod in added if runs(pod)]
        policies = cluster(client)  # with the check's own pods and their namespace, which policies may be about, too
        judged = _judged([*able, *running], policies)
        yield Gathered(members([*able, *running]), left_out, lost, silent, unreached, judged, policies)
    finally:
        try:
            dismiss(client)
        except LabError as error:  # what was found is told all the same
            click.echo(f"podplane: {error}", err=True)


def _judged(pods: Sequence[Object], policies: Cluster) -> frozenset[str]:
    """The names of the pods that a policy selects."""
    return frozenset(_name(pod) for pod in pods if policies.index.policies_of(_path(pod)))


def _why_not(node: Object, answer: Any) -> str:
    """Why nothing can be started on a node, or asked of its agent; "" when it can."""
    if isinstance(answer, ApiError):
        return f"it does not answer: {answer}"
    if answer.get("api_error"):
        return f"it does not reach the API: {answer['api_error']}"
    if CUT_API in active_names(node):
        return "it does not reach the API"
    ready: Object = next((c for c in node.get("status", {}).get("conditions", ()) if c.get("type") == "Ready"), {})
    return "" if ready.get("status") == "True" else f"it is not Ready: {ready.get('message') or 'nobody says why'}"


def _started(client: Any, silent: Mapping[str, str]) -> list[Object]:
    """The check's own pods, when they run or don't seem to come to it: on nodes that don't answer, nobody waits for them long."""
    began, progress = time.monotonic(), [0, 0.0]

    def done(pods: Sequence[Object]) -> bool:
        missing = [pod for pod in pods if not runs(pod)]
        now = time.monotonic() - began
        if progress[0] != len(pods) - len(missing):
            progress[:] = [len(pods) - len(missing), now]
        hopeful = any(pod["spec"].get("nodeName") not in silent for pod in missing)
        return not missing or now - progress[1] > patient(STALLED_SECONDS if hopeful else SILENT_SECONDS)

    def waited_for(pods: Sequence[Object]) -> str:
        return f"the check's own pods: {some([pod['metadata']['name'] for pod in pods if not runs(pod)])}"

    *_, added = client.poll("pods", NAMESPACE, done, patient(WAIT_SECONDS), telling(waited_for))
    return list(added)


def _speaks_for(pod: Object) -> str:
    """The name under which a pod of the check's own would have taken part."""
    return str(pod["spec"]["nodeName"]) if pod["spec"].get("hostNetwork") else _name(pod)


def _why(pod: Object, silent: Mapping[str, str]) -> str:
    node = pod["spec"].get("nodeName", "")
    why = trouble(pod) or f"it is {pod_state(pod)}"
    about = f", and of {node}: {silent[node]}" if node in silent else ""
    return f"the check's pod {pod['metadata']['name']} does not run: {why}{about}"


def dismiss(client: Any) -> None:
    """Delete the check's namespace with all that is in it, and wait until it is gone."""
    try:
        for pod in client.objects("pods", NAMESPACE):
            client.delete("pods", NAMESPACE, pod["metadata"]["name"], grace=0)
        client.delete("namespaces", "", NAMESPACE)
    except NotFound:
        return

    def is_gone(found: Sequence[Object]) -> bool:
        return NAMESPACE not in {n["metadata"]["name"] for n in found}

    def waited_for(_: Sequence[Object]) -> str:
        return f"the namespace {NAMESPACE} of the last check to go"

    for found in client.poll("namespaces", "", is_gone, patient(GONE_SECONDS), telling(waited_for)):
        gone = is_gone(found)
    if not gone:
        raise LabError(f"the namespace {NAMESPACE} does not go: `kubectl get namespace {NAMESPACE} -o yaml` says why")


def _name(pod: Object) -> str:
    meta = pod["metadata"]
    return str(meta["name"]) if meta["namespace"] == "default" else f"{meta['namespace']}/{meta['name']}"


def _path(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def may_ping(pod: Object) -> bool:
    """Has its first container CAP_NET_RAW? Only user 0 has it from the start."""
    found = msgspec.convert(pod, Pod)
    first = found.spec.containers[0]
    return not asked_user(found, first) and NET_RAW not in rights(found, first, User()).without


def members(pods: Sequence[Object]) -> list[Member]:
    """Who speaks for what: for a pod its first container, for a node the pod in its network."""
    found: list[Member] = []
    for pod in pods:
        ips = tuple(pod_ips(pod))
        place = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        node = pod["spec"]["nodeName"]
        first, *others = [c["name"] for c in pod["spec"]["containers"]]
        if pod["spec"].get("hostNetwork"):
            found.append(Member(node, OUTSIDE if node == OUTSIDE else "node", *place, first, node, ips))
        else:
            found.append(Member(_name(pod), "pod", *place, first, node, ips, may_ping(pod)))
            found += [Member(f"{_name(pod)}:{c}", "container", *place, c, node, ips) for c in others]
    return found
