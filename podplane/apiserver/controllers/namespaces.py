"""What every namespace gets: a ServiceAccount `default`, and the authority that signed the API server's certificate."""

from __future__ import annotations

from collections.abc import Iterable

from podplane.apiserver.controllers.decision import Action, Concerns, Controller, Create, Patch, View
from podplane.apiserver.controllers.objects import Key, Object, key_of

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
