"""From what changed to operations: which keys are dirty, and what of them can be had.

A key that can't be planned, because it makes no sense, is set aside: its last fragment stays, somebody is told, and it is tried again when
another key lets something go. Of two Services that want the same, the one that comes first has it (`features.order`), and the other one
the rest of what it wants.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from podplane.agent import features
from podplane.agent.features import PeerPlans
from podplane.agent.flows import Flows
from podplane.agent.reconciler import Trouble
from podplane.model.config import NetworkConfig
from podplane.model.view import View
from podplane.services.numbers import Numbers
from podplane.state.desired import Conflict, Desired
from podplane.state.nft import Element
from podplane.state.operations import Operation
from podplane.state.value import Fragment, Value

log = logging.getLogger(__name__)


class Planner:
    """Keeps the desired state of one node as its view says."""

    def __init__(
        self, view: View, config: NetworkConfig, desired: Desired, peers: PeerPlans, flows: Flows, trouble: Trouble
    ) -> None:
        self._view = view
        self._config = config
        self._desired = desired
        self._peers = peers
        self._flows = flows
        self._trouble = trouble
        self._numbers = Numbers()
        self._dirty: set[str] = set()
        self._blocked: set[str] = set()

    def recover(self, found: Iterable[Value]) -> None:
        """An agent before this one planned, and this is what the kernel has of it."""
        self._numbers.recover(found)

    def touch(self, *keys: str) -> None:
        """These are to be planned anew."""
        self._dirty.update(keys)

    def settle(self, key: str) -> None:
        """This one was just seen to."""
        self._dirty.discard(key)

    @property
    def is_behind(self) -> bool:
        """Does a change wait to be planned?"""
        return bool(self._dirty)

    def fragment(self, key: str) -> Fragment:
        """What a key wants now."""
        return features.plan(key, self._view, self._config, self._peers, self._numbers)

    def replan(self) -> list[Operation]:
        """Plan what is dirty; what changes."""
        dirty, self._dirty = self._dirty, set()
        operations = self._try_all(dirty)
        if self._blocked and any(operation.new is None for operation in operations):
            operations += self._try_all(self._blocked)
        self._numbers.tidy(self._desired.values())
        return operations

    def plan(self, key: str) -> list[Operation]:
        """Plan one key anew, but for what others have; what changes. Conflict when what is left would be nothing whole."""
        fragment = self.fragment(key)
        operations: list[Operation] = []
        while True:
            try:
                operations += self._desired.replace(key, fragment)
                break
            except Conflict as conflict:
                loser = max(key, conflict.key, key=lambda one: features.order(one, self._view))
                rest = self._without(loser, fragment if loser == key else self._desired.fragment(loser), conflict)
                if loser == key:
                    fragment = rest
                else:
                    operations += self._desired.replace(loser, rest)
                    self._service_planned(loser, rest)
        self._service_planned(key, fragment)
        return operations

    def _try_all(self, keys: Iterable[str]) -> list[Operation]:
        ordered = sorted(keys, key=lambda key: features.order(key, self._view))
        return [operation for key in ordered for operation in self._try(key)]

    def _try(self, key: str) -> list[Operation]:
        """Plan one key anew; nothing, when that can't be."""
        self._blocked.discard(key)
        try:
            return self.plan(key)
        except Conflict as conflict:
            self._clashed(key, conflict.value, conflict.key)
        except Exception as error:
            log.exception("plan node=%s key=%s", self._view.node_name, key)
            self._blocked.add(key)
            self._trouble(key, f"it can't be planned: {error}")
        return []

    def _without(self, loser: str, fragment: Fragment, conflict: Conflict) -> Fragment:
        """What is left to who must do without."""
        rest = features.without(loser, fragment, conflict.value)
        if len(rest) == len(fragment):
            raise conflict
        self._clashed(loser, conflict.value, ({conflict.key, conflict.wanted_by} - {loser}).pop())
        return rest

    def _clashed(self, key: str, value: Value, other: str) -> None:
        self._blocked.add(key)
        self._trouble(key, f"{_named(value)} belongs to {other}: choose another one")

    def _service_planned(self, key: str, fragment: Fragment) -> None:
        feature, _, path = key.partition("/")
        if feature == features.SERVICE:
            self._flows.planned(path, features.ways(path, self._view, self._config, fragment))
            for why in features.unserved(path, self._view, self._config):
                self._trouble(key, why)


def _named(value: Value) -> str:
    """A value in the words of whoever asked for it."""
    return " ".join(map(str, value.key)) if isinstance(value, Element) else str(value)
