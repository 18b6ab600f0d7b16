"""What a check must be allowed to do in the API of a cluster, asked of it before anything is made (SelfSubjectAccessReview)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from podplane.cli.errors import ClusterError

REVIEWS = "selfsubjectaccessreviews.authorization.k8s.io"
WRITTEN = ("create", "list", "delete")
IN_NAMESPACE = {
    ("", "pods"): WRITTEN,
    ("", "pods/exec"): ("create", "get"),
    ("", "services"): WRITTEN,
    ("discovery.k8s.io", "endpointslices"): WRITTEN,
    ("networking.k8s.io", "networkpolicies"): WRITTEN,
}
"""By API group and resource, in the namespace of the check. A WebSocket begins with GET: before Kubernetes 1.35 exec by it was `get`."""
OF_CLUSTER = {("", "nodes"): ("list",)}
OF_OWN_NAMESPACE = {("", "namespaces"): ("get", "create", "delete")}
"""Not needed in a namespace that is there."""


class Right(NamedTuple):
    """A verb on a resource, in a namespace or in the whole cluster ("")."""

    group: str
    resource: str
    verb: str
    namespace: str

    def review(self) -> dict[str, Any]:
        """The object by which it is asked."""
        kind, _, rest = self.resource.partition("/")
        attributes = {"group": self.group, "resource": kind, "subresource": rest, "verb": self.verb}
        spec = {"resourceAttributes": {**attributes, "namespace": self.namespace}}
        return {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}


def needed(namespace: str, *, is_own: bool) -> Iterator[Right]:
    """What a check does in this namespace; `is_own`: which it makes and deletes."""
    for table, where in ((OF_CLUSTER, ""), (OF_OWN_NAMESPACE if is_own else {}, ""), (IN_NAMESPACE, namespace)):
        yield from (Right(group, resource, verb, where) for (group, resource), verbs in table.items() for verb in verbs)


def demand(client: Any, namespace: str, *, is_own: bool) -> None:
    """ClusterError that names what is missing."""
    missing = [one for one in needed(namespace, is_own=is_own) if not _has(client, one)]
    if missing:
        raise ClusterError(f"this user may not do what a check needs: {'; '.join(in_words(missing))}. Nothing was made")


def in_words(rights: Iterable[Right]) -> Iterator[str]:
    """Verbs and resource, and where: `create, get pods/exec in namespace shop`."""
    for (group, resource, namespace), own in groupby(rights, lambda one: (one.group, one.resource, one.namespace)):
        where = f" in namespace {namespace}" if namespace else ""
        yield f"{', '.join(one.verb for one in own)} {resource}{f'.{group}' if group else ''}{where}"


def _has(client: Any, right: Right) -> bool:
    return bool(client.create(REVIEWS, "", right.review()).get("status", {}).get("allowed"))
