"""The loop that all controllers share: what changed is decided about anew, and what was decided is carried out at once.

    write → whom does it concern → queue → decide → actions → (writes → …)

A turn takes some keys, in one transaction, and lets others run before the next. Since a decision's actions are carried out before
anything else is decided, no cache can be behind: who keeps one is told what was written (`written`). What fails is tried again, later each
time. All that a controller knows stands in the API: one that was killed in the middle goes on when the next one starts, by deciding about
everything once. A turn of which nothing could be written is done again.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Protocol, TypeVar

from podplane.controllers.decision import Action, Again, Bind, ControllerOf, Create, Delete, Note, Objects, Patch, Wording
from podplane.controllers.objects import Key, Object, controller_of, is_related_alike, key_of
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import UNWRITABLE, AlreadyExists, ApiError, Conflict, NotFound, Terminating, Unwritable
from podplane.kubeapi.events import WARNING, Events

log = logging.getLogger(__name__)
TURN_SECONDS = 0.005
"""How long others wait at most, unless a single decision takes longer."""
UNWRITABLE_SECONDS = 0.5
"""When nothing can be written it is tried again after that."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, DOUBLINGS = 0.01, 60.0, 20
PODS = "pods"
Task = tuple[str, Key]
"""(a controller's name, what it is to decide about)."""
V = TypeVar("V", bound=Objects)


class Kind(Protocol):
    """What objects are of."""

    @property
    def id(self) -> str:
        """The plural with the group, as in `replicasets.apps`."""


def _told_nobody(resource: str, object_: Mapping[str, Any]) -> None:
    """Who has no cache needs not be told."""


