"""Namespace, Node, ConfigMap, Secret, Event, Lease, roles: defaults and rules (core, coordination, rbac)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from podplane.apiserver.kinds import names, statuses
from podplane.apiserver.kinds.addresses import check_cidr
from podplane.apiserver.problems import Cause
from podplane.model.config import UNDERLAY_MAC
from podplane.model.node_addresses import why_no_mac

Object = dict[str, Any]
MAX_DATA_BYTES = 1024 * 1024


def check_namespace(namespace: Object, old: Object | None) -> Iterator[Cause]:
    """Namespace: its finalizers (ValidateNamespace)."""
    yield from names.check_finalizers(namespace.get("spec", {}).get("finalizers", ()), "spec.finalizers")


def complete_node(node: Object) -> None:
    """The first of the blocks is the one block that older clients know, and wins where they differ; and the status."""
    spec = node.get("spec", {})
    if block := spec.get("podCIDR"):
        if spec.get("podCIDRs", [""])[0] != block:
            spec["podCIDRs"] = [block]
    elif first := next(iter(spec.get("podCIDRs", ())), ""):
        spec["podCIDR"] = first
    statuses.complete_node(node)


def complete_namespace(namespace: Object) -> None:
    """The label that names it, and its phase."""
    if name := namespace["metadata"].get("name"):
        namespace["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    namespace.setdefault("status", {}).setdefault("phase", "Active")


def check_node(node: Object, old: Object | None) -> Iterator[Cause]:
    """Node: blocks are networks, one of an IP version (ValidateNode); addresses are addresses."""
    mac = node["metadata"].get("annotations", {}).get(UNDERLAY_MAC)
    if mac is not None and (why := why_no_mac(mac)):
        yield Cause.invalid(f"metadata.annotations[{UNDERLAY_MAC}]", mac, f"must be a MAC address of one interface: it {why}")
    blocks = node.get("spec", {}).get("podCIDRs", ())
    for i, block in enumerate(blocks):
        yield from check_cidr(block, f"spec.podCIDRs[{i}]")
    if len({":" in block for block in blocks}) != len(blocks):
        yield Cause.invalid("spec.podCIDRs", blocks, "may specify no more than one CIDR for each IP family")
    for i, taint in enumerate(node.get("spec", {}).get("taints", ())):
        if taint.get("key"):
            yield from names.check_labels({taint["key"]: taint.get("value", "")}, f"spec.taints[{i}]")
    yield from statuses.check_node(node, old)


def check_config_map(config_map: Object, old: Object | None) -> Iterator[Cause]:
    """ConfigMap: keys that can be file names, in one of the two maps; at most 1 MiB; an immutable one stays."""
    data, binary = config_map.get("data", {}), config_map.get("binaryData", {})
    yield from _check_keys(data, "data")
    yield from _check_keys(binary, "binaryData")
    for key in data.keys() & binary.keys():
        yield Cause.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    yield from _check_size(sum(map(len, data.values())) + sum(map(len, binary.values())))
    yield from _check_immutable(config_map, old, ("data", "binaryData"))


def complete_secret(secret: Object) -> None:
    """The type, and stringData, which is for writing only."""
    secret.setdefault("type", "Opaque")
    for key, text in secret.pop("stringData", {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()


def check_secret(secret: Object, old: Object | None) -> Iterator[Cause]:
    """Secret."""
    data = secret.get("data", {})
    yield from _check_keys(data, "data")
    yield from _check_size(sum(map(len, data.values())) * 3 // 4)
    for key in ("tls.crt", "tls.key") if secret["type"] == "kubernetes.io/tls" else ():
        if key not in data:
            yield Cause.required(f"data[{key}]")
    yield from _check_immutable(secret, old, ("data",))
    if old is not None and old["type"] != secret["type"]:
        yield Cause.immutable("type", secret["type"])


def _check_keys(data: Object, path: str) -> Iterator[Cause]:
    for key in data:
        if not names.KEY_PATTERN.fullmatch(key) or len(key) > 253 or key in (".", ".."):
            yield Cause.invalid(
                f"{path}[{key}]", key, "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            )


def _check_size(size: int) -> Iterator[Cause]:
    if size > MAX_DATA_BYTES:
        yield Cause("data", "FieldValueTooLong", f"Too long: may not be more than {MAX_DATA_BYTES} bytes")


def _check_immutable(object_: Object, old: Object | None, fields: tuple[str, ...]) -> Iterator[Cause]:
    if old is None or not old.get("immutable"):
        return
    if not object_.get("immutable"):
        yield Cause.forbidden("immutable", "field is immutable when `immutable` is set")
    for field in fields:
        if old.get(field) != object_.get(field):
            yield Cause.forbidden(field, "field is immutable when `immutable` is set")


def check_event(event: Object, old: Object | None) -> Iterator[Cause]:
    """Event: it is where what it is about is; of cluster-scoped objects it is in `default`."""
    about = event.get("involvedObject", {}).get("namespace", "")
    namespace = event["metadata"].get("namespace", "")
    if about != namespace and (about or namespace not in ("default", "kube-system")):
        yield Cause.invalid("involvedObject.namespace", about, "does not match event.namespace")


def check_lease(lease: Object, old: Object | None) -> Iterator[Cause]:
    """Lease."""
    spec = lease.get("spec", {})
    if spec.get("leaseDurationSeconds", 1) <= 0:
        yield Cause.invalid("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0")
    if spec.get("leaseTransitions", 0) < 0:
        yield Cause.invalid("spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0")


def check_role(role: Object, old: Object | None) -> Iterator[Cause]:
    """Role and ClusterRole."""
    for i, rule in enumerate(role.get("rules", ())):
        if not rule.get("verbs"):
            yield Cause.required(f"rules[{i}].verbs", "verbs must contain at least one value")
        if not rule.get("resources") and not rule.get("nonResourceURLs"):
            yield Cause.required(f"rules[{i}].resources", "resource rules must supply at least one resource")
        if rule.get("resources") and "apiGroups" not in rule:
            yield Cause.required(f"rules[{i}].apiGroups", "resource rules must supply at least one api group")


def complete_binding(binding: Object) -> None:
    """API groups of what is bound, and to whom."""
    role = binding.get("roleRef", {})
    role["apiGroup"] = role.get("apiGroup") or RBAC
    for subject in binding.get("subjects", ()):
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", RBAC)


RBAC = "rbac.authorization.k8s.io"


def check_binding(binding: Object, old: Object | None) -> Iterator[Cause]:
    """RoleBinding and ClusterRoleBinding: the role stays."""
    role = binding["roleRef"]
    if role.get("kind") not in ("Role", "ClusterRole"):
        yield Cause.unsupported("roleRef.kind", role.get("kind"), ("Role", "ClusterRole"))
    if old is not None and old["roleRef"] != role:
        yield Cause.immutable("roleRef", role)
