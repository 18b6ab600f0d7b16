"""From changes to desired state: which keys are dirty, and what of them can be had.

A key that can't be planned is *blocked*: its last fragment stays, an event says why, and it is planned again when another key
releases something. Of two keys that claim the same the one with precedence has it, and the other one is blocked, too: it is planned
without the claim, and again when the first one has it no more.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from podplane.agent.feature import Changed, Feature, Kind, Taken
from podplane.agent.features import FEATURES
from podplane.agent.fills import Fill, Fills
from podplane.agent.keys import Key, of_policy
from podplane.agent.pause import Pause
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.settings import Settings
from podplane.model.view import View
from podplane.state.conntrack import Frontend
from podplane.state.desired import Conflict
from podplane.state.effects import Effect, Plan, Warn
from podplane.state.ledger import Ledger
from podplane.state.value import Identity, Value
from podplane.state.words import in_words

log = logging.getLogger(__name__)

ROUNDS = 30
"""So often what changed while changes were planned is planned too, before anything is sent."""
NOTHING_TAKEN: Taken = frozenset()
NOT_APPLIED, REPAIRED = "NotApplied", "Repaired"
"""Reasons of events."""


class RecordEvent(Protocol):
    """Writes an event about the object of a key; `reason` is one word in CamelCase."""

    def __call__(self, key: Key, message: str, reason: str = NOT_APPLIED) -> None:
        """Write it, soon."""


class Planner:
    """Keeps the desired state of one node as its view says; `effects` is given the effects of each plan."""

    def __init__(
        self,
        view: View,
        settings: Settings,
        ledger: Ledger,
        peers: PeerPlans,
        record_event: RecordEvent,
        effects: Callable[[Iterable[Effect]], None],
        in_kernel: Callable[[Collection[Identity]], Awaitable[object]],
    ) -> None:
        """`in_kernel` waits until nothing of these is pending."""
        self._view = view
        self.configure(settings)
        self._ledger = ledger
        self._record_event = record_event
        self._effects = effects
        self._in_kernel = in_kernel
        self._rows: dict[type[Key], tuple[int, Feature[Any, Any], Any]] = {}
        for rank, feature in enumerate(FEATURES):
            memory = self.memory(feature.memory_of) if feature.memory_of else feature.memory(peers)
            self._rows[feature.key] = (rank, feature, memory)
        self._watches: dict[Kind, list[Changed]] = {}
        for watch in itertools.chain.from_iterable(feature.watches for feature in FEATURES):
            self._watches.setdefault(watch.kind, []).append(watch.keys)
        self._dirty: dict[type[Key], dict[Key, None]] = {feature.key: {} for feature in FEATURES}
        self._unmarked: deque[Iterator[Key]] = deque()
        self._followers: deque[Iterator[Key]] = deque()
        """Keys whose plans differ because of what was planned last."""
        self._fills = Fills()
        self._planned: dict[Key, Plan] = {}
        """Of keys that wait for fills, the plans that wait."""
        self._overtaken: dict[Key, None] = {}
        """Keys that have the fragment of a plan that waited, and wait with a later one."""
        self._blocked: dict[Key, str] = {}
        self._unmet: dict[Key, str] = {}
        """Of keys whose last plan does not do all that is wanted, the first thing."""
        self._failed: dict[Key, None] = {}
        """Those of the blocked keys that could not be planned at all."""
        self._has_released_some = False
        """Did keys release something that failed keys may want, since `replan` had these planned again?"""
        self._taken: dict[Key, dict[Hashable, Key]] = {}
        """Key → the claims that it does without, and the keys that had them when that was decided."""
        self._waiting: dict[Key, dict[Key, None]] = {}
        """The same by the key that has a claim: the keys that do without it."""
        self._freed: dict[Key, None] = {}
        """Keys that do without a claim that another key has given up since."""

    # What changed.

    def configure(self, settings: Settings) -> None:
        """Plan by these settings from now on; whoever calls this marks the keys that they concern."""
        self._settings = {feature.key: feature.settings(settings) for feature in FEATURES}

    def recover(self, found: Collection[Value]) -> None:
        """An agent before this one planned, and this is what the kernel holds of it."""
        for _, feature, memory in self._rows.values():
            feature.recover(memory, found)

    def changed(self, kind: Kind, old: Any, new: Any) -> bool:
        """An object of this kind came (no old), changed or went (no new); does that concern any key?

        A change may concern thousands of keys (a label of the own node): all but the first one are marked when it is planned.
        """
        keys = self.keys_of(kind, old, new)
        first = next(keys, None)
        if first is None:
            return False
        self.mark(first)
        self._unmarked.append(keys)
        return True

    def keys_of(self, kind: Kind, old: Any, new: Any) -> Iterator[Key]:
        """The keys that this change concerns, in the order of features. The view is read now; the keys may be iterated later."""
        return itertools.chain.from_iterable([keys(old, new, self._view) for keys in self._watches.get(kind, ())])

    def mark(self, key: Key) -> None:
        """Plan this key anew."""
        self._dirty[type(key)][key] = None

    def mark_all(self, kinds: Collection[type[Key]]) -> None:
        """Plan all keys of these types anew that have a fragment."""
        self._unmarked.append(key for key in self._ledger.desired.keys_planned if isinstance(key, tuple(kinds)))  # type: ignore[misc]  # hashable

    @property
    def is_behind(self) -> bool:
        """Does a change wait to be planned?"""
        return bool(self._unmarked or self._followers or self._fills) or any(self._dirty.values())

    def memory(self, key: type[Key]) -> Any:
        """What the feature with this type of key remembers."""
        return self._rows[key][2]

    @property
    def blocked(self) -> Mapping[Key, str]:
        """The keys that can't be planned, or not as they are wanted, and why."""
        return self._blocked

    @property
    def failed(self) -> Collection[Key]:
        """Those of them that could not be planned at all."""
        return self._failed.keys()

    def unmet_of(self, kinds: tuple[type[Key], ...]) -> list[str]:
        """What plans of keys of these types do not do of what is wanted, each once."""
        return list(dict.fromkeys(why for key, why in self._unmet.items() if isinstance(key, kinds)))

    def unmet(self, key: Key) -> str:
        """Why not all is done that is wanted by this key; "" when it is, or that is not known."""
        return self._blocked.get(key) or self._unmet.get(key, "")

    def feature_of(self, key: type[Key]) -> str:
        """The name of the feature that plans keys of this type."""
        return self._rows[key][1].name

    def dirty_keys(self) -> dict[str, int]:
        """How many keys of each feature wait to be planned."""
        return {self.feature_of(key): len(dirty) for key, dirty in self._dirty.items()}

    def after_repair(self) -> None:
        """Tables were repaired, or an agent started: hand out the effects that this has."""
        for _, feature, memory in self._rows.values():
            self._effects(feature.after_repair(memory))

    def after_start(self, found: Mapping[Identity, Value]) -> list[Effect]:
        """The first plans are made, and the kernel had this: the effects of the difference. May be called in a thread."""
        rows = ((feature.after_start, memory) for _, feature, memory in self._rows.values())
        wanted = self._ledger.desired
        return [effect for effects_of, memory in rows if effects_of for effect in effects_of(memory, found, wanted)]

    def close(self) -> None:
        """The agent ends."""
        for _, feature, memory in self._rows.values():
            if feature.memory_of is None:
                feature.close(memory)

    # Plans.

    async def replan(self, pause: Pause) -> None:
        """Plan what is dirty, feature by feature, with pauses between keys. Where changes have no end it is behind when this returns."""
        for _ in range(ROUNDS):
            if not self.is_behind:
                break
            await self._mark_all_due(pause)
            for kind, dirty in self._dirty.items():
                if dirty:
                    await self._plan_dirty(kind, pause)
            await self.fill(self._fills.all(), pause)
        if self._has_released_some:
            self._has_released_some = False
            self._freed |= self._failed
        while freed := next(iter(self._freed), None):
            self.try_plan(freed)
            await pause()
        for _, feature, memory in self._rows.values():
            feature.tidy(memory)

    async def catch_up(self, kinds: Collection[type[Key]], pause: Pause) -> None:
        """Plan what is dirty now of these types, with what follows, and nothing else. What becomes dirty meanwhile, and what is released,
        is for `replan`: so this ends, however much changes."""
        await self._mark_all_due(pause)
        for kind in kinds:
            await self._plan_dirty(kind, pause)
        for keys in iter(lambda: self._followers[0] if self._followers else None, None):
            for key in keys:
                if isinstance(key, tuple(kinds)):
                    self._has_released_some |= self.try_plan(key)
                else:
                    self.mark(key)
                await pause()
            if self._followers and self._followers[0] is keys:
                self._followers.popleft()

    async def _mark_all_due(self, pause: Pause) -> None:
        """Several may do this at once: all that is due when one begins is marked when it ends, by whichever."""
        for queue in (self._unmarked, self._followers):
            for keys in tuple(queue):
                for key in keys:
                    self.mark(key)
                    await pause()
                if queue and queue[0] is keys:
                    queue.popleft()

    async def _plan_dirty(self, kind: type[Key], pause: Pause) -> None:
        dirty = self._dirty[kind]
        for key in list(dirty):
            if key in dirty:
                self._has_released_some |= self.try_plan(key)
                await pause()

    def plan_now(self, key: Key) -> list[Identity]:
        """As `plan`, without waiting for `replan`. When the key released something, blocked keys that this concerns are planned again."""
        changed = self.plan(key)
        if self._has_released(changed):
            self._freed |= {one: None for one in self._failed if type(one) is type(key) and one != key}
        while other := next(iter(self._freed), None):
            self.try_plan(other)
        return changed

    def awaited(self, key: Key) -> Collection[Fill]:
        """What is to be filled before this key, which was planned, has the fragment that is wanted. It is planned again then."""
        return self._fills.awaited(key)

    def is_overtaken(self, key: Key) -> bool:
        """Was a plan of this key carried out that had waited, though by then it was not the last one?"""
        return key in self._overtaken

    def is_filling(self, identity: Identity) -> bool:
        """Is this brought by what is being filled?"""
        return any(identity in fill.planned for fill in self._fills.all())

    async def fill(self, fills: Collection[Fill], pause: Pause) -> None:
        """Plan what these bring, and wait until the kernel has it. Others may do the same meanwhile: they go on where this one pauses."""
        for fill in fills:
            for key in fill.keys:
                self.try_plan(key)
                fill.planned |= dict.fromkeys(self._ledger.desired.fragment(key))
                await pause()
        if fills:
            await self._in_kernel([identity for fill in fills for identity in fill.planned])
        for fill in filter(
            self._fills.has, fills
        ):  # whoever ended one meanwhile has said so, and what it brought may be gone again
            _, feature, memory = self._rows[fill.kind]
            feature.filled(memory, fill.needs)
            for key in self._fills.end(fill):
                self.mark(key)

    def _has_released(self, changed: Iterable[Identity]) -> bool:
        return not self._ledger.desired.has_all(changed)

    def try_plan(self, key: Key) -> bool:
        """Plan one key anew; a key that can't be planned is blocked. Was something released that other keys may want?"""
        try:
            changed = self.plan(key)
        except Conflict as conflict:
            self._fail(key, f"{in_words(conflict.value.identity, conflict.value)} is of {conflict.owner} already")
        except Exception as error:
            log.exception("plan node=%s key=%s", self._view.node_name, key)
            self._fail(key, f"it can't be planned: {error}")
        else:
            return self._has_released(changed)
        return False

    def plan(self, key: Key) -> list[Identity]:
        """Plan one key anew, without what others have; the identities for which that changes what is wanted.

        Conflict when the fragment has an object that another key wants otherwise.
        """
        self._dirty[type(key)].pop(key, None)
        for row in (self._blocked, self._failed, self._freed):
            if row:  # thousands of keys are planned in a row, and these are nearly always empty: hashing a key takes longer
                row.pop(key, None)
        self._fills.forget(key)
        for winner in self._taken.pop(key, {}).values() if self._taken else ():
            self._waiting.get(winner, {}).pop(key, None)
        return self._replace(key)

    def _replace(self, key: Key) -> list[Identity]:
        _, feature, memory = self._rows[type(key)]
        changed: list[Identity] = []
        plan = self._make(key)
        while contested := plan.contested:
            for claim, holder in contested.items():
                if feature.holder(memory, claim) == holder:  # else it lost it meanwhile to one that gave way for another claim
                    changed += self._settle(key, claim, holder)
            plan = self._make(key)
        waited = self._planned.pop(key, None) if self._planned else None
        needs = feature.needs(memory, plan)
        if needs and waited is not None and not feature.needs(memory, waited):
            changed += self._carry_out(key, waited)
            self._overtaken[key] = None
        if needs and self._waits(key, plan, needs):
            self._planned[key] = plan
            return changed
        if self._overtaken:
            self._overtaken.pop(key, None)
        done = self._carry_out(key, plan)
        return [*changed, *done] if changed else done

    def _carry_out(self, key: Key, plan: Plan) -> list[Identity]:
        """Make a plan part of the desired state."""
        _, feature, memory = self._rows[type(key)]
        changed = self._ledger.replace(key, plan.fragment)
        if followers := feature.accept(memory, plan):
            self._followers.append(iter(followers))
        if self._waiting:
            self._free_waiting(key)
        if self._unmet:
            self._unmet.pop(key, None)
        for effect in plan.effects:
            if isinstance(effect, Warn):
                if effect.about is None and not effect.is_doubt:
                    self._unmet.setdefault(key, effect.reason)
                if effect.is_event:
                    self._record_event(key if effect.about is None else of_policy(effect.about), effect.reason)
            else:
                self._effects((effect,))
        return changed

    def _waits(self, key: Key, plan: Plan, needs: Collection[Hashable]) -> bool:
        """Is there anything that the kernel has to have before this plan? Then the key keeps its fragment until it is planned again.

        It may need other things by then, again and again. So what it waited for is carried out first, once the kernel has that.
        """
        _, feature, memory = self._rows[type(key)]
        missing = self._fills.missing(needs)
        found = feature.fill(memory, plan, missing)
        if found is not None and not found.at_once:
            self._fills.begin(Fill(type(key), missing, found.keys))
        else:
            for one in found.keys if found is not None else ():
                self._has_released_some |= self.try_plan(one)
            feature.filled(memory, missing)
        return self._fills.wait(key, needs)

    def _make(self, key: Key) -> Plan:
        _, feature, memory = self._rows[type(key)]
        taken = frozenset(self._taken.get(key, ())) if self._taken else NOTHING_TAKEN
        return feature.plan(self._view, key, self._settings[type(key)], memory, taken)

    def _free_waiting(self, holder: Key) -> None:
        """Have those planned again that do without a claim which this key has no more: they may get it, or lose it to another one."""
        waiting = self._waiting.pop(holder, {})
        _, feature, memory = self._rows[type(holder)]
        for key in waiting:
            if all(feature.holder(memory, claim) == holder for claim, one in self._taken[key].items() if one == holder):
                self._waiting.setdefault(holder, {})[key] = None
            else:
                self._freed[key] = None

    def _settle(self, key: Key, claim: Hashable, holder: Hashable) -> list[Identity]:
        """Two keys claim the same: the one without precedence does without it, `key` when it is planned again, `holder` at once."""
        assert isinstance(holder, Key)
        loser, winner = (key, holder) if self._precedence(key) > self._precedence(holder) else (holder, key)
        taken = self._taken.setdefault(loser, {})
        if claim in taken:
            raise RuntimeError(f"{loser} does not do without {_named(claim)}")
        taken[claim] = winner
        self._waiting.setdefault(winner, {})[loser] = None
        self._block(loser, f"{_named(claim)} belongs to {winner}: choose another one")
        return self._replace(loser) if loser == holder else []

    def _precedence(self, key: Key) -> tuple[Any, ...]:
        rank, feature, _ = self._rows[type(key)]
        return (rank, *feature.precedence(key, self._view))

    def _fail(self, key: Key, why: str) -> None:
        self._failed[key] = None
        self._block(key, why)

    def _block(self, key: Key, why: str) -> None:
        self._blocked[key] = why
        self._record_event(key, why)


def _named(claim: Hashable) -> str:
    """A claim in the words of whoever asked for it."""
    return f"{claim.ip} {claim.protocol} {claim.port}" if isinstance(claim, Frontend) else str(claim)
