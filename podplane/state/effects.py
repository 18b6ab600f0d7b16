"""What a plan asks of the agent: kernel state, and effects, which are values that the agent carries out once that state is in the kernel.

Planners carry out nothing; `agent.effects` does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import msgspec

from podplane.model.cluster_policy import Policy
from podplane.state.conntrack import Frontend, Target
from podplane.state.value import Fragment, IPAddress


class FlushConntrack(msgspec.Struct, frozen=True):
    """Delete the tracked connections to each of these frontends, but for those that go to one of its allowed endpoints."""

    allowed: Mapping[Frontend, frozenset[Target]]


class JudgeAgain(msgspec.Struct, frozen=True):
    """What may pass from or to these addresses is otherwise than it was: judge their tracked connections again."""

    ips: frozenset[IPAddress]


class Forget(msgspec.Struct, frozen=True):
    """Who had these addresses is gone: delete their tracked connections, so that who has the addresses next inherits none."""

    ips: frozenset[IPAddress]


class Warn(msgspec.Struct, frozen=True):
    """Tell the users of the object that was planned what is not done for it, and why; or those of the policy that it is `about`.

    A doubt is about what may be done all the same. Without `is_event` other nodes write the event.
    """

    reason: str
    about: Policy | None = None
    is_doubt: bool = False
    is_event: bool = True


class Announce(msgspec.Struct, frozen=True):
    """Tell the neighbours on a link that these addresses are here (gratuitous ARP, unsolicited neighbour advertisement)."""

    link: str
    ips: tuple[IPAddress, ...]


Effect = FlushConntrack | JudgeAgain | Forget | Warn | Announce


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one key asks for: objects that shall be in the kernel as long as the key stands, and effects.

    `contested` are claims that other keys have now (claim → key): things that only one can have, whatever kernel objects stand for them.
    """

    fragment: Fragment = {}
    effects: tuple[Effect, ...] = ()
    contested: Mapping[Hashable, Hashable] = {}


NOTHING = Plan()
