"""Routes that let those of another network count before them."""

from __future__ import annotations

import pytest

from podplane.routes.behind import METRIC, behind
from podplane.routes.table import NAMES, backend
from podplane.routes.withdrawal import found_withdrawn, withdrawn
from podplane.state.network import Route
from tests.plans import config, node

DUAL = (4, 6)


@pytest.mark.parametrize("name", NAMES)
def test_all_routes_of_a_backend_come_behind_and_nothing_else_differs(name: str) -> None:
    planned = backend(name).plan_peer(node(2, DUAL), node(1, DUAL), config(DUAL))
    found = behind(planned, METRIC)
    routes = [one for one in found.values() if isinstance(one, Route)]
    assert {one.metric for one in routes} == {METRIC} and {one.destination.version for one in routes} == {4, 6}
    assert [one for one in found.values() if not isinstance(one, Route)] == [
        one for one in planned.values() if not isinstance(one, Route)
    ]
    assert found.keys() == {one.identity for one in found.values()}, "a metric is part of a route's identity"
    assert behind(planned, 0) is planned


def test_a_withdrawn_peer_is_known_again_by_routes_that_come_behind() -> None:
    peer = node(2, DUAL)
    planned = withdrawn(behind(backend("host-gw").plan_peer(peer, node(1, DUAL), config(DUAL)), METRIC), peer)
    assert found_withdrawn(planned.values(), [peer]) == {"node2"}
