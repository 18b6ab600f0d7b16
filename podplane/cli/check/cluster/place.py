"""Where a check of a cluster makes its objects: a namespace of its own, or one that is there. All have its label, and go in the end.

What a check leaves that was killed is found by that label, and removed by the next one; nothing else is ever deleted. Of two checks at one
time the later one takes what the first has made for left behind: the first ends with an error, and deletes nothing of the second, whose
objects have other uids.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from podplane.cli.check.cluster.interruption import held_off
from podplane.cli.check.patience import patient
from podplane.cli.errors import ClusterError
from podplane.cli.waiting import Waiting
from podplane.kubeapi.errors import ApiError, Conflict, NotFound
from podplane.model.config import CHECK_NAMESPACE

Object = dict[str, Any]
LABEL, VALUE = "app.kubernetes.io/managed-by", "podplane-check"
SELECTOR = f"{LABEL}={VALUE}"
POLICIES, SLICES = "networkpolicies.networking.k8s.io", "endpointslices.discovery.k8s.io"
KINDS = (POLICIES, "services", SLICES, "pods")
"""What a check makes, in the order in which it goes."""
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
"""Of its own namespace: for the pods that speak for nodes. All others are as `restricted` wants them."""
CLEANING_SECONDS, GONE_SECONDS, POLL_SECONDS = 30.0, 60.0, 0.3
ATTEMPTS, UNAVAILABLE = 5, 503
ACCOUNT_SECONDS = 10.0
"""Until a new namespace has its ServiceAccount, without which no pod can be made."""


class Place:
    """The namespace."""

    def __init__(self, client: Any, namespace: str, uid: str = "") -> None:
        """`uid` is that of a namespace that the check made."""
        self.client, self.namespace, self._uid = client, namespace, uid
        self._made: set[str] = set()

    def create(self, resource: str, body: Mapping[str, Any]) -> Object:
        """Create an object in it. ApiError when the API refuses it."""
        metadata = body["metadata"]
        labels = {**metadata.get("labels", {}), LABEL: VALUE}
        whole = {**body, "metadata": {**metadata, "namespace": self.namespace, "labels": labels}}
        end = time.monotonic() + ACCOUNT_SECONDS
        while True:
            try:
                with held_off():
                    made: Object = self.client.create(resource, self.namespace, whole)
                    self._made.add(made["metadata"]["uid"])
                return made
            except ApiError as error:
                if "serviceaccount" not in str(error) or "not found" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(POLL_SECONDS)

    def objects(self, resource: str) -> list[Object]:
        """What this check has made of a resource, as it is now."""
        found = self.client.objects(resource, self.namespace, labelSelector=SELECTOR)
        return [one for one in found if one["metadata"]["uid"] in self._made]

    def remove(self, resource: str) -> None:
        """Delete what this check has made of a resource."""
        _delete(self.client, self.namespace, resource, self.objects(resource))

    def clean_up(self) -> None:
        """Delete all of it, by a connection of its own: that of the check may be in the midst of a request. An API that does not answer is
        asked again."""
        for left in reversed(range(ATTEMPTS)):
            with self.client.another(CLEANING_SECONDS) as self.client:
                try:
                    self._clean_up()
                    return
                except ApiError as error:
                    if error.code != UNAVAILABLE or not left:
                        raise
            time.sleep(POLL_SECONDS)

    def _clean_up(self) -> None:
        with held_off():
            for resource in KINDS:
                self.remove(resource)
            if self._uid:
                _delete_namespace(self.client, self._uid)
        _wait_until_gone(self.client, self.namespace, self._uid, lambda: bool(self.objects("pods")))


@contextlib.contextmanager
def made(client: Any, namespace: str) -> Iterator[Place]:
    """The namespace, one that is there or (for "") the check's own; what is made in it goes in the end.

    ClusterError when somebody else has a namespace of the check's name.
    """
    _sweep(client, namespace or CHECK_NAMESPACE, is_own=not namespace)
    place = Place(client, namespace) if namespace else _created(client)
    try:
        yield place
    finally:
        try:
            place.clean_up()
        except (ApiError, ClusterError) as error:  # what was found is told all the same
            click.echo(f"podplane: not all of the check is gone from namespace {place.namespace}: {error}", err=True)


def _created(client: Any) -> Place:
    metadata = {"name": CHECK_NAMESPACE, "labels": {LABEL: VALUE, **PRIVILEGED}}
    with held_off():
        found = client.create("namespaces", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    return Place(client, CHECK_NAMESPACE, found["metadata"]["uid"])


def _sweep(client: Any, namespace: str, *, is_own: bool) -> None:
    """Remove what a check left that could not clean up."""
    if is_own:
        found = _namespace(client)
        if found is None:
            return
        if found["metadata"].get("labels", {}).get(LABEL) != VALUE:
            raise ClusterError(
                f"the namespace {namespace} is somebody else's, without the label {SELECTOR}: choose one by --namespace"
            )
        _delete_namespace(client, found["metadata"]["uid"])
        _wait_until_gone(client, namespace, found["metadata"]["uid"], lambda: True)
        return
    for resource in KINDS:
        _delete(client, namespace, resource, client.objects(resource, namespace, labelSelector=SELECTOR))
    _wait_until_gone(client, namespace, "", lambda: bool(client.objects("pods", namespace, labelSelector=SELECTOR)))


def _namespace(client: Any) -> Object | None:
    try:
        found: Object = client.get("namespaces", "", CHECK_NAMESPACE)
    except NotFound:
        return None
    return found


def _delete(client: Any, namespace: str, resource: str, objects: list[Object]) -> None:
    for one in objects:
        grace = 0 if resource == "pods" else None
        with contextlib.suppress(NotFound, Conflict):
            client.delete(resource, namespace, one["metadata"]["name"], grace=grace, uid=one["metadata"]["uid"])


def _delete_namespace(client: Any, uid: str) -> None:
    with contextlib.suppress(NotFound, Conflict):
        client.delete("namespaces", "", CHECK_NAMESPACE, uid=uid)


def _wait_until_gone(client: Any, namespace: str, uid: str, has_pods: Any) -> None:
    """ClusterError when pods, or the namespace with this uid, are there for too long."""
    end, waiting = time.monotonic() + patient(GONE_SECONDS), Waiting()
    while _is_there(client, uid) if uid else has_pods():
        if time.monotonic() > end:
            raise ClusterError(f"it does not go: `kubectl get namespace {namespace} -o yaml` says why")
        waiting.look(lambda: f"what the check made in namespace {namespace} to go")
        time.sleep(POLL_SECONDS)


def _is_there(client: Any, uid: str) -> bool:
    found = _namespace(client)
    return found is not None and found["metadata"]["uid"] == uid
