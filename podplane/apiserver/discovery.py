"""What is served, as clients discover it: /api, /apis, one list a group and version, and all of it at once (apidiscovery.k8s.io/v2)."""

from __future__ import annotations

from typing import Any

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.registry import Registry
from podplane.apiserver.representation import media_ranges
from podplane.kubeapi.messages import Request

Object = dict[str, Any]
AGGREGATED = "apidiscovery.k8s.io"
AGGREGATED_VERSIONS = ("v2", "v2beta1")


def subresources(row: Resource) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    """(name, group, version, kind, verbs) of what hangs on an object of this kind."""
    found: list[tuple[str, str, str, str, tuple[str, ...]]] = []
    if row.has_status:
        found.append(("status", row.group, row.version, row.kind, ("get", "patch", "update")))
    if row.scale:
        found.append(("scale", "autoscaling", "v1", "Scale", ("get", "patch", "update")))
    if row.id in ("nodes", "pods", "services"):
        found.append(("proxy", "", "v1", f"{row.kind}ProxyOptions", ("create", "delete", "get", "patch", "update")))
    if row.id == "namespaces":
        found.append(("finalize", "", "v1", "Namespace", ("update",)))
    if row.id == "pods":
        found.append(("binding", "", "v1", "Binding", ("create",)))
        found.append(("eviction", "policy", "v1", "Eviction", ("create",)))
        found.append(("attach", "", "v1", "PodAttachOptions", ("create", "get")))
        found.append(("ephemeralcontainers", "", "v1", "Pod", ("get", "patch", "update")))
        found.append(("exec", "", "v1", "PodExecOptions", ("create", "get")))
        found.append(("log", "", "v1", "Pod", ("get",)))
        found.append(("portforward", "", "v1", "PodPortForwardOptions", ("create", "get")))
    if row.id == "serviceaccounts":
        found.append(("token", "authentication.k8s.io", "v1", "TokenRequest", ("create",)))
    return found


def aggregated_type(request: Request) -> str:
    """The version of aggregated discovery that the client asks for before anything else that it can have; "" for none."""
    for kind, parameters in media_ranges(request):
        if kind == "application/json" and not parameters.get("as"):
            return ""
        if parameters.get("g") == AGGREGATED and parameters.get("as") == "APIGroupDiscoveryList":
            if parameters.get("v") in AGGREGATED_VERSIONS:
                return parameters["v"]
        elif kind == "*/*":
            return ""
    return ""


def aggregated(registry: Registry, version: str, *, core: bool) -> Object:
    """All groups with all their resources: those of /api, or those of /apis."""
    items = [
        {
            "metadata": {"name": group} if group else {},
            "versions": [
                {"version": name, "freshness": "Current", "resources": [_aggregated_row(row) for row in rows]}
                for name, rows in versions.items()
            ],
        }
        for group, versions in registry.groups().items()
        if (group == "") is core
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": f"{AGGREGATED}/{version}", "metadata": {}, "items": items}


def _aggregated_row(row: Resource) -> Object:
    found: Object = {
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": "Namespaced" if row.namespaced else "Cluster",
        "singularResource": row.singular or row.kind.lower(),
        "verbs": list(row.verbs),
    }
    if row.short_names:
        found["shortNames"] = list(row.short_names)
    if row.categories:
        found["categories"] = list(row.categories)
    below = [
        {"subresource": name, "responseKind": {"group": group, "version": version, "kind": kind}, "verbs": list(verbs)}
        for name, group, version, kind, verbs in subresources(row)
    ]
    return found | ({"subresources": below} if below else {})


def versions() -> Object:
    """/api."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group(name: str, found: dict[str, list[Resource]]) -> Object:
    """/apis/<group>."""
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in found]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": entries, "preferredVersion": entries[0]}


def groups(registry: Registry) -> Object:
    """/apis."""
    found = [group(name, versions) for name, versions in registry.groups().items() if name]
    for one in found:
        del one["kind"], one["apiVersion"]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def resources(group_version: str, rows: list[Resource]) -> Object:
    """/api/v1 and /apis/<group>/<version>."""
    found: list[Object] = []
    for row in rows:
        entry: Object = {
            "name": row.plural,
            "singularName": row.singular or row.kind.lower(),
            "namespaced": row.namespaced,
            "kind": row.kind,
            "verbs": list(row.verbs),
        }
        if row.short_names:
            entry["shortNames"] = list(row.short_names)
        if row.categories:
            entry["categories"] = list(row.categories)
        found.append(entry)
        for name, own_group, version, kind, verbs in subresources(row):
            below = {"name": f"{row.plural}/{name}", "singularName": "", "namespaced": row.namespaced, "kind": kind}
            if own_group != row.group:
                below |= {"group": own_group, "version": version}
            found.append(below | {"verbs": list(verbs)})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}


def find(registry: Registry, path: str, request: Request) -> tuple[Object, str] | None:
    """The answer to a path of discovery, and its media type; None when the path is none."""
    parts = path.strip("/").split("/")
    if parts in (["api"], ["apis"]):
        if version := aggregated_type(request):
            kind = f"application/json;g={AGGREGATED};v={version};as=APIGroupDiscoveryList"
            return aggregated(registry, version, core=parts == ["api"]), kind
        return (versions() if parts == ["api"] else groups(registry)), "application/json"
    all_groups = registry.groups()
    if parts == ["api", "v1"]:
        return resources("v1", all_groups[""]["v1"]), "application/json"
    if parts[0] == "apis" and len(parts) in (2, 3) and parts[1] in all_groups and parts[1]:
        found = all_groups[parts[1]]
        if len(parts) == 2:
            return group(parts[1], found), "application/json"
        if parts[2] in found:
            return resources(f"{parts[1]}/{parts[2]}", found[parts[2]]), "application/json"
    return None
