"""Settings of host ports."""

from __future__ import annotations

import msgspec


class HostPortSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`enabled`: host ports lead to pods. Where they do not, a pod that asks for one gets an event."""

    enabled: bool = True
