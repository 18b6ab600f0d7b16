"""netexec as network tests use it: over real sockets on the loopback interface, one program a test."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.unit.runtime.agnhost.programs import Agnhost, agnhost, ask

__all__ = ["agnhost"]


def send(port: int, data: bytes) -> bytes:
    """What comes back on a connection, until it ends."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(data)
        return b"".join(iter(lambda: sock.recv(4096), b""))


def message(port: int, data: bytes) -> bytes:
    """The answer to a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(data, ("127.0.0.1", port))
        return sock.recv(4096)


def netexec(agnhost: Agnhost) -> tuple[int, int]:
    """Its HTTP port and its UDP port."""
    program = agnhost.start("netexec", "--http-port=0", "--udp-port=0")
    return program.port("TCP"), program.port("UDP")


def test_messages(agnhost: Agnhost) -> None:
    _, udp = netexec(agnhost)
    assert message(udp, b"hostname\n") == socket.gethostname().encode()
    assert message(udp, b"Echo Hello") == b"hello"
    assert message(udp, b" serverport ") == str(udp).encode()
    assert message(udp, b"clientip").startswith(b"127.0.0.1:")


@pytest.mark.parametrize("request_", ["serverport", "hostname"])
def test_dial_by_udp(agnhost: Agnhost, request_: str) -> None:
    http, udp = netexec(agnhost)
    wanted = {"serverport": str(udp), "hostname": socket.gethostname()}[request_]
    _, answer = ask(http, f"/dial?request={request_}&protocol=udp&host=127.0.0.1&port={udp}&tries=2")
    assert json.loads(answer) == {"responses": [wanted, wanted]}


def test_the_root_and_what_is_unknown_say_the_time_and_never_the_same_twice(agnhost: Agnhost) -> None:
    http, _ = netexec(agnhost)
    answers = [ask(http, path)[1] for path in ("/", "/nothing", "/", "/")]
    assert len(set(answers)) == 4
    pattern = r"NOW: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,9})? [+-]\d{4} \w+ m=\+\d+\.\d{9}"
    assert all(re.fullmatch(pattern, answer) for answer in answers), answers


def test_dial_by_http(agnhost: Agnhost) -> None:
    http, _ = netexec(agnhost)
    _, answer = ask(http, f"/dial?request=serverport&protocol=http&host=127.0.0.1&port={http}")
    assert json.loads(answer) == {"responses": [str(http)]}


def test_what_is_no_http_is_answered_at_once(agnhost: Agnhost) -> None:
    http, _ = netexec(agnhost)
    answer = send(http, b"hello\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"400 Bad Request")
    assert b"Connection: close" in answer
