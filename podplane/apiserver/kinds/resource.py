"""What a row of the table of kinds says: names, scope, shape, rules, columns, subresources."""

from __future__ import annotations

import copy
import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from podplane.apiserver import shapes
from podplane.apiserver.kinds import names, selectable
from podplane.apiserver.problems import MAX_CAUSES, Cause, Problem, invalid

Object = dict[str, Any]
Check = Callable[[Object, Object | None], Iterator[Cause]]
"""(an object, its former version or None) → what is wrong with it. Its types are right already."""
Prepare = Callable[[Object], None]
"""Completes an object whose types are right: defaults that hang on other fields."""
WITH_STATUS = ("labels", "annotations", "ownerReferences", "finalizers")
"""Metadata that a write of the status may change."""
PrepareStatus = Callable[[Object, Object | None], None]
"""Completes the status of an object that had a former version."""
VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
NO_MORE = ("create", "patch", "update")
"""What discovery does not offer for custom resources whose definition is being deleted (customresource_discovery_controller.go)."""


class Column(msgspec.Struct, frozen=True):
    """One column of a table; `value` takes the object and the time. Priority 1 is shown by `-o wide` only."""

    name: str
    value: Callable[[Object, datetime.datetime], Any]
    type: str = "string"
    priority: int = 0
    format: str = ""


class Scale(msgspec.Struct, frozen=True):
    """Where the scale subresource finds its numbers; the selector is a mapping, or for custom resources a text."""

    replicas: tuple[str, ...] = ("spec", "replicas")
    current: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("spec", "selector")


def _no_causes(_: Object, __: Object | None) -> Iterator[Cause]:
    return iter(())


def _as_it_is(_: Object) -> None:
    pass


def _as_it_is_after(_: Object, __: Object | None) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind in one version.

    `read` makes an object fit its shape and says what it found. `warnings` are about an object that is
    valid. `fields` can be selected by; `fixed` are paths that no change may touch
    once they are set. A write of the status leaves the metadata that the kind `status_spares`. `counts` kinds have a generation that
    grows with each change of what is wanted. A review is answered and never stored. A deletion answers with the object where it
    `returns_deleted`, else with a Status; one that does not say what becomes of dependents lets go of them where the kind `orphans`
    them. A custom resource has its own `schema`, and the apiVersion in which it is stored; while its definition `is_terminating`, none
    is created. `complete` makes one that was stored before the resource version `defined_at`, when its definition's spec was written
    last, fit the schema that it has now. Each answer warns of a `deprecation`.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    definition: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    read: Callable[[Object], shapes.Findings] = lambda _: shapes.Findings()
    check: Check = _no_causes
    warnings: Callable[[Object], Iterable[str]] = lambda _: ()
    prepare: Prepare = _as_it_is
    check_status: Check = _no_causes
    prepare_status: PrepareStatus = _as_it_is_after
    status_spares: frozenset[str] = frozenset()
    columns: tuple[Column, ...] = ()
    fields: selectable.Fields = selectable.COMMON
    fixed: tuple[tuple[str, ...], ...] = ()
    name_rule: names.Rule = names.SUBDOMAIN
    has_status: bool = False
    counts: bool = False
    scale: Scale | None = None
    is_review: bool = False
    returns_deleted: bool = False
    orphans: bool = False
    is_terminating: bool = False
    keeps_status: bool = False
    deprecation: str = ""
    singular: str = ""
    schema: Mapping[str, Any] | None = None
    storage: str = ""
    complete: Callable[[Object], Object] | None = None
    defined_at: int = 0
    id: str = field(init=False, compare=False)
    """The name of the resource with its group, as errors and the store have it."""
    group_version: str = field(init=False, compare=False)
    """apiVersion."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.plural}.{self.group}" if self.group else self.plural)
        object.__setattr__(self, "group_version", f"{self.group}/{self.version}" if self.group else self.version)

    @property
    def verbs(self) -> tuple[str, ...]:
        """What can be done with it."""
        if self.is_review:
            return ("create",)
        return tuple(verb for verb in VERBS if verb not in NO_MORE) if self.is_terminating else VERBS

    @property
    def list_kind(self) -> str:
        """The kind of a list of them."""
        return f"{self.kind}List"

    @property
    def stored_as(self) -> str:
        """The apiVersion in which it is stored."""
        return self.storage or self.group_version

    def shape(self) -> shapes.Shape | None:
        """The shape of a built-in kind; None for a custom resource."""
        return shapes.builtin().shape(self.definition) if self.definition else None

    def blank_status(self, object_: Object) -> None:
        """Take away what a new object says of its status: that is not its writer's to say."""
        object_.pop("status", None)
        shape = self.shape()
        if shape is not None and "status" in shape.zeros:
            object_["status"] = shape.zeros["status"].zero()


