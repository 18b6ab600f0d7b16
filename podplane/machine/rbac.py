"""What an agent may do in the API of its cluster: no more than it does. Tests hold the rules against what an agent asks for.

`manifests` makes the objects of them: a ServiceAccount, a ClusterRole with what concerns the whole cluster, and a Role with what concerns
one namespace alone. And a ServiceAccount without any right, by whose tokens agents know who may read them (`kubeapi.authorization`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from podplane.machine.cidrs import KUBEADM
from podplane.model.config import VIEWER

ACCOUNT, NAMESPACE = "podplane-agent", "kube-system"
HEARTBEATS = "kube-node-lease"
READ = ("list", "watch")


class Rule(msgspec.Struct, frozen=True):
    """Verbs on resources of an API group, and what for; in one namespace, or in all (""); of objects with these names, or of any."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    namespace: str = ""
    names: tuple[str, ...] = ()


RULES: tuple[Rule, ...] = (
    Rule("", ("nodes", "pods", "namespaces", "services"), READ, "routes, attachments, policies and Services"),
    Rule("", ("nodes",), ("patch",), "a node says by which backends it can be reached"),
    Rule("", ("nodes/status",), ("patch",), "a node says which others it does not reach"),
    Rule("", ("configmaps",), READ, "by which backend nodes reach each other", NAMESPACE),
    Rule("discovery.k8s.io", ("endpointslices",), READ, "where Services lead"),
    Rule("networking.k8s.io", ("networkpolicies",), READ, "what policies allow"),
    Rule("policy.networking.k8s.io", ("clusternetworkpolicies",), READ, "what policies of the cluster allow"),
    Rule("coordination.k8s.io", ("leases",), (*READ, "create", "patch"), "which node advertises a load balancer"),
    Rule("coordination.k8s.io", ("leases",), ("get",), "whether another node's heartbeat stopped", HEARTBEATS),
    Rule(
        "networking.k8s.io",
        ("servicecidrs",),
        ("list",),
        "the networks of Services, where the configuration does not name them",
    ),
    Rule("", ("configmaps",), ("get",), "the networks of pods, likewise", NAMESPACE, (KUBEADM,)),
    Rule("k8s.cni.cncf.io", ("network-attachment-definitions",), ("get",), "further networks that pods ask for"),
    Rule("", ("pods",), ("patch",), "a pod is told which further interfaces it got"),
    Rule("", ("events",), ("create", "get", "patch"), "what can't be done is told to users"),
    Rule("authentication.k8s.io", ("tokenreviews",), ("create",), "who asks the agent for its state"),
    Rule("authorization.k8s.io", ("subjectaccessreviews",), ("create",), "whether they may"),
    Rule(
        "discovery.k8s.io",
        ("endpointslices",),
        ("create", "delete", "get", "patch"),
        "the node's name server is offered to other nodes",
        NAMESPACE,
    ),
)


def allows(group: str, resource: str, verb: str, namespace: str) -> Rule | None:
    """The rule by which an agent may do this; None when none says so."""
    for rule in RULES:
        if (
            (group, rule.namespace or namespace) == (rule.group, namespace)
            and resource in rule.resources
            and verb in rule.verbs
        ):
            return rule
    return None


def manifests() -> list[dict[str, Any]]:
    """The objects to create in a cluster."""
    account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    viewer = {"metadata": {"name": VIEWER, "namespace": NAMESPACE}, "automountServiceAccountToken": False}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", **viewer},
    ]
    for namespace in dict.fromkeys(rule.namespace for rule in RULES):
        kind = "Role" if namespace else "ClusterRole"
        metadata = {"name": ACCOUNT} | ({"namespace": namespace} if namespace else {})
        rules = [
            {"apiGroups": [rule.group], "resources": list(rule.resources), "verbs": list(rule.verbs)}
            | ({"resourceNames": list(rule.names)} if rule.names else {})
            for rule in RULES
            if rule.namespace == namespace
        ]
        version = "rbac.authorization.k8s.io/v1"
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": ACCOUNT}
        found += [
            {"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules},
            {
                "apiVersion": version,
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": reference,
                "subjects": [account],
            },
        ]
    return found
