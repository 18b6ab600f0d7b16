"""Who belongs to whom, and what has become of an owner: what the garbage collector knows.

An owner is looked up as its reference says: by apiVersion and kind, in the dependent's namespace or in none, by name; it is the one that is
meant if it has the uid, too. So a reference with the uid of an object of another namespace, kind or name is one to an owner that does not
exist. Of a kind that is not served, nothing is known. Source: kube-controller-manager, pkg/controller/garbagecollector.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterator

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.resource import Object, Resource
from podplane.apiserver.ordered import Key
from podplane.apiserver.registry import Registry
from podplane.apiserver.store import Store

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
"""Finalizers of the garbage collector."""
COMPONENT = "garbage-collector-controller"
EVENTS = "events"
"""They are not collected: they may tell of an object that is gone."""
Place = tuple[Resource, Key]


class Standing(enum.Enum):
    """What has become of an owner."""

    SOLID = "it is there"
    WAITING = "it is being deleted, and waits for its dependents"
    DANGLING = "it does not exist"
    UNKNOWN = "its kind is not served, or it can't be an owner of a cluster-scoped object"


def key_of(object_: Object) -> Key:
    """Where the store has an object."""
    return object_["metadata"].get("namespace", ""), object_["metadata"]["name"]


def owners_of(resource: Resource, object_: Object | None) -> list[Object]:
    """The owner references of an object that count."""
    if object_ is None or resource.id == EVENTS:
        return []
    found: list[Object] = object_["metadata"].get("ownerReferences", [])
    return found


def blocked(references: list[Object]) -> set[str]:
    """The uids of owners that wait for an object with these references when they are deleted in the foreground."""
    return {reference["uid"] for reference in references if reference.get("blockOwnerDeletion")}


class Kin:
    """Who there is by uid, and who belongs to whom: kept current by observing the records."""

    def __init__(self) -> None:
        self.by_uid: dict[str, Place] = {}
        self.dependents: dict[str, dict[tuple[str, Key], Resource]] = {}
        self.marked: dict[str, Place] = {}
        """By uid, the objects that are being deleted."""

    def observe(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """A write."""
        if old is not None:
            self._forget(resource, old)
        if new is not None:
            self._learn(resource, new)

    def _learn(self, resource: Resource, object_: Object) -> None:
        key = key_of(object_)
        uid = object_["metadata"]["uid"]
        self.by_uid[uid] = (resource, key)
        if "deletionTimestamp" in object_["metadata"]:
            self.marked[uid] = (resource, key)
        for owner in owners_of(resource, object_):
            self.dependents.setdefault(owner["uid"], {})[resource.id, key] = resource

    def _forget(self, resource: Resource, object_: Object) -> None:
        key = key_of(object_)
        self.by_uid.pop(object_["metadata"]["uid"], None)
        self.marked.pop(object_["metadata"]["uid"], None)
        for owner in owners_of(resource, object_):
            there = self.dependents.get(owner["uid"], {})
            there.pop((resource.id, key), None)
            if not there:
                self.dependents.pop(owner["uid"], None)

    def of(self, uid: str) -> list[Place]:
        """The dependents of an owner."""
        return [(resource, key) for (_, key), resource in self.dependents.get(uid, {}).items()]

    def all(self) -> Iterator[Place]:
        """All dependents, as they are when they are asked for."""
        for uid in list(self.dependents):
            yield from self.of(uid)

    def is_leaving(self, uid: str) -> bool:
        """Is this object gone, or being deleted?"""
        return uid not in self.by_uid or uid in self.marked


def standing(store: Store, registry: Registry, reference: Object, namespace: str) -> Standing:
    """What has become of the owner that a reference of an object in this namespace ("": a cluster-scoped one) names."""
    owner = registry.of_kind(reference["apiVersion"], reference["kind"])
    if owner is None or (owner.namespaced and not namespace):
        return Standing.UNKNOWN
    stored = store.get(owner.id, (namespace if owner.namespaced else "", reference["name"]))
    if stored is None or stored.object["metadata"]["uid"] != reference["uid"]:
        return Standing.DANGLING
    return Standing.WAITING if is_waiting(stored.object) else Standing.SOLID


def is_waiting(object_: Object) -> bool:
    """Is it being deleted in the foreground?"""
    metadata = object_["metadata"]
    return "deletionTimestamp" in metadata and FOREGROUND in metadata.get("finalizers", ())


def foreign_owner_event(dependent: Object, reference: Object, now: datetime.datetime) -> tuple[str, Object]:
    """The warning about an owner in another namespace: the namespace that it is written in, and the Event."""
    metadata, at = dependent["metadata"], now.strftime("%Y-%m-%dT%H:%M:%SZ")
    namespace = metadata.get("namespace", "")
    about = {"apiVersion": dependent["apiVersion"], "kind": dependent["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    said = f"namespace: {namespace}, name: {reference['name']}, uid: {reference['uid']}"
    owner = f"[{reference['apiVersion']}/{reference['kind']}, {said}]"
    return namespace or "default", {
        "metadata": {"name": names.generated(f"{metadata['name']}.")},
        "involvedObject": about | ({"namespace": namespace} if namespace else {}),
        "reason": "OwnerRefInvalidNamespace",
        "message": f'ownerRef {owner} does not exist in namespace "{namespace}"',
        "type": "Warning",
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "count": 1,
        "firstTimestamp": at,
        "lastTimestamp": at,
    }
