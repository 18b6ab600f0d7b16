"""Sysctls that are looked at through open files show their own namespace, whoever reads them."""

from __future__ import annotations

import os
import subprocess

import pytest

from podplane.kernel.door import Kernel, KernelOpener
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.state.network import Sysctl
from podplane.state.operations import Operation

pytestmark = pytest.mark.kernel
FORWARD, PORTS = "net.ipv4.ip_forward", "net.ipv4.ip_local_port_range"


def test_it_shows_the_namespace_that_it_was_opened_in_and_what_others_change_there() -> None:
    other = Kernel(NetworkNamespace.create(Workers(1)), KernelOpener())
    expected = {FORWARD: "1", PORTS: "32768 60999"}
    assert not other.apply([Operation(None, Sysctl(name=name, value=value)) for name, value in expected.items()]).failed
    with open("/proc/sys/net/ipv4/ip_forward", "w") as here:
        here.write("0")
    watch = other.sysctl_watch(expected)
    assert (watch.changed(expected), watch.unwatched) == ({}, frozenset())
    other.apply([Operation(None, Sysctl(name=FORWARD, value="0")), Operation(None, Sysctl(name=PORTS, value="40000 50000"))])
    assert watch.changed(expected) == {FORWARD: "0", PORTS: "40000 50000"}
    assert watch.changed({FORWARD: "0"}) == {}


def test_what_is_missing_or_goes_with_its_link_is_not_watched_and_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    subprocess.run(["ip", "link", "add", "eth0", "type", "bridge"], check=True)
    expected = {"net.ipv4.conf.eth0.rp_filter": "7", "net.ipv4.none": "1", FORWARD: "7"}
    namespace = CurrentNamespace()
    watch = KernelOpener().sysctl_watch(namespace, expected)
    assert watch.unwatched == {"net.ipv4.none"}
    assert watch.changed(expected).keys() == {"net.ipv4.conf.eth0.rp_filter", FORWARD}
    subprocess.run(["ip", "link", "delete", "eth0"], check=True)
    assert watch.changed(expected).keys() == {FORWARD}
    assert watch.unwatched == {"net.ipv4.none", "net.ipv4.conf.eth0.rp_filter"}
    watch.close()
    watch.close()
    namespace.close()
    assert len(os.listdir("/proc/self/fd")) == before
