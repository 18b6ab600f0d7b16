"""Policies: what they cost packets, what changes of them cost a node of a large cluster, and kube-router beside them."""

from __future__ import annotations

from bench import policy_changes, policy_cuts, policy_peer, policy_traffic
from bench.common import Row


def run(short: bool) -> list[Row]:
    """All rows."""
    return [*policy_traffic.run(short), *policy_changes.run(short), *policy_cuts.run(short), *policy_peer.run(short)]
