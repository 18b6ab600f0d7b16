"""What a feature of an agent is: a row that says what it owns, what it watches, and how it plans.

`plan` is pure but for its memory, which belongs to the feature and to one agent: what it has to remember between two plans (numbers that
are given to groups of endpoints, say). Memory is recovered from the kernel when an agent starts, so a restart plans the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from podplane.agent.fills import Need, ToFill
from podplane.agent.keys import Key
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.settings import Settings
from podplane.model.objects import Model, Node
from podplane.model.view import Sandbox, View
from podplane.policy.index import Change
from podplane.state.effects import Effect, Plan
from podplane.state.value import Fragment, Identity, Value

K = TypeVar("K", bound=Key)
S = TypeVar("S")
Taken = frozenset[Hashable]
Changed = Callable[[Any, Any, View], Iterable[Key]]
"""(old, new, view) → the keys whose plans may differ after this change; None as old or new for an object that came or went. The view is
read when this is called, and not when the keys are iterated."""


Found = Mapping[Identity, Value]
Kind = type[Model] | type[Sandbox] | type[Change]


class Watch(msgspec.Struct, frozen=True):
    """A kind of object that a feature reads, and which keys a change of one concerns. `kind` is a model, or `Sandbox`; or what a change
    means that the process has worked out for all agents: then there is no old one."""

    kind: Kind
    keys: Changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature(Generic[K, S]):
    """One row of `features.FEATURES`. The order of rows is that in which dirty keys are planned."""

    name: str
    key: type[K]
    watches: tuple[Watch, ...]
    settings: Callable[[Settings], S]
    """Which part of the agent's settings `plan` and `on_node` get."""
    plan: Callable[[View, K, S, Any, Taken], Plan]
    """(view, key, settings, memory, taken): the plan does without the claims in `taken`, which other keys have. It changes nothing in
    memory (but for numbers, of which planning again assigns the same ones): a plan may be given up."""
    on_node: Callable[[View, Node, S], Fragment] = lambda view, node, settings: {}
    """(view, own node, settings) → what the feature needs on the node whatever keys it has; part of the plan of `NodeKey`."""
    accept: Callable[[Any, Any], Iterable[Key] | None] = lambda memory, plan: None
    """(memory, plan): the plan is part of the desired state now. The keys whose plans differ because of that, if any."""
    needs: Callable[[Any, Any], Collection[Need]] = lambda memory, plan: ()
    """(memory, plan): what the kernel has to have of other keys before the plan is part of the desired state, and has not yet."""
    fill: Callable[[Any, Any, Collection[Need]], ToFill | None] = lambda memory, plan, needs: None
    """(memory, plan, needs): the plan waits for what it needs. The keys that bring `needs`, for which no other plan waits; None: none."""
    filled: Callable[[Any, Collection[Need]], None] = lambda memory, needs: None
    """(memory, needs): these are in the kernel, or will be before whatever is planned next."""
    tables: frozenset[tuple[str, str]] = frozenset()
    """Tables of nf_tables (family, name) that are this feature's own, with all that is in them."""
    memory: Callable[[PeerPlans], Any] = lambda shared: None
    """Makes the memory that `plan` gets; `shared` is the part of it that all agents of the process have in common."""
    memory_of: type[Key] | None = None
    """The feature with this key, which stands before this one, has the memory that this one has too."""
    recover: Callable[[Any, Collection[Value]], None] = lambda memory, found: None
    """An agent before this one planned, and this is what the kernel holds of it."""
    close: Callable[[Any], None] = lambda memory: None
    """The agent ends: let go of what the memory holds of what agents of the process share."""
    tidy: Callable[[Any], None] = lambda memory: None
    """After plans: drop from memory what is not in use any more."""
    after_repair: Callable[[Any], Iterable[Effect]] = lambda memory: ()
    """What is to be done after somebody else had changed the feature's tables and they were repaired, or after a start."""
    after_start: Callable[[Any, Found, Found], Iterable[Effect]] | None = None
    """(memory, what the kernel had in the feature's tables, what is planned) → effects of an agent's start: the difference is sent next.
    Called in a thread."""
    holder: Callable[[Any, Any], Key | None] = lambda memory, claim: None
    """(memory, claim): the key that has what plans call `contested`; None when no key has it."""
    precedence: Callable[[K, View], tuple[Any, ...]] = lambda key, view: (key.path,)
    """Of two keys of this feature that claim the same, the one with the lesser precedence has it."""
