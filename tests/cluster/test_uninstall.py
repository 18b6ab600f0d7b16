"""podplane goes from a real cluster without a trace, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from podplane.machine.program import JOURNAL, LOCK, SOCKET
from tests.cluster.podplane import PORT, Installed
from tests.cluster.state import state_of

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]


def test_nodes_are_afterwards_as_they_were_before(cluster: Installed) -> None:
    machines = cluster.rig.nodes
    for node, machine in machines.items():
        assert {Path(machine.path(f"/run/podplane/{one}")).exists() for one in (JOURNAL, LOCK, SOCKET)} == {True}, node
        assert state_of(machine) != cluster.before[node], "what is compared shows that podplane is there"
    said = cluster.uninstall()
    for node, machine in machines.items():
        before, after = cluster.before[node], state_of(machine)
        differences = {what: set(before[what]) ^ set(after[what]) for what in after if before[what] != after[what]}
        assert not differences, (node, differences)
    assert said.count("the network of this machine is as it was before the first start") == len(machines)
    cluster.install()
    cluster.run("again", "w1", "serve", str(PORT))
    cluster.run("asks", "w2", "pause")
    cluster.ready("again", "asks")
    assert cluster.ask("asks", cluster.ip("again")) == cluster.ip("asks")
    cluster.kubectl("delete", "pods", "--all", "--wait")
