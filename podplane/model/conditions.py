"""Conditions of Nodes: when they are said. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping


def said_at(condition: Mapping[str, str], now: datetime.datetime) -> dict[str, str]:
    """A condition that changes at `now` (UTC), with the times that clients go by (core/v1 NodeCondition)."""
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**condition, "lastHeartbeatTime": time, "lastTransitionTime": time}
