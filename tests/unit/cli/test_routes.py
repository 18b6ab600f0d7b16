"""What `podplane routes` says of routes that refuse what is sent there."""

from __future__ import annotations

from typing import Any

from podplane.cli.routes import _withdrawn


def row(destination: str, kind: str, *withdrawn: str) -> dict[str, Any]:
    return {"destination": destination, "kind": kind, "wanted_by": ["node/node2"], "withdrawn": list(withdrawn)}


def test_only_routes_that_agents_say_are_withdrawn_are_and_not_every_one_that_refuses() -> None:
    closed = row("fd00:10:244:2::/64", "unreachable")
    assert _withdrawn({"node1": [row("10.244.2.0/24", "unicast"), closed]}) == {}
    gone = row("10.244.2.0/24", "unreachable", "node2")
    assert _withdrawn({"node1": [gone, closed], "node3": [gone], "node4": [closed]}) == {"node2": ["node1", "node3"]}
