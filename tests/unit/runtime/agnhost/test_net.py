"""net: half-closed connections, from the command line and over HTTP."""

from __future__ import annotations

import json
import socket

import pytest

from podplane.runtime.agnhost import net
from tests.unit.runtime.agnhost.programs import Agnhost, agnhost, ask

__all__ = ["agnhost"]


def test_a_server_and_a_client(agnhost: Agnhost) -> None:
    server = agnhost.start("net", "--runner", "nat-closewait-server", "--options", '{"LocalAddr":"127.0.0.1:0"}')
    port = server.port("TCP")
    options = json.dumps({"RemoteAddr": f"127.0.0.1:{port}", "TimeoutSeconds": 5})
    client = agnhost.run("net", "--runner", "nat-closewait-client", "--options", options)
    assert client.returncode == 0
    assert client.stdout.startswith("output:\n\n# Run {")
    assert "# Server has half-closed the connection, waiting 0 seconds\n# Done\n" in client.stdout
    assert server.process.wait(10) == 0


def test_over_http_a_leaked_connection_stays(agnhost: Agnhost) -> None:
    program = agnhost.start("net", "--serve", "127.0.0.1:0")
    port = program.port("TCP")
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {"RemoteAddr": f"127.0.0.1:{server.getsockname()[1]}", "LeakConnection": True}
        with socket.create_connection(("127.0.0.1", port)) as way:
            body = json.dumps(options).encode()
            way.sendall(b"POST /run/nat-closewait-client HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            connection, _ = server.accept()
            connection.shutdown(socket.SHUT_WR)
            assert way.recv(4096).startswith(b"HTTP/1.1 200 OK")
        with connection:
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)  # nothing, and no end


@pytest.mark.parametrize(
    ("target", "body", "status", "why"),
    [
        ("/run/nonsense", "{}", 500, "Invalid runner"),
        ("/run/nat-closewait-client", "nonsense", 500, "Invalid options JSON"),
        ("/run/nat-closewait-client", "[]", 500, "Invalid options JSON"),
        ("/run/nat-closewait-client", '{"Other": 1}', 500, "is not one of RemoteAddr"),
        ("/run/nat-closewait-client", '{"TimeoutSeconds": "x"}', 500, "is no int"),
        ("/run/nat-closewait-client", '{"RemoteAddr": "x"}', 500, "is not a number"),
        ("/run/nat-closewait-server", '{"LocalAddr": "x"}', 500, "address:port"),
        ("/", "", 404, "not found"),
    ],
)
def test_what_can_not_be_run_is_said(agnhost: Agnhost, target: str, body: str, status: int, why: str) -> None:
    port = agnhost.start("net", "--serve", ":0").port("TCP")
    found = ask(port, target, "POST", body)
    assert found[0] == status
    assert why in found[1]


def test_names_of_options_have_no_case() -> None:
    assert net.parsed('{"localaddr": ":1"}', {"LocalAddr": ""}) == {"LocalAddr": ":1"}


@pytest.mark.parametrize("words", [[], ["--runner", "nonsense"], ["--serve", "nonsense"]])
def test_bad_usage(agnhost: Agnhost, words: list[str]) -> None:
    assert agnhost.run("net", *words).returncode == 1
