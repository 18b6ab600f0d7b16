"""The node's own object while it is deleted: as long as pods are attached, the agent goes on with the one that it knew last.

    deleted, pods attached ──► kept: plans are as before ──► registered again: planned anew, which changes what differs
                                  └── the last pod is detached ──► nothing is planned for the node, as without a Node at all

Only plans go by it (`View.node`): nothing is attached, advertised or offered to others for a Node that the API does not have
(`View.registered`). What other nodes do about one that is gone is theirs: they have no route to its blocks. Its blocks are free for others
then. One that gets them is told of, and has no route from here until no pod has their addresses any more: of two values for one kernel
object the former stays.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import logging
from collections.abc import Iterable

from podplane.agent.keys import NodeKey, PeerKey
from podplane.agent.planner import NOT_APPLIED, RecordEvent
from podplane.model.objects import Node
from podplane.model.view import Sandbox, View
from podplane.model.words import counted
from podplane.state.value import IPNetwork, network_of

log = logging.getLogger(__name__)
MOST_NAMED = 3
"""So many pods are named."""


class OwnNode:
    """Decides what a change of a Node means to the plans of one node; keeps `View.former`."""

    def __init__(self, view: View, record_event: RecordEvent) -> None:
        self._view = view
        self._record_event = record_event
        self._taken: set[tuple[str, str]] = set()
        """Names of Nodes, and their blocks that they were told of."""

    def resume(self, former: Node | None) -> Node | None:
        """An agent before this one planned with this. What is planned with when the API has none now."""
        if self._view.registered is None:
            self._view.former = former
        return self._view.former

    def changed(self, old: Node | None, new: Node | None) -> tuple[Node | None, Node | None]:
        """What plans go by before and after this change of a Node, which the view has already."""
        one = new or old
        if one is None or one.metadata.name != self._view.node_name:
            if new is not None and self._view.former is not None:
                self._look_for_blocks(self._view.former, [new])
            return old, new
        former, self._view.former = self._view.former, None
        self._taken.clear()
        if new is not None:
            if former is not None:
                log.warning("node=%s is registered again", self._view.node_name)
            return old or former, new
        return old, self._keep(old or former)

    def _keep(self, former: Node | None) -> Node | None:
        """Go on with it, if there are pods."""
        own = self._own_pods()
        if former is None or not own:
            return None
        self._view.former = former
        log.warning("node=%s was deleted: %s keep their network until they are detached", self._view.node_name, _named(own))
        self._look_for_blocks(former, self._view.nodes.values())
        return former

    def emptied(self) -> Node | None:
        """No pod is attached any more: the Node that is not planned with any more, None when that changes nothing."""
        former, self._view.former = self._view.former, None
        return former

    def check_addresses(self) -> None:
        """Tell of pods whose addresses are of no block of the node, since it was registered with others."""
        node = self._view.registered
        blocks = _blocks(node) if node is not None else []
        lost = [one for one in self._own_pods() if any(not _is_in(ip, blocks) for ip in one.ips)] if blocks else []
        if lost:
            what = f"{_named(lost)}: addresses of blocks that the node had before it was registered again: other nodes do not reach them"
            log.warning("node=%s %s", self._view.node_name, what)
            self._record_event(NodeKey(self._view.node_name), f"{what}: delete these pods", NOT_APPLIED)

    def _own_pods(self) -> list[Sandbox]:
        return [one for one in self._view.sandboxes.values() if one.network is None]

    def _look_for_blocks(self, former: Node, others: Iterable[Node]) -> None:
        """Tell of others that have a block of the one that was deleted."""
        blocks = _blocks(former)
        for other in others:
            for block in _blocks(other):
                if any(block.version == own.version and block.overlaps(own) for own in blocks):
                    self._tell_taken(other.metadata.name, str(block))

    def _tell_taken(self, other: str, block: str) -> None:
        if (other, block) in self._taken:
            return
        self._taken.add((other, block))
        name, pods = self._view.node_name, _named(self._own_pods())
        what = f"its block {block} is that of {name} too, which was deleted while pods were attached there ({pods})"
        log.warning("node=%s %s: %s", name, other, what)
        self._record_event(PeerKey(other), f"{what}: {name} has no route to it until these are deleted", NOT_APPLIED)


def _blocks(node: Node) -> list[IPNetwork]:
    """Those of a Node that make sense."""
    found = []
    for block in node.spec.pod_cidrs:
        with contextlib.suppress(ValueError):
            found.append(network_of(block))
    return found


def _is_in(ip: str, blocks: Iterable[IPNetwork]) -> bool:
    return any(ipaddress.ip_address(ip) in block for block in blocks)


def _named(pods: list[Sandbox]) -> str:
    """`2 pods: default/a, default/b`."""
    names = list(dict.fromkeys(one.path for one in pods))
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return f"{counted(len(names), 'pod')}: {', '.join([*itertools.islice(names, MOST_NAMED), *more])}"
