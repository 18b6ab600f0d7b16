"""The policies of a node as plans: `policy.feature` in the terms of feature rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from podplane.agent.fills import Need
from podplane.agent.keys import Key, PolicyNameServersKey, PolicyPeerKey, PolicyPodKey
from podplane.dns import node as dns
from podplane.model.cluster_policy import Policy
from podplane.model.config import NetworkConfig
from podplane.model.pod_info import PodInfo
from podplane.model.view import Sandbox, View
from podplane.policy import feature
from podplane.policy.feature import PodPlan, PolicyMemory
from podplane.policy.index import Change, Move
from podplane.policy.name_servers import PATH
from podplane.policy.peers import digest_of
from podplane.policy.settings import PolicySettings
from podplane.state.effects import Plan

Taken = frozenset[object]


# Which keys a change concerns.


def pods(old: None, new: Change, view: View) -> Iterable[Key]:
    """The pods of this node that are under other policies now, or under policies that say something else."""
    found = {key: sandbox for path in new.pods for key, sandbox in view.pods.get(path, {}).items()}
    for one in new.policy or ():
        if one is not None:
            found |= {key: sandbox for key, sandbox in view.sandboxes.items() if _may_select(one, sandbox, view)}
    return map(pod_key, found.values())


def _may_select(policy: Policy, sandbox: Sandbox, view: View) -> bool:
    """Does a policy select this pod, or is the pod, or the namespace, not known, so that any policy of it may?"""
    if view.policies is None or policy.metadata.namespace not in ("", sandbox.namespace):
        return False
    if not policy.metadata.namespace and view.policies.namespace(sandbox.namespace) is None:
        return True
    found = view.policies.pod(sandbox.path)
    return found is None or sandbox.uid not in ("", found.metadata.uid) or view.policies.selects(policy, sandbox.path)


def peers(old: None, new: Change, view: View) -> Iterable[Key]:
    """The pods that left a selector, or joined it."""
    node = view.node_name
    return (_peer_key(one, name, node) for move in new.moves for name in (digest_of(move.selector),) for one in _moved(move))


def _moved(move: Move) -> Iterator[PodInfo]:
    yield from move.left
    yield from move.joined


def _peer_key(pod: PodInfo, selector: str, node: str) -> Key:
    path = pod.metadata.path
    return PolicyNameServersKey(node) if path == PATH else PolicyPeerKey(path, selector)


def pod(old: Sandbox | None, new: Sandbox | None, view: View) -> Iterable[Key]:
    sandbox = new or old
    return (pod_key(sandbox),) if sandbox else ()


def pod_key(sandbox: Sandbox) -> PolicyPodKey:
    """The key of what policies let an attachment send and be sent."""
    return PolicyPodKey(sandbox.path, sandbox.container_id, sandbox.ifname, sandbox.uid)


# What a key plans.


def plan_pod(view: View, key: PolicyPodKey, settings: PolicySettings, memory: PolicyMemory, taken: Taken) -> Plan:
    sandbox = view.sandboxes.get((key.container_id, key.ifname))
    return feature.plan_pod(key, sandbox, view.node, view.policies, memory, takes_back=settings.takes_back)


def accept(memory: PolicyMemory, plan: PodPlan) -> Iterable[Key] | None:
    """The peers whose elements are to go with a set."""
    return _peers_of(memory.accept(plan), plan.node)


def fill(memory: PolicyMemory, plan: PodPlan, needs: Collection[Need]) -> Iterable[Key] | None:
    """The peers whose elements are to come before a pod is led to rules that look for them."""
    return _peers_of(memory.fill(plan, needs), plan.node)


def _peers_of(selectors: Collection[tuple[str, list[PodInfo]]], node: str) -> Iterable[Key] | None:
    """None: there are none."""
    if not any(pods for _, pods in selectors):
        return None
    return (_peer_key(pod, selector, node) for selector, pods in selectors for pod in pods)


def plan_name_servers(view: View, key: PolicyNameServersKey, config: NetworkConfig, memory: PolicyMemory, taken: Taken) -> Plan:
    """While the node's own name server is away, the cluster IP leads to those of other nodes, which are told by their addresses."""
    others = () if view.has_name_server else dns.others(view)
    return feature.plan_name_servers(others, view.node, view.policies, memory)


def plan_peer(view: View, key: PolicyPeerKey, config: NetworkConfig, memory: PolicyMemory, taken: Taken) -> Plan:
    return feature.plan_peer(key.path, key.selector, view.node, view.policies, memory)
