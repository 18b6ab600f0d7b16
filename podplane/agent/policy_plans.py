"""The policies of a node as plans: `policy.feature` in the terms of feature rows."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from podplane.agent.fills import Need, ToFill
from podplane.agent.keys import Key, PolicyNameServersKey, PolicyPeersKey, PolicyPodKey, PolicySetKey
from podplane.dns import node as dns
from podplane.model.cluster_policy import Policy
from podplane.model.config import NetworkConfig
from podplane.model.view import Sandbox, View
from podplane.policy import feature
from podplane.policy.feature import PodPlan, PolicyMemory, SetPlan
from podplane.policy.index import Change
from podplane.policy.peers import Peers, digest, digest_of
from podplane.policy.settings import PolicySettings
from podplane.state.effects import Plan

Taken = frozenset[object]
AT_ONCE = 500
"""Sets of no more pods than this are filled in the turn in which a pod is led to them: some 2 ms."""


# Which keys a change concerns.


def pods(old: None, new: Change, view: View) -> Iterable[Key]:
    """The pods of this node that are under other policies now, or under policies that say something else."""
    found = {key: sandbox for path in new.pods for key, sandbox in view.pods.get(path, {}).items()}
    for one in new.policy or ():
        if one is not None:
            found |= {key: sandbox for key, sandbox in view.sandboxes.items() if _may_select(one, sandbox, view)}
    return [pod_key(sandbox) for sandbox in found.values() if sandbox.network is None]


def _may_select(policy: Policy, sandbox: Sandbox, view: View) -> bool:
    """Does a policy select this pod, or is the pod, or the namespace, not known, so that any policy of it may?"""
    if view.policies is None or not sandbox.namespace or policy.metadata.namespace not in ("", sandbox.namespace):
        return False
    if not policy.metadata.namespace and view.policies.namespace(sandbox.namespace) is None:
        return True
    found = view.policies.pod(sandbox.path)
    return found is None or sandbox.uid not in ("", found.metadata.uid) or view.policies.selects(policy, sandbox.path)


def peers(old: None, new: Change, view: View) -> Iterable[Key]:
    """The selectors that pods left, or joined."""
    return [PolicyPeersKey(view.node_name, digest_of(move.selector)) for move in new.moves]


def pod(old: Sandbox | None, new: Sandbox | None, view: View) -> Iterable[Key]:
    sandbox = new or old
    return (pod_key(sandbox),) if sandbox and sandbox.network is None else ()


def pod_key(sandbox: Sandbox) -> PolicyPodKey:
    """The key of what policies let an attachment send and be sent."""
    return PolicyPodKey(sandbox.path, sandbox.container_id, sandbox.ifname, sandbox.uid)


# What a key plans.


def plan_pod(view: View, key: PolicyPodKey, settings: PolicySettings, memory: PolicyMemory, taken: Taken) -> Plan:
    sandbox = view.sandboxes.get((key.container_id, key.ifname))
    return feature.plan_pod(key, sandbox, view.node, view.policies, memory, takes_back=settings.takes_back)


def accept(memory: PolicyMemory, plan: PodPlan) -> Iterable[Key] | None:
    """The sets that are to go."""
    return _sets(memory.accept(plan), plan.node)


def fill(memory: PolicyMemory, plan: PodPlan, needs: Collection[Need]) -> ToFill | None:
    """The sets that are to be filled before a pod is led to rules that look into them: each as often as it takes. One that is filled while
    others have turns is planned once more, for a change of its pods may have taken the last step."""
    sets = memory.fill(plan, needs)
    if not any(sets):
        return None
    at_once = memory.to_take(sets) <= AT_ONCE
    more = () if at_once else (None,)
    keys = (key for one in sets for key in _sets([one], plan.node) for _ in itertools.chain(memory.steps(one), more))
    return ToFill(keys, at_once)


def _sets(sets: Iterable[Peers], node: str) -> list[Key]:
    return [PolicySetKey(node, digest(one)) for one in sets]


class PeersPlan(Plan, frozen=True, kw_only=True):
    """What a change of some pods brings: the node, and the sets to be planned."""

    node: str
    sets: tuple[Peers, ...] = ()


def plan_peers(view: View, key: PolicyPeersKey, config: NetworkConfig, memory: PolicyMemory, taken: Taken) -> Plan:
    return PeersPlan(node=key.path, sets=tuple(memory.sets_of(key.selector)))


def accept_peers(memory: PolicyMemory, plan: PeersPlan) -> Iterable[Key]:
    """The sets that the pods are in."""
    return _sets(plan.sets, plan.node)


class NameServersPlan(Plan, frozen=True, kw_only=True):
    """Other addresses that lead to the cluster's DNS."""

    node: str
    others: tuple[str, ...]


def plan_name_servers(view: View, key: PolicyNameServersKey, config: NetworkConfig, memory: PolicyMemory, taken: Taken) -> Plan:
    """While the node's own name server is away, the cluster IP leads to those of other nodes, which are told by their addresses."""
    return NameServersPlan(node=key.path, others=() if view.has_name_server else dns.others(view))


def accept_name_servers(memory: PolicyMemory, plan: NameServersPlan) -> Iterable[Key]:
    """The sets that the cluster's DNS is in."""
    return _sets(memory.change_name_servers(plan.others), plan.node)


def plan_set(view: View, key: PolicySetKey, config: NetworkConfig, memory: PolicyMemory, taken: Taken) -> Plan:
    return feature.plan_set(key.digest, key.path, memory)


def accept_set(memory: PolicyMemory, plan: SetPlan) -> Iterable[Key] | None:
    """The same set, when it has more to take."""
    return (PolicySetKey(plan.node, plan.digest),) if plan.more else None
