"""Warnings about policies and the labels that they read: which flows a dry run would change, and mistakes in policies.

The cluster is read when the first write asks for it, after that only what was written since; until then no write costs anything more.
All of it happens in a thread, for as long as an answer may wait. What is not read by then is read for the next write that asks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.ordered import Key
from podplane.apiserver.seen_flows import Asked, silent_text
from podplane.apiserver.store import Store
from podplane.model.cluster_policy import ClusterNetworkPolicy, Policy
from podplane.model.objects import Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.model.words import CommandLine, command_line
from podplane.policy.cut_off import told
from podplane.policy.difference import differences
from podplane.policy.edits import Edit, tried
from podplane.policy.lint import Linter
from podplane.policy.told import Told
from podplane.policy.told import told as told_flows
from podplane.policy.world import CLUSTER_POLICIES, NAMESPACES, NODES, PODS, POLICIES, RESOURCES, SERVICES, World

log = logging.getLogger(__name__)
Object = dict[str, Any]
ADVISED = (POLICIES, CLUSTER_POLICIES, NAMESPACES, PODS)
"""Kinds whose writes may change verdicts."""
KINDS: Mapping[str, type[Policy]] = {POLICIES: NetworkPolicy, CLUSTER_POLICIES: ClusterNetworkPolicy}
DRY_RUN_SECONDS, APPLY_SECONDS, ASK_SECONDS = 2.0, 0.5, 0.5
"""So long a dry run's answer may wait, or another one's; nodes are asked for what is left of that, and so long at least."""
SHOWN = 5
"""Mistakes of one policy that an answer names."""
TICKS = 32
"""The clock is read once in so many steps."""
TOO_LARGE = (
    f"the cluster is too large to find out within {DRY_RUN_SECONDS:.0f} s which flows this would change; "
    "`{command}` shows all of them"
)
NOT_CHECKED = f"not checked for mistakes, as the cluster is not read within {APPLY_SECONDS:.1f} s; `{{command}}` does it"
Tick = Callable[[], None]
Ask = Callable[[Sequence[Node], float], Awaitable[Asked]]


class Change(NamedTuple):
    """A write that is tried: the object before and after it; None of one that is not there."""

    resource: str
    old: Object | None
    new: Object | None


class TooLongError(Exception):
    """An answer can't wait any longer."""


