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
from podplane.services.feature import NOTHING_CLAIMED, Planned, ServicesMemory, accept, release, repaired
from podplane.services.model import Claim
from podplane.state.conntrack import Frontend
from podplane.state.desired import Conflict, Desired
from podplane.state.effects import Warn
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
        self.services = ServicesMemory()
        self._dirty: set[str] = set()
        self._blocked: set[str] = set()

    def recover(self, found: Iterable[Value]) -> None:
        """An agent before this one planned, and this is what the kernel has of it."""
        self.services.recover(found)

    def tables_repaired(self) -> None:
        """Somebody else had changed the tables: connections may have begun that go where they must not."""
        self._flows.add(*repaired(self.services))

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
        return features.plan(key, self._view, self._config, self._peers)

    def replan(self) -> list[Operation]:
        """Plan what is dirty; what changes."""
        dirty, self._dirty = self._dirty, set()
        operations = self._try_all(dirty)
        if self._blocked and any(operation.new is None for operation in operations):
            operations += self._try_all(self._blocked)
        self.services.tidy()
        return operations

    def plan(self, key: str) -> list[Operation]:
        """Plan one key again; what changes. Conflict when another key wants something else of one kernel object."""
        feature, _, path = key.partition("/")
        if feature != features.SERVICE:
            return self._desired.replace(key, self.fragment(key))
        operations, taken = [], NOTHING_CLAIMED
        planned = features.plan_service(path, self._view, self._config, self.services)
        for claim, other in planned.contested.items():
            if features.order(key, self._view) < features.order(f"{features.SERVICE}/{other}", self._view):
                operations += self._accept(release(other, frozenset({claim}), self.services))
                self._contested(f"{features.SERVICE}/{other}", _named(claim), key)
            else:
                taken |= {claim}
                self._contested(key, _named(claim), f"{features.SERVICE}/{other}")
        if planned.contested:
            planned = features.plan_service(path, self._view, self._config, self.services, taken)
        return operations + self._accept(planned)

    def _accept(self, planned: Planned) -> list[Operation]:
        key = f"{features.SERVICE}/{planned.table.path}"
        operations = self._desired.replace(key, planned.fragment)
        accept(self.services, planned)
        self._flows.add(*planned.effects)
        for effect in planned.effects:
            if isinstance(effect, Warn):
                self._trouble(key, effect.reason)
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
            self._contested(key, str(conflict.value), conflict.key)
        except Exception as error:
            log.exception("plan node=%s key=%s", self._view.node_name, key)
            self._blocked.add(key)
            self._trouble(key, f"it can't be planned: {error}")
        return []

    def _contested(self, key: str, what: str, other: str) -> None:
        self._blocked.add(key)
        self._trouble(key, f"{what} belongs to {other}: choose another one")


def _named(claim: Claim) -> str:
    """A claim in the words of whoever asked for it."""
    return f"{claim.ip} {claim.protocol} {claim.port}" if isinstance(claim, Frontend) else str(claim)
