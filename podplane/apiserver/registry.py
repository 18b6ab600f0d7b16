"""The resources that are served now: the built-in rows, and those of the CustomResourceDefinitions that are stored."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from podplane.apiserver.kinds import custom
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.table import DEFINED, RESOURCES
from podplane.apiserver.store import Store

Object = dict[str, Any]
VERSION = re.compile("v([0-9]{1,18})(?:(alpha|beta)([0-9]{1,18}))?")
STAGES = {None: 2, "beta": 1, "alpha": 0}


def priority(version: str) -> tuple[int, int, int, str]:
    """A sort key that puts the version first that clients should use: stable ones, then the higher number (version/helpers.go)."""
    found = VERSION.fullmatch(version)
    if found is None:
        return (1, 0, 0, version)
    return (0, -STAGES[found[2]], -int(found[1]) * 1000 - int(found[3] or 0), "")


class Registry:
    """Rows by group, version and plural."""

    def __init__(self, store: Store) -> None:
        self._builtin = {(row.group, row.version, row.plural): row for row in (*RESOURCES, *DEFINED)}
        self._custom: dict[str, list[Resource]] = {}
        self._specs: dict[str, Object] = {}
        """Of the definitions, by name."""
        self._rows = dict(self._builtin)
        self._kinds = {(row.group_version, row.kind): row for row in self._rows.values()}
        for stored in store.all(CRDS):
            self.define(stored.object)

    def observe(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """A write: of a definition, it changes what is served."""
        if resource.id != CRDS:
            return
        if new is not None:
            self.define(new)
        elif old is not None:
            self.remove(old["metadata"]["name"])

    def define(self, definition: Object) -> None:
        """Serve what this definition says, instead of what its former version said. Rows of which only the metadata or the status
        is written stay as they are: what was stored since the spec was written fits it."""
        name = definition["metadata"]["name"]
        if self._specs.get(name) == definition["spec"]:
            is_terminating = "deletionTimestamp" in definition["metadata"]
            self._custom[name] = [dataclasses.replace(row, is_terminating=is_terminating) for row in self._custom[name]]
        else:
            self._custom[name], self._specs[name] = custom.rows(definition), definition["spec"]
        self._index()

    def remove(self, name: str) -> None:
        """Serve this definition's resources no longer."""
        self._custom.pop(name, None)
        self._specs.pop(name, None)
        self._index()

    def _index(self) -> None:
        rows = [row for rows in self._custom.values() for row in rows]
        self._rows = {(row.group, row.version, row.plural): row for row in rows} | self._builtin
        self._kinds = {(row.group_version, row.kind): row for row in self._rows.values()}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """One row."""
        return self._rows.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The row of the objects that say this of themselves."""
        found = self._kinds.get((api_version, kind))
        return None if found is None or found.is_review else found

    def of_definition(self, name: str) -> list[Resource]:
        """The rows that a definition made."""
        return self._custom.get(name, [])

    def by_id(self, identity: str) -> Resource | None:
        """The row of a resource, in any version of it."""
        return next((row for row in self._rows.values() if row.id == identity), None)

    def stored(self) -> Iterator[Resource]:
        """One row for each resource that is stored."""
        seen: set[str] = set()
        for row in self._rows.values():
            if not row.is_review and row.id not in seen:
                seen.add(row.id)
                yield row

    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """Group → version → rows; core first, then by name; versions with the preferred one first."""
        found: dict[str, dict[str, list[Resource]]] = {}
        for row in self._rows.values():
            found.setdefault(row.group, {}).setdefault(row.version, []).append(row)
        return {
            group: {v: sorted(found[group][v], key=lambda row: row.plural) for v in sorted(found[group], key=priority)}
            for group in sorted(found)
        }


CRDS = f"{custom.PLURAL}.apiextensions.k8s.io"
"""The id under which definitions are stored."""
