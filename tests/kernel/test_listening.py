"""The sockets of a node that wait for clients, as its kernel lists them."""

from __future__ import annotations

import socket
import subprocess

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener

pytestmark = pytest.mark.kernel


def test_sockets_that_wait_for_clients_are_listed_and_no_others() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    assert kernel.listening() == frozenset()
    one, all_of_them = socket.create_server(("127.0.0.1", 0)), socket.create_server(("::", 0), family=socket.AF_INET6)
    datagrams, connected = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    datagrams.bind(("127.0.0.2", 0))
    connected.connect(("127.0.0.1", 53))
    client = socket.create_connection(one.getsockname())
    with one, all_of_them, datagrams, connected, client, one.accept()[0]:
        found = {(protocol, port, str(ip)) for protocol, port, ip in kernel.listening()}
        assert found == {
            ("tcp", one.getsockname()[1], "127.0.0.1"),
            ("tcp", all_of_them.getsockname()[1], "::"),
            ("udp", datagrams.getsockname()[1], "127.0.0.2"),
        }
    assert kernel.listening() == frozenset()
