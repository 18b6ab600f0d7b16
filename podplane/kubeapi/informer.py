"""A cache of one resource, kept current by a watch, that tells its subscribers what changed.

It lists once, then watches from the list's version. When the watch ends it begins again where it stopped; when the server has
forgotten that version (410 Gone), it lists again and tells the difference. Each object is decoded once into a typed
model, for all subscribers of the process. Models that are equal in what planners read are no change: nobody is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError, Gone, Status, error_of
from podplane.model.objects import Metadata

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0


class HasMetadata(Protocol):
    """Every model."""

    @property
    def metadata(self) -> Metadata:
        """Its ObjectMeta."""


M = TypeVar("M", bound=HasMetadata)
Subscriber = Callable[[M | None, M | None], None]
"""(old, new): None as old for an object that came, None as new for one that went."""


class _Version(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct):
    metadata: _Version = msgspec.field(default_factory=_Version)


class _List(msgspec.Struct):
    items: list[msgspec.Raw]
    metadata: _Version = msgspec.field(default_factory=_Version)


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_events = msgspec.json.Decoder(_Event)
_versions = msgspec.json.Decoder(_Versioned)


class Informer(Generic[M]):
    """All objects of one resource, by `namespace/name`."""

    def __init__(self, client: Client, resource: str, model: type[M]) -> None:
        self.objects: dict[str, M] = {}
        self._client = client
        self._resource = resource
        self._decode = msgspec.json.Decoder(model).decode
        self._subscribers: list[Subscriber[M]] = []
        self._version = ""

    def subscribe(self, subscriber: Subscriber[M]) -> None:
        """Tell this one of every change from now on."""
        self._subscribers.append(subscriber)

    async def sync(self) -> None:
        """List, and tell the difference to what is cached."""
        found = msgspec.json.decode(await self._client.list(self._resource), type=_List)
        present: set[str] = set()
        for model in filter(None, map(self._model, found.items)):
            present.add(model.metadata.path)
            self._set(model)
        for path in self.objects.keys() - present:
            self._remove(path)
        self._version = found.metadata.resource_version

    async def run(self) -> None:
        """Stay current until cancelled; `sync` first."""
        while True:
            try:
                chunks = await self._client.watch(self._resource, self._version)
                await self._follow(chunks)
            except Gone:
                await self._sync_again()
            except (ApiError, OSError) as error:
                log.warning("watch resource=%s error=%s", self._resource, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _sync_again(self) -> None:
        try:
            await self.sync()
        except (ApiError, OSError) as error:
            log.warning("list resource=%s error=%s", self._resource, error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, chunks: AsyncIterator[bytes]) -> None:
        rest = b""
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            self.take(lines)

    def take(self, lines: list[bytes]) -> None:
        """Events of a watch, a line each. ApiError when the server says that it went wrong."""
        event: _Event | None = None
        for line in lines:
            event = _events.decode(line)
            self._take(event)
        if event is not None:  # the version of the last one is that of all
            self._version = _versions.decode(event.object).metadata.resource_version or self._version

    def _take(self, event: _Event) -> None:
        if event.type == "ERROR":
            raise error_of(msgspec.json.decode(event.object, type=Status))
        if event.type == "BOOKMARK":
            return
        model = self._model(event.object)
        if model is None:
            return
        if event.type == "DELETED":
            self._remove(model.metadata.path)
        else:
            self._set(model)

    def _model(self, raw: msgspec.Raw) -> M | None:
        """The object as a model; one that is none of this kind is left out, so that it stops nothing else."""
        try:
            return self._decode(raw)
        except msgspec.MsgspecError as error:
            log.warning("object resource=%s error=%s: %.200s", self._resource, error, bytes(raw))
            return None

    def _set(self, model: M) -> None:
        old = self.objects.get(model.metadata.path)
        if old is not None and old.metadata.uid != model.metadata.uid:
            self._remove(model.metadata.path)  # another object of this name: the old one went unseen
            old = None
        if old != model:
            self.objects[model.metadata.path] = model
            self._tell(old, model)

    def _remove(self, path: str) -> None:
        old = self.objects.pop(path, None)
        if old is not None:
            self._tell(old, None)

    def _tell(self, old: M | None, new: M | None) -> None:
        for subscriber in self._subscribers:
            subscriber(old, new)
