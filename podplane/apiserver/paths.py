"""What a path of the API means: a resource, a collection or an object of it, a subresource."""

from __future__ import annotations

import msgspec

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.ordered import Key
from podplane.apiserver.problems import Problem
from podplane.apiserver.registry import Registry

OF_NAMESPACES = ("status", "finalize")
"""Subresources of a namespace; anything else below one is a resource in it."""


class Target(msgspec.Struct, frozen=True):
    """A collection when there is no name."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        """Where the store has the object."""
        return self.namespace, self.name


def parse(path: str, registry: Registry) -> Target:
    """The target of a path. Problem when nothing is served there."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        rest = []
    if not rest or "" in rest:
        raise unknown(path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and (found := registry.find(group, version, rest[2])) and found.namespaced:
        namespace, rest = rest[1], rest[2:]
    resource = registry.find(group, version, rest[0])
    if resource is None or len(rest) > 3 or (len(rest) > 1 and resource.namespaced and not namespace):
        raise unknown(path)
    name, subresource = (*rest[1:], "", "")[:2]
    if resource.id == "namespaces" and subresource not in ("", *OF_NAMESPACES):
        raise unknown(path)  # a resource in a namespace that is none here
    return Target(resource, namespace, name, subresource)


def unknown(path: str) -> Problem:
    """Nothing is served there."""
    return Problem("NotFound", f"the server could not find the requested resource: {path}")
