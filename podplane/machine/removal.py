"""What takes podplane from a cluster: the objects by which its nodes clean themselves, and what goes from the API. Pure.

The DaemonSet that cleans nodes is made of the agent's as it stands in the cluster: the same image, folders and nodes, however it was
installed. `charts/podplane/templates/uninstall.yaml` is the same for whoever has no `podplane` at hand; a test compares.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from podplane.agent import peer_condition
from podplane.agent.leases import MANAGED
from podplane.controllers import leadership, node_block
from podplane.dns import node as names
from podplane.machine import rbac
from podplane.machine.taint import removal
from podplane.model.config import AGENT_PORT_SAID, BACKENDS, IS_UP, MACHINE, UNDERLAY_MAC, UNDERLAY_MTU
from podplane.model.words import counted
from podplane.routes.cluster_settings import NAME as NETWORK

Object = dict[str, Any]
NAMESPACE, AGENT, UNINSTALL = "kube-system", "podplane-agent", "podplane-uninstall"
NAME_LABEL, COMPONENT_LABEL = "app.kubernetes.io/name", "app.kubernetes.io/component"
LABELS = {NAME_LABEL: "podplane", COMPONENT_LABEL: "uninstall"}
CLEANS, PLUGIN, DONE = "agent", "plugin", "done"
"""Its containers: the first removes what the agent made, the second the programs, and the third says by being there that both are done."""
WAIT = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
POD_FIELDS = (
    *("hostNetwork", "dnsPolicy", "enableServiceLinks", "priorityClassName", "terminationGracePeriodSeconds", "tolerations"),
    *("nodeSelector", "imagePullSecrets", "securityContext"),
)
CONTAINER_FIELDS = ("name", "image", "imagePullPolicy", "terminationMessagePolicy", "securityContext", "volumeMounts")
ANNOTATIONS = (BACKENDS, UNDERLAY_MTU, UNDERLAY_MAC, MACHINE, AGENT_PORT_SAID)
ENDED = ("Succeeded", "Failed")
RELEASE, RELEASED_IN = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
WAITS = "podplane.dev/uninstall-waits"
"""A label that no node has: a DaemonSet whose nodeSelector wants it cleans none yet, as there are agents."""
NAMED = 5
DETACH = "--detach"


def _fields(one: Mapping[str, Any], names: Iterable[str]) -> Object:
    return {name: copy.deepcopy(one[name]) for name in names if name in one}


def _container(spec: Mapping[str, Any], kind: str, name: str) -> Object:
    """KeyError when a DaemonSet is none of podplane's agent."""
    return next((one for one in spec.get(kind) or () if one["name"] == name), None) or _missing(name)


def _missing(name: str) -> Object:
    raise KeyError(f"the DaemonSet {AGENT} has no container {name}")


def waiting(agent: Mapping[str, Any], *, detach: bool) -> Object:
    """The same for no node yet, with all that is to be known when there are no agents any more. KeyError as there."""
    made = daemonset(agent, detach=detach)
    made["metadata"]["annotations"] = _fields(agent.get("metadata", {}).get("annotations") or {}, (RELEASE, RELEASED_IN))
    pod = made["spec"]["template"]["spec"]
    pod["nodeSelector"] = {**(pod.get("nodeSelector") or {}), WAITS: ""}
    return made


BEGINS: Object = {"spec": {"template": {"spec": {"nodeSelector": {WAITS: None}}}}}
"""The merge patch by which it cleans nodes."""


def is_waiting(cleans: Mapping[str, Any]) -> bool:
    """Is this the DaemonSet of an uninstallation that has not come to the nodes yet?"""
    return WAITS in (cleans["spec"].get("template", {}).get("spec", {}).get("nodeSelector") or {})


def daemonset(agent: Mapping[str, Any], *, detach: bool) -> Object:
    """The DaemonSet that cleans the nodes of this one. KeyError when it is none of podplane's."""
    spec = agent["spec"]["template"]["spec"]
    main, plugin = _container(spec, "containers", CLEANS), _container(spec, "initContainers", PLUGIN)
    config = [word for word in main["args"] if word.startswith("--config=")]
    folder = [word for word in plugin["args"] if word.startswith("--bin-dir=")]
    first = {**_fields(main, CONTAINER_FIELDS), "args": ["agent", *config, "uninstall", *([DETACH] if detach else [])]}
    second = {**_fields(plugin, CONTAINER_FIELDS), "args": ["cni", "uninstall", *folder]}
    last = _fields(plugin, ("image", "imagePullPolicy", "securityContext"))
    last |= {"name": DONE, "command": ["/opt/podplane/bin/python", "-c", WAIT]}
    mounted = {mount["name"] for one in (first, second) for mount in one.get("volumeMounts", ())}
    pod = {
        **_fields(spec, POD_FIELDS),
        "automountServiceAccountToken": False,
        "volumes": [copy.deepcopy(one) for one in spec.get("volumes", ()) if one["name"] in mounted],
        "initContainers": [first, second],
        "containers": [last],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": UNINSTALL, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": dict(LABELS)},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": dict(LABELS)}, "spec": pod},
        },
    }


