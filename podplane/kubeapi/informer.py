"""A cache of one resource that is kept current by a list and a watch.

It lists in pages, then watches from the list's version. A watch that ends is opened again at the version of its last event or
bookmark. When the server has forgotten that version (410 Gone), and after every failure that leaves a doubt about what was missed, it
lists again and tells the difference. Each object is decoded once, into a typed model, for all subscribers of the process. Models that
are equal in what their readers read are no change: nobody is told.

    list ──► watch ──► ended ────────────────────► watch (same version)
               │       no answer, connection lost ► back off, watch (same version)
               │       410 Gone ─────────────────► list
               └─────► anything else ────────────► back off, list

A store that was restored from a backup is at an older version than the one that was watched, and what it is asked of later ones it passes
over in silence (kube-apiserver's watch cache). So before a watch is opened again the API says at which version it is, and whoever asks
whether the cache is current finds it, too (`catch_up`): then everything is listed again. A store that has got further meanwhile than it
ever was before can't be told from one that was not restored.

Decoding and telling happen in slices of at most `SLICE_SECONDS`, with a turn of the event loop between them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Generic, Protocol

import msgspec

from podplane.kubeapi.cache import Cache, Index, Keys, M, Subscriber
from podplane.kubeapi.client import Client, close
from podplane.kubeapi.currency import Listed, Progress, Shared, number
from podplane.kubeapi.errors import GONE, UNDECODABLE, ApiError, Gone, NotFound, Status, error_of, not_the_api
from podplane.kubeapi.requests import Selection
from podplane.kubeapi.retry import RESET_SECONDS, Backoff, FailureLog

log = logging.getLogger(__name__)
PAGE_OBJECTS = 500
"""Objects of one page of a list, as client-go has it."""
PAGED_TRIES = 3
"""A list whose continuation expires so often is read in one piece."""
SLICE_SECONDS = 0.005
LINE_BYTES = 32 * 1024 * 1024
"""No event is as long; what is comes from something that is not the API."""
SHORT_SECONDS = 1.0
"""A watch that ends within this time without an event has failed (as in client-go), though nothing says so."""
BY_NAME = "metadata.name="
RESUMABLE = {408, 429, 503}
"""HTTP codes of failures after which the version of the watch is as good as before."""


class WatchError(Exception):
    """What came over a watch is no event of the API."""


class _Version(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct):
    metadata: _Version = msgspec.field(default_factory=_Version)


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continuation: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Name(msgspec.Struct):
    name: str
    namespace: str = ""
    uid: str = ""

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class _Named(msgspec.Struct):
    metadata: _Name


_lists = msgspec.json.Decoder(_List)
_events = msgspec.json.Decoder(_Event)
_versions = msgspec.json.Decoder(_Versioned)
_names = msgspec.json.Decoder(_Named)


class Slices:
    """Cuts a long piece of work on the event loop: call `pause` after each step."""

    def __init__(self, seconds: float = SLICE_SECONDS) -> None:
        self._seconds = seconds
        self._end = time.perf_counter() + seconds

    @property
    def is_over(self) -> bool:
        """Has this slice lasted its time?"""
        return time.perf_counter() >= self._end

    async def pause(self) -> None:
        """Give the loop a turn, and begin the next slice."""
        await asyncio.sleep(0)
        self._end = time.perf_counter() + self._seconds


class Keeper(Protocol):
    """Keeps what caches have for whoever comes after this process. What it is told in one turn of the loop is kept before the next one."""

    def put(self, resource: str, path: str, content: bytes) -> None:
        """An object came or changed: its JSON, as far as it is read."""

    def remove(self, resource: str, path: str) -> None:
        """It went."""

    def listed(self, resource: str) -> None:
        """What was told of this resource is all that there is."""

    def flush(self) -> None:
        """Keep it now."""


class KeepsNothing:
    """Nobody comes after this process."""

    def put(self, resource: str, path: str, content: bytes) -> None:
        """Nothing."""

    def remove(self, resource: str, path: str) -> None:
        """Nothing."""

    def listed(self, resource: str) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


class Informer(Generic[M]):
    """The objects of one resource, or those that a namespace and selectors select, by `namespace/name`.

    `model` is a Struct that JSON is decoded into, or a class with its own `from_json(bytes)`. `failures` counts what went wrong, by
    kind; `lists` and `watches` count requests. Of a kind that `may_be_unknown` to the API there are no objects until it serves it: a
    CustomResourceDefinition may bring it later. `keeper` is told of all that the cache has before anybody else goes on.
    """

    def __init__(
        self,
        client: Client,
        resource: str,
        model: type[M],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        may_be_unknown: bool = False,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        keeper: Keeper | None = None,
    ) -> None:
        self.cache: Cache[M] = Cache(resource)
        self.lists = self.watches = 0
        self.heard = -math.inf
        """When the API said last how things are, by a list, or by an event or a bookmark of the watch: seconds of a monotonic clock."""
        self._client = client
        self._resource = resource
        self._selection = Selection(namespace, labels, fields)
        self._decode: Callable[[bytes | msgspec.Raw], M] = (
            getattr(model, "from_json", None) or msgspec.json.Decoder(model).decode
        )
        self._keeper = keeper or KeepsNothing()
        self._read = _reader(model, self._decode, is_kept=keeper is not None)
        self._version = ""
        self._synced = self._is_in_doubt = False
        self._watching: asyncio.Timeout | None = None
        self._may_be_unknown, self._is_unknown = may_be_unknown, False
        self._expired_at = -math.inf
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._failures = FailureLog(log, f"informer resource={resource}")
        self._progress, self._asked = Progress(), Shared[Selection, Listed]()
        self._by_namespace: Index[M] | None = None

    @property
    def resource(self) -> str:
        """Plural and group of what is watched."""
        return self._resource

    @property
    def is_synced(self) -> bool:
        """Was everything listed, and nothing missed since then?"""
        return self._synced or self._is_unknown

    @property
    def objects(self) -> Mapping[str, M]:
        """All objects by path: a view that follows the cache."""
        return self.cache.objects

    @property
    def failures(self) -> Mapping[str, int]:
        """What went wrong since the start, by kind: failures of lists and watches, exceptions of subscribers."""
        return Counter(self._failures.counts) + Counter(self.cache.failures)

    def subscribe(self, subscriber: Subscriber[M]) -> None:
        """Tell this one of every change from now on."""
        self.cache.subscribe(subscriber)

    def index(self, keys: Keys[M]) -> Index[M]:
        """An index over the objects (see `Cache.index`)."""
        return self.cache.index(keys)

    # List.

    async def sync(self) -> None:
        """List, and tell the difference to what is cached. ApiError when the list can't be had; what came of it is cached."""
        for limit in (*(PAGE_OBJECTS,) * PAGED_TRIES, 0):
            try:
                await self._list(limit)
            except Gone:
                if not limit:
                    raise
            except NotFound:
                if not self._may_be_unknown:
                    raise
                await self._forget_all()
                return
            else:
                return

    async def _forget_all(self) -> None:
        """The API does not serve this kind (any more)."""
        await self._remove_all(tuple(self.objects), Slices())
        self._keeper.listed(self._resource)
        self._is_unknown = True
        self.heard = time.monotonic()
        self._progress.advanced()

    async def _list(self, limit: int) -> None:
        self.lists += 1
        self._synced = False
        present: set[str] = set()
        page, slices = await self._page(limit, ""), Slices()
        while True:
            for raw in page.items or ():
                present.add(self._listed(raw))
                if slices.is_over:
                    await self._pause(slices)
            self._keeper.flush()
            if not page.metadata.continuation:
                break
            page = await self._page(limit, page.metadata.continuation)
        await self._remove_all(self.objects.keys() - present, slices)
        self._keeper.listed(self._resource)
        self._version = page.metadata.resource_version
        self._synced, self._is_unknown, self._is_in_doubt = True, False, False
        self.heard = time.monotonic()
        self._progress.advanced()

    async def _pause(self, slices: Slices) -> None:
        self._keeper.flush()
        await slices.pause()

    async def _remove_all(self, paths: Collection[str], slices: Slices) -> None:
        for path in paths:
            self._remove(path)
            if slices.is_over:
                await self._pause(slices)
        self._keeper.flush()

    def _remove(self, path: str) -> None:
        if path in self.objects:
            self.cache.remove(path)
            self._keeper.remove(self._resource, path)

    async def recall(self, contents: Mapping[str, bytes]) -> None:
        """Have what was kept of this resource, by path, and nothing else, until the API is heard. What can't be read is left out."""
        slices = Slices()
        for path in self.objects.keys() - contents.keys():
            self.cache.remove(path)
        for path, content in contents.items():
            try:
                self.cache.set(self._decode(content))
            except Exception as error:
                self._failures.note(f"recall {type(error).__name__}", f"{path}: {error}", time.monotonic(), error)
            if slices.is_over:
                await slices.pause()
        self._synced = self._is_unknown = False

    async def _page(self, limit: int, continuation: str) -> _List:
        body = await self._client.list(self._resource, self._selection, limit=limit, continuation=continuation)
        try:
            return _lists.decode(body)
        except UNDECODABLE:
            raise not_the_api(body) from None

    def _listed(self, raw: msgspec.Raw) -> str:
        """Cache an object of a list; its path, or "" when it has no name (nothing can be cached of such a one)."""
        try:
            return self._set(raw)
        except (*UNDECODABLE, WatchError) as error:
            self._note("list", error)
            return ""

    async def catch_up(self, selection: Selection, seconds: float) -> bool:
        """Wait until the cache has what the API has of these objects now; False when it has not within so many seconds.

        All objects, those of a namespace, or one by `fields="metadata.name=…"` can be selected. Who asks at the same time shares a list.
        ApiError when the API does not say what it has, or has said nothing at all to anybody here for so long.
        """
        began, version = time.monotonic(), number(self._version)
        try:
            async with asyncio.timeout(seconds):
                listed = await self._asked.ask(selection, lambda: self._what_there_is(selection))
        except TimeoutError:
            contact = self._client.contact
            if contact is not None and contact.is_reached and contact.at >= began:
                return False
            raise ApiError(504, "Timeout", f"the API has not answered within {seconds:g} s") from None
        except NotFound:
            if self._may_be_unknown:
                return True
            raise
        if 0 < listed.version < version:
            self._went_back(listed.version)
        return await self._progress.until(lambda: listed.is_in(number(self._version), self._cached(selection)), seconds)

    async def _what_there_is(self, selection: Selection) -> Listed:
        return Listed(await self._client.list(self._resource, selection))

    def _cached(self, selection: Selection) -> Mapping[str, M]:
        name = selection.fields.removeprefix(BY_NAME)
        if selection.labels or name == selection.fields != "":
            raise ValueError(f"{selection}")
        found = self.in_namespace(selection.namespace) if selection.namespace else self.objects
        if not name:
            return found
        return {path: found[path] for path in (f"{selection.namespace}/{name}".removeprefix("/"),) if path in found}

    def in_namespace(self, namespace: str) -> Mapping[str, M]:
        """The objects of a namespace by path: a view that is right until the next change."""
        if self._by_namespace is None:
            self._by_namespace = self.index(lambda one: (one.metadata.path.rpartition("/")[0],))
        return self._by_namespace.get(namespace)

    # Watch.

    async def run(self) -> None:
        """Stay current until cancelled; `sync` first, or the first thing is a list. Nothing that a server sends ends it."""
        while True:
            phase = "watch" if self._synced else "list"
            try:
                await (self._watch() if self._synced else self.sync())
                if not self._synced:
                    await self._sleep(self._backoff.delay(asyncio.get_running_loop().time()))
            except Gone as error:
                self._synced = False
                now = asyncio.get_running_loop().time()
                if now - self._expired_at < RESET_SECONDS:  # a server that does so again and again is not asked without a pause
                    await self._failed(phase, error)
                self._expired_at = now
            except Exception as error:
                self._synced = self._synced and _is_resumable(error)
                await self._failed(phase, error)

    async def _failed(self, phase: str, error: Exception) -> None:
        self._note(phase, error)
        await self._sleep(self._backoff.delay(asyncio.get_running_loop().time()))

    def _note(self, phase: str, error: Exception) -> None:
        expected = isinstance(error, ApiError | OSError | WatchError | msgspec.MsgspecError)
        kind = f"{phase} {type(error).__name__}"
        self._failures.note(kind, str(error) or repr(error), time.monotonic(), None if expected else error)

    async def _watch(self) -> None:
        """One watch, to its end. Gone when the version is forgotten; any other exception when it failed."""
        if self._is_in_doubt:
            await self._check_history()
        self.watches += 1
        self._is_in_doubt = True
        loop = asyncio.get_running_loop()
        began, version = loop.time(), self._version
        chunks = await self._client.watch(self._resource, version, self._selection)
        self.heard = time.monotonic()  # it goes on from this version: nothing that came since is missed
        try:
            async with asyncio.timeout(None) as self._watching:
                rest = await self._follow(chunks)
        except TimeoutError:
            if self._version:
                raise
            raise _restored() from None
        finally:
            self._watching = None
            await close(chunks)
        if rest.strip():
            raise ConnectionError(f"the watch ended within an event: {rest[:80]!r}")
        if self._version == version and loop.time() - began < SHORT_SECONDS:
            raise WatchError("the watch ended at once, without an event")

    async def _check_history(self) -> None:
        """Gone when the API is at an older version than the watch was."""
        found = number((await self._page(1, "")).metadata.resource_version)
        if 0 < found < number(self._version):
            self._went_back(found)
            raise _restored()

    def _went_back(self, version: int) -> None:
        """What the cache has is of another history than the API's: it is not current until everything was listed again."""
        text = "informer resource=%s the API is at version %d, and was at %s: its store was restored from a backup; all is listed again"
        log.warning(text, self._resource, version, self._version)
        self._synced, self._version = False, ""
        if self._watching is not None:
            self._watching.reschedule(asyncio.get_running_loop().time())

    async def _follow(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Take the events of a watch; what is left at its end."""
        parts: list[bytes] = []
        length = 0
        async for chunk in chunks:
            parts.append(chunk)
            length += len(chunk)
            if b"\n" in chunk:
                *lines, rest = b"".join(parts).split(b"\n")
                parts, length = [rest], len(rest)
                await self._take_in_slices(lines)
                self.heard = time.monotonic()
            elif length > LINE_BYTES:
                raise WatchError(f"an event of more than {LINE_BYTES} bytes")
        return b"".join(parts)

    async def _take_in_slices(self, lines: Sequence[bytes]) -> None:
        slices, last = Slices(), None
        for line in lines:
            last = self._take(line) or last
            if slices.is_over:
                self._advance(last)
                await slices.pause()
        self._advance(last)

    def take(self, lines: Sequence[bytes]) -> None:
        """Events of a watch, a line each, in one turn.

        ApiError for an ERROR event (Gone when the version is too old); WatchError or an exception of msgspec for what is no event.
        """
        last = None
        for line in lines:
            last = self._take(line) or last
        self._advance(last)

    def _take(self, line: bytes) -> msgspec.Raw | None:
        """Take one event; its object."""
        if not line or line.isspace():
            return None
        event = _events.decode(line)
        if event.type in ("ADDED", "MODIFIED"):
            self._set(event.object)
        elif event.type == "DELETED":
            self._remove(_name(event.object).path)
        elif event.type == "ERROR":
            raise error_of(msgspec.json.decode(event.object, type=Status))
        elif event.type != "BOOKMARK":
            raise WatchError(f"an event of the unknown type {event.type[:40]!r}")
        return event.object

    def _advance(self, last: msgspec.Raw | None) -> None:
        """The version of the last event is that of all."""
        self._keeper.flush()
        version = "" if last is None else _versions.decode(last).metadata.resource_version
        if version:
            self._version = version
            self._progress.advanced()

    def _set(self, raw: msgspec.Raw) -> str:
        """Cache an object; its path. An exception when it has no name.

        One that the model can't hold is logged; what was cached of it before stays, so that its readers go on with what was right.
        """
        try:
            model, content = self._read(raw)
        except Exception as error:
            name = _name(raw)
            odd = None if isinstance(error, UNDECODABLE) else error
            self._failures.note(f"object {type(error).__name__}", f"{name.path}: {error}", time.monotonic(), odd)
            former = self.objects.get(name.path)
            if former is not None and former.metadata.uid != name.uid:
                self._remove(name.path)  # that was another object
            return name.path
        path = model.metadata.path
        if not path:
            raise WatchError("an object without a name")
        if self.cache.set(model):
            self._keeper.put(self._resource, path, content)
        return path


def _reader(
    model: type[M], decode: Callable[[bytes | msgspec.Raw], M], *, is_kept: bool
) -> Callable[[bytes | msgspec.Raw], tuple[M, bytes]]:
    """What makes of JSON an object, and JSON of what is read of it, which is decoded to an equal one; the latter only if it `is_kept`."""
    if not is_kept:
        return lambda raw: (decode(raw), b"")
    with_json: Callable[[bytes | msgspec.Raw], tuple[M, bytes]] | None = getattr(model, "with_json", None)
    if with_json is not None:
        return with_json

    def read(raw: bytes | msgspec.Raw) -> tuple[M, bytes]:
        decoded = decode(raw)
        return decoded, msgspec.json.encode(decoded)

    return read


def _name(raw: msgspec.Raw) -> _Name:
    """Name and uid of an object. An exception when it has none."""
    name = _names.decode(raw).metadata
    if not name.name:
        raise WatchError("an object without a name")
    return name


def _restored() -> Gone:
    return Gone(GONE, "Expired", "the API's store was restored from a backup")


def _is_resumable(error: Exception) -> bool:
    """Is nothing lost when the watch goes on at its last version? After a lost connection, or when the server is overloaded."""
    if isinstance(error, ApiError):
        return error.code in RESUMABLE
    return isinstance(error, OSError | TimeoutError)