class Manager(Generic[V]):
    """All controllers, each with a client of its own. `written` is told each object that they wrote, as the API answers it."""

    def __init__(
        self,
        controllers: Sequence[ControllerOf[V]],
        view: V,
        clients: Mapping[str, tuple[Client, Events]],
        transaction: Callable[[], AbstractContextManager[None]] = nullcontext,
        written: Callable[[str, Mapping[str, Any]], None] = _told_nobody,
    ) -> None:
        self._controllers = {controller.name: controller for controller in controllers}
        self._watching: dict[str, list[ControllerOf[V]]] = {}
        for controller in controllers:
            for resource in controller.watches:
                self._watching.setdefault(resource, []).append(controller)
        self._view = view
        self._clients = clients
        self._transaction, self._written = transaction, written
        self._queue: dict[Task, None] = {}
        self._later: list[tuple[float, Task]] = []
        self._due: dict[Task, float] = {}
        self._failures: dict[Task, int] = {}
        self._resting: dict[Task, float] = {}
        """What was decided about lately, and until when changes wait (`ControllerOf.rest`)."""
        self._wake = asyncio.Event()

    def observe(self, resource: Kind, old: Object | None, new: Object | None) -> None:
        """A write: queue whom it concerns."""
        is_same = resource.id == PODS and old is not None and new is not None and is_related_alike(old, new)
        versions = (new,) if is_same else (old, new)
        for controller in self._watching.get(resource.id, ()):
            matters, concerns = controller.matters.get(resource.id), controller.watches[resource.id]
            if matters is not None and old is not None and new is not None and matters(old) == matters(new):
                continue
            for object_ in versions:
                if object_ is not None:
                    self._enqueue(controller.name, concerns, object_)

    def begin(self) -> None:
        """Queue everything that there is."""
        for controller in self._controllers.values():
            for resource, concerns in controller.watches.items():
                for object_ in self._view.all(resource):
                    self._enqueue(controller.name, concerns, object_)

    def _enqueue(self, name: str, concerns: Callable[[V, Object], Iterable[Key]], object_: Object) -> None:
        """A controller that can't say whom an object concerns keeps nobody from writing it."""
        try:
            for key in concerns(self._view, object_):
                self._put((name, key))
        except Exception:
            log.exception("controller=%s concerned by %s", name, "/".join(key_of(object_)))

    def _put(self, task: Task) -> None:
        """Decide about it next, or once its rest is over."""
        if (until := self._resting.get(task)) is not None:
            self._at(task, until - _clock())
        else:
            self._queue[task] = None
        self._wake.set()

    def _begin_rest(self, task: Task, seconds: float) -> None:
        self._resting[task] = until = _clock() + seconds
        asyncio.get_running_loop().call_later(seconds, self._end_rest, task, until)

    def _end_rest(self, task: Task, until: float) -> None:
        if self._resting.get(task) == until:  # else another rest has begun
            del self._resting[task]

    async def run(self) -> None:
        """Decide for ever, or until cancelled."""
        while True:
            await self.drain()
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), self._patience())
            except TimeoutError:
                pass

    async def drain(self) -> None:
        """Decide until there is nothing to decide about now."""
        self._take_due()
        while self._queue:
            await self._turn()
            await asyncio.sleep(0)
            self._take_due()

    def _patience(self) -> float | None:
        return max(0.0, self._later[0][0] - _clock()) if self._later else None

    def _take_due(self) -> None:
        while self._later and self._later[0][0] <= _clock():
            due, task = heapq.heappop(self._later)
            if self._due.get(task) == due:  # else it was decided about that something earlier is due
                del self._due[task]
                self._queue[task] = None

    async def _turn(self) -> None:
        end, begun = _clock() + TURN_SECONDS, dict[Task, None]()
        try:
            with self._transaction():
                while self._queue and _clock() < end:
                    task = next(iter(self._queue))
                    del self._queue[task]
                    begun[task] = None
                    await self._decide(task)
        except (Unwritable, ApiError):  # nothing of this turn was stored, and nothing of another one would be now
            self._queue = begun | self._queue
            await asyncio.sleep(UNWRITABLE_SECONDS)

    async def _decide(self, task: Task) -> None:
        name, key = task
        controller = self._controllers[name]
        if controller.rest:
            self._begin_rest(task, controller.rest)
        try:
            await self._perform(task, _actions(controller.decide(self._view, key)))
            self._failures.pop(task, None)
        except Exception as error:
            if isinstance(error, ApiError) and error.code in UNWRITABLE:
                raise
            failures = self._failures[task] = self._failures.get(task, 0) + 1
            self._at(task, min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures, DOUBLINGS)))
            known = isinstance(error, ApiError)
            log.warning("controller=%s key=%s error=%s", name, "/".join(key), error, exc_info=None if known else error)

    async def _perform(self, task: Task, decision: Generator[Action, None, None]) -> None:
        """Carry out one action after the other; a decision is told which one fails, so that it can say so before it gives up."""
        failure: ApiError | None = None
        while True:
            try:
                action = decision.throw(failure) if failure is not None else next(decision)
            except StopIteration:
                return
            failure = None
            try:
                await self._carry_out(task, action)
            except ApiError as error:
                failure = error

    def _at(self, task: Task, seconds: float) -> None:
        """Decide again then, unless that is going to happen before."""
        due = _clock() + max(0.0, seconds)
        if due < self._due.get(task, math.inf):
            self._due[task] = due
            heapq.heappush(self._later, (due, task))

    async def _carry_out(self, task: Task, action: Action) -> None:
        """Do it. What isn't there any more, or is another one now, will be told by a write that is on its way."""
        client, recorder = self._clients[task[0]]
        try:
            match action:
                case Again(seconds):
                    self._at(task, seconds)
                case Note(target, reason, message, type_):
                    await recorder.record(_kind(target), target["metadata"], reason, message, type_)
                case Create(resource, namespace, object_, wording):
                    await self._create(client, recorder, resource, namespace, object_, wording)
                case Patch(resource, target, body, subresource, form):
                    uid, key = target["metadata"]["uid"], key_of(target)
                    made = await client.patch(resource, *key, body, uid=uid, subresource=subresource, form=form)
                    self._written(resource, made)
                case Delete(resource, target, grace, policy):
                    uid = target["metadata"]["uid"]
                    await client.delete(resource, *key_of(target), grace=grace, uid=uid, policy=policy)
                case Bind(pod, node):
                    await client.bind(*key_of(pod), pod["metadata"]["uid"], node)
        except (NotFound, Conflict, AlreadyExists, Terminating):
            pass

    async def _create(
        self, client: Client, recorder: Events, resource: str, namespace: str, object_: Object, wording: Wording
    ) -> None:
        """Create it; of pods, their owner tells."""
        owner = controller_of(object_) if resource == "pods" else None
        about = {"name": owner["name"], "namespace": namespace, "uid": owner["uid"]} if owner is not None else {}
        kind = f"{owner['apiVersion']}/{owner['kind']}" if owner is not None else ""
        try:
            made = await client.create(resource, namespace, object_)
            self._written(resource, made)
        except (AlreadyExists, Terminating):  # the owner outlives its pods, when their namespace goes
            return
        except ApiError as error:
            if owner is not None:
                await recorder.record(kind, about, "FailedCreate", _failed(wording, object_, error), WARNING)
            raise
        if owner is not None:
            await recorder.record(kind, about, "SuccessfulCreate", wording.created.format(pod=made["metadata"]["name"]))


def _failed(wording: Wording, pod: Object, error: ApiError) -> str:
    return wording.failed.format(pod=pod["metadata"].get("name", ""), error=error)


def _actions(decision: Iterable[Action]) -> Generator[Action, None, None]:
    yield from decision


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _kind(object_: Object) -> str:
    return f"{object_['apiVersion']}/{object_['kind']}"
