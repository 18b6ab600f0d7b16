"""An API that keeps objects, for commands that make some: as strict as the real one about names, uids and namespaces."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from podplane.kubeapi.errors import AlreadyExists, ApiError, Conflict, NotFound

Object = dict[str, Any]


class Stored:
    """What `kubeapi.http.HttpClient` is to commands. A namespace that is deleted is looked at so many times (`slow`) until it is gone."""

    def __init__(self, *namespaces: str, slow: int = 2) -> None:
        self.found: dict[tuple[str, str, str], Object] = {}
        self.denied: set[tuple[str, str]] = set()
        """Resource and verb that this user has no right to."""
        self.log: list[tuple[str, str, str]] = []
        self._uids, self._slow = itertools.count(1), slow
        self._ending: dict[str, int] = {}
        for name in namespaces:
            self.create("namespaces", "", {"metadata": {"name": name}})

    @contextlib.contextmanager
    def another(self, seconds: float) -> Iterator[Stored]:
        yield self

    def create(self, resource: str, namespace: str, body: Mapping[str, Any]) -> Object:
        if resource == "selfsubjectaccessreviews.authorization.k8s.io":
            return {"status": {"allowed": self._may(body["spec"]["resourceAttributes"])}}
        name = body["metadata"]["name"]
        self.log.append(("create", resource, name))
        if namespace and ("namespaces", "", namespace) not in self.found:
            raise NotFound(404, "NotFound", f'namespaces "{namespace}" not found')
        if (resource, namespace, name) in self.found:
            raise AlreadyExists(409, "AlreadyExists", f'{resource} "{name}" already exists')
        made = {**body, "metadata": {**body["metadata"], "uid": f"uid-{next(self._uids)}"}}
        self.found[resource, namespace, name] = made
        return made

    def _may(self, asked: Mapping[str, str]) -> bool:
        resource = f"{asked['resource']}/{asked['subresource']}" if asked["subresource"] else asked["resource"]
        return (resource, asked["verb"]) not in self.denied

    def get(self, resource: str, namespace: str, name: str) -> Object:
        self._look(name if resource == "namespaces" else namespace)
        if (resource, namespace, name) not in self.found:
            raise NotFound(404, "NotFound", f'{resource} "{name}" not found')
        return self.found[resource, namespace, name]

    def objects(self, resource: str, namespace: str = "", labelSelector: str = "", **query: str) -> list[Object]:
        self._look(namespace)
        key, _, value = labelSelector.partition("=")
        return [
            one
            for (kind, space, _), one in self.found.items()
            if kind == resource
            and namespace in ("", space)
            and (not key or (one["metadata"].get("labels") or {}).get(key) == value)
        ]

    def delete(self, resource: str, namespace: str, name: str, *, grace: int | None = None, uid: str = "") -> None:
        found = self.get(resource, namespace, name)
        if uid not in ("", found["metadata"]["uid"]):
            raise Conflict(409, "Conflict", "the UID in the precondition does not match")
        self.log.append(("delete", resource, name))
        if resource == "namespaces":
            self._ending[name] = self._slow
        else:
            del self.found[resource, namespace, name]

    def _look(self, namespace: str) -> None:
        if namespace in self._ending:
            self._ending[namespace] -= 1
            if self._ending[namespace] < 0:
                del self._ending[namespace]
                self.found = {key: one for key, one in self.found.items() if namespace not in (key[1], key[2])}

    def refuse(self, *words: str) -> ApiError:
        return ApiError(403, "Forbidden", " ".join(words))
