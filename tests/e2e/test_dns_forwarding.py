"""Names that other servers answer for: a server on the machine's loopback, one that dies, one that leads back, and one in the lab."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.rrset
import pytest

from podplane.dns.config import KEY
from tests.e2e.conftest import Podplane, running, until

POD = "echo-node1-1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """Two nodes, a pod each."""
    with running(tmp_path_factory, "--nodes", "2", "--pods-per-node", "1") as started:
        yield started


class Server:
    """A server on the machine's loopback that knows `www.example`, whose TTL is 1 s."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.is_silent = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, client = self.socket.recvfrom(4096)
            if not data:
                return
            if self.is_silent:
                continue
            response = dns.message.make_response(dns.message.from_wire(data), recursion_available=True)
            name = response.question[0].name
            if name.to_text().lower() == "www.example.":
                response.answer = [dns.rrset.from_text(name, 1, "IN", "A", "192.0.2.7")]
            else:
                response.set_rcode(3)  # type: ignore[arg-type]
            self.socket.sendto(response.to_wire(), client)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self.socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def configure(lab: Podplane, **settings: Any) -> None:
    lab.api.patch("configmaps", "kube-system", "podplane-dns", {"data": {KEY: json.dumps(settings)}})


def getent(lab: Podplane, name: str) -> list[str]:
    return lab("exec", POD, "--", "getent", "ahostsv4", name, code=None).stdout.split()[:1]


def test_a_server_of_the_machine_answers_and_its_answers_outlive_it(lab: Podplane, server: Server) -> None:
    configure(lab, upstreams=[f"127.0.0.1:{server.port}"])
    until(lambda: getent(lab, "www.example") == ["192.0.2.7"])
    server.is_silent = True
    time.sleep(1.2)
    assert getent(lab, "www.example") == ["192.0.2.7"], "what it said last, while it is away"
    until(lambda: "no answer within 2 s" in lab("dns", "status", "--node", "node1", code=None).stdout)
    assert getent(lab, "www.example") == ["192.0.2.7"]
    server.is_silent = False
    until(lambda: "no answer within 2 s" not in lab("dns", "status", "--node", "node1", code=None).stdout)


def test_a_server_that_leads_back_is_told_and_the_clusters_names_go_on(lab: Podplane) -> None:
    """node2's own address is that of the same server; so is a node that passes questions on to the cluster's DNS."""
    address = lab.api.get("pods", "default", "echo-node2-1")["status"]["podIP"].rsplit(".", 1)[0] + ".1"
    configure(lab, upstreams=[address])
    until(lambda: "it is this server itself" in lab("dns", "status", "--node", "node1", code=None).stdout)
    assert "it is this server itself" in lab("dns", "query", "www.example.", "--from", POD, code=1).stdout
    assert getent(lab, "kubernetes.default") == ["10.96.0.1"]


def test_a_server_in_the_lab_is_reached_from_a_node(lab: Podplane) -> None:
    """The address of a pod, which the machine does not know."""
    pod = lab.api.get("pods", "default", "echo-node2-1")["status"]["podIP"]
    configure(lab, zones={"corp.example": [f"{pod}:53"]})
    found = lab("dns", "query", "x.corp.example.", "--from", POD, code=1).stdout
    assert f"{pod}: Connection refused" in found, "the pod itself says that nobody listens there"
