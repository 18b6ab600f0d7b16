"""What controllers ask of pods, and how they make them of a template. Pure."""

from __future__ import annotations

import copy
import datetime
import hashlib
from typing import Any

import msgspec

from podplane.apiserver.kinds.names import ALPHABET
from podplane.controllers.objects import Object, owned_by
from podplane.model.phases import ENDED

HASH_LENGTH = 10
BURST = 5
"""So many pods at most are made, adopted, let go of or deleted by one decision: what is left follows in the next turn, since a write of a
pod concerns its owner. One costs up to 2 ms with its event, and a turn of the loop at most 20 ms."""


def is_active(pod: Object) -> bool:
    """Does it live, or will it?"""
    return "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") not in ENDED


def condition_of(object_: Object, kind: str) -> Object | None:
    """A condition of an object's status."""
    return next((c for c in object_.get("status", {}).get("conditions", ()) if c.get("type") == kind), None)


def is_ready(pod: Object) -> bool:
    """Does its condition Ready hold?"""
    ready = condition_of(pod, "Ready")
    return ready is not None and ready["status"] == "True"


def available_in(pod: Object, min_ready_seconds: int, now: datetime.datetime) -> float | None:
    """Seconds until it has been ready long enough, 0 when it has; None when it isn't ready."""
    ready = condition_of(pod, "Ready")
    if ready is None or ready["status"] != "True":
        return None
    if not min_ready_seconds or not ready.get("lastTransitionTime"):
        return 0.0
    since = (now - datetime.datetime.fromisoformat(ready["lastTransitionTime"])).total_seconds()
    return max(0.0, min_ready_seconds - since)


def made_of(template: Object, owner: Object, kind: str, api_version: str, name: str = "") -> Object:
    """A pod of a template, whose controller is `owner`; without a name it gets one that begins with the owner's."""
    metadata = {key: dict(value) for key, value in template.get("metadata", {}).items() if key in ("labels", "annotations")}
    naming = {"name": name} if name else {"generateName": f"{owner['metadata']['name']}-"}
    finalizers = template.get("metadata", {}).get("finalizers")
    return {
        "metadata": {
            **naming,
            **metadata,
            **({"finalizers": list(finalizers)} if finalizers else {}),
            "ownerReferences": [owned_by(owner, kind, api_version)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }


def hash_of(template: Any, collision: int = 0) -> str:
    """A short name for a template: the same for equal ones."""
    number = int.from_bytes(hashlib.sha256(msgspec.json.encode([template, collision], order="sorted")).digest())
    letters = []
    for _ in range(HASH_LENGTH):
        number, index = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[index])
    return "".join(letters)


def share(value: int | str | None, total: int, *, up: bool) -> int:
    """A number, or a percentage of the total."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    product = int(value.removesuffix("%")) * total
    return -(-product // 100) if up else product // 100


def rfc3339(at: datetime.datetime) -> str:
    """A time as the API writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def set_condition(conditions: list[Object], new: Object, now: str) -> list[Object]:
    """The conditions with this one; its times change only when it does."""
    old = next((c for c in conditions if c["type"] == new["type"]), None)
    if old is not None and all(old.get(field) == new.get(field) for field in ("status", "reason", "message")):
        return conditions
    since = old["lastTransitionTime"] if old is not None and old["status"] == new["status"] else now
    made = {**new, "lastTransitionTime": since}
    return [made if c["type"] == new["type"] else c for c in conditions] if old is not None else [*conditions, made]
