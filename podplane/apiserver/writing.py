"""create, update, patch and delete, and the subresources that write: status, scale, ephemeralcontainers, binding, eviction."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from podplane.apiserver import decoding
from podplane.apiserver.admission import Admission
from podplane.apiserver.beside import Outdated, Steps, at_once
from podplane.apiserver.decoding import Options
from podplane.apiserver.deletion import NAMESPACES, Deleter, Wish, rfc3339
from podplane.apiserver.kinds import ephemeral, names, pods
from podplane.apiserver.kinds.disruption import BY_EVICTION, disrupted
from podplane.apiserver.kinds.resource import Object, Resource, Scale, admit, admit_status, at, check_name, with_status
from podplane.apiserver.kinds.table import row
from podplane.apiserver.patches import check_type, patched
from podplane.apiserver.paths import Target
from podplane.apiserver.problems import Cause, Problem, invalid
from podplane.apiserver.reading import LongList, Reader, answer, plain
from podplane.apiserver.records import Records
from podplane.apiserver.slices import sliced
from podplane.apiserver.store import Stored
from podplane.kubeapi.messages import Request, Response

SERVER_FIELDS = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
    "namespace",
    "generation",
)
"""Metadata that only the server sets."""
SCALE = row("autoscaling", "io.k8s.api.autoscaling.v1.Scale", "scale")
BINDING = row("", "io.k8s.api.core.v1.Binding", "bindings")
EVICTION = row("policy", "io.k8s.api.policy.v1.Eviction", "evictions")
"""Kinds that are the body of a subresource only."""
ORPHANING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or "
    "set propagationPolicy=Orphan to suppress this warning"
)
"""Of a deletion that does not say what becomes of dependents, where the kind lets go of them (batch/job/storage)."""
NOT_WANTED = ("metadata", "status")
"""Fields of an object that don't say what is wanted."""
FINALIZE = "finalize"
EPHEMERAL = "ephemeralcontainers"
PARTS = {"status": "status", EPHEMERAL: ephemeral.PATH}
"""The part of an object that a write of a subresource is about: the rest of the body is ignored."""
DEBUGGED = row("", "io.k8s.api.core.v1.Pod", "pods", prepare=pods.complete_pod, check=ephemeral.check_change)
"""A pod whose ephemeral containers change."""


