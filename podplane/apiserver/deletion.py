"""Deleting: grace, finalizers, propagation to dependents, and what lives in a namespace or of a definition.

The decisions of the registry, the garbage collector and the namespace controller. Nothing here recurses: what a removal entails is
queued, as iterators of steps. `STEPS` of them are done in the transaction of the request; what is left is done in turns of the event
loop of their own, a transaction each, so that others are served while a large namespace goes. All of it follows from what is stored (an
object that is marked, an owner that is gone), so what a restart or a failed transaction interrupts is found again (`Kin`).

    delete ─ waits for something? ── no ──> removed ─> its dependents are deleted or let go of
                │ yes                                ─> whoever waited for it is looked at again
                └─> marked (deletionTimestamp) ─ foreground: dependents first; orphan: they are let go of; contents: deleted
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from podplane.apiserver.kinds.resource import Object, Resource
from podplane.apiserver.ordered import Key
from podplane.apiserver.paths import Target
from podplane.apiserver.problems import Problem
from podplane.apiserver.records import Records
from podplane.apiserver.registry import CRDS, Registry
from podplane.apiserver.store import Stored

log = logging.getLogger(__name__)
STEPS = 50
"""So many objects at most are deleted, let go of or looked at in one turn of the event loop, beside the one that a request deletes."""
RETRY_SECONDS = 1.0
BUILT_IN_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
"""Finalizers of the garbage collector."""
POLICIES = {"Foreground": FOREGROUND, "Orphan": ORPHAN, "Background": ""}
DEFAULT_GRACE_SECONDS, MAX_GRACE_SECONDS = 30, 10 * 365 * 86400
ENDED = ("Succeeded", "Failed")


class Preconditions(msgspec.Struct, rename="camel"):
    """meta/v1 Preconditions."""

    uid: str | None = None
    resource_version: str | None = None


class Wish(msgspec.Struct, rename="camel"):
    """meta/v1 DeleteOptions, as far as they say how."""

    grace_period_seconds: int | None = None
    propagation_policy: str | None = None
    orphan_dependents: bool | None = None
    preconditions: Preconditions | None = None
    dry_run: list[str] | None = None

    def check(self) -> None:
        """Problem when it can't be meant."""
        if self.propagation_policy is not None and self.propagation_policy not in POLICIES:
            policies = ", ".join(POLICIES)
            raise Problem("BadRequest", f"propagationPolicy {self.propagation_policy!r}: it is one of {policies}")
        if self.propagation_policy is not None and self.orphan_dependents is not None:
            raise Problem("BadRequest", "orphanDependents and propagationPolicy can't be set at the same time")
        if self.grace_period_seconds is not None and self.grace_period_seconds < 0:
            raise Problem("BadRequest", f"gracePeriodSeconds {self.grace_period_seconds} must be greater than or equal to 0")

    @property
    def finalizer(self) -> str | None:
        """What the garbage collector is to do first; "" is nothing, None is what the object says."""
        if self.propagation_policy is not None:
            return POLICIES[self.propagation_policy]
        return ORPHAN if self.orphan_dependents else None


Place = tuple[Resource, Key]


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
        for owner in object_["metadata"].get("ownerReferences", ()):
            self.dependents.setdefault(owner["uid"], {})[resource.id, key] = resource

    def _forget(self, resource: Resource, object_: Object) -> None:
        key = key_of(object_)
        self.by_uid.pop(object_["metadata"]["uid"], None)
        self.marked.pop(object_["metadata"]["uid"], None)
        for owner in object_["metadata"].get("ownerReferences", ()):
            there = self.dependents.get(owner["uid"], {})
            there.pop((resource.id, key), None)
            if not there:
                self.dependents.pop(owner["uid"], None)

    def of(self, uid: str) -> list[Place]:
        """The dependents of an owner."""
        return [(resource, key) for (_, key), resource in self.dependents.get(uid, {}).items()]

    def lost_owners(self) -> list[str]:
        """Owners that are gone, and still have dependents."""
        return [uid for uid in self.dependents if uid not in self.by_uid]

    def is_leaving(self, uid: str) -> bool:
        """Is this object gone, or being deleted?"""
        return uid not in self.by_uid or uid in self.marked


