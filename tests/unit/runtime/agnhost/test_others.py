"""The smaller subcommands of agnhost, each as a process."""

from __future__ import annotations

import json
import re
import socket

import pytest

from podplane.runtime.agnhost import SUBCOMMANDS, logs_generator
from podplane.runtime.agnhost.in_cluster import Peers, token_hash
from podplane.runtime.agnhost.no_snat import checked
from tests.ports import free_port
from tests.unit.runtime.agnhost.programs import Agnhost, agnhost, ask

__all__ = ["agnhost"]


def test_help_tells_all(agnhost: Agnhost) -> None:
    said = agnhost.run("help").stdout
    assert all(f"  {name} " in said for name in SUBCOMMANDS)


def test_flags_of_logging_change_nothing_and_say_so(agnhost: Agnhost) -> None:
    done = agnhost.run("connect", "-v=5", "127.0.0.1:1")
    assert done.stderr == "agnhost connect: --v changes nothing here: all is logged\nREFUSED\n"


def test_lines_of_a_log(agnhost: Agnhost) -> None:
    done = agnhost.run("logs-generator", "-t", "3", "-d", "30ms")
    lines = done.stderr.splitlines()
    pattern = (
        r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ agnhost:1\] (\d) (GET|POST|PUT) /api/v1/namespaces/[a-z-]+/pods/\w{3,4} [2-5]\d\d"
    )
    assert [match[1] for line in lines if (match := re.fullmatch(pattern, line))] == ["0", "1", "2"]
    assert done.returncode == 0


@pytest.mark.parametrize("words", [["-t", "0", "-d", "1s"], ["-t", "1"], ["-t", "1", "-d", "nonsense"]])
def test_a_log_of_no_lines_is_refused(agnhost: Agnhost, words: list[str]) -> None:
    assert agnhost.run("logs-generator", *words).returncode == 1


def test_the_extremes_of_a_line() -> None:
    assert logs_generator.line(0, lambda below: 0) == "0 GET /api/v1/namespaces/kube-system/pods/bbb 200"
    assert logs_generator.line(9, lambda below: below - 1) == "9 PUT /api/v1/namespaces/ns/pods/9999 599"


def chunks(port: str, expected: str = "hello") -> dict[str, str]:
    """An environment of port-forward-tester."""
    shape = {"CHUNKS": "3", "CHUNK_SIZE": "4", "CHUNK_INTERVAL": "1"}
    return {"BIND_ADDRESS": "127.0.0.1", "BIND_PORT": port, "EXPECTED_CLIENT_DATA": expected, **shape}


@pytest.mark.parametrize(("sent", "got", "code"), [(b"hello", b"xxxx" * 3, 0), (b"HELLO", b"", 3), (b"he", b"", 2)])
def test_port_forward_tester(agnhost: Agnhost, sent: bytes, got: bytes, code: int) -> None:
    program = agnhost.start("port-forward-tester", env=chunks(str(free_port())))
    with socket.create_connection(("127.0.0.1", program.port("TCP"))) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: sock.recv(4096), b"")) == got
    assert program.process.wait(10) == code


def test_port_forward_tester_without_an_environment(agnhost: Agnhost) -> None:
    done = agnhost.run("port-forward-tester")
    assert (done.returncode, "Error resolving" in done.stderr) == (1, True)


def test_no_snat(agnhost: Agnhost) -> None:
    env = {"POD_IP": "127.0.0.1", "NODE_IP": "192.0.2.1"}
    port = agnhost.start("no-snat-test", "--port=0", env=env).port("TCP")
    proxy = agnhost.start("no-snat-test-proxy", "--port=0").port("TCP")
    assert ask(port, "/whoami")[1].startswith("127.0.0.1:")
    assert ask(port, f"/checknosnat?ips=127.0.0.1:{port}") == (200, "")
    assert ask(proxy, f"/checknosnat?target=127.0.0.1:{port}&ips=127.0.0.1:{port}") == (200, "")
    assert ask(proxy, f"/checknosnat?target=127.0.0.1:{port}&ips=127.0.0.1:{free_port()}")[0] == 500
    assert "SNAT to unexpected ip" in checked([f"127.0.0.1:{port}"], "192.0.2.2", "192.0.2.1").body.decode()
    assert checked([f"127.0.0.1:{port}"], "192.0.2.2", "127.0.0.1").body.decode().endswith('== my Node ip "127.0.0.1" - SNAT')


@pytest.mark.parametrize("env", [{}, {"POD_IP": "x", "NODE_IP": "192.0.2.1"}])
def test_no_snat_needs_addresses(agnhost: Agnhost, env: dict[str, str]) -> None:
    assert agnhost.run("no-snat-test", env=env).returncode == 1


@pytest.mark.parametrize("name", ["inclusterclient", "nettest"])
def test_outside_of_a_cluster_there_is_no_api(agnhost: Agnhost, name: str) -> None:
    done = agnhost.run(name)
    assert (done.returncode, "KUBERNETES_SERVICE_HOST is not set" in done.stderr) == (1, True)


def test_tokens_are_told_apart_by_a_hash() -> None:
    assert token_hash("a") != token_hash("b")
    assert re.fullmatch(r"[\w-]{43}", token_hash("a"))


def test_peers() -> None:
    peers = Peers("me")
    assert peers.status(1) == "running"
    assert json.loads(peers.heard(b'{"Source": "you", "Dest": "http://me"}')) == {"Hostname": "me"}
    peers.sent["you"] = 1
    assert peers.status(1) == "pass"
    for nonsense in (b"", b"[]", b"{}", b'{"Source": 1}'):
        peers.heard(nonsense)
    peers.still_contacting = False
    assert peers.status(2) == "fail"
    assert peers.document()["Received"] == {"you": 1}
    assert len(peers.document()["Errors"]) >= 4
    for _ in range(600):
        peers.note("x")
    assert len(peers.document()["Log"]) == 500
