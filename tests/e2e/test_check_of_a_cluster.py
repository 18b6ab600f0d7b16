"""`podplane check` as of a cluster, with pods of its own, of a lab with two families, a router between nodes, and names: what the cluster
of `tests/cluster` can't show. The lab has no image of podplane: what its pods run is of this machine."""

from __future__ import annotations

import os
import sys

import pytest

from podplane.cli.check.cluster import command, pods
from podplane.cli.check.cluster.command import Wanted
from podplane.cli.check.promises import FULL_SIZE, NO_NAT, OUTSIDE
from podplane.lab import user_ids
from podplane.model.config import CHECK_NAMESPACE
from tests.e2e.conftest import readable_python, running

pytestmark = pytest.mark.e2e


def test_all_is_kept_with_two_families_and_a_tunnel_between_nodes(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = readable_python()
    if python is None:
        pytest.skip("there is no Python here that anybody may read")
    if not user_ids.find(shows_homes=True).user:
        pytest.skip("pods can be no users of their own here: this user has no subordinate ids")
    words = ("/usr/bin/env", f"PYTHONPATH={os.pathsep.join(filter(None, sys.path))}", python, *pods.PROBER[1:])
    monkeypatch.setattr(pods, "PROBER", words)
    options = ("--nodes", "2", "--pods-per-node", "0", "--subnets", "2", "--backend", "auto", "--mount-home")
    with running(tmp_path_factory, *options) as lab:
        result = command.examined(lab.api, Wanted(namespace="", image="host/python", deep=False, everything=False))
        assert CHECK_NAMESPACE not in {one["metadata"]["name"] for one in lab.api.objects("namespaces")}
    found = {one.promise: one for one in result.verdicts}
    assert not [failure for one in found.values() for failure in one.failures]
    assert [name for name, one in found.items() if one.not_tried] == [OUTSIDE]
    assert len(result.pods) == 5 and found[NO_NAT].proved == 5 * 4 * 2
    assert found[FULL_SIZE].proved == (2 + 2) * 2, "both ways between the nodes, and on each, in two families"
