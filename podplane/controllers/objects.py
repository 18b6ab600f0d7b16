"""What all controllers know of an object: where it is, and whose it is. Pure."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
Key = tuple[str, str]
"""(namespace, name) of what is decided about; the namespace of a cluster-scoped object is ""."""


def key_of(object_: Object) -> Key:
    """Where an object is."""
    return object_["metadata"].get("namespace", ""), object_["metadata"]["name"]


def controller_of(object_: Object) -> Object | None:
    """The owner reference of the object's controller."""
    return next((owner for owner in object_["metadata"].get("ownerReferences", ()) if owner.get("controller")), None)


RELATING_METADATA = ("labels", "ownerReferences", "finalizers")


def is_related_alike(old: Object, new: Object) -> bool:
    """Do two versions of an object differ in nothing but their status and metadata that relates them to no others?"""
    before, now = old["metadata"], new["metadata"]
    if any(before.get(field) != now.get(field) for field in RELATING_METADATA):
        return False
    return old.get("spec") is new.get("spec") or old.get("spec") == new.get("spec")


def owned_by(owner: Object, kind: str, api_version: str) -> Object:
    """The owner reference that makes `owner` a controller."""
    metadata = owner["metadata"]
    reference = {"apiVersion": api_version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"]}
    return {**reference, "controller": True, "blockOwnerDeletion": True}


def matches(selector: Object, labels: Object) -> bool:
    """Does a meta/v1 LabelSelector choose these labels? (An empty one chooses all.)"""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions", ()):
        own, values = labels.get(term.get("key")), term.get("values", ())
        match term.get("operator"):
            case "In" if own not in values:
                return False
            case "NotIn" if own is not None and own in values:
                return False
            case "Exists" if own is None:
                return False
            case "DoesNotExist" if own is not None:
                return False
    return True
