"""ControllerRevisions: the templates that a DaemonSet or StatefulSet had, numbered, so that a rollout can be undone.

Sources: kube-controller-manager, pkg/controller/history and daemon/update.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podplane.apiserver.controllers.decision import Action, Create, Delete, Patch, View
from podplane.apiserver.controllers.pods import hash_of
from podplane.controllers.objects import Object, owned_by

RESOURCE = "controllerrevisions.apps"
HASH = "controller-revision-hash"
DEFAULT_LIMIT = 10


def data_of(owner: Object) -> Object:
    """What a revision keeps: a patch that puts the template back.

    Its names are in order, as Go writes a map: by these bytes clients tell which revision the template is of (daemon/update.go, Match).
    """
    found: Object = _in_order({"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}})
    return found


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_order(value[name]) for name in sorted(value)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


def hash_of_owner(owner: Object) -> str:
    """The short name of the owner's template."""
    return hash_of(owner["spec"]["template"], owner.get("status", {}).get("collisionCount", 0))


def current(view: View, owner: Object) -> Object | None:
    """The revision of the owner's template."""
    data = data_of(owner)
    return next((r for r in view.controlled(RESOURCE, owner) if r.get("data") == data), None)


def keep(view: View, owner: Object, kind: str, in_use: set[str]) -> Iterator[Action]:
    """Have a revision of the template, with the highest number, and forget the oldest that no pod (`in_use`: hashes) is of."""
    stored = view.controlled(RESOURCE, owner)
    highest = max((r["revision"] for r in stored), default=0)
    newest = current(view, owner)
    if newest is None:
        digest, metadata = hash_of_owner(owner), owner["metadata"]
        made = {
            "metadata": {
                "name": f"{metadata['name']}-{digest}",
                "labels": {**owner["spec"]["template"].get("metadata", {}).get("labels", {}), HASH: digest},
                "annotations": _annotations(owner),
                "ownerReferences": [owned_by(owner, kind, "apps/v1")],
            },
            "data": data_of(owner),
            "revision": highest + 1,
        }
        yield Create(RESOURCE, metadata["namespace"], made)
    elif newest["revision"] < highest:
        yield Patch(RESOURCE, newest, {"revision": highest + 1})
    yield from _forget(view, owner, in_use)


def _annotations(owner: Object) -> dict[str, str]:
    cause = owner["metadata"].get("annotations", {}).get("kubernetes.io/change-cause")
    return {"kubernetes.io/change-cause": cause} if cause else {}


def _forget(view: View, owner: Object, in_use: set[str]) -> Iterator[Action]:
    newest = hash_of_owner(owner)
    idle = [r for r in view.controlled(RESOURCE, owner) if r["metadata"]["labels"].get(HASH) not in in_use | {newest}]
    idle.sort(key=lambda revision: revision["revision"])
    for revision in idle[: max(0, len(idle) - owner["spec"].get("revisionHistoryLimit", DEFAULT_LIMIT))]:
        yield Delete(RESOURCE, revision)
