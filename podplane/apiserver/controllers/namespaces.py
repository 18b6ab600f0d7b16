"""What every namespace gets: a ServiceAccount `default`, and the authority that signed the API server's certificate; and what one that
is being deleted says of what remains in it."""

from __future__ import annotations

from collections.abc import Iterable

from podplane.apiserver.controllers.decision import Action, Again, Concerns, Controller, Create, Patch, View
from podplane.apiserver.controllers.pods import condition_of, rfc3339
from podplane.controllers.objects import Key, Object, key_of

SERVICE_ACCOUNT, ROOT_CA = "default", "kube-root-ca.crt"
ANNOTATION = {
    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver "
    "when using internal endpoints such as the internal service IP or kubernetes.default.svc."
}


def _its_namespace(name: str) -> Concerns:
    """A change of the object of this name concerns its namespace."""

    def concerns(_: View, object_: Object) -> Iterable[Key]:
        if object_["metadata"]["name"] == name:
            yield "", object_["metadata"]["namespace"]

    return concerns


def _itself(_: View, namespace: Object) -> Iterable[Key]:
    return (key_of(namespace),)


def _is_active(view: View, key: Key) -> bool:
    namespace = view.get("namespaces", key)
    return namespace is not None and "deletionTimestamp" not in namespace["metadata"]


def _service_account(view: View, key: Key) -> Iterable[Action]:
    if _is_active(view, key) and view.get("serviceaccounts", (key[1], SERVICE_ACCOUNT)) is None:
        yield Create("serviceaccounts", key[1], {"metadata": {"name": SERVICE_ACCOUNT}})


def service_accounts() -> Controller:
    """The controller of default ServiceAccounts."""
    watches = {"namespaces": _itself, "serviceaccounts": _its_namespace(SERVICE_ACCOUNT)}
    return Controller("service-account-controller", watches, _service_account)


def root_ca(authority: str) -> Controller:
    """The controller that publishes the authority (PEM) in every namespace."""
    data = {"ca.crt": authority}

    def decide(view: View, key: Key) -> Iterable[Action]:
        if not _is_active(view, key):
            return
        there = view.get("configmaps", (key[1], ROOT_CA))
        if there is None:
            yield Create("configmaps", key[1], {"metadata": {"name": ROOT_CA, "annotations": ANNOTATION}, "data": data})
        elif there.get("data") != data:
            stale = dict.fromkeys(there.get("data", {}))
            yield Patch("configmaps", there, {"data": {**stale, **data}})

    return Controller("root-ca-cert-publisher", {"namespaces": _itself, "configmaps": _its_namespace(ROOT_CA)}, decide)


# What remains of one that is being deleted.

LOOK_AGAIN_SECONDS = 2.0
REMOVED = ("ContentRemoved", "All content successfully removed")
FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    "NamespaceContentRemaining": REMOVED,
    "NamespaceFinalizersRemaining": REMOVED,
}
"""The conditions of a namespace that is being deleted, and what each says while it is False (namespace/deletion)."""


def _tell(view: View, key: Key) -> Iterable[Action]:
    namespace = view.get("namespaces", key)
    if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
        return
    said = {name: ("False", *fine) for name, fine in FINE.items()} | _remaining(view, key[1])
    conditions = []
    for name, (status, reason, message) in said.items():
        old = condition_of(namespace, name)
        since = old["lastTransitionTime"] if old is not None and old["status"] == status else rfc3339(view.now)
        own = {"type": name, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
        conditions.append(own)
    others = [one for one in namespace["status"].get("conditions", ()) if one["type"] not in FINE]
    if namespace["status"].get("conditions", []) != [*others, *conditions]:
        yield Patch("namespaces", namespace, {"status": {"conditions": [*others, *conditions]}}, "status")
    yield Again(LOOK_AGAIN_SECONDS)


def _remaining(view: View, name: str) -> dict[str, tuple[str, str, str]]:
    """What is still there, by resource, and what holds it, by finalizer."""
    content, found = view.content(name), {}
    if content.resources:
        resources = {one if "." in one else f"{one}.": count for one, count in content.resources.items()}
        text = ", ".join(f"{one} has {count} resource instances" for one, count in sorted(resources.items()))
        found["NamespaceContentRemaining"] = ("True", "SomeResourcesRemain", f"Some resources are remaining: {text}")
    if content.finalizers:
        text = ", ".join(f"{one} in {count} resource instances" for one, count in sorted(content.finalizers.items()))
        held = f"Some content in the namespace has finalizers remaining: {text}"
        found["NamespaceFinalizersRemaining"] = ("True", "SomeFinalizersRemain", held)
    return found


CONDITIONS = Controller("namespace-controller", {"namespaces": _itself}, _tell)
