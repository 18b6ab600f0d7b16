"""Settings of policies."""

from __future__ import annotations

import msgspec


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`takes_back`: connections that a change of policies or labels forbids end. Where it does not, those that were let pass go on until
    their ends close them, and policies are about new ones alone."""

    takes_back: bool = True
