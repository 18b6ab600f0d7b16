"""The features of a node and what each plans: a literal list, in place of any discovery.

A feature has keys. `affected` says which of them a changed node object touches; `plan` turns one key into its fragment.
Pod sandboxes are planned under the sandbox's own key whenever they are attached or detached.
"""

from __future__ import annotations

from collections.abc import Iterable

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.model.view import View
from podplane.nodes import plan as nodes
from podplane.pods import plan as pods
from podplane.routes import host_gw
from podplane.state.value import Fragment

NODE, PEER, ROUTE, POD = "node", "peer", "route", "pod"


def affected(old: Node | None, new: Node | None, view: View) -> Iterable[str]:
    """The keys whose fragments may differ after this change of a node object."""
    node = new or old
    if node is None or _planned_of(old) == _planned_of(new):
        return ()
    if node.metadata.name != view.node_name:
        return (f"{ROUTE}/{node.metadata.name}", f"{PEER}/{node.metadata.name}")
    peers = (f"{PEER}/{name}" for name in view.nodes if name != view.node_name)
    return (f"{NODE}/{node.metadata.name}", *peers, *view.sandboxes)


def _planned_of(node: Node | None) -> object:
    """What plans read of a node: a change of anything else touches no key."""
    return node and (node.spec.pod_cidrs, node.internal_ips, node.metadata.annotations, node.metadata.uid)


def plan(key: str, view: View, config: NetworkConfig) -> Fragment:
    """The fragment of one key; empty when what it stands for is gone."""
    feature, _, name = key.partition("/")
    if feature == POD:
        sandbox = view.sandboxes.get(key)
        return pods.plan(sandbox, view, config) if sandbox else {}
    node = view.nodes.get(name)
    if node is None or view.node is None:
        return {}
    if feature == NODE:
        return nodes.plan(node, config)
    if feature == PEER:
        return nodes.peer_plan(node, view.node, config)
    return host_gw.plan(node, config)
