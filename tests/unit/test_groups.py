"""How tests are spread over workers."""

from __future__ import annotations

import pytest


def test_the_tests_of_a_module_run_in_one_worker(request: pytest.FixtureRequest) -> None:
    """pytest-xdist knows groups by the ids of tests; where it does not, each worker starts each lab."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("this is no worker of a run with --dist loadgroup")
    assert request.node.nodeid.endswith("@unit.test_groups")
