"""Requests of the Kubernetes API, made of names and objects; pure, and the same for every transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from podplane.kubeapi.messages import JSON, MERGE_PATCH, Request
from podplane.model.config import VIEWER, VIEWER_AUDIENCE, VIEWER_HEADER

CORE = "/api/v1"
APPS, NETWORKING, RBAC = "/apis/apps/v1", "/apis/networking.k8s.io/v1", "/apis/rbac.authorization.k8s.io/v1"
RESOURCES: dict[str, tuple[str, bool]] = {
    "namespaces": (CORE, False),
    "nodes": (CORE, False),
    "pods": (CORE, True),
    "configmaps": (CORE, True),
    "secrets": (CORE, True),
    "services": (CORE, True),
    "serviceaccounts": (CORE, True),
    "endpoints": (CORE, True),
    "events": (CORE, True),
    "controllerrevisions.apps": (APPS, True),
    "daemonsets.apps": (APPS, True),
    "deployments.apps": (APPS, True),
    "replicasets.apps": (APPS, True),
    "statefulsets.apps": (APPS, True),
    "jobs.batch": ("/apis/batch/v1", True),
    "endpointslices.discovery.k8s.io": ("/apis/discovery.k8s.io/v1", True),
    "networkpolicies.networking.k8s.io": (NETWORKING, True),
    "clusternetworkpolicies.policy.networking.k8s.io": ("/apis/policy.networking.k8s.io/v1alpha2", False),
    "ipaddresses.networking.k8s.io": (NETWORKING, False),
    "servicecidrs.networking.k8s.io": (NETWORKING, False),
    "customresourcedefinitions.apiextensions.k8s.io": ("/apis/apiextensions.k8s.io/v1", False),
    "network-attachment-definitions.k8s.cni.cncf.io": ("/apis/k8s.cni.cncf.io/v1", True),
    "loadbalancerpools.podplane.dev": ("/apis/podplane.dev/v1", False),
    "leases.coordination.k8s.io": ("/apis/coordination.k8s.io/v1", True),
    "clusterroles.rbac.authorization.k8s.io": (RBAC, False),
    "clusterrolebindings.rbac.authorization.k8s.io": (RBAC, False),
    "roles.rbac.authorization.k8s.io": (RBAC, True),
    "rolebindings.rbac.authorization.k8s.io": (RBAC, True),
    "poddisruptionbudgets.policy": ("/apis/policy/v1", True),
    "tokenreviews.authentication.k8s.io": ("/apis/authentication.k8s.io/v1", False),
    "subjectaccessreviews.authorization.k8s.io": ("/apis/authorization.k8s.io/v1", False),
    "selfsubjectaccessreviews.authorization.k8s.io": ("/apis/authorization.k8s.io/v1", False),
    "selfsubjectrulesreviews.authorization.k8s.io": ("/apis/authorization.k8s.io/v1", False),
}
"""What podplane itself asks for, by plural and group: where it is served, and whether it lives in namespaces."""


class Selection(msgspec.Struct, frozen=True):
    """Which objects of a resource a list or a watch is about: a namespace, a label selector, a field selector; "" for all.

    `namespace` is ignored for a cluster-scoped resource. The selectors are texts, as the API takes them (`app=web,tier!=db`).
    """

    namespace: str = ""
    labels: str = ""
    fields: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The selectors as query parameters."""
        return {"labelSelector": self.labels, "fieldSelector": self.fields}


ALL = Selection()


