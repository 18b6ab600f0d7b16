"""Ephemeral containers: what `pods/ephemeralcontainers` may change of a pod (core/validation; KEP-277). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from podplane.apiserver.kinds.pods import Object, check_container
from podplane.apiserver.problems import Cause

FIELD, PATH = "ephemeralContainers", "spec.ephemeralContainers"
REFUSED = (
    "ports",
    "resources",
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "resizePolicy",
    "restartPolicy",
)
"""What only containers have that belong to the pod from its beginning."""


def with_containers_of(old: Object, new: Object) -> Object:
    """The pod as it was, with the ephemeral containers of the new version."""
    spec = {**old["spec"], FIELD: new.get("spec", {}).get(FIELD, [])}
    if not spec[FIELD]:
        del spec[FIELD]
    return {**old, "spec": spec}


def check_change(pod: Object, old: Object | None) -> Iterator[Cause]:
    """Pod, of which nothing else changes: containers may only be added."""
    spec = pod["spec"]
    taken = {container["name"] for kind in ("containers", "initContainers") for container in spec.get(kind, ())}
    volumes = {volume.get("name") for volume in spec.get("volumes", ())}
    for i, container in enumerate(spec.get(FIELD, ())):
        where = f"{PATH}[{i}]"
        yield from check_container(container, where, volumes)
        yield from _check(container, where, spec)
        if container["name"] in taken:
            yield Cause.duplicate(f"{where}.name", container["name"])
        taken.add(container["name"])
    there = {container["name"]: container for container in spec.get(FIELD, ())}
    for before in (old or {}).get("spec", {}).get(FIELD, ()):
        name = before["name"]
        if name not in there:
            yield Cause.forbidden(PATH, f'existing ephemeral containers "{name}" may not be removed')
        elif there[name] != before:
            yield Cause.forbidden(PATH, f'existing ephemeral containers "{name}" may not be changed')


def _check(container: Object, path: str, spec: Object) -> Iterator[Cause]:
    for field in REFUSED:
        if container.get(field):
            yield Cause.forbidden(f"{path}.{field}", "cannot be set for an Ephemeral Container")
    for i, mount in enumerate(container.get("volumeMounts", ())):
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                yield Cause.forbidden(f"{path}.volumeMounts[{i}].{field}", "cannot be set for an Ephemeral Container")
    target = container.get("targetContainerName")
    if target and target not in (main["name"] for main in spec["containers"]):
        yield Cause(f"{path}.targetContainerName", "FieldValueNotFound", f'Not found: "{target}"')
