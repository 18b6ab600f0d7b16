"""What a plan asks for besides kernel state: values that the agent carries out once the fragment is in the kernel."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from podplane.state.conntrack import Frontend, Target
from podplane.state.value import IPAddress


class FlushConntrack(msgspec.Struct, frozen=True):
    """Delete the tracked connections to each of these frontends, but for those that go to one of its allowed endpoints."""

    allowed: Mapping[Frontend, frozenset[Target]]


class Warn(msgspec.Struct, frozen=True):
    """Tell the users of the object that was planned what is not done for it, and why."""

    reason: str


class Announce(msgspec.Struct, frozen=True):
    """Tell the neighbours on a link that this node answers for these addresses."""

    link: str
    ips: tuple[IPAddress, ...]


Effect = FlushConntrack | Warn | Announce
