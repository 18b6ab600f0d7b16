"""An agent's process that starts while the API is away, after one that knew the cluster: packets, pods and policies are as before."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kernel.lives import DENY, Machine, answer, until
from tests.kernel.test_foreign import run
from tests.unit.cni import programs
from tests.unit.cni.programs import words_of

pytestmark = pytest.mark.kernel
ROUTE = "10.244.2.0/24 via 192.168.1.11"


def test_pods_come_and_go_with_the_policies_that_were_known_last(tmp_path: Path) -> None:
    machine = Machine(tmp_path, words_of("c", tmp_path), 3)
    try:
        machine.put("networkpolicies", "default/deny", DENY)
        machine.start()
        status, added = answer(machine.call("ADD", "p0"))
        assert status == 0 and added["ips"][0]["address"] == "10.244.1.2/32", added
        until(lambda: (tmp_path / "run" / "cluster").exists(), "what is known of the cluster")
        machine.change(is_away=True)
        before = machine.kernel()
        machine.end(signal.SIGKILL)
        machine.start()
        assert answer(machine.call("CHECK", "p0", prevResult=added)) == (0, None)
        assert machine.kernel() == before and ROUTE in run("ip route"), "what the kernel has is what is known"
        status, second = answer(machine.call("ADD", "p1"))
        assert status == 0 and second["ips"][0]["address"] == "10.244.1.3/32", "no address is given twice"
        assert run("nft list table inet podplane-policy").count('goto deny-in comment "default deny: np/default/deny"') > 0
        for name in ("p0", "p1"):
            assert answer(machine.call("DEL", name)) == (0, None)
        assert "10.244.1.2" not in run("nft list ruleset") and ROUTE in run("ip route")
        assert "the API is away: it begins with what was known" in machine.said() and "Traceback" not in machine.said()
        assert "ready: the network of this node is in place node=node1" in machine.said() and "httpx" not in machine.said()
    finally:
        machine.close()
        programs.clean()
