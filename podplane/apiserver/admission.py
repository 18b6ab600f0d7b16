"""What the control plane adds to objects as they are written: node blocks, what every pod gets, namespaces.

These are decisions of the node IPAM controller, admission plugins and the namespace controller, taken when the object is written. A
plain class over the store, called by the verbs; each method is about one kind.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from podplane.apiserver import pod_admission, service_changes, service_ips
from podplane.apiserver.deletion import KUBERNETES
from podplane.apiserver.kinds.custom import accept
from podplane.apiserver.kinds.networking import CLASS_ANNOTATION
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.workloads import DAEMON_SETS, count_templates
from podplane.apiserver.problems import Cause, Problem, invalid
from podplane.apiserver.registry import CRDS
from podplane.apiserver.store import Store
from podplane.ipam.plan import NODE_BLOCK_LENGTH
from podplane.ipam.pool import BlockPool, Exhausted
from podplane.model.qos import qos_class
from podplane.services import pools, ranges
from podplane.state.value import IPNetwork

Object = dict[str, Any]
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
GATED = {"reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates"}


class Admission:
    """Decisions on objects that are being written, with what they need to remember."""

    def __init__(self, store: Store, cluster_cidrs: Sequence[IPNetwork]) -> None:
        self._store = store
        self._services = service_ips.ServiceAddresses(store, cluster_cidrs)
        self._blocks = [BlockPool(cidr, max(NODE_BLOCK_LENGTH[cidr.version], cidr.prefixlen)) for cidr in cluster_cidrs]
        for stored in store.all("nodes"):
            self._take_blocks(stored.object)

    def create(self, resource: Resource, object_: Object) -> None:
        """Complete a new object that makes sense. Problem when it can't be."""
        match resource.id:
            case "nodes":
                self._give_blocks(object_)
            case "pods":
                self._complete_pod(object_)
            case "ingresses.networking.k8s.io":
                self._choose_class(object_)
            case "namespaces":
                finalizers = object_.setdefault("spec", {}).get("finalizers", [])
                object_["spec"]["finalizers"] = [*finalizers, *(one for one in (KUBERNETES,) if one not in finalizers)]
                object_["status"] = {"phase": "Active"}
        self.update(resource, object_, None)

    def keep(self, resource: Resource, object_: Object, old: Object) -> None:
        """What the control plane gave an object stays, unless its new version says something else; it is not checked yet."""
        if resource.id == service_ips.SERVICES and isinstance(object_.get("spec"), dict):
            service_changes.keep_allocated(object_, old)

    def update(self, resource: Resource, object_: Object, old: Object | None) -> None:
        """Complete an object that makes sense and is about to be stored, new or changed."""
        if resource.id == service_ips.SERVICES:
            self._services.complete(object_, old)
        if resource.id == "namespaces":
            _name_namespace(object_)
        elif resource.id == DAEMON_SETS:
            count_templates(object_, old)
        elif resource.id == pools.POOLS:
            _check_pool(object_)
        elif resource.id == CRDS:
            _check_definition(object_, old)
            accept(object_, object_["metadata"]["creationTimestamp"])

    def update_status(self, resource: Resource, object_: Object) -> None:
        """Complete an object of which the status is about to be stored."""
        if resource.id == "namespaces":
            _name_namespace(object_)
        elif resource.id == CRDS:
            accept(object_, object_["metadata"]["creationTimestamp"])

    def abandon(self, resource: Resource, object_: Object) -> None:
        """A new object was completed and is not stored; idempotent."""
        if resource.id == "nodes":
            self._release(map(ipaddress.ip_network, object_["spec"].get("podCIDRs", ())))

    def observe(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """A write."""
        self._services.observe(resource, old, new)
        if resource.id == "nodes" and new is None and old is not None:
            self.abandon(resource, old)

    def check_namespace(self, resource: Resource, name: str, object_name: str) -> None:
        """Problem unless an object of this name can be created in this namespace."""
        namespace = self._store.get("namespaces", ("", name))
        if namespace is None:
            raise Problem("NotFound", f'namespaces "{name}" not found: create it first')
        if "deletionTimestamp" in namespace.object["metadata"]:
            why = f"unable to create new content in namespace {name} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {name} is being terminated",
                "field": "metadata.namespace",
            }
            details = {"name": object_name, "group": resource.group, "kind": resource.plural, "causes": [cause]}
            raise Problem("Forbidden", f'{resource.id} "{object_name}" is forbidden: {why}', details)

    # Nodes.

    def _take_blocks(self, node: Object) -> None:
        for block in map(ipaddress.ip_network, node.get("spec", {}).get("podCIDRs", ())):
            for pool in self._blocks:
                pool.take(block)

    def _take_given_blocks(self, node: Object) -> None:
        """The blocks that the node was created with. Problem unless they are free blocks of the cluster CIDRs."""
        taken: list[IPNetwork] = []
        for block in map(ipaddress.ip_network, node["spec"]["podCIDRs"] if self._blocks else ()):
            if any(pool.take(block) for pool in self._blocks):
                taken.append(block)
                continue
            self._release(taken)
            name = node["metadata"]["name"]
            raise Problem("Invalid", f'Node "{name}" is invalid: spec.podCIDRs: {block} is no free block of the cluster CIDRs')

    def _release(self, blocks: Iterable[IPNetwork]) -> None:
        for block in blocks:
            for pool in self._blocks:
                pool.release(block)

    def _give_blocks(self, node: Object) -> None:
        spec = node.setdefault("spec", {})
        if not spec.get("podCIDRs"):
            taken: list[IPNetwork] = []
            try:
                taken.extend(pool.next() for pool in self._blocks)
            except Exhausted as error:
                self._release(taken)
                name = node["metadata"]["name"]
                raise Problem("Forbidden", f"node {name} gets no pod block: {error}: give a larger cluster CIDR") from None
            if not taken:  # somebody else gives them
                return
            spec["podCIDRs"] = [str(block) for block in taken]
        else:
            self._take_given_blocks(node)
        spec["podCIDR"] = spec["podCIDRs"][0]

    # Ingresses.

    def _choose_class(self, ingress: Object) -> None:
        """The class of an Ingress that says none: the default one, of several the newest (plugin DefaultIngressClass)."""
        annotations, spec = ingress["metadata"].get("annotations", {}), ingress["spec"]
        if "ingressClassName" in spec or CLASS_ANNOTATION in annotations:
            return
        classes = (stored.object["metadata"] for stored in self._store.all("ingressclasses.networking.k8s.io"))
        defaults = [one for one in classes if one.get("annotations", {}).get(DEFAULT_CLASS) == "true"]
        if defaults:
            newest = max(one["creationTimestamp"] for one in defaults)
            spec["ingressClassName"] = min(one["name"] for one in defaults if one["creationTimestamp"] == newest)

    # Pods.

    def _complete_pod(self, pod: Object) -> None:
        spec, namespace = pod["spec"], pod["metadata"]["namespace"]
        account = self._store.get(
            "serviceaccounts", (namespace, spec.get("serviceAccountName") or pod_admission.DEFAULT_ACCOUNT)
        )
        pod_admission.complete(pod, account.object if account is not None else None)
        since = pod["metadata"]["creationTimestamp"]
        conditions = []
        if spec.get("nodeName"):
            conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": since})
        elif spec.get("schedulingGates"):
            conditions.append({"type": "PodScheduled", "status": "False", "lastTransitionTime": since, **GATED})
        containers = (*spec.get("initContainers", ()), *spec.get("containers", ()))
        qos = qos_class((container.get("resources", {}) for container in containers), spec.get("resources"))
        pod["status"] = {"phase": "Pending", "conditions": conditions, "qosClass": qos}


