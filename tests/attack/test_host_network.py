"""Pods in the network of their node: they may change that, and nothing of the lab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Podplane, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """A lab of two nodes."""
    with running(tmp_path_factory, "--nodes", "2") as started:
        yield started


def test_the_nodes_network_is_theirs_and_the_labs_namespaces_are_not(lab: Podplane) -> None:
    script = "ip link add br9 type bridge && ip link del br9 && echo changed; readlink /proc/self/ns/user"
    seen = {node: lab.on_node(node, script).split() for node in ("node1", "node2")}
    assert [words[0] for words in seen.values()] == ["changed"] * 2
    holder = lab.folder.holder()
    assert holder is not None
    assert len({os.readlink(f"/proc/{holder}/ns/user"), *(words[1] for words in seen.values())}) == 3


def test_they_can_not_write_what_is_the_machines(lab: Podplane) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    tries = "for f in /proc/sys/kernel/core_pattern /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger; do"
    assert (
        lab.on_node("node1", f"exec 2>/dev/null; {tries} (: >$f) && echo $f; done; umount /proc/sys && echo umount; true") == ""
    )
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
