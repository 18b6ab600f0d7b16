"""What is wrong with the DaemonSet and its pods. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from podplane.cli.cluster.facts import AgentPod, Facts
from podplane.cli.cluster.reads import AGENTS, SYSTEM
from podplane.cli.cluster.said import POD, Problem
from podplane.machine.node_events import REASON
from podplane.model.words import counted, lasting

LATELY = 600.0
"""A container that ended within so many seconds is told of; who looks at a cluster that is well does not want to hear of last month."""
START_SECONDS = 60.0
"""An agent that does not listen yet is starting for so long."""
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull")
IMAGE = "load the image on that node (docs/install.md#the-image)"
UNANSWERED = "error trying to reach service"
"""So kube-apiserver says that nobody listens there."""
UNREADY = "containers with unready status"
"""So a kubelet says of a pod whose container runs, and no more."""
ROLLOUT = f"kubectl -n {SYSTEM} rollout status daemonset/{AGENTS}"


def rollout_problems(facts: Facts) -> Iterator[Problem]:
    """Is it rolled out, to all nodes that it is for?"""
    found = facts.daemon_set
    if found is None:
        return
    status = found.get("status") or {}
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        text = f"the latest change of the DaemonSet {AGENTS} is seen by nobody yet: does kube-controller-manager run?"
        yield Problem(text, todo=ROLLOUT)
        return
    wanted, updated = (status.get(key, 0) for key in ("desiredNumberScheduled", "updatedNumberScheduled"))
    if not wanted and facts.nodes:
        yield Problem(f"the DaemonSet {AGENTS} is for no node: its nodeSelector or affinity matches none")
    elif updated < wanted:
        yield Problem(f"a new version rolls out: {counted(updated, 'node')} of {wanted:,} have it", todo=ROLLOUT)
    if count := status.get("numberMisscheduled", 0):
        yield Problem(
            f"{counted(count, 'node')} still {'has' if count == 1 else 'have'} an agent that the DaemonSet is not for any more"
        )


def pod_problems(facts: Facts) -> Iterator[Problem]:
    """Has each node one agent, and is it ready?"""
    told, is_known = facts.told(), facts.daemon_set is not None and not _are_hidden(facts)
    for name, node in facts.nodes.items():
        pods = facts.pods_of(name)
        if not pods and node.is_linux and is_known and name not in told:
            yield Problem(
                "no agent runs there: the DaemonSet made no pod for it",
                (name,),
                f"kubectl -n {SYSTEM} describe daemonset {AGENTS}",
            )
        if len(pods) > 1 and sum(pod.why != "it ends" for pod in pods) > 1:
            yield Problem(f"{len(pods)} agents: {', '.join(pod.name for pod in pods)}", (name,), "leave one of them")
        for pod in pods:
            yield from _of_pod(facts, pod)
    if nameless := [pod for pod in facts.pods if not pod.node]:
        yield Problem(f"{counted(len(nameless), 'agent')} on no node yet: {nameless[0].why or 'it waits for a node'}")
    yield from _images(facts)


def _are_hidden(facts: Facts) -> bool:
    return any("pods" in one.what for one in facts.unread)


def _of_pod(facts: Facts, pod: AgentPod) -> Iterator[Problem]:
    if not pod.is_ready:
        why = _why(facts, pod)
        todo = IMAGE if pod.why.startswith(NO_IMAGE) else f"kubectl -n {SYSTEM} logs {POD}"
        yield Problem(f"its agent is not ready: {why}", (pod.node,), todo)
    elif pod.restarted is not None and (facts.now - pod.restarted).total_seconds() < LATELY:
        text = f"its agent was started again in the last {lasting(LATELY)}"
        yield Problem(text, (pod.node,), f"kubectl -n {SYSTEM} logs --previous {POD}")


def _why(facts: Facts, pod: AgentPod) -> str:
    """What the agent says. Of one that does not listen: what is wrong with its pod, else its latest event."""
    said = facts.not_ready.get(pod.node, "")
    if said and UNANSWERED not in said:
        return said
    state = "" if pod.why.startswith(UNREADY) else pod.why
    age = LATELY if pod.made is None else (facts.now - pod.made).total_seconds()
    since = min(LATELY, age + 1)  # what the pod before it said may be mended; times of the API are whole seconds
    events = (one for one in facts.warnings if (one.node, one.reason) == (pod.node, REASON))
    lately = (one.message for one in events if (facts.now - one.last).total_seconds() < since)
    starts = f"it has been starting for {lasting(age)}" if said and age < START_SECONDS else ""
    return state or next(lately, "") or starts or said or pod.why or "it does not say why"


def _images(facts: Facts) -> Iterator[Problem]:
    """One name, and several contents: nodes have pulled it at different times, or somebody imported another one there."""
    contents: dict[str, Counter[str]] = {}
    for pod in facts.pods:
        if pod.image_id:
            contents.setdefault(pod.image, Counter())[pod.image_id] += 1
    for image, found in contents.items():
        if len(found) > 1:
            most = found.most_common(1)[0][0]
            nodes = tuple(pod.node for pod in facts.pods if pod.image == image and pod.image_id not in ("", most))
            yield Problem(
                f"the image {image} has another content there than on the other nodes",
                nodes,
                "import or pull one image on all nodes",
            )