class PolicyAdvice:
    """What there is to say about writes; see the head of the module."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.monotonic,
        ask: Ask | None = None,
        command: CommandLine = command_line,
    ) -> None:
        """`ask` asks nodes which flows they saw lately; None: they are not asked. `command` is how users are told to call podplane."""
        self._store = store
        self._command = command
        self._ask = ask
        self._clock = clock
        self._world: World | None = None
        self._written: dict[tuple[str, Key], Object | None] = {}
        self._unread: deque[Iterator[tuple[str, Key, Object | None]]] = deque()
        self._lock = threading.Lock()
        self._linter: Linter | None = None

    def observe(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """A write."""
        if self._world is not None and resource.id in RESOURCES:
            known = new if new is not None else old
            assert known is not None
            self._written[resource.id, _key(known)] = new

    async def of(self, change: Change, *, dry_run: bool) -> list[str]:
        """Sentences about the flows that a dry run would change, and about mistakes in a policy that is new or another one."""
        asks = dry_run or change.resource in KINDS
        if change.resource not in ADVISED or not asks or not (_is_policy(change) or (dry_run and _is_relabelled(change))):
            return []
        end = self._clock() + (DRY_RUN_SECONDS if dry_run else APPLY_SECONDS)
        world = self._begin()
        command = self._command(
            "policy diff", "--delete -f FILE" if change.resource in KINDS and change.new is None else "-f FILE"
        )
        try:
            flows, mistakes = await asyncio.to_thread(self._answer, world, change, end, dry_run)
            return [*await self._sentences(world, flows, command, end), *mistakes]
        except TooLongError:
            if dry_run:
                return [TOO_LARGE.format(command=command)]
            not_checked = NOT_CHECKED.format(command=self._command("policy lint"))
            return [f"{change.resource.partition('.')[0]} {_path(change)} is {not_checked}"]
        except Exception:
            log.exception("warnings about policies failed")
            return []

    async def _sentences(self, world: World, flows: list[Told], command: str, end: float) -> list[str]:
        """Flows in words, those first that nodes saw, or denied, lately."""
        if self._ask is None or not flows:
            return [one.sentence(command) for one in flows]
        asked = await self._ask(list(world.nodes.values()), max(ASK_SECONDS, end - self._clock()))
        found = await asyncio.to_thread(lambda: [one.with_seen(asked.flows, asked.denied).sentence(command) for one in flows])
        return [*found, silent_text(asked.silent)] if asked.silent else found

    def _begin(self) -> World:
        """Leave what was written to whoever reads it next."""
        if self._world is None:
            self._world = World()
            self._unread.extend(map(self._all, RESOURCES))
        elif self._written:
            self._unread.append(((resource, key, new) for (resource, key), new in self._written.items()))
            self._written = {}
        return self._world

    def _all(self, resource: str) -> Iterator[tuple[str, Key, Object | None]]:
        snapshot = self._store.snapshot(resource)
        return ((resource, key, stored.object) for key, stored in snapshot)

    def _answer(self, world: World, change: Change, end: float, dry_run: bool) -> tuple[list[Told], list[str]]:
        """The flows that change, and mistakes."""
        steps = itertools.count(1)

        def tick() -> None:
            if next(steps) % TICKS == 0 and self._clock() > end:
                raise TooLongError

        if not self._lock.acquire(timeout=max(0.0, end - self._clock())):
            raise TooLongError
        try:
            self._read(world, tick)
            edit = _edit(change)
            found = _flows(world, edit, tick) if dry_run else []
            if not isinstance(edit.new, Policy):
                return found, []
            return found, self._mistakes(world, edit, edit.new, _former(change), tick)
        finally:
            self._lock.release()

    def _mistakes(self, world: World, edit: Edit, policy: Policy, former: Policy | None, tick: Tick) -> list[str]:
        """Those of a policy, and pods that can't ask for names by it that could by the former one."""
        if self._linter is None:
            self._linter = Linter(world)
        self._linter.tick = tick
        with tried(world.index, [Edit(type(policy), edit.path, former)]):
            before = self._linter.no_dns(policy, first=False)
        with tried(world.index, [edit]):
            texts = [f"{one.where}: {one.text}".removeprefix(": ") for one in self._linter.of(policy, beside=False)]
            after = self._linter.no_dns(policy, first=False)
        if text := told({pod: why for pod, why in after.items() if pod not in before}):
            texts.append(text)
        more = [f"{len(texts) - SHOWN} more; `{self._command('policy lint')}` shows them"] if len(texts) > SHOWN else []
        return [f"{policy.full_text}: {text}" for text in (*texts[:SHOWN], *more)]

    def _read(self, world: World, tick: Callable[[], None]) -> None:
        while self._unread:
            for resource, key, object_ in self._unread[0]:
                try:
                    world.set(resource, "/".join(filter(None, key)), object_)
                    if resource in (NODES, SERVICES):
                        self._linter = None
                except msgspec.MsgspecError as error:
                    log.warning("warnings about policies leave out %s %s why=%s", resource, "/".join(key), error)
                tick()
            self._unread.popleft()


def _flows(world: World, edit: Edit, tick: Tick) -> list[Told]:
    return told_flows(differences(world.index, world.pods(), list(world.nodes.values()), [edit], tick))


def _is_policy(change: Change) -> bool:
    """Is it about a policy that says something else afterwards?"""
    return change.resource in KINDS and (change.old or {}).get("spec") != (change.new or {}).get("spec")


def _is_relabelled(change: Change) -> bool:
    """Is it about labels of pods that are there? A new pod, or one of a new namespace, has no address; one that goes has no flows."""
    if change.resource in KINDS or change.old is None or change.new is None:
        return False
    return bool(change.old["metadata"].get("labels") != change.new["metadata"].get("labels"))


def _edit(change: Change) -> Edit:
    raw = b"" if change.new is None else msgspec.json.encode(change.new)
    if (kind := KINDS.get(change.resource)) is not None:
        return Edit(kind, _path(change), kind.from_json(raw) if raw else None)
    if change.resource == NAMESPACES:
        return Edit(NamespaceInfo, _path(change), NamespaceInfo.from_json(raw))
    return Edit(PodInfo, _path(change), PodInfo.from_json(raw))


def _former(change: Change) -> Policy | None:
    return None if change.old is None else KINDS[change.resource].from_json(msgspec.json.encode(change.old))


def _path(change: Change) -> str:
    known = change.new if change.new is not None else change.old
    assert known is not None
    return "/".join(filter(None, _key(known)))


def _key(object_: Object) -> Key:
    metadata = object_["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
