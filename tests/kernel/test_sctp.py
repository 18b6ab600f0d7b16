"""Policies and SCTP on the real kernel. Where that has no SCTP sockets, these run in a virtual machine (`make test-vm`)."""

from __future__ import annotations

import os
import socket

import pytest

from podplane.kernel.namespace import CurrentNamespace
from podplane.model.policy import EVERYTHING, PodSelector, PolicyPort, PolicyRule
from tests.fake_cluster import pod_ip
from tests.kernel.cluster import FAMILY
from tests.kernel.test_policies import RealPoliced
from tests.policed import name_of, policy, select

pytestmark = pytest.mark.kernel
try:
    CurrentNamespace().run(socket.socket, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
except OSError as error:
    pytest.skip(f"this kernel has no SCTP sockets: {error.strerror}", allow_module_level=True)

PATIENCE = float(os.environ.get("PODPLANE_TEST_PATIENCE", "1"))
DENIED_SECONDS = 1.0
SERVER, BESIDE, FAR, OTHER = (1, 1), (1, 2), (2, 2), (2, 1)
"""BESIDE and FAR are of team b."""


class Servers:
    """A pod that listens on ports, and pods that connect to it, by SCTP or TCP."""

    def __init__(self, cluster: RealPoliced, version: int) -> None:
        self._cluster, self._version = cluster, version
        self._listening: dict[tuple[int, int], socket.socket] = {}

    def connect(self, client: tuple[int, int], port: int, protocol: int) -> socket.socket | None:
        """The client's end, once each has heard the other; None when nothing answers."""
        server = self._listening.get((port, protocol)) or self._listen(port, protocol)
        own = self._cluster.namespaces[name_of(*client)].run(self._socket, protocol)
        own.settimeout(DENIED_SECONDS * PATIENCE)
        try:
            own.connect(server.getsockname()[:2])
        except TimeoutError:
            own.close()
            return None
        with server.accept()[0] as accepted:
            accepted.sendall(b"hello")
            assert own.recv(10) == b"hello"
            own.sendall(b"well")
            assert accepted.recv(10) == b"well"
        return own

    def passes(self, client: tuple[int, int], port: int, protocol: int) -> bool:
        """Does a new connection?"""
        own = self.connect(client, port, protocol)
        if own is not None:
            own.close()
        return own is not None

    def _socket(self, protocol: int) -> socket.socket:
        return socket.socket(FAMILY[self._version], socket.SOCK_STREAM, protocol)

    def _listen(self, port: int, protocol: int) -> socket.socket:
        made = self._cluster.namespaces[name_of(*SERVER)].run(self._socket, protocol)
        made.bind((str(pod_ip(*SERVER, self._version)), port))
        made.listen()
        made.settimeout(30 * PATIENCE)
        self._listening[port, protocol] = made
        return made

    def close(self) -> None:
        """No one listens any more."""
        for one in self._listening.values():
            one.close()


@pytest.mark.parametrize("version", [4, 6])
def test_policies_tell_ports_and_clients_of_sctp_apart_and_sctp_from_tcp(version: int) -> None:
    real = RealPoliced()
    servers = Servers(real, version)
    only = policy("web", EVERYTHING, [PolicyRule((PodSelector(select(team="b")),), (PolicyPort("SCTP", (80, 80)),))])
    sctp, tcp = socket.IPPROTO_SCTP, socket.IPPROTO_TCP
    tries = [(FAR, 80, sctp), (BESIDE, 80, sctp), (FAR, 81, sctp), (OTHER, 80, sctp), (FAR, 80, tcp)]
    real.put(only)
    assert [servers.passes(*one) for one in tries] == [True, True, False, False, False]
    real.put(policy("web", EVERYTHING, [PolicyRule((PodSelector(select(team="b")),), (PolicyPort("TCP", (80, 80)),))]))
    assert [servers.passes(*one) for one in tries] == [False, False, False, False, True]
    real.remove(only)
    assert all(servers.passes(*one) for one in tries), "what was denied was denied by the policy"
    servers.close()