def admit(resource: Resource, object_: Object, old: Object | None) -> None:
    """Problem unless the object, whose types are right, makes sense; it is completed."""
    resource.prepare(object_)
    causes = _causes(resource, object_, old)
    if causes and old is not None:  # it may have been stored before a default was known: as Kubernetes decodes it, it has it
        former = copy.deepcopy(old)
        resource.read(former)
        resource.prepare(former)
        causes = _causes(resource, object_, former)
    if causes:
        raise invalid(resource.kind, object_["metadata"].get("name", ""), causes, resource.group)


def _causes(resource: Resource, object_: Object, old: Object | None) -> list[Cause]:
    any_finalizers = resource.schema is not None or resource.group == "apiextensions.k8s.io"
    own = names.check_metadata(object_["metadata"], any_finalizers=any_finalizers)
    touched = _touched(resource, old, object_) if old is not None else ()
    return _first(own, resource.check(object_, old), touched)


def _first(*causes: Iterable[Cause]) -> list[Cause]:
    """Those that a refusal says: what comes after them is not looked for."""
    return list(itertools.islice(itertools.chain(*causes), MAX_CAUSES))


def admit_status(resource: Resource, object_: Object, old: Object) -> None:
    """As `admit`, of a write of the status: nothing else of the object is looked at."""
    resource.prepare_status(object_, old)
    causes = _first(names.check_metadata(object_["metadata"]), resource.check_status(object_, old))
    if causes:
        raise invalid(resource.kind, object_["metadata"]["name"], causes, resource.group)


def with_status(resource: Resource, old: Object, new: Object) -> Object:
    """What a write of the status makes of an object: its status, and of its metadata what Kubernetes takes there (each kind's status
    strategy, PrepareForUpdate). Of a custom resource that is the status alone."""
    metadata = dict(old["metadata"])
    for name in WITH_STATUS if resource.schema is None else ():
        if name in resource.status_spares:
            continue
        metadata.pop(name, None)
        if new["metadata"].get(name):
            metadata[name] = new["metadata"][name]
    whole = {**old, "metadata": metadata}
    if resource.schema is not None and "status" not in new:
        whole.pop("status", None)
    else:
        whole["status"] = new.get("status", {})
    return whole


def _touched(resource: Resource, old: Object, new: Object) -> Iterator[Cause]:
    """What a change touches though it can't be changed once it is set."""
    for path in resource.fixed:
        before, after = at(old, path), at(new, path)
        if before and before != after:
            yield Cause.immutable(".".join(path), after)


def check_name(resource: Resource, name: object) -> str:
    """The name, if it can be one of an object. Problem otherwise."""
    if not isinstance(name, str) or not name:
        raise invalid(resource.kind, "", [Cause.required("metadata.name", "name or generateName is required")], resource.group)
    if why := resource.name_rule(name):
        raise invalid(resource.kind, name, [Cause.invalid("metadata.name", name, why)], resource.group)
    return name


def at(object_: Any, path: tuple[str, ...]) -> Any:
    """What stands at a path; None when there is nothing."""
    for part in path:
        object_ = object_.get(part) if isinstance(object_, dict) else None
    return object_


def unreadable(resource: Resource, what: str) -> Problem:
    """The body is no object of this kind."""
    return Problem(
        "BadRequest", f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {what}'
    )
