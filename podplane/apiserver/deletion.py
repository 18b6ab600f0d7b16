"""Deleting: grace, finalizers, propagation to dependents, and what lives in a namespace or of a definition.

The decisions of the registry, the garbage collector and the namespace controller. Nothing here recurses: what a removal entails is
queued, as iterators of steps. `STEPS` of them are done in the transaction of the request; what is left is done in turns of the event
loop of their own, a transaction each, so that others are served while a large namespace goes. All of it follows from what is stored (an
object that is marked, an owner that is gone), so what a restart or a failed transaction interrupts is found again (`Kin`).

    write ─ an owner that is no owner, or not any more? ──> the dependent is decided about: deleted, or let go of, or left

    delete ─ waits for something? ── no ──> removed ─> its dependents are deleted or let go of
                │ yes                                ─> whoever waited for it is looked at again
                └─> marked (deletionTimestamp) ─ foreground: dependents first; orphan: they are let go of; contents: deleted
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any

import msgspec

from podplane.apiserver.decoding import META, check_dry_run
from podplane.apiserver.kinds import custom
from podplane.apiserver.kinds.resource import Object, Resource
from podplane.apiserver.ordered import Key
from podplane.apiserver.owners import (
    FOREGROUND,
    ORPHAN,
    Kin,
    Place,
    Standing,
    blocked,
    is_waiting,
    key_of,
    owners_of,
    standing,
)
from podplane.apiserver.paths import Target
from podplane.apiserver.problems import Cause, Problem, invalid
from podplane.apiserver.records import Records
from podplane.apiserver.registry import CRDS, Registry
from podplane.apiserver.store import Stored
from podplane.kubeapi.errors import Unwritable
from podplane.model.phases import ENDED

log = logging.getLogger(__name__)
STEPS = 50
"""So many objects at most are deleted, let go of or looked at in one turn of the event loop, beside the one that a request deletes."""
RETRY_SECONDS = 1.0
NAMESPACES, KUBERNETES = "namespaces", "kubernetes"
"""Namespaces, and the finalizer in their spec that stands for their contents."""
PODS = "pods"
BUILT_IN_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
POLICIES = {"Foreground": FOREGROUND, "Background": "", "Orphan": ORPHAN}
DEFAULT_GRACE_SECONDS, MAX_GRACE_SECONDS = 30, 10 * 365 * 86400


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
        policy, causes = self.propagation_policy, list(check_dry_run(self.dry_run or ()))
        if policy is not None and self.orphan_dependents is not None:
            causes.append(
                Cause.invalid("propagationPolicy", policy, "orphanDependents and deletionPropagation cannot be both set")
            )
        if policy is not None and policy not in POLICIES:
            causes.append(Cause.unsupported("propagationPolicy", policy, (*POLICIES, "nil")))
        if causes:
            raise invalid("DeleteOptions", "", causes, META)
        if self.grace_period_seconds is not None and self.grace_period_seconds < 0:
            raise Problem("BadRequest", f"gracePeriodSeconds {self.grace_period_seconds} must be greater than or equal to 0")

    @property
    def finalizer(self) -> str | None:
        """What the garbage collector is to do first; "" is nothing, None is what the object says."""
        if self.propagation_policy is not None:
            return POLICIES[self.propagation_policy]
        if self.orphan_dependents is not None:
            return ORPHAN if self.orphan_dependents else ""
        return None


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
        self._undecided: dict[str, Place] = {}
        """By uid, dependents with an owner of which nothing is known: they are decided about when more kinds are served."""
        self.tell: Callable[[Object, Object], None] = lambda dependent, reference: None
        """Told of a dependent and its reference to an owner in another namespace."""
        self._kin = Kin()
        for resource in registry.stored():
            for stored in records.store.all(resource.id):
                self._kin.observe(resource, None, stored.object)
        records.observe(self._observe)
        records.on_rollback(self._rolled_back)

    def go_on(self) -> None:
        """Do what was left undone when the last process ended."""
        self._find_all()
        with self._records.transaction():
            self._work()

    def delete(self, target: Target, stored: Stored, wish: Wish, *, dry_run: bool = False) -> tuple[Stored, bool]:
        """Delete an object: as it was last, and whether it is gone. Problem when it may not be."""
        resource = target.resource
        if resource.id == NAMESPACES and target.name in BUILT_IN_NAMESPACES:
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

    # What writes mean.

    def _observe(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """A write: who waits for this object, and has it the owners that it names?"""
        self._kin.observe(resource, old, new)
        if resource.id == CRDS and new is not None and self._undecided:
            self._todo.extend(self._attempt_once(*place) for place in self._undecided.values())
        if old is not None and new is None:
            self._undecided.pop(old["metadata"]["uid"], None)
        before, after = owners_of(resource, old), owners_of(resource, new)
        if before != after:
            self._owners_changed(resource, before, after, new)
        if self._todo:
            self._schedule()

    def _owners_changed(self, resource: Resource, before: list[Object], after: list[Object], new: Object | None) -> None:
        left = {reference["uid"] for reference in before} - {reference["uid"] for reference in after}
        for uid in left | (blocked(before) - blocked(after)):
            if uid in self._kin.marked:
                self._settle_later(*self._kin.marked[uid])
        if new is None:
            return
        key = key_of(new)
        for reference in after:
            if reference not in before and self._is_foreign(reference, key[0]):
                self._todo.append(self._tell_once(new, reference))
        if any(self._standing(reference, key[0]) is not Standing.SOLID for reference in after):
            self._todo.append(self._attempt_once(resource, key))

    def _standing(self, reference: Object, namespace: str) -> Standing:
        return standing(self._records.store, self._registry, reference, namespace)

    def _is_foreign(self, reference: Object, namespace: str) -> bool:
        """Is this the uid of an object in another namespace?"""
        owner, (at, _) = self._kin.by_uid.get(reference["uid"], (None, ("", "")))
        return owner is not None and bool(at) and at != namespace

    def _tell_once(self, dependent: Object, reference: Object) -> Iterator[None]:
        self.tell(dependent, reference)
        yield

    # The queue.

    def _schedule(self) -> None:
        """See to it that what is queued is done in a turn of its own, where there is an event loop."""
        if self._is_scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._is_behind = self._is_scheduled = True
        loop.call_soon(self._continue)

    def _work(self) -> None:
        """Do some of what is queued, and see to it that the rest is done later; all of it where there is no event loop."""
        for _ in range(STEPS):
            if not self._step():
                return
        self._schedule()
        while not self._is_scheduled and self._step():
            pass

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
        except Unwritable:
            pass  # which the store has logged
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
        self._todo.append(self._attempt_all(self._kin.all()))

    # One object.

    def _grace(self, resource: Resource, object_: Object, wish: Wish) -> int:
        """Seconds that its node has to end a pod; 0 for what nobody has to end."""
        if resource.id != PODS or object_.get("status", {}).get("phase") in ENDED:
            return 0
        if self._records.store.get("nodes", ("", object_["spec"].get("nodeName", ""))) is None:
            return 0
        said = wish.grace_period_seconds
        if said is None:
            said = object_["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        return min(max(0, said), MAX_GRACE_SECONDS)

    def _finalizers(self, resource: Resource, object_: Object, wish: Wish) -> list[str]:
        """Those of the object, with what the wish adds or takes away; without a wish, what its kind says."""
        own: list[str] = object_["metadata"].get("finalizers", [])
        if wish.finalizer is None:
            says_nothing = FOREGROUND not in own and ORPHAN not in own
            return [*own, ORPHAN] if resource.orphans and says_nothing else own
        kept = [one for one in own if one not in (FOREGROUND, ORPHAN)]
        return [*kept, wish.finalizer] if wish.finalizer else kept

    def _waits(self, resource: Resource, object_: Object, wish: Wish) -> bool:
        holds = self._finalizers(resource, object_, wish) or self._grace(resource, object_, wish)
        if resource.id == NAMESPACES and any(one != KUBERNETES for one in object_.get("spec", {}).get("finalizers", ())):
            return True
        return bool(holds) or self._has_contents(resource, object_)

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
            yield from self._attempt_all(self._kin.of(uid))
        if ORPHAN in finalizers:
            yield from self._disown_all(uid)
        wish = Wish() if resource.id == CRDS else Wish(propagation_policy="Background")
        for place in self._contents(resource, stored.object):
            self._delete_for(uid, *place, wish)
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
        finalizers = self._finalizers(resource, old, wish)
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
        if resource.id == NAMESPACES:
            new["status"] = {**old.get("status", {}), "phase": "Terminating"}
        elif resource.id == CRDS and "deletionTimestamp" not in old["metadata"]:
            custom.begin_termination(new, rfc3339(self._now()))
        return self._records.put(resource, key, new, old).object

    def _settle(self, resource: Resource, key: Key) -> None:
        """Remove what is to go, if nothing holds it."""
        stored = self._records.store.get(resource.id, key)
        if stored is None or "deletionTimestamp" not in stored.object["metadata"]:
            return
        old = stored.object
        finalizers = [one for one in old["metadata"].get("finalizers", ()) if not self._is_done(one, resource, old)]
        new = self._without_finished(resource, old, finalizers)
        holds = finalizers or new["metadata"].get("deletionGracePeriodSeconds")
        if resource.id == NAMESPACES:
            holds = holds or new.get("spec", {}).get("finalizers")
        if not holds:
            self._remove(resource, key)
            return
        if new != old:
            self._records.put(resource, key, new, old)
        if ORPHAN in finalizers:
            self._todo.append(self._entailed(resource, key))  # it has dependents again, or still

    def _without_finished(self, resource: Resource, old: Object, finalizers: list[str]) -> Object:
        """An object that is to go, with these finalizers left; a namespace without contents is finalized by its controller."""
        metadata = {**old["metadata"], "finalizers": finalizers}
        if not finalizers:
            del metadata["finalizers"]
        new = {**old, "metadata": metadata}
        own = old.get("spec", {}).get("finalizers", []) if resource.id == NAMESPACES else []
        if KUBERNETES in own and not self._has_contents(resource, old):
            new["spec"] = {**old["spec"], "finalizers": [one for one in own if one != KUBERNETES]}
        return new

    def _is_done(self, finalizer: str, resource: Resource, object_: Object) -> bool:
        """Has the control plane done what its finalizer stands for?"""
        uid = object_["metadata"]["uid"]
        if finalizer == ORPHAN:
            return not self._kin.of(uid)
        if finalizer == custom.CLEANUP and resource.id == CRDS:
            return not self._has_contents(resource, object_)
        return finalizer == FOREGROUND and not any(self._blocks(place, uid) for place in self._kin.of(uid))

    def _blocks(self, place: Place, uid: str) -> bool:
        """Must this dependent be gone before its owner? (Nothing waits for itself.)"""
        stored = self._records.store.get(place[0].id, place[1])
        if stored is None or stored.object["metadata"]["uid"] == uid:
            return False
        return uid in blocked(owners_of(place[0], stored.object))

    def _remove(self, resource: Resource, key: Key) -> None:
        gone = self._records.remove(resource, key).object
        metadata = gone["metadata"]
        if metadata["uid"] in self._kin.dependents:
            self._todo.append(self._attempt_all(self._kin.of(metadata["uid"])))
        for holder, name in ((NAMESPACES, key[0]), (CRDS, resource.id if resource.schema is not None else "")):
            there = self._records.store.get(holder, ("", name)) if name else None
            row = self._registry.by_id(holder)
            if there is None or row is None or "deletionTimestamp" not in there.object["metadata"]:
                continue
            if resource.id == PODS and not self._has_pods(name):
                self._todo.append(self._entailed(row, ("", name)))
            else:
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

    def _disown_all(self, uid: str) -> Iterator[None]:
        """Let the dependents of an object that is going go."""
        for place in self._kin.of(uid):
            if self._kin.is_leaving(uid):
                self._disown(*place, {uid})
            yield

    def _attempt_all(self, places: Iterable[Place]) -> Iterator[None]:
        """Decide about dependents, since something became of an owner of theirs."""
        for place in places:
            self._attempt(*place)
            yield

    def _attempt_once(self, resource: Resource, key: Key) -> Iterator[None]:
        self._attempt(resource, key)
        yield

    def _attempt(self, resource: Resource, key: Key) -> None:
        """Decide about a dependent by what has become of its owners (attemptToDeleteItem): one that has an owner stays, and lets go of
        the others; one whose owners all do not exist or wait for it is deleted; where one is not known, nothing happens."""
        stored = self._records.store.get(resource.id, key)
        owners = owners_of(resource, stored.object if stored is not None else None)
        if stored is None or not owners or "deletionTimestamp" in stored.object["metadata"]:
            return
        uid, standings = stored.object["metadata"]["uid"], [self._standing(owner, key[0]) for owner in owners]
        self._undecided.pop(uid, None)
        if Standing.UNKNOWN in standings:
            self._undecided[uid] = (resource, key)
        elif Standing.SOLID in standings:
            over = {owner["uid"] for owner, now in zip(owners, standings, strict=True) if now is not Standing.SOLID}
            self._disown(resource, key, over)
        elif Standing.WAITING in standings and self._kin.of(uid):
            if any(self._is_waiting(place) for place in self._kin.of(uid)):
                self._unblock(resource, key)  # else both of a circle would wait for each other
            self._delete(resource, key, Wish(propagation_policy="Foreground"))
        else:
            self._delete(resource, key, Wish(propagation_policy=_policy_of(stored.object)))

    def _is_waiting(self, place: Place) -> bool:
        stored = self._records.store.get(place[0].id, place[1])
        return stored is not None and is_waiting(stored.object)

    def _disown(self, resource: Resource, key: Key, uids: Set[str]) -> None:
        """Remove the references to these owners."""
        stored = self._records.store.get(resource.id, key)
        owners = owners_of(resource, stored.object if stored is not None else None)
        kept = [owner for owner in owners if owner["uid"] not in uids]
        if stored is not None and kept != owners:
            self._set_owners(resource, key, stored.object, kept)

    def _unblock(self, resource: Resource, key: Key) -> None:
        """Let no owner wait for this dependent."""
        stored = self._records.store.get(resource.id, key)
        owners = owners_of(resource, stored.object if stored is not None else None)
        if stored is not None and blocked(owners):
            self._set_owners(resource, key, stored.object, [{**owner, "blockOwnerDeletion": False} for owner in owners])

    def _set_owners(self, resource: Resource, key: Key, old: Object, owners: list[Object]) -> None:
        metadata = {**old["metadata"], "ownerReferences": owners}
        if not owners:
            del metadata["ownerReferences"]
        self._records.put(resource, key, {**old, "metadata": metadata}, old)

    def _of_namespace(self, name: str, *, pods: bool) -> Iterator[Place]:
        """The pods of a namespace, or all else."""
        for inner in self._registry.stored():
            if inner.namespaced and (inner.id == PODS) is pods:
                yield from ((inner, key) for key, _ in self._records.store.snapshot(inner.id, name))

    def _has_pods(self, namespace: str) -> bool:
        return next(self._of_namespace(namespace, pods=True), None) is not None

    def _has_contents(self, resource: Resource, object_: Object) -> bool:
        return next(iter(self._contents(resource, object_)), None) is not None

    def _contents(self, resource: Resource, object_: Object) -> Iterable[Place]:
        """What lives in a namespace, or of a definition: it goes first. In a namespace, nothing else goes while a pod is there (KEP-5080):
        policies and Secrets are for the pods."""
        if resource.id == NAMESPACES:
            name = object_["metadata"]["name"]
            yield from self._of_namespace(name, pods=True)
            if not self._has_pods(name):
                yield from self._of_namespace(name, pods=False)
        elif resource.id == CRDS:
            for inner in self._registry.of_definition(object_["metadata"]["name"])[:1]:
                yield from ((inner, key) for key, _ in self._records.store.snapshot(inner.id))


def _policy_of(object_: Object) -> str:
    """How an object is deleted whose owners are gone: as its finalizers say."""
    finalizers = object_["metadata"].get("finalizers", ())
    return "Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background"


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