def key_of(object_: Object) -> Key:
    """Where the store has an object."""
    return object_["metadata"].get("namespace", ""), object_["metadata"]["name"]


class Deleter:
    """Deletes, and follows what that entails."""

    def __init__(self, records: Records, registry: Registry, now: Callable[[], datetime.datetime]) -> None:
        self._records = records
        self._registry = registry
        self._now = now
        self._todo: deque[Iterator[None]] = deque()
        self._settling: set[tuple[str, Key]] = set()
        self._is_behind = False
        """Is there something left to do of a transaction that is over?"""
        self._is_scheduled = False
        self._kin = Kin()
        for resource in registry.stored():
            for stored in records.store.all(resource.id):
                self._kin.observe(resource, None, stored.object)
        records.observe(self._kin.observe)
        records.on_rollback(self._rolled_back)

    def go_on(self) -> None:
        """Do what was left undone when the last process ended."""
        self._find_all()
        with self._records.transaction():
            self._work()

    def delete(self, target: Target, stored: Stored, wish: Wish, *, dry_run: bool = False) -> tuple[Stored, bool]:
        """Delete an object: as it was last, and whether it is gone. Problem when it may not be."""
        resource = target.resource
        if resource.id == "namespaces" and target.name in BUILT_IN_NAMESPACES:
            raise Problem("Forbidden", f'namespaces "{target.name}" is forbidden: this namespace may not be deleted')
        _check_preconditions(target, wish.preconditions, stored.object["metadata"])
        if dry_run:
            return stored, not self._waits(resource, stored.object, wish)
        with self._records.transaction():
            self._delete(resource, target.key, wish)
            self._work()
            now = self._records.store.get(resource.id, target.key)
        return now or stored, now is None

    def settle(self, resource: Resource, key: Key) -> None:
        """An object was changed: if it is to go and nothing holds it any more, it goes."""
        with self._records.transaction():
            self._settle(resource, key)
            self._work()

    # The queue.

    def _work(self) -> None:
        """Do some of what is queued, and see to it that the rest is done later; all of it where there is no event loop."""
        for _ in range(STEPS):
            if not self._step():
                return
        if self._is_scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            while self._step():
                pass
            return
        self._is_behind = self._is_scheduled = True
        loop.call_soon(self._continue)

    def _step(self) -> bool:
        """Do one step of the first that is queued; False when nothing is. What a step queues comes last."""
        if not self._todo:
            return False
        task = self._todo[0]
        try:
            next(task)
        except StopIteration:
            self._todo.remove(task)
        return True

    def _continue(self) -> None:
        """A turn of its own."""
        self._is_scheduled = False
        try:
            with self._records.transaction():
                self._work()
            self._is_behind = bool(self._todo)
        except Exception:
            log.exception("deletions queued=%d", len(self._todo))

    def _rolled_back(self) -> None:
        """What the steps of a transaction did is undone, so they are to be done again: those that others wait for."""
        self._todo.clear()
        self._settling.clear()
        if self._is_behind and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._continue)
        if self._is_behind:
            self._find_all()

    def _find_all(self) -> None:
        """Queue all that follows from what is stored."""
        self._todo.extend(self._entailed(*place) for place in list(self._kin.marked.values()))
        self._todo.extend(self._bereave_all(uid) for uid in self._kin.lost_owners())

    # One object.

    def _grace(self, resource: Resource, object_: Object, wish: Wish) -> int:
        """Seconds that its node has to end a pod; 0 for what nobody has to end."""
        if resource.id != "pods" or object_.get("status", {}).get("phase") in ENDED:
            return 0
        if self._records.store.get("nodes", ("", object_["spec"].get("nodeName", ""))) is None:
            return 0
        said = wish.grace_period_seconds
        if said is None:
            said = object_["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        return min(max(0, said), MAX_GRACE_SECONDS)

    def _finalizers(self, object_: Object, wish: Wish) -> list[str]:
        """Those of the object, with what the wish adds or takes away."""
        own: list[str] = object_["metadata"].get("finalizers", [])
        if wish.finalizer is None:
            return own
        kept = [one for one in own if one not in (FOREGROUND, ORPHAN)]
        return [*kept, wish.finalizer] if wish.finalizer else kept

    def _waits(self, resource: Resource, object_: Object, wish: Wish) -> bool:
        holds = self._finalizers(object_, wish) or self._grace(resource, object_, wish)
        return bool(holds) or next(iter(self._contents(resource, object_)), None) is not None

    def _delete(self, resource: Resource, key: Key, wish: Wish) -> None:
        stored = self._records.store.get(resource.id, key)
        if stored is None:
            return
        if not self._waits(resource, stored.object, wish):
            self._remove(resource, key)
            return
        self._mark(resource, key, stored.object, wish)
        self._todo.append(self._entailed(resource, key))

    def _entailed(self, resource: Resource, key: Key) -> Iterator[None]:
        """What follows from the mark of an object: its dependents and contents go first, then itself if nothing holds it."""
        stored = self._records.store.get(resource.id, key)
        metadata = stored.object["metadata"] if stored is not None else {}
        if stored is None or "deletionTimestamp" not in metadata:
            return
        uid, finalizers = metadata["uid"], metadata.get("finalizers", [])
        if FOREGROUND in finalizers:
            for place in self._kin.of(uid):
                self._delete_for(uid, *place, Wish(propagation_policy="Foreground"))
                yield
        if ORPHAN in finalizers:
            yield from self._disown_all(uid)
        for place in self._contents(resource, stored.object):
            self._delete_for(uid, *place, Wish())
            yield
        self._settle(resource, key)
        yield

    def _delete_for(self, cause: str, resource: Resource, key: Key, wish: Wish) -> None:
        """Delete what isn't being deleted already, because the object with the uid `cause` is gone or going, if that is still so."""
        stored = self._records.store.get(resource.id, key)
        if stored is not None and "deletionTimestamp" not in stored.object["metadata"] and self._kin.is_leaving(cause):
            self._delete(resource, key, wish)

    def _mark(self, resource: Resource, key: Key, old: Object, wish: Wish) -> Object:
        """Say that it is going: since when, and how long its node has. A second request may only shorten that."""
        seconds, metadata = self._grace(resource, old, wish), dict(old["metadata"])
        finalizers = self._finalizers(old, wish)
        if metadata.get("deletionGracePeriodSeconds", seconds + 1) > seconds or "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = rfc3339(self._now() + datetime.timedelta(seconds=seconds))
            metadata["deletionGracePeriodSeconds"] = seconds
        metadata["finalizers"] = finalizers
        if not finalizers:
            del metadata["finalizers"]
        if metadata == old["metadata"]:
            return old
        if resource.counts:
            metadata["generation"] = metadata.get("generation", 0) + ("deletionTimestamp" not in old["metadata"])
        new = {**old, "metadata": metadata}
        if resource.id == "namespaces":
            new["status"] = {**old.get("status", {}), "phase": "Terminating"}
        return self._records.put(resource, key, new, old).object

    def _settle(self, resource: Resource, key: Key) -> None:
        """Remove what is to go, if nothing holds it."""
        stored = self._records.store.get(resource.id, key)
        if stored is None or "deletionTimestamp" not in stored.object["metadata"]:
            return
        metadata = stored.object["metadata"]
        finalizers = [one for one in metadata.get("finalizers", ()) if not self._is_done(one, metadata["uid"])]
        if len(finalizers) != len(metadata.get("finalizers", ())):
            new = {**stored.object, "metadata": {**metadata, "finalizers": finalizers}}
            if not finalizers:
                del new["metadata"]["finalizers"]
            if finalizers or metadata.get("deletionGracePeriodSeconds"):
                self._records.put(resource, key, new, stored.object)
        if ORPHAN in finalizers:
            self._todo.append(self._entailed(resource, key))  # it has dependents again, or still
        if finalizers or metadata.get("deletionGracePeriodSeconds"):
            return
        if next(iter(self._contents(resource, stored.object)), None) is None:
            self._remove(resource, key)

    def _is_done(self, finalizer: str, uid: str) -> bool:
        """Has the garbage collector done what its finalizer stands for?"""
        if finalizer == ORPHAN:
            return not self._kin.of(uid)
        return finalizer == FOREGROUND and not any(self._blocks(place, uid) for place in self._kin.of(uid))

    def _blocks(self, place: Place, uid: str) -> bool:
        """Must this dependent be gone before its owner?"""
        resource, key = place
        stored = self._records.store.get(resource.id, key)
        owners = stored.object["metadata"].get("ownerReferences", ()) if stored else ()
        return any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners)

    def _remove(self, resource: Resource, key: Key) -> None:
        gone = self._records.remove(resource, key).object
        metadata = gone["metadata"]
        if metadata["uid"] in self._kin.dependents:
            self._todo.append(self._bereave_all(metadata["uid"]))
        for owner in metadata.get("ownerReferences", ()):
            if owner["uid"] in self._kin.by_uid:
                self._settle_later(*self._kin.by_uid[owner["uid"]])
        for holder, name in (("namespaces", key[0]), (CRDS, resource.id if resource.schema is not None else "")):
            there = self._records.store.get(holder, ("", name)) if name else None
            row = self._registry.by_id(holder)
            if there is not None and row is not None and "deletionTimestamp" in there.object["metadata"]:
                self._settle_later(row, ("", name))

    def _settle_later(self, resource: Resource, key: Key) -> None:
        if (resource.id, key) not in self._settling:
            self._settling.add((resource.id, key))
            self._todo.append(self._settle_once(resource, key))

    def _settle_once(self, resource: Resource, key: Key) -> Iterator[None]:
        self._settling.discard((resource.id, key))
        self._settle(resource, key)
        yield

    # Others.

    def _bereave_all(self, uid: str) -> Iterator[None]:
        """An owner is gone: its dependents are deleted, or let go of."""
        for place in self._kin.of(uid):
            if uid not in self._kin.by_uid:
                self._bereave(*place, uid)
            yield

    def _disown_all(self, uid: str) -> Iterator[None]:
        """Let the dependents of an object that is going go."""
        for place in self._kin.of(uid):
            if self._kin.is_leaving(uid):
                self._disown(*place, uid)
            yield

    def _bereave(self, resource: Resource, key: Key, uid: str) -> None:
        """An owner is gone: what belongs to nobody else goes too."""
        stored = self._records.store.get(resource.id, key)
        owners = stored.object["metadata"].get("ownerReferences", ()) if stored else ()
        if any(owner["uid"] != uid and owner["uid"] in self._kin.by_uid for owner in owners):
            self._disown(resource, key, uid)
        else:
            self._delete_for(uid, resource, key, Wish(propagation_policy="Background"))

    def _disown(self, resource: Resource, key: Key, uid: str) -> None:
        """Remove the reference to this owner."""
        stored = self._records.store.get(resource.id, key)
        if stored is None:
            return
        metadata = dict(stored.object["metadata"])
        metadata["ownerReferences"] = [owner for owner in metadata.get("ownerReferences", ()) if owner["uid"] != uid]
        if not metadata["ownerReferences"]:
            del metadata["ownerReferences"]
        self._records.put(resource, key, {**stored.object, "metadata": metadata}, stored.object)

    def _contents(self, resource: Resource, object_: Object) -> Iterable[Place]:
        """What lives in a namespace, or of a definition: it goes first."""
        if resource.id == "namespaces":
            name = object_["metadata"]["name"]
            for inner in self._registry.stored():
                if inner.namespaced:
                    yield from ((inner, key) for key, _ in self._records.store.snapshot(inner.id, name))
        elif resource.id == CRDS:
            for inner in self._registry.of_definition(object_["metadata"]["name"])[:1]:
                yield from ((inner, key) for key, _ in self._records.store.snapshot(inner.id))


def rfc3339(at: datetime.datetime) -> str:
    """A time as metadata has it: UTC, whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_preconditions(target: Target, wanted: Preconditions | None, metadata: Object) -> None:
    """Conflict unless the object is still the one that is meant."""
    pairs: tuple[tuple[str, Any], ...] = ()
    if wanted is not None:
        pairs = (("uid", wanted.uid), ("resourceVersion", wanted.resource_version))
    for field, expected in pairs:
        if expected is not None and expected != metadata[field]:
            what = f'Operation cannot be fulfilled on {target.resource.id} "{target.name}"'
            raise Problem(
                "Conflict",
                f"{what}: the {field} in the precondition ({expected}) is not that of the object ({metadata[field]})",
            )