class Writer:
    """Write access to the records."""

    def __init__(
        self, records: Records, reader: Reader, deleter: Deleter, admission: Admission, now: Callable[[], datetime.datetime]
    ) -> None:
        self._records = records
        self._reader = reader
        self._deleter = deleter
        self._admission = admission
        self._now = now

    def _put(self, target: Target, new: Object, old: Object | None, options: Options) -> Stored:
        if options.dry_run:
            return Stored(new, msgspec.json.encode(new))
        return self._records.put(target.resource, (target.namespace, new["metadata"]["name"]), new, old)

    # Creating.

    def create(self, target: Target, object_: Object, options: Options) -> Stored:
        """Store a new object, completed; it is what `decoding.body` gave, or an equal of it."""
        return at_once(self._creation(target, object_, options))

    def creation(self, target: Target, request: Request, options: Options) -> Steps[Stored]:
        """POST."""
        return (yield from self._creation(target, (yield partial(decoding.strictly, request, options)), options))

    def _creation(self, target: Target, object_: Object, options: Options) -> Steps[Stored]:
        resource = target.resource
        if resource.is_terminating:
            details = {"group": resource.group, "kind": resource.plural}
            why = "create not allowed while custom resource definition is terminating"
            raise Problem("MethodNotAllowed", why, details)
        metadata = (yield partial(decoding.fitted, resource, object_, options))["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = names.generated(metadata["generateName"])
        name = check_name(resource, metadata.get("name"))
        self._place(target, metadata)
        self._check_absent(target, name)
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation"):
            metadata.pop(field, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = rfc3339(self._now())
        if resource.counts:
            metadata["generation"] = 1
        if resource.has_status and not resource.keeps_status:
            resource.blank_status(object_)
        if resource.storage:
            object_["apiVersion"] = resource.storage
        self._check_namespace(target, name)
        yield partial(admit, resource, object_, None)
        self._check_absent(target, name)
        self._check_namespace(target, name)
        self._admission.create(resource, object_)
        stored: Stored | None = None
        try:
            stored = self._put(target, object_, None, options)
            return stored
        finally:
            if stored is None or options.dry_run:
                self._admission.abandon(resource, object_)

    def _check_absent(self, target: Target, name: str) -> None:
        resource = target.resource
        if self._records.store.get(resource.id, (target.namespace, name)) is not None:
            details = {"name": name, "group": resource.group, "kind": resource.plural}
            raise Problem("AlreadyExists", f'{resource.id} "{name}" already exists', details)

    def _check_namespace(self, target: Target, name: str) -> None:
        if target.resource.namespaced:
            self._admission.check_namespace(target.resource, target.namespace, name)

    @staticmethod
    def _place(target: Target, metadata: Object) -> None:
        """The namespace of a new object, said by the path; one in the object must be the same."""
        if not target.resource.namespaced:
            metadata.pop("namespace", None)
            return
        said = metadata.get("namespace") or target.namespace
        if said != target.namespace:
            raise Problem(
                "BadRequest",
                f"the namespace of the provided object does not match the namespace sent on the request: {said}, {target.namespace}",
            )
        metadata["namespace"] = target.namespace

    # Changing.

    def update(self, target: Target, request: Request, options: Options) -> Steps[Stored]:
        """PUT."""
        new = yield partial(decoding.strictly, request, options)
        if target.subresource == "scale":
            return (yield from self._set_scale(target, new, options))
        stored = self._reader.stored(target)
        metadata = new.get("metadata")
        if target.resource.schema is not None and not (isinstance(metadata, dict) and metadata.get("resourceVersion")):
            cause = Cause.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid(target.resource.kind, target.name, [cause], target.resource.group)
        return (yield from self._replace(target, stored, new, options))

    def patch(self, target: Target, request: Request, options: Options) -> Steps[Stored]:
        """PATCH."""
        check_type(target.resource, request)
        yield partial(decoding.note_duplicates, request, options)
        options.is_patch = True
        stored = self._reader.stored(target)
        if target.subresource == "scale":
            wanted = yield partial(patched, SCALE, self.scale(target, stored), request)
            return (yield from self._set_scale(target, wanted, options))
        old = stored.object
        if target.resource.storage:
            old = {**old, "apiVersion": target.resource.group_version}
        part = target.subresource if target.subresource == "status" else ""
        new = yield partial(patched, target.resource, old, request, part)
        return (yield from self._replace(target, stored, new, options))

    def _replace(self, target: Target, stored: Stored, new: Object, options: Options) -> Steps[Stored]:
        """Store a new version, if it is one: an update that changes nothing keeps the version and tells nobody.

        Outdated when another version than `stored` is there by then.
        """
        old, resource = stored.object, target.resource
        metadata = (yield partial(decoding.fitted, resource, new, options, PARTS.get(target.subresource, "")))["metadata"]
        _check_same(target, old["metadata"], metadata)
        new = yield from self._completed(target, stored, new)
        _check_finalizers(target, old, new)
        is_wanted = _wanted(new) == _wanted(old)
        if resource.counts and not is_wanted:
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if is_wanted and all(new.get(field) == old.get(field) for field in NOT_WANTED):
            return stored
        replaced = self._put(target, new, old, options)
        if "deletionTimestamp" in old["metadata"] and not options.dry_run:
            self._deleter.settle(resource, target.key)
        return replaced

    def _completed(self, target: Target, stored: Stored, new: Object) -> Steps[Object]:
        """The new object with all that this request can't change as it was, completed. Problem when it makes no sense."""
        resource, old = target.resource, stored.object
        if target.subresource == "status":
            new = with_status(resource, old, new)
            yield partial(admit_status, resource, new, old)
            self._check_latest(target, stored)
            self._admission.update_status(resource, new)
            return new
        new = self._with_what_stays(target, old, new)
        if resource.storage:
            new["apiVersion"] = resource.storage
        self._admission.keep(resource, new, old)
        yield partial(admit, DEBUGGED if target.subresource == EPHEMERAL else resource, new, old)
        self._check_latest(target, stored)
        self._admission.update(resource, new, old)
        return new

    def _check_latest(self, target: Target, stored: Stored) -> None:
        """Outdated unless this is the object as it is now."""
        if self._reader.stored(target) is not stored:
            raise Outdated

    @staticmethod
    def _with_what_stays(target: Target, old: Object, new: Object) -> Object:
        if target.subresource == EPHEMERAL:
            return ephemeral.with_containers_of(old, new)
        kept = {field: old["metadata"][field] for field in SERVER_FIELDS if field in old["metadata"]}
        new["metadata"] = {**{k: v for k, v in new["metadata"].items() if k not in SERVER_FIELDS}, **kept}
        if target.resource.id == NAMESPACES and target.subresource != FINALIZE:
            new["spec"] = old.get("spec", {})  # finalizers, which have a subresource of their own
        if target.resource.has_status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        return new

    # Scale.

    def scale(self, target: Target, stored: Stored) -> Object:
        """autoscaling/v1 Scale of an object."""
        object_, scale = stored.object, self._scale_of(target)
        selector = at(object_, scale.selector) if scale.selector else ""
        if isinstance(selector, dict):
            from podplane.apiserver.kinds.printing import selector_text

            selector = selector_text(selector)
        fields = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {field: object_["metadata"][field] for field in fields if field in object_["metadata"]},
            "spec": {"replicas": at(object_, scale.replicas) or 0},
            "status": {"replicas": at(object_, scale.current) or 0, "selector": selector or ""},
        }

    @staticmethod
    def _scale_of(target: Target) -> Scale:
        if target.resource.scale is None:
            raise no_subresource(target)
        return target.resource.scale

    def _set_scale(self, target: Target, wanted: Object, options: Options) -> Steps[Stored]:
        """Set the replicas; answers with the new Scale."""
        scale, stored = self._scale_of(target), self._reader.stored(target)
        yield partial(decoding.fitted, SCALE, wanted, options)
        replicas = wanted.get("spec", {}).get("replicas", 0)
        if replicas < 0:
            raise invalid(
                "Scale",
                target.name,
                [Cause.invalid("spec.replicas", replicas, "must be greater than or equal to 0")],
                "autoscaling",
            )
        _check_same(target, stored.object["metadata"], wanted["metadata"])
        new = plain(stored.object)
        inner = new
        for part in scale.replicas[:-1]:
            inner = inner.setdefault(part, {})
        inner[scale.replicas[-1]] = replicas
        if target.resource.storage:
            new["apiVersion"] = target.resource.group_version
        whole = Target(target.resource, target.namespace, target.name)
        replaced = yield from self._replace(whole, stored, new, options)
        result = self.scale(target, replaced)
        return Stored(result, msgspec.json.encode(result))

    # Pods.

    def bind(self, target: Target, binding: Object, options: Options) -> None:
        """Give a pod its node (core/v1 Binding)."""
        decoding.fitted(BINDING, binding, options)
        pod = self._reader.stored(target).object
        _check_same(target, pod["metadata"], binding["metadata"])
        kind, node = binding.get("target", {}).get("kind", ""), binding.get("target", {}).get("name", "")
        if kind not in ("", "Node"):
            raise invalid("Binding", target.name, [Cause.unsupported("target.kind", kind, ("Node", "<empty>"))])
        if not node:
            raise invalid("Binding", target.name, [Cause.required("target.name")])
        if why := _unbindable(pod):
            raise Problem("Conflict", f'Operation cannot be fulfilled on pods/binding "{target.name}": pod {target.name} {why}')
        new = plain(pod)
        new["spec"]["nodeName"] = node
        for field in ("labels", "annotations"):
            if said := binding["metadata"].get(field):
                new["metadata"][field] = {**new["metadata"].get(field, {}), **said}
        status = new.setdefault("status", {})
        status.pop("nominatedNodeName", None)
        kept = [c for c in status.get("conditions", ()) if c.get("type") != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(self._now())}
        status["conditions"] = [*kept, scheduled]
        self._put(target, new, pod, options)

    def evict(self, target: Target, eviction: Object, options: Options) -> None:
        """Delete a pod as its Eviction says."""
        said = eviction.pop("deleteOptions", None)
        decoding.fitted(EVICTION, eviction, options)
        wish, stored = wish_of({} if said is None else said, options), self._reader.stored(target)
        self._deleter.delete(target, stored, wish, dry_run=True)  # what it asks for of the pod as it is now
        if options.dry_run:
            return
        with self._records.transaction():
            new = plain(stored.object)
            new.setdefault("status", {})["conditions"] = disrupted(new, BY_EVICTION, rfc3339(self._now()))
            stored = self._put(target, new, stored.object, options)
            self._deleter.delete(target, stored, msgspec.structs.replace(wish, preconditions=None))

    # Deleting.

    def delete(self, target: Target, request: Request, options: Options) -> tuple[Stored, bool]:
        """Delete one object: as it was last, and whether it is gone."""
        wish = read_wish(request, options)
        if target.resource.orphans and wish.finalizer is None:
            options.warnings.append(ORPHANING)
        return self._deleter.delete(target, self._reader.stored(target), wish, dry_run=options.dry_run)

    async def delete_all(self, target: Target, request: Request, options: Options) -> Response | LongList:
        """Delete what the selectors choose of a collection; answers with the list of it.

        Each slice is a transaction of its own, as Kubernetes deletes one object after the other: what was deleted before a refusal
        stays so.
        """
        wish = read_wish(request, options)
        form, found = self._reader.form(target, request), self._reader.selected(target, request)
        items: list[Stored] = []
        slices = sliced(self._delete_each(target, found, wish, options))
        more = True
        while more:
            with self._records.transaction():
                done = next(slices, None)
            items += filter(None, done or ())
            if more := done is not None:
                await asyncio.sleep(0)
        return await answer(form.many(items, {"resourceVersion": str(self._records.hub.version)}))

    def _delete_each(
        self, target: Target, found: Iterable[Stored | None], wish: Wish, options: Options
    ) -> Iterator[Stored | None]:
        """Delete these objects one by one, as the caller takes them; nothing happens to one that is gone, or another one of its name."""
        for stored in found:
            if stored is not None:
                metadata = stored.object["metadata"]
                one = Target(target.resource, metadata.get("namespace", ""), metadata["name"])
                now = self._records.store.get(target.resource.id, one.key)
                if now is not None and now.object["metadata"]["uid"] == metadata["uid"]:
                    self._deleter.delete(one, now, wish, dry_run=options.dry_run)
            yield stored


def read_wish(request: Request, options: Options) -> Wish:
    """DeleteOptions in the body or the query. Problem when they are none."""
    said = decoding.body(request) if request.body.strip() else {}
    for name in ("gracePeriodSeconds", "propagationPolicy", "orphanDependents"):
        if text := request.parameter(name):
            if name == "gracePeriodSeconds":
                said[name] = decoding.whole_number(name, text)
            else:
                said[name] = request.flag(name) if name == "orphanDependents" else text
    return wish_of(said, options)


def wish_of(said: Any, options: Options) -> Wish:
    """DeleteOptions as an object. Problem when they are none."""
    if not isinstance(said, dict):
        raise Problem("BadRequest", "DeleteOptions: must be an object")
    if said.get("kind", "DeleteOptions") != "DeleteOptions":
        raise Problem("BadRequest", f"the body of a deletion is DeleteOptions, not {said['kind']}")
    try:
        wish = msgspec.convert(said, Wish)
    except msgspec.ValidationError as error:
        raise Problem("BadRequest", f"DeleteOptions: {error}") from None
    wish.check()
    options.dry_run = options.dry_run or any(wish.dry_run or ())
    return wish


def _unbindable(pod: Object) -> str:
    """Why a pod can't get a node; "" when it can."""
    if "deletionTimestamp" in pod["metadata"]:
        return "is being deleted, cannot be assigned to a host"
    if node := pod["spec"].get("nodeName"):
        return f'is already assigned to node "{node}"'
    return "has non-empty .spec.schedulingGates" if pod["spec"].get("schedulingGates") else ""


def no_subresource(target: Target) -> Problem:
    """Nothing is served there."""
    return Problem("NotFound", f"the subresource {target.subresource} of {target.resource.id} is not served")


def _wanted(object_: Object) -> dict[str, Any]:
    """All of an object but its metadata and status."""
    return {name: value for name, value in object_.items() if name not in NOT_WANTED}


def _check_same(target: Target, old: Object, new: Object) -> None:
    """Problem unless both are the same object, in the version that the writer knows."""
    places = {"name": target.name} | ({"namespace": target.namespace} if target.resource.namespaced else {})
    for field, said in places.items():
        if new.setdefault(field, said) != said and new[field]:
            raise Problem(
                "BadRequest", f"the {field} of the object ({new[field]}) does not match the {field} on the URL ({said})"
            )
    for field in ("resourceVersion", "uid"):
        if new.get(field) and new[field] != old[field]:
            message = "the object has been modified; please apply your changes to the latest version and try again"
            if field == "uid":
                message = f"Precondition failed: UID in precondition: {new[field]}, UID in object meta: {old[field]}"
            details = {"name": target.name, "group": target.resource.group, "kind": target.resource.plural}
            raise Problem(
                "Conflict", f'Operation cannot be fulfilled on {target.resource.id} "{target.name}": {message}', details
            )


def _check_finalizers(target: Target, old: Object, new: Object) -> None:
    """What is being deleted takes no new finalizers."""
    if "deletionTimestamp" not in old["metadata"]:
        return
    added = [f for f in new["metadata"].get("finalizers", ()) if f not in old["metadata"].get("finalizers", ())]
    if added:
        why = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
        raise invalid(target.resource.kind, target.name, [Cause.forbidden("metadata.finalizers", why)], target.resource.group)


def is_served(resource: Resource, subresource: str) -> bool:
    """Has this resource such a subresource to read and change?"""
    return (
        subresource == ""
        or (subresource == "status" and resource.has_status)
        or (subresource == "scale" and bool(resource.scale))
        or (subresource == EPHEMERAL and resource.id == "pods")
    )
