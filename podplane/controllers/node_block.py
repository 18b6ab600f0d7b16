"""Blocks of addresses for Nodes (`spec.podCIDRs`), where kube-controller-manager gives none.

    a Node without blocks    gets one of each range, the primary family first, unless something is in the way: that is said by an event
    a Node with blocks       keeps them, whoever gave them and whatever the ranges are: nobody else gets what overlaps them
    two Nodes with one       said of the younger Node (after a restored backup, say), which gets no new pods. The API lets
                             nobody change the blocks of a Node (ValidateNodeUpdate), and with one that is deleted its pods go, and what
                             its CSI drivers said of it: people say when

Before a Node gets blocks it is left alone for a moment: who else gives some is found out so, and then nobody gets any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from podplane.controllers.decision import Action, Again, Cluster, ControllerOf, Note, Patch
from podplane.controllers.load_balancers import NODES, networks_of
from podplane.controllers.node_blocks import OTHERS, NodeBlocks
from podplane.controllers.objects import Key, Object, key_of
from podplane.kubeapi.messages import STRATEGIC_PATCH
from podplane.model.conditions import said_at
from podplane.model.config import ITS_OWN, NO_NETWORK, TWICE
from podplane.model.objects import seniority

WARNING = "Warning"
NO_BLOCK, OF_OTHERS = "NoPodCIDR", "PodCIDROfOthers"
AGAIN_SECONDS = 30.0
"""What is in the way is looked at again so often."""


def _decide(view: Cluster, key: Key) -> Iterator[Action]:
    node, known = view.get(NODES, key), view.node_blocks()
    if node is None:
        return
    if networks_of(NODES, node):
        if known.take_of_others(key):
            yield Note(node, OF_OTHERS, OTHERS, WARNING)
        yield from _said_twice(view, known, key, node)
    elif "deletionTimestamp" not in node["metadata"]:
        yield from _given(known, key, node)


def _given(known: NodeBlocks, key: Key, node: Object) -> Iterator[Action]:
    if (left := known.patience(key)) > 0:
        yield Again(left)
        return
    why = known.obstacle()
    blocks, missing = ((), why) if why else known.give(key)
    if missing:
        if known.is_news(key, missing):
            yield Note(node, NO_BLOCK, missing, WARNING)
        yield Again(AGAIN_SECONDS)
        return
    texts = [str(block) for block in blocks]
    yield Patch(NODES, node, {"spec": {"podCIDR": texts[0], "podCIDRs": texts}})


def _said_twice(view: Cluster, known: NodeBlocks, key: Key, node: Object) -> Iterator[Action]:
    messages = []
    for own, other, owner in known.twice(key, node):
        theirs = view.get(NODES, owner)
        if theirs is not None and _age(theirs) < _age(node):
            which = "" if own == other else f" overlaps {other}, which"
            messages.append(
                f"its block {own}{which} is that of the node {owner[1]}, too, which is older and keeps it. Drain {key[1]}, delete "
                "the Node, and start its kubelet again: it gets another block"
            )
    if known.is_news(key, "\n".join(messages)):
        yield from (Note(node, TWICE, message, WARNING) for message in messages)
    if bool(messages) != is_marked(node):
        conditions = [said_at(condition(is_younger=bool(messages)), view.now)]
        yield Patch(NODES, node, {"status": {"conditions": conditions}}, "status", STRATEGIC_PATCH)


def is_marked(node: Mapping[str, Any]) -> bool:
    """Is it said of a Node that it has no network, by this controller?"""
    conditions = node.get("status", {}).get("conditions") or ()
    return any((one["type"], one.get("status"), one.get("reason")) == (NO_NETWORK, "True", TWICE) for one in conditions)


def condition(*, is_younger: bool) -> Object:
    """What is said of a Node whose block is an older one's, too, or that was marked and is none of these any more."""
    if is_younger:
        why = "no node sends packets to its pods: its block is an older node's, too"
        return {"type": NO_NETWORK, "status": "True", "reason": TWICE, "message": why}
    return dict(ITS_OWN)


def _age(node: Object) -> tuple[str, str]:
    return seniority(node["metadata"].get("creationTimestamp", ""), node["metadata"]["name"])


def _itself_and_others(view: Cluster, node: Object) -> Iterable[Key]:
    """A Node concerns those that have its blocks, too, and, when it had what is free now, one that waits."""
    known = view.node_blocks()
    yield key_of(node)
    for network in networks_of(NODES, node):
        overlapping = list(known.blocks.overlapping(network))
        for _, owners in overlapping:
            yield from owners
        if not overlapping and known.waiting:
            yield next(iter(known.waiting))


CONTROLLER: ControllerOf[Cluster] = ControllerOf(
    "node-block-controller",
    {NODES: _itself_and_others},
    _decide,
    {NODES: lambda node: (networks_of(NODES, node), node["metadata"].get("deletionTimestamp"), is_marked(node))},
)
