"""What the built-in prober tells of its interfaces: all addresses but those of lo and of the kernel's making, and the smallest MTU."""

from __future__ import annotations

import subprocess

import pytest

from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.runtime.interfaces import interfaces

pytestmark = pytest.mark.kernel
SETUP = """
link set lo up
addr add 10.9.9.9/32 dev lo
link add eth0 mtu 1450 type bridge
link add eth1 mtu 1400 type bridge
addr add 10.1.0.2/24 dev eth0
addr add fd00::2/64 dev eth0 nodad
addr add fe80::2/64 dev eth0 nodad
addr add 10.2.0.2 peer 10.2.0.3 dev eth1
"""


def test_addresses_and_the_smallest_mtu() -> None:
    with NetworkNamespace.create(Workers(1)) as namespace:
        assert namespace.run(interfaces) == ([], 0)
        namespace.run(lambda: subprocess.run(["ip", "-batch", "-"], input=SETUP.encode(), check=True))
        addresses, mtu = namespace.run(interfaces)
    assert sorted(addresses) == ["10.1.0.2", "10.2.0.2", "fd00::2"]
    assert mtu == 1400