def on_the_network(pods: Iterable[Mapping[str, Any]]) -> list[str]:
    """The pods that have their network from podplane, or are about to: `namespace/name`."""
    return [pod for found in by_node(pods).values() for pod in found]


def by_node(pods: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The same by node. Without an agent those that start wait for good, and those that end, too."""
    found: dict[str, list[str]] = {}
    for one in pods:
        node, has_ended = one["spec"].get("nodeName"), one.get("status", {}).get("phase") in ENDED
        if node and not one["spec"].get("hostNetwork") and not has_ended:
            found.setdefault(node, []).append(f"{one['metadata']['namespace']}/{one['metadata']['name']}")
    return found


def detaching(cleans: Mapping[str, Any]) -> Object:
    """The merge patch by which it cleans nodes although they have pods; {} when it does so. Pods of nodes that are clean stay: what they
    proved can't be proved again."""
    firsts = copy.deepcopy(cleans["spec"]["template"]["spec"]["initContainers"])
    if DETACH in firsts[0]["args"]:
        return {}
    firsts[0]["args"].append(DETACH)
    pods = {"template": {"spec": {"initContainers": firsts}}}
    return {"spec": {**pods, "updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}}


def detaches(pod: Mapping[str, Any]) -> bool:
    """Does this pod clean its node although there are pods?"""
    return any(DETACH in (one.get("args") or ()) for one in pod["spec"].get("initContainers") or ())


def refusal(pods: list[str]) -> str:
    """Why nothing is removed while these are there."""
    return (
        f"{counted(len(pods), 'pod')} would lose the network: {some(pods)}: delete these, or drain the nodes, or give --detach"
    )


def some(pods: list[str]) -> str:
    """The first of them."""
    more = f" and {len(pods) - NAMED} more" if len(pods) > NAMED else ""
    return ", ".join(pods[:NAMED]) + more


def without_annotations(node: Mapping[str, Any]) -> Object:
    """The merge patch that takes from a Node what agents have annotated; {} for nothing."""
    there = [name for name in ANNOTATIONS if name in (node["metadata"].get("annotations") or {})]
    return {"metadata": {"annotations": dict.fromkeys(there)}} if there else {}


def without_condition(node: Mapping[str, Any]) -> Object:
    """The strategic merge patch of its status that takes away what agents say of their peers and of the node's network, and says that a
    Node has a network again of which controllers said that it has none: by that kube-controller-manager takes its taint off. {} for
    nothing."""
    said = [(one["type"], one.get("reason")) for one in node.get("status", {}).get("conditions") or ()]
    changed: list[Object] = [
        {"type": kind, "$patch": "delete"}
        for kind, reason in said
        if kind == peer_condition.TYPE or (kind, reason) == (IS_UP["type"], IS_UP["reason"])
    ]
    changed += [node_block.condition(is_younger=False)] if node_block.is_marked(node) else []
    return {"status": {"conditions": changed}} if changed else {}


def without_taint(node: Mapping[str, Any]) -> list[Object]:
    """The JSON patch that takes away the taint that a node waits for its network by; [] for nothing."""
    return removal(one.get("key", "") for one in node["spec"].get("taints") or ())


PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles.rbac.authorization.k8s.io",
    "ClusterRoleBinding": "clusterrolebindings.rbac.authorization.k8s.io",
    "Role": "roles.rbac.authorization.k8s.io",
    "RoleBinding": "rolebindings.rbac.authorization.k8s.io",
}
NAMED_OBJECTS = (
    ("daemonsets.apps", NAMESPACE, UNINSTALL),
    ("configmaps", NAMESPACE, AGENT),
    ("configmaps", NAMESPACE, "podplane-controllers"),
    ("configmaps", NAMESPACE, NETWORK),
    ("leases.coordination.k8s.io", NAMESPACE, leadership.NAME),
)
LABELLED = (
    ("leases.coordination.k8s.io", MANAGED),
    ("endpointslices.discovery.k8s.io", f"{names.MANAGED_BY}={names.PODPLANE}"),
)
"""What agents write beside Nodes, by its labels, in all namespaces."""


def objects() -> Iterator[tuple[str, str, str]]:
    """(resource, namespace, name) of what goes once the nodes are clean: what an installation has made, but for custom resources, which
    may have somebody's addresses in them."""
    yield from NAMED_OBJECTS
    for account in (rbac.CONTROLLERS, rbac.AGENTS):
        for one in reversed(rbac.manifests(account)):
            yield PLURALS[one["kind"]], one["metadata"].get("namespace", ""), one["metadata"]["name"]


CONTROLLERS = (
    ("deployments.apps", NAMESPACE, "podplane-controllers"),
    ("poddisruptionbudgets.policy", NAMESPACE, "podplane-controllers"),
)
"""What goes first: they would write blocks and addresses anew."""
