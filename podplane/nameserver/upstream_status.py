"""What is known of the servers that questions are passed on to, for those who ask."""

from __future__ import annotations

from collections.abc import Iterable

from podplane.dns.message import Name, text_of
from podplane.model.name_server import UpstreamStatus
from podplane.nameserver.forwarder import Group
from podplane.nameserver.upstream import Upstream


def upstreams(groups: Iterable[Group], now: float) -> list[UpstreamStatus]:
    """Each server, zone by zone; `now` is a time of the clock of their health."""
    return [_status(group.zone, one, now) for group in groups for one in group.servers]


def _status(zone: Name, upstream: Upstream, now: float) -> UpstreamStatus:
    health = upstream.health
    return UpstreamStatus(
        text_of(zone),
        str(upstream.server),
        health.is_up,
        health.is_loop,
        now - health.since,
        health.last_error,
        health.rtt,
        health.asked,
        health.failed,
    )
