"""What is wrong by what agents say of themselves, and with those that say nothing. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from podplane.cli.cluster.facts import Facts, Object
from podplane.cli.cluster.reads import SYSTEM
from podplane.cli.cluster.said import NODE, Problem
from podplane.cli.status import peers
from podplane.kubeapi.errors import ApiError
from podplane.model.config import AGENT_PORT, VIEWER
from podplane.model.words import counted

PEERS = "PeersUnreachable"
LISTED = 3
"""So many of one sort are told of a node; `podplane status --node` has all of them."""
UNKNOWN, FORBIDDEN, TOO_MANY = 401, 403, 429
LATER = "ask again after 10 s; if it stays so, something asks it all the time"


def agent_problems(facts: Facts) -> Iterator[Problem]:
    """Of all agents that were asked; of peers also what others wrote on their Nodes."""
    yield from _silent(facts)
    yield from _versions(facts)
    told = facts.told()
    for node, status in told.items():
        for text in _of_status(status):
            yield Problem(text, (node,), f"podplane status --node {NODE}")
    for line in peers.lines(told):
        yield Problem(line)
    for name, one in facts.nodes.items():
        if name not in told and (found := one.condition(PEERS)).status == "True":
            yield Problem(f"does not reach peers: {found.message}", (name,))


def _silent(facts: Facts) -> Iterator[Problem]:
    """Of nodes whose agent is there, as far as is known."""
    unready = {pod.node for pod in facts.pods if not pod.is_ready}
    absent = set(facts.nodes) - {pod.node for pod in facts.pods} if facts.pods else set()
    for node, answer in facts.answers.items():
        if not isinstance(answer, ApiError):
            continue
        if (answer.code == FORBIDDEN and "nodes/proxy" in str(answer)) or answer.reason == "Forbidden":
            yield Problem("what agents say of themselves is not known: get nodes/proxy: this right is missing", (node,))
        elif answer.code == UNKNOWN:
            yield Problem(_not_taken(), (node,), "install or upgrade podplane with all of its manifests")
        elif answer.code == TOO_MANY:
            yield Problem(f"its agent is asked by too many, and has not said how it is: {answer}", (node,), LATER)
        elif node not in unready | absent and facts.nodes[node].condition("Ready").status != "Unknown":
            yield Problem(
                f"its agent does not answer: {answer}",
                (node,),
                f"is port {AGENT_PORT} of the node open to the API server?",
            )


def _not_taken() -> str:
    return f"its agent does not know who asks: it, or the ServiceAccount {SYSTEM}/{VIEWER}, is of an older version, or is not there"


def _versions(facts: Facts) -> Iterator[Problem]:
    found = {node: status["version"] for node, status in facts.told().items() if status.get("version")}
    counts = Counter(found.values())
    if len(counts) > 1:
        most = counts.most_common(1)[0][0]
        for version in sorted(set(counts) - {most}):
            nodes = tuple(node for node, one in found.items() if one == version)
            yield Problem(f"runs podplane {version}, and most nodes {most}", nodes, "of a rollout: wait for its end")


def _of_status(status: Object) -> Iterator[str]:
    yield from _refused(status)
    blocked = status["blocked_keys"]
    yield from (f"{one['key']} is blocked: {one['why']}" for one in blocked[:LISTED])
    yield from _more(status["blocked"], "object is blocked", "objects are blocked")
    unmet = status.get("unmet") or []
    yield from unmet[:LISTED]
    yield from _more(len(unmet), "thing is not as asked for", "things are not as asked for")
    for task in status["tasks"]:
        if task["restarts"]:
            yield f"the task {task['name']} was started again {counted(task['restarts'], 'time')}: {task['last_error']}"
    if (api := status["api"]) is not None and not api["is_reached"]:
        yield f"it does not reach the API, and goes on with what it knew: {api['error']}"
    for cache in status["caches"]:
        if not cache["is_synced"]:
            yield f"its {cache['resource']} are not current"


def _refused(status: Object) -> Iterator[str]:
    for one in status["refused_objects"][:LISTED]:
        yield f"the kernel refuses {one['object']}: {one['why']}"
    yield from _more(status["refused"], "object is refused", "objects are refused")


def _more(count: int, one: str, many: str) -> Iterator[str]:
    if count > LISTED:
        yield f"{counted(count - LISTED, f'more {one}', f'more {many}')}"