def path_of(resource: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The path of a collection or an object, or of its subresource. KeyError for a resource that podplane doesn't ask for."""
    base, namespaced = RESOURCES[resource]
    parts = [base]
    if namespace and namespaced:
        parts += ["namespaces", quote(namespace, safe="")]
    parts += [quote(part, safe="") for part in (resource.partition(".")[0], name, subresource) if part]
    return "/".join(parts)


def _headers(token: str, content_type: str = "") -> Mapping[str, str]:
    headers = {"accept": JSON}
    if token:
        headers["authorization"] = f"Bearer {token}"
    if content_type:
        headers["content-type"] = content_type
    return headers


def get(token: str, resource: str, namespace: str = "", name: str = "", **query: str) -> Request:
    """Read one object, or with no name the list."""
    return Request("GET", path_of(resource, namespace, name), _query(query), _headers(token))


def plain(token: str, path: str) -> Request:
    """Read a path that is none of a resource."""
    return Request("GET", path, {}, _headers(token))


def of_node(token: str, node: str, port: int, path: str, viewer: str = "") -> Request:
    """Ask a node something over HTTP (nodes/proxy); `viewer` is a token for readers (`kubeapi.authorization`)."""
    headers = dict(_headers(token)) | ({VIEWER_HEADER: viewer} if viewer else {})
    return Request("GET", f"{CORE}/nodes/{quote(node, safe='')}:{port}/proxy/{path}", {}, headers)


def viewer_token(token: str, seconds: int) -> Request:
    """Ask for a token for readers of nodes, for so long."""
    spec = {"audiences": [VIEWER_AUDIENCE], "expirationSeconds": seconds}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return post(token, path_of("serviceaccounts", "kube-system", VIEWER, "token"), body)


def page(token: str, resource: str, selection: Selection, limit: int, continuation: str) -> Request:
    """Read a page of a list: `limit` objects (0: all), from where the page with the token `continuation` ended."""
    query = selection.query | {"limit": str(limit) if limit else "", "continue": continuation}
    return Request("GET", path_of(resource, selection.namespace), _query(query), _headers(token))


def watch(token: str, resource: str, resource_version: str, selection: Selection = ALL) -> Request:
    """Watch objects of a resource from this version on."""
    query = {"watch": "true", "resourceVersion": resource_version, "allowWatchBookmarks": "true"}
    return Request("GET", path_of(resource, selection.namespace), _query(query | selection.query), _headers(token))


def create(token: str, resource: str, namespace: str, body: Mapping[str, Any]) -> Request:
    """Create an object."""
    return post(token, path_of(resource, namespace), body)


def post(token: str, path: str, body: Mapping[str, Any]) -> Request:
    """Send an object to a collection or a subresource."""
    return Request("POST", path, {}, _headers(token, JSON), msgspec.json.encode(body))


def patch(
    token: str,
    resource: str,
    namespace: str,
    name: str,
    body: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    subresource: str = "",
    form: str = MERGE_PATCH,
) -> Request:
    """Change an object, or its status, by a merge patch (RFC 7386), or one of another form."""
    path = path_of(resource, namespace, name, subresource)
    return Request("PATCH", path, {}, _headers(token, form), msgspec.json.encode(body))


def bind(token: str, namespace: str, pod: str, uid: str, node: str) -> Request:
    """Give a pod its node, if it is still the one with this uid."""
    body = {"metadata": {"name": pod, "uid": uid}, "target": {"kind": "Node", "name": node}}
    return post(token, path_of("pods", namespace, pod, "binding"), body)


def delete(
    token: str, resource: str, namespace: str, name: str, *, grace: int | None = None, uid: str = "", policy: str = ""
) -> Request:
    """Delete an object: `grace` in seconds instead of its own, only if it is still the one with this uid; `policy` says what becomes of
    its dependents (meta/v1 DeletionPropagation), "" what its kind says."""
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    if uid:
        options["preconditions"] = {"uid": uid}
    if policy:
        options["propagationPolicy"] = policy
    path = path_of(resource, namespace, name)
    return Request("DELETE", path, {}, _headers(token, JSON), msgspec.json.encode(options))


def execute(
    token: str, namespace: str, pod: str, command: Sequence[str], *, container: str = "", stdin: bool = False, tty: bool = False
) -> Request:
    """Run a command in a container, as a conversation (see `kubeapi.channels`)."""
    query: dict[str, list[str]] = {"command": list(command), "stdout": ["true"], "stderr": ["false" if tty else "true"]}
    if stdin:
        query["stdin"] = ["true"]
    if tty:
        query["tty"] = ["true"]
    if container:
        query["container"] = [container]
    return Request("GET", path_of("pods", namespace, pod, "exec"), query, _headers(token))


def _query(values: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: [value] for name, value in values.items() if value}


def target(request: Request) -> str:
    """Path and query as an HTTP request line has them."""
    return request.path + ("?" + urlencode(request.query, doseq=True) if request.query else "")
