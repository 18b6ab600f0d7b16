"""The ledger of one node: what is desired, and where the kernel deviates from it.

    desired      the union of all fragments (see `desired`)
    deviations   identity → what the kernel is known to hold instead (None: nothing), by acknowledgement or by reading

An object is *done* when the kernel is known to hold it as desired: that costs no memory beside the desired value itself,
so a set with a million elements has no million status objects. An object that deviates is *pending* (to be sent, or sent
and not acknowledged yet) or *refused* (the kernel said no: why, since when, how often, and when it is tried again). What
the kernel holds of ours that nobody wants is a deviation too.

Operations are computed by `take`, when they are sent, against what is known at that moment. One writer sends them and
brings the report back (`acknowledge`). Readers of the kernel correct what is known (`observe`, `Reading`). Nothing here
does I/O.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from podplane.state.desired import ELEMENTS, Desired
from podplane.state.network import Link, Proxy, Sysctl
from podplane.state.operations import Operation, Report
from podplane.state.value import Fragment, Identity, Value

T = TypeVar("T")
SLICE = 100
"""So many objects are compared between two pauses: about a millisecond."""
RETRY_SECONDS, MAX_RETRY_SECONDS = 0.25, 60.0
"""After the first refusal an object is tried again so soon; each further refusal doubles the time, up to the second figure."""

TABLE, SET = "nft table", "nft set"
UNANNOUNCED = ("Sysctl", "Proxy")
"""Kinds of objects whose changes the kernel does not notify."""
HOLDERS = (TABLE, SET)
"""Kinds of objects that are deleted with all that is in them."""


class Status(enum.Enum):
    """Of one object."""

    DONE, PENDING, REFUSED, UNKNOWN = "done", "pending", "refused", "unknown"


class Refused(msgspec.Struct):
    """The kernel refused an object: the last reason, and times in seconds of the agent's clock."""

    error: Exception
    since: float
    tries: int
    next_try: float


class Reading(msgspec.Struct, eq=False):
    """One reading of the kernel, from before the first dump to after the last: what was written meanwhile, or notified, is
    not judged by it."""

    written: set[Identity] = msgspec.field(default_factory=set)


_AS_DESIRED, _NOTHING = object(), object()


