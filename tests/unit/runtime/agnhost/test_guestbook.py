"""guestbook: a primary, a replica on another address of the loopback interface, and a frontend."""

from __future__ import annotations

import json
import socket

from podplane.runtime.agnhost.guestbook import proxied
from tests.ports import free_port
from tests.unit.runtime.agnhost.programs import Agnhost, agnhost, ask

__all__ = ["agnhost"]


def test_a_store(agnhost: Agnhost) -> None:
    port = agnhost.start("guestbook", "--http-port=0").port("TCP")
    assert ask(port, "/get") == (200, '{"data":{}}')
    assert ask(port, "/set?key=a&value=b%20c") == (200, '{"message":"Updated"}')
    assert ask(port, "/get?key=a") == (200, '{"data":"b c"}')
    assert ask(port, "/get?key=none") == (200, '{"data":""}')
    assert ask(port, "/set?value=x")[0] == 400
    assert ask(port, "/guestbook?cmd=drop")[0] == 400
    assert ask(port, "/nonsense")[0] == 404


def test_what_is_set_reaches_replicas(agnhost: Agnhost) -> None:
    port = agnhost.start("guestbook", "--http-port=0").port("TCP")
    ask(port, "/set?key=before&value=1")
    with socket.create_server(("127.0.0.1", 0)) as replica:
        agnhost_port = replica.getsockname()[1]
        primary = agnhost.start("guestbook", "--http-port=0", f"--backend-port={agnhost_port}").port("TCP")
        assert ask(primary, "/register?host=127.0.0.1") == (200, '{"data":{}}')
        with socket.create_connection(("127.0.0.1", primary)) as way:
            way.sendall(b"GET /set?key=k&value=a%26b HTTP/1.1\r\nHost: h\r\n\r\n")
            connection, _ = replica.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /set?key=k&value=a%26b HTTP/1.1\r\n")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert b'{"message":"Updated"}' in way.recv(4096)


def test_a_replica_takes_over_the_store(agnhost: Agnhost) -> None:
    port = free_port()
    primary = agnhost.start("guestbook", f"--http-port={port}")
    primary.port("TCP")
    ask(port, "/set?key=a&value=b")
    replica = agnhost.start("guestbook", "--http-port=0", f"--backend-port={port}", "--replicaof=127.0.0.1")
    own = replica.port("TCP")
    replica.said("Registered to node: 127.0.0.1")
    assert json.loads(ask(own, "/get")[1]) == {"data": {"a": "b"}}
    assert ask(port, "/register?host=")[0] == 400


def test_a_frontend_says_who_is_missing() -> None:
    assert proxied("agnhost-primary.invalid", "6379", "set?key=a&value=b").status == 400
    assert proxied("127.0.0.1", str(free_port()), "get?key=a&value=").status == 417


def test_bad_ports(agnhost: Agnhost) -> None:
    assert agnhost.run("guestbook", "--http-port=web").returncode == 1
