"""Pods whose node is no node: deleted after a while, unless it is a machine that may have pods all the same."""

from __future__ import annotations

import datetime
from typing import Any

from podplane.apiserver.controllers import pod_gc
from podplane.apiserver.controllers.decision import Again, Delete

BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class View:
    """One pod, and no node at all."""

    def __init__(self, node: str) -> None:
        self.now = BEGIN
        self.pod: dict[str, Any] = {"metadata": {"name": "a", "namespace": "default", "uid": "1"}, "spec": {"nodeName": node}}

    def get(self, resource: str, key: tuple[str, str]) -> Any:
        return self.pod if resource == "pods" else None


def decided(node: str) -> list[list[Any]]:
    """What is decided at once, and 41 seconds later."""
    view, controller = View(node), pod_gc.controller({"outside"})
    found = [list(controller.decide(view, ("default", "a")))]  # type: ignore[arg-type]  # as much of a view as it needs
    view.now += datetime.timedelta(seconds=41)
    return [*found, list(controller.decide(view, ("default", "a")))]  # type: ignore[arg-type]  # as above


def test_a_pod_of_a_missing_node_is_deleted_after_a_while() -> None:
    at_once, later = decided("gone")
    assert [type(action) for action in at_once] == [Again]
    assert [type(action) for action in later] == [Delete]


def test_a_machine_outside_may_have_pods() -> None:
    assert decided("outside") == [[], []]
