"""Questions that only find something out: whether a server that is down answers again, and whether what a server is asked comes back here.

A machine's resolv.conf may name a program on the machine that asks the cluster's DNS in turn (systemd-resolved on 127.0.0.53), or the
cluster's DNS itself. Passed on to such a server, a question would go round until nobody waits for it any more. So each server is first
asked for a name that nobody else can know, below the zone that it is to be asked for: if this name is asked here, it is a loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from podplane.dns import message as m
from podplane.dns.asking import Ask
from podplane.dns.message import Name, Question
from podplane.dns.responses import Reply
from podplane.nameserver.upstream import Means, Upstream

log = logging.getLogger(__name__)
FIRST_SECONDS = 1.0
"""A server that does not answer its first question within that time is none that questions come back from, as far as anybody can see."""
LABEL_BYTES = 12


@dataclass(slots=True)
class _State:
    """Of one server: the zone that it is asked for, the name, and the next time."""

    zone: Name
    tries: int = 0
    name: Name | None = None
    timer: asyncio.TimerHandle | None = None


class Probes:
    """Watches servers. `checked` is called when the first question to a server has told what it can."""

    def __init__(self, means: Means, checked: Callable[[], None]) -> None:
        self._means, self._checked = means, checked
        self._loop = asyncio.get_running_loop()
        self._states: dict[Upstream, _State] = {}
        self._names: dict[Name, Upstream] = {}

    def add(self, upstream: Upstream, zone: Name) -> None:
        """Find out whether it is a loop for names of this zone, and watch it from now on."""
        self._states[upstream] = _State(zone)
        self._ask(upstream)
        if not upstream.is_checked:
            self._states[upstream].timer = self._loop.call_later(FIRST_SECONDS, self._first, upstream)

    def remove(self, upstream: Upstream) -> None:
        """Watch it no more."""
        state = self._states.pop(upstream)
        self._forget(state)
        if state.timer is not None:
            state.timer.cancel()

    def came_back(self, ask: Ask) -> bool:
        """Was a server asked for this name by us? Then it is a loop, and is not asked any more."""
        upstream = self._names.get(ask.question.name) if self._names else None
        if upstream is None:
            return False
        self.is_loop(upstream, "what it is asked comes back to this server: it asks the cluster's DNS itself")
        return True

    def is_loop(self, upstream: Upstream, why: str) -> None:
        """What it is asked comes back here."""
        state = self._states[upstream]
        if not upstream.health.is_loop:
            log.warning("upstream %s is not asked: %s", upstream.server, why)
            upstream.health.loop(self._means.clock(), why)
        self._forget(state)
        self._again(upstream)
        self._is_checked(upstream)

    def changed(self, upstream: Upstream) -> None:
        """It went down, or came up."""
        health = upstream.health
        if upstream not in self._states:
            return
        if health.is_up:
            log.warning("upstream %s answers again", upstream.server)
        elif not health.is_loop:
            log.warning("upstream %s does not answer: %s", upstream.server, health.last_error)
            self._states[upstream].tries = 0
            self._again(upstream)

    def _again(self, upstream: Upstream) -> None:
        state = self._states[upstream]
        if state.timer is not None:
            state.timer.cancel()
        state.timer = self._loop.call_later(upstream.health.probe_in(state.tries), self._next, upstream)

    def _next(self, upstream: Upstream) -> None:
        state = self._states[upstream]
        state.timer = None
        state.tries += 1
        self._ask(upstream)

    def _first(self, upstream: Upstream) -> None:
        self._states[upstream].timer = None
        self._is_checked(upstream)

    def _ask(self, upstream: Upstream) -> None:
        state = self._states[upstream]
        self._forget(state)
        label = self._means.randomness.take(LABEL_BYTES).hex().encode()
        labels = label[:LABEL_BYTES], label[LABEL_BYTES:]
        name = state.name = (*labels, *state.zone) if m.fits((*labels, *state.zone)) else labels
        self._names[name] = upstream
        upstream.ask(Ask(m.asked_of(Question(name, m.A))), partial(self._heard, upstream, name))

    def _heard(self, upstream: Upstream, name: Name, said: Reply | str) -> None:
        state = self._states.get(upstream)
        if state is None or state.name != name:
            return  # removed, or it came back meanwhile
        self._forget(state)
        if isinstance(said, str):
            if not upstream.health.is_up and state.timer is None:
                self._again(upstream)
        else:
            self._answers(upstream, state)
        self._is_checked(upstream)

    def _answers(self, upstream: Upstream, state: _State) -> None:
        """It answers, and does not ask us."""
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        if upstream.health.is_loop:
            upstream.health.is_loop = False
            upstream.health.answered(self._means.clock())
            self.changed(upstream)

    def _is_checked(self, upstream: Upstream) -> None:
        if not upstream.is_checked:
            upstream.is_checked = True
            self._checked()

    def _forget(self, state: _State) -> None:
        if state.name is not None:
            self._names.pop(state.name, None)
            state.name = None

    def close(self) -> None:
        """Watch none any more."""
        for upstream in list(self._states):
            self.remove(upstream)
