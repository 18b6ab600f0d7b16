"""GRE between the nodes of a lab, alone and as host-gw's way to other subnets. Where the kernel has none, this runs in a virtual machine
(`make test-vm`)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import live_stream
from podplane.kernel import link_kinds
from podplane.routes import gre
from tests.e2e.conftest import PATIENCE, Podplane, name_servers, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("gre")]
if link_kinds.missing(gre.KINDS.values()):
    pytest.skip(f"this kernel lacks the {link_kinds.modules(gre.KINDS.values())}", allow_module_level=True)
NEAR = "echo-node3-1"
"""A pod on the subnet of node1, which has a pod, too; node2 is behind the router."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    words = ("--cross-subnet", "gre", "--subnets", "2", "--nodes", "3", "--pods-per-node", "1")
    with running(tmp_path_factory, *words, "--node-monitor-grace-period", str(round(50 * PATIENCE))) as started:
        until(lambda: len(name_servers(started)) == 3)  # they start last, and `up` does not wait for them
        yield started


def check(lab: Podplane) -> None:
    """All promises are kept."""
    assert "promises are kept: " in lab("check", "--patience", str(PATIENCE)).stdout


def links(lab: Podplane) -> dict[str, str]:
    """By which links node1 reaches the pods of others."""
    rows = [line.split() for line in lab("routes", "--node", "node1").stdout.splitlines()[1:]]
    assert {row[-1] for row in rows} == {"done"}
    return {row[-2]: row[3] for row in rows}


def test_host_gw_leads_to_nodes_of_other_subnets_through_gre_alone(lab: Podplane) -> None:
    assert links(lab) == {"node/node2": "podplane-gre4", "node/node3": "eth0"}
    check(lab)


@contextlib.contextmanager
def streams(lab: Podplane, *pods: str) -> Iterator[list[dict[str, int]]]:
    """Pings of all addresses of these pods from node1's, and a connection to each; what became of them is there at the end."""
    ips = [one["ip"] for pod in pods for one in lab.api.get("pods", "default", pod)["status"]["podIPs"]]
    words = [*lab.command, "exec", "-i", "echo-node1-1", "--", sys.executable, str(Path(live_stream.__file__))]
    found: list[dict[str, int]] = []
    with contextlib.ExitStack() as stack:
        begun = []
        for ip in ips:
            one = subprocess.Popen([*words, ip], env=lab.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            begun.append(stack.enter_context(one))
        assert [one.stdout.readline() for one in begun if one.stdout] == ["begun\n"] * len(ips)
        yield found
        said = [one.communicate(timeout=30 * PATIENCE)[0] for one in begun]
        assert [one.returncode for one in begun] == [0] * len(ips), "a connection broke"
        found += map(json.loads, said)


def change(lab: Podplane, *words: str) -> None:
    """To another backend, until all nodes have it: the command waits for a minute, and the change goes on after that."""
    until(lambda: "All nodes are reached by" in lab("backend", "set", *words, code=None).stdout)


def test_a_change_to_gre_and_from_it_loses_nothing(lab: Podplane) -> None:
    """Pings that are on their way when the device goes may be lost: as many as with the other backends."""
    with streams(lab, NEAR) as found:
        for words in (("gre",), ("vxlan",), ("host-gw", "--cross-subnet", "gre"), ("gre",)):
            change(lab, *words)
    assert all(one["lines"] > 10 and one["lost"] <= 3 for one in found), found


def test_gre_keeps_all_promises(lab: Podplane) -> None:
    change(lab, "gre")
    assert set(links(lab).values()) == {"podplane-gre4"}
    assert "mtu 1476" in lab("exec", "echo-node1-1", "--", "ip", "-o", "link", "show", "eth0").stdout
    check(lab)