def _name_namespace(namespace: Object) -> None:
    """The label by which selectors of namespaces know it (SetDefaults_Namespace)."""
    labels = namespace["metadata"].get("labels", {})
    namespace["metadata"]["labels"] = {**labels, "kubernetes.io/metadata.name": namespace["metadata"]["name"]}


def _check_definition(definition: Object, old: Object | None) -> None:
    """Problem when it is that of pools and says something else than podplane: pools are read as podplane defines them."""
    if definition["metadata"]["name"] != pools.POOLS:
        return
    versions, allowed = definition["spec"]["versions"], [pools.definition()["spec"]["versions"]]
    if old is not None:
        allowed.append(old["spec"]["versions"])
    if versions not in allowed:
        cause = Cause.forbidden("spec.versions", f"what {pools.POOLS} are is podplane's to say")
        raise invalid(definition["kind"], pools.POOLS, [cause], "apiextensions.k8s.io")


def _check_pool(pool: Object) -> None:
    """Problem unless each of a pool's texts stands for addresses, which its schema can't say."""
    causes: list[Cause] = []
    for number, text in enumerate(pool["spec"]["addresses"]):
        try:
            ranges.parse(text)
        except ValueError as error:
            causes.append(Cause.invalid(f"spec.addresses[{number}]", text, str(error)))
    if causes:
        raise invalid(pools.KIND, pool["metadata"]["name"], causes, pools.GROUP)
