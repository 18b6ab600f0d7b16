"""What agents and controllers may do in the API of their cluster: no more than they do. Tests hold the rules against what they ask for.

`manifests` makes the objects of them: a ServiceAccount, a ClusterRole with what concerns the whole cluster, and a Role with what concerns
one namespace alone. And a ServiceAccount without any right, by whose tokens agents know who may read them (`kubeapi.authorization`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from podplane.controllers.leadership import NAME as LEASE
from podplane.machine.cidrs import KUBEADM
from podplane.model.config import VIEWER

ACCOUNT, NAMESPACE = "podplane-agent", "kube-system"
HEARTBEATS = "kube-node-lease"
READ = ("list", "watch")


class Rule(msgspec.Struct, frozen=True):
    """Verbs on resources of an API group, and what for; in one namespace, or in all (""); of objects with these names, or of any;
    `of_node_blocks`: needed by controllers that give blocks to nodes alone."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    namespace: str = ""
    names: tuple[str, ...] = ()
    of_node_blocks: bool = False

    @property
    def object(self) -> dict[str, Any]:
        """As a role has it."""
        found: dict[str, Any] = {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}
        return found | ({"resourceNames": list(self.names)} if self.names else {})


RULES: tuple[Rule, ...] = (
    Rule("", ("nodes", "pods", "namespaces", "services"), READ, "routes, attachments, policies and Services"),
    Rule(
        "", ("nodes",), ("patch",), "a node says by which backends it can be reached, and which machine it is; its taint goes"
    ),
    Rule("", ("nodes/status",), ("patch",), "a node says which others it does not reach, and that it has a network"),
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


EVERYBODYS = {("authorization.k8s.io", "selfsubjectrulesreviews", "create")}
"""(group, resource, verb) of what it asks for, too, and everybody may (ClusterRole system:basic-user)."""


VIEWERS = {"metadata": {"name": VIEWER, "namespace": NAMESPACE}, "automountServiceAccountToken": False}
"""The ServiceAccount without any right."""


class Account(msgspec.Struct, frozen=True):
    """A ServiceAccount of `NAMESPACE`, and what it may do."""

    name: str
    rules: tuple[Rule, ...]

    @property
    def without_node_blocks(self) -> Account:
        """Where nodes have their blocks of somebody else."""
        return msgspec.structs.replace(self, rules=tuple(rule for rule in self.rules if not rule.of_node_blocks))


AGENTS = Account(ACCOUNT, RULES)
CONTROLLERS = Account(
    "podplane-controllers",
    (
        Rule("", ("nodes", "services"), READ, "who has which block and which address"),
        Rule("networking.k8s.io", ("servicecidrs",), READ, "addresses of Services are nobody else's"),
        Rule("podplane.dev", ("loadbalancerpools",), READ, "addresses for load balancers"),
        Rule("discovery.k8s.io", ("endpointslices",), READ, "addresses of the API server are nobody else's", "default"),
        Rule("", ("services/status",), ("patch",), "a load balancer is told its addresses"),
        Rule("podplane.dev", ("loadbalancerpools/status",), ("patch",), "a pool says how much of it is in use"),
        Rule("", ("nodes",), ("patch",), "a node gets blocks", of_node_blocks=True),
        Rule(
            "", ("nodes/status",), ("patch",), "a node whose block is another one's, too, gets no new pods", of_node_blocks=True
        ),
        Rule(
            "",
            ("configmaps",),
            ("get",),
            "whether kube-controller-manager gives blocks",
            NAMESPACE,
            (KUBEADM,),
            of_node_blocks=True,
        ),
        Rule("", ("events",), ("create", "get", "patch"), "what can't be done is told to users"),
        Rule("coordination.k8s.io", ("leases",), ("create",), "which of the processes leads", NAMESPACE),
        Rule("coordination.k8s.io", ("leases",), ("get", "patch"), "likewise", NAMESPACE, (LEASE,)),
    ),
)


def allows(group: str, resource: str, verb: str, namespace: str, account: Account = AGENTS) -> Rule | None:
    """The rule by which an account may do this; None when none says so."""
    for rule in account.rules:
        if (
            (group, rule.namespace or namespace) == (rule.group, namespace)
            and resource in rule.resources
            and verb in rule.verbs
        ):
            return rule
    return None


def manifests(of: Account = AGENTS) -> list[dict[str, Any]]:
    """The objects to create in a cluster."""
    account = {"kind": "ServiceAccount", "name": of.name, "namespace": NAMESPACE}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": of.name, "namespace": NAMESPACE}},
    ]
    if of is AGENTS:
        found.append({"apiVersion": "v1", "kind": "ServiceAccount", **VIEWERS})
    for namespace in dict.fromkeys(rule.namespace for rule in of.rules):
        kind = "Role" if namespace else "ClusterRole"
        metadata = {"name": of.name} | ({"namespace": namespace} if namespace else {})
        rules = [rule.object for rule in of.rules if rule.namespace == namespace]
        version = "rbac.authorization.k8s.io/v1"
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": of.name}
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