class Ledger:
    """All methods run on one event loop. `matches(wanted, found)`: does what was found fulfil what is wanted?"""

    def __init__(self, matches: Callable[[Value, Value], bool]) -> None:
        self.desired = Desired()
        self._matches = matches
        self._deviations: dict[Identity, Value | None] = {}
        self._due: dict[Identity, None] = {}
        self._sent: set[Identity] = set()
        self._seen_meanwhile: dict[Identity, Value | None] = {}
        """What was last observed of an object that is being sent."""
        self._refused: dict[Identity, Refused] = {}
        self._no_retry_before = math.inf
        self._readings: list[Reading] = []
        self.sysctls: dict[str, str] = {}
        """The desired sysctls of the node's own namespace: name → value."""
        self.sysctl_changes = 0
        """So often it changed which sysctls are desired, or with which value."""
        self.polled_sysctls: dict[str, str] = {}
        """Of these, those that are not of a link of podplane's: name → value."""
        self._link_sysctls: dict[str, dict[Identity, None]] = {}
        self.proxies: dict[Identity, None] = {}
        """The identities of the desired proxies."""
        self._deleted: list[Identity] = []
        """Tables and sets that were deleted, and what was in them with them: `lose_contents` has not noted that yet."""

    # What is wanted.

    def replace(self, key: Hashable, fragment: Fragment) -> list[Identity]:
        """Make `fragment` the one of `key`; the identities for which that changes what is wanted. Conflict leaves
        everything as it was."""
        changes = self.desired.replace(key, fragment)
        if len(changes) != len(fragment) or not self._are_new(changes, fragment):
            for identity, before in changes:
                self._wanted_otherwise(identity, before)
        for identity, before in changes:
            if identity[0] in UNANNOUNCED and not identity[1]:
                self._note_unannounced(identity, before)
        return [identity for identity, _ in changes]

    def _are_new(self, changes: Iterable[tuple[Identity, Value | None]], fragment: Fragment) -> bool:
        """Is this a fragment of which nothing was wanted, known, or sent? Then the kernel has none of it, and all is due: as with
        thousands of peers or Services that come at once, of which identities are not hashed again here."""
        if any(before is not None for _, before in changes):
            return False
        if not self._deviations.keys().isdisjoint(fragment) or (self._sent and not self._sent.isdisjoint(fragment)):
            return False
        nothing = dict.fromkeys(fragment)
        self._deviations.update(nothing)
        self._due.update(nothing)
        return True

    def _wanted_otherwise(self, identity: Identity, before: Value | None) -> None:
        known = self._deviations.get(identity, _AS_DESIRED)
        if known is not _AS_DESIRED:
            self._note(identity, known)  # type: ignore[arg-type]  # the sentinel is excluded
        elif before is None:  # it is wanted now, and the kernel has none
            self._deviates(identity, None)
        else:
            self._note(identity, before)

    def _note_unannounced(self, identity: Identity, before: Value | None) -> None:
        """Keep the lists of objects whose changes the kernel does not notify, and which are therefore polled."""
        wanted = self.desired.get(identity)
        self.sysctl_changes += identity[0] == "Sysctl"
        if isinstance(before, Sysctl) and before.link in self._link_sysctls:
            self._link_sysctls[before.link].pop(identity, None)
            if not self._link_sysctls[before.link]:
                del self._link_sysctls[before.link]
        if isinstance(wanted, Sysctl):
            self.sysctls[wanted.name] = wanted.value
            if wanted.link:
                self._link_sysctls.setdefault(wanted.link, {})[identity] = None
            else:
                self.polled_sysctls[wanted.name] = wanted.value
        elif isinstance(wanted, Proxy):
            self.proxies[identity] = None
        elif identity[0] == "Sysctl":
            self.sysctls.pop(identity[2], None)
            self.polled_sysctls.pop(identity[2], None)
        else:
            self.proxies.pop(identity, None)

    def _note(self, identity: Identity, known: Value | None) -> bool:
        """The kernel holds `known`; does that deviate from what is wanted?"""
        wanted = self.desired.get(identity)
        if self._refused:
            self._refused.pop(identity, None)
        if (known is None and wanted is None) or (known is not None and wanted is not None and self._fulfils(wanted, known)):
            self._deviations.pop(identity, None)
            self._due.pop(identity, None)
            return False
        self._deviates(identity, known)
        return True

    def _deviates(self, identity: Identity, known: Value | None) -> None:
        self._deviations[identity] = known
        if identity not in self._sent:
            self._due[identity] = None

    def _fulfils(self, wanted: Value, known: Value) -> bool:
        return wanted is known or wanted == known or self._matches(wanted, known)

    def sysctls_of(self, link: str) -> dict[str, str]:
        """The desired sysctls of a link of podplane's: name → value."""
        wanted = (self.desired[identity] for identity in self._link_sysctls.get(link, ()))
        return {one.name: one.value for one in wanted if isinstance(one, Sysctl)}

    def lose_sysctls(self, link: str) -> list[Identity]:
        """A link of the node's own namespace is gone, or was made anew, and so its sysctls have their defaults; those that are wanted."""
        return [identity for identity in self._link_sysctls.get(link, ()) if self.observe(identity, None)]

    # What is sent.

    @property
    def has_due(self) -> bool:
        """Is there anything to send?"""
        return bool(self._due)

    @property
    def due(self) -> list[Identity]:
        """What is to be sent."""
        return list(self._due)

    def take(self, identities: Iterable[Identity]) -> list[Operation]:
        """The operations that are due of these identities, computed now; they count as sent until `acknowledge`.

        A link that goes is set down first, which ends its traffic at once; its removal, for which the kernel waits some 20
        ms, is due after that.
        """
        operations, due, sent, deviations, desired = [], self._due, self._sent, self._deviations, self.desired.get
        for identity in identities:
            if due.pop(identity, _NOTHING) is _NOTHING:
                continue
            sent.add(identity)
            wanted = desired(identity)
            operations.append(Operation(deviations[identity], wanted) if wanted is not None else self._operation(identity))
        if not self._due:
            self._due.clear()  # as in `acknowledge`
        return operations

    def _operation(self, identity: Identity) -> Operation:
        """What is to be done next about an object that deviates."""
        known, wanted = self._deviations[identity], self.desired.get(identity)
        if wanted is None and _goes_down_first(known):
            wanted = msgspec.structs.replace(known, up=False)  # type: ignore[type-var]  # a link
        return Operation(known, wanted)

    def acknowledge(self, report: Report, now: float) -> list[Identity]:
        """What became of operations that were taken; the identities that are settled by it, done or refused.

        When tables or sets were deleted, `lose_contents` is to be called before anything else is sent.
        """
        settled = []
        desired, deviations, sent = self.desired.get, self._deviations, self._sent
        for old, new in report.applied:
            identity = new.identity if new is not None else old.identity  # type: ignore[union-attr]  # one of both is there
            if self._readings or self._seen_meanwhile:
                self._not_on_its_way(identity)
            else:
                sent.discard(identity)
            if identity[0] in HOLDERS:
                self._holder_changed(identity, is_there=new is not None)
            if new is not None and new is desired(identity) and not self._refused:  # nearly always
                deviations.pop(identity, None)
                settled.append(identity)
            elif not self._note(identity, new) or identity not in self._due or identity not in self.desired:
                settled.append(identity)
        for failure in report.failed:
            identity = failure.operation.value.identity
            before = self._refused.get(identity)
            seen = self._not_on_its_way(identity)
            if failure.holds is not None and seen is _NOTHING:
                self._deviations[identity] = failure.holds
            if seen is not _NOTHING and seen != failure.operation.old:  # the kernel holds something else by now
                self._note(identity, seen)  # type: ignore[arg-type]  # the sentinel is excluded
                if identity not in self._deviations:
                    settled.append(identity)
                continue
            if identity not in self._deviations:  # it is not wanted any more, and was never there
                settled.append(identity)
                continue
            if failure.operation.new != self._operation(identity).new:
                self._due[identity] = None  # something else is wanted by now
                continue
            tries = before.tries + 1 if before else 1
            wait = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2 ** min(tries - 1, 16))
            self._refused[identity] = Refused(failure.error, before.since if before else now, tries, now + wait)
            self._no_retry_before = min(self._no_retry_before, now + wait)
            settled.append(identity)
        for emptied in (self._deviations, self._sent):
            if not emptied:
                emptied.clear()  # what all was deleted from keeps its size, and costs that when it is iterated
        return settled

    def _holder_changed(self, identity: Identity, *, is_there: bool) -> None:
        """A table or set was deleted, or made: then what was refused because it was not there need not wait."""
        if is_there:
            self.retry([one for one in self._refused if _is_in(one, identity)])
        else:
            self._deleted.append(identity)

    def lose_contents(self) -> Iterator[list[Identity]]:
        """Note that what was in deleted tables and sets is gone with them, whoever wants it.

        While the node's object goes and comes back, a table may be deleted of which some Service was not planned anew: what that wants is
        due again. Works in slices: yields what each of them settles. Iterate it to its end; pause between.

        As long as nobody wants an element of the sets, what deviates is all that can have been in them: only that is gone through.
        """
        if not self._deleted:
            return
        tables = {one for one in self._deleted if one[0] == TABLE}
        sets = {one for one in self._deleted if one[0] != TABLE and _table_of(one) not in tables}
        self._deleted.clear()
        is_in_desired = bool(tables) or any(self.desired.may_have_elements(one[4]) for one in sets)
        everything = (*self.desired, *self._deviations) if is_in_desired else self._deviations
        for part in _sliced(everything):
            gone = [one for one in part if set_of(one) in sets or (one not in tables and _table_of(one) in tables)]
            for identity in gone:
                self.observe(identity, None)
            yield [identity for identity in gone if identity not in self._deviations and identity not in self._sent]

    def interrupt(self) -> None:
        """Nobody sends any more: what was taken and not acknowledged is due again."""
        for identity in self._sent & self._deviations.keys():
            self._due[identity] = None
        self._sent.clear()
        self._seen_meanwhile.clear()

    def _not_on_its_way(self, identity: Identity) -> object:
        """The kernel answered about an object that was sent; what was observed of it meanwhile."""
        self._sent.discard(identity)
        if self._readings:
            self._written(identity)
        return self._seen_meanwhile.pop(identity, _NOTHING) if self._seen_meanwhile else _NOTHING

    def _written(self, identity: Identity) -> None:
        for reading in self._readings:
            reading.written.add(identity)

    # What was refused.

    def release_retries(self, now: float, *, every: bool = False) -> None:
        """Make due what was refused and may be tried again by now, or `every` refused object (the world changed).

        Costs nothing while no refused object may be tried again: thousands may be refused, and this is called all the time.
        """
        if not every and now < self._no_retry_before:
            return
        self.retry(identity for identity, refused in self._refused.items() if every or refused.next_try <= now)
        first = self.next_retry()
        self._no_retry_before = math.inf if first is None else first

    def retry(self, identities: Iterable[Identity]) -> None:
        """Make due what was refused of these, without waiting for the time of the next try."""
        for identity in identities:
            if identity in self._refused and identity not in self._sent and identity in self._deviations:
                self._due[identity] = None

    def try_anew(self, identities: Iterable[Identity]) -> None:
        """The same, for what may have been lacking is there; what is on its way, and refused once more, is tried again as after a first
        refusal."""
        for identity in (refused := [one for one in identities if one in self._refused]):
            self._refused[identity].tries = 0
        self.retry(refused)

    def next_retry(self) -> float | None:
        """When the first refused object that is not on its way is to be tried again; None when there is none."""
        waiting = (i for i in self._refused if i not in self._due and i not in self._sent)
        times = [self._refused[identity].next_try for identity in waiting]
        return min(times, default=None)

    def refusal(self, identity: Identity) -> Refused | None:
        """Why the kernel does not hold an object as desired, if it refused it."""
        return self._refused.get(identity)

    def refused_operation(self, identity: Identity) -> Operation:
        """What the kernel would have to do for an object that it refused."""
        return Operation(self._deviations[identity], self.desired.get(identity))

    @property
    def refused(self) -> Mapping[Identity, Refused]:
        """All that the kernel refuses."""
        return self._refused

    # What the kernel is seen to hold.

    def observe(self, identity: Identity, found: Value | None) -> bool:
        """The kernel holds `found`, whoever made it; does that deviate from what is wanted, though the object was as desired?

        Of an object that deviated already, this corrects what is known, and is no news: it is to be changed anyway. Of
        an object that is being sent the report is awaited: the observation may be older than that, and counts only when
        the operation failed. Readings that are under way began before, and do not judge the object.
        """
        self._written(identity)
        if identity in self._sent:
            self._seen_meanwhile[identity] = found
            return False
        return self._correct(identity, found)

    def _correct(self, identity: Identity, found: Value | None) -> bool:
        known = self._deviations.get(identity, _AS_DESIRED)
        if known is not _AS_DESIRED and known == found:
            return False
        if known is _AS_DESIRED and found is None and identity not in self.desired:
            return False
        return self._note(identity, found) and known is _AS_DESIRED

    def trust(self, identities: Iterable[Identity]) -> None:
        """The kernel holds these as desired: who told is believed."""
        for identity in identities:
            if identity in self.desired:
                self._note(identity, self.desired[identity])

    def vanish(self, netns: str) -> list[Identity]:
        """A network namespace is gone, and what the kernel held in it: nothing of it is to be deleted. The identities that
        this settles."""
        gone = [identity for identity in self._deviations if identity[1] == netns]
        return [identity for identity in gone if not self._note(identity, None)]

    def begin_reading(self) -> Reading:
        """The kernel is about to be read."""
        reading = Reading()
        reading.written.update(self._sent)
        self._readings.append(reading)
        return reading

    def cancel_reading(self, reading: Reading) -> None:
        """The reading failed."""
        self._readings.remove(reading)

    def end_reading(
        self, reading: Reading, found: Mapping[Identity, Value], in_scope: Callable[[Identity], bool], netns: str | None = None
    ) -> Iterator[list[Identity]]:
        """Correct what is known by what was read of everything in scope. What was written meanwhile is left out.

        With `netns`, a network namespace ("": the node's own), only that was read, without
        nf_tables, and the cost is that of what is in it.

        Works in slices: yields, after each of them, the identities in it that deviate and were not known to. Iterate it to
        its end; pause between.
        """
        try:
            for slice_ in _sliced(found):
                yield [i for i in slice_ if i not in reading.written and self._correct(i, found[i])]
            wanted = self.desired if netns is None else self.desired.in_namespace(netns)
            for part in _sliced((*wanted, *self._deviations)):
                missing = (i for i in part if i not in found and i not in reading.written and in_scope(i))
                yield [identity for identity in missing if self._correct(identity, None)]
        finally:
            self._readings.remove(reading)

    # What there is to say.

    def status(self, identity: Identity) -> Status:
        """Of one object."""
        if identity in self._refused and identity not in self._due and identity not in self._sent:
            return Status.REFUSED
        if identity in self._deviations:
            return Status.PENDING
        return Status.DONE if identity in self.desired else Status.UNKNOWN

    @property
    def deviations(self) -> Mapping[Identity, Value | None]:
        """What the kernel is known to hold otherwise than desired, with what it holds instead (None: nothing)."""
        return self._deviations

    def is_deviating(self, identity: Identity) -> bool:
        """Is the kernel known to hold it otherwise than desired?"""
        return identity in self._deviations

    def unsettled(self, identities: Iterable[Identity]) -> set[Identity]:
        """Those that are to be sent, or sent and not acknowledged."""
        return {identity for identity in identities if identity in self._due or identity in self._sent}

    def unsettled_in(self, family: str, table: str) -> list[Identity]:
        """The same of all elements of sets of a table. It costs what is unsettled of everything."""
        place = ("", family, table)
        return [one for one in (*self._due, *self._sent) if one[0] in ELEMENTS and one[1:4] == place]

    def is_any_due(self, identities: Iterable[Identity]) -> bool:
        """Is one of these to be sent?"""
        return any(map(self._due.__contains__, identities))

    def is_any_sent(self, identities: Iterable[Identity]) -> bool:
        """Is one of these on its way to the kernel?"""
        return any(map(self._sent.__contains__, identities))

    def counts(self) -> dict[Status, int]:
        """How many objects there are of each status."""
        refused = sum(self.status(identity) is Status.REFUSED for identity in self._refused)
        pending = len(self._deviations) - refused
        wanted = sum(identity in self.desired for identity in self._deviations)
        return {Status.DONE: len(self.desired) - wanted, Status.PENDING: pending, Status.REFUSED: refused}


def _sliced(items: Collection[T]) -> Iterator[list[T]]:
    iterator = iter(tuple(items))
    while slice_ := list(itertools.islice(iterator, SLICE)):
        yield slice_


def _is_in(identity: Identity, holder: Identity) -> bool:
    """Is this an object in that table, or an element of that set?"""
    kind, place = identity[0], holder[1:]
    if holder[0] == SET:
        return bool(kind in ELEMENTS and identity[1 : 1 + len(place)] == place)
    return bool(str(kind).startswith("nft ") and identity != holder and identity[1 : 1 + len(place)] == place)


def _table_of(identity: Identity) -> Identity:
    """The table that an object of nf_tables is in; of a table, itself."""
    return (TABLE, *identity[1:4]) if str(identity[0]).startswith("nft ") else ()


def set_of(identity: Identity) -> Identity:
    """The set that an element is in; nothing of what is none."""
    return (SET, *identity[1:5]) if identity[0] in ELEMENTS else ()


def _goes_down_first(value: Value | None) -> bool:
    return isinstance(value, Link) and bool(value.kind) and value.up and not value.netns
