"""`podplane/probe`: messages by datagram and by connection, on this machine's own loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from podplane.runtime import probe
from podplane.runtime.probe import Prober, resolv_conf
from tests.ports import free_port

Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(kind: socket.SocketKind, answer: Answer) -> Iterator[int]:
    """The port of somebody who answers once."""
    with socket.socket(socket.AF_INET, kind) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(5)
        if kind == socket.SOCK_STREAM:
            bound.listen()
        thread = threading.Thread(target=answer, args=(bound,))
        thread.start()
        yield bound.getsockname()[1]
        thread.join()


def asked(protocol: str, port: int, payload: bytes = b"question") -> dict[str, Any]:
    """What a prober saw."""
    prober = Prober(-1, -1)
    prober._patience = 2.0
    row = {"protocol": protocol, "ip": "127.0.0.1", "port": port, "payload": payload.hex()}
    (answer,) = prober._probe_all([row])["answers"]
    found: dict[str, Any] = answer
    return found


def echo(bound: socket.socket) -> None:
    data, client = bound.recvfrom(1500)
    bound.sendto(data[::-1], client)


def over_connection(*parts: bytes) -> Answer:
    """Answer with these bytes, each in a send of its own, and close."""

    def answer(bound: socket.socket) -> None:
        sock, _ = bound.accept()
        with sock:
            length = int.from_bytes(sock.recv(2), "big")
            assert sock.recv(length) == b"question"
            for part in parts:
                sock.sendall(part)

    return answer


def test_a_datagram_comes_back() -> None:
    with server(socket.SOCK_DGRAM, echo) as port:
        assert asked("udp-message", port) == {"ok": True, "seen": {"message": b"noitseuq".hex()}, "error": ""}


@pytest.mark.parametrize("parts", [(b"\0\6answer",), (b"\0", b"\6", b"ans", b"wer"), (b"\0\6answer and more",)])
def test_a_message_comes_back_over_a_connection_in_whatever_pieces(parts: tuple[bytes, ...]) -> None:
    with server(socket.SOCK_STREAM, over_connection(*parts)) as port:
        assert asked("tcp-message", port) == {"ok": True, "seen": {"message": b"answer".hex()}, "error": ""}


@pytest.mark.parametrize("parts", [(), (b"\0",), (b"\0\6ans",), (b"\0\0",)])
def test_a_connection_that_ends_too_early_is_no_answer(parts: tuple[bytes, ...]) -> None:
    with server(socket.SOCK_STREAM, over_connection(*parts)) as port:
        found = asked("tcp-message", port)
    assert (found["ok"], found["error"]) == (False, "the connection was closed without an answer")


def test_nobody_answers() -> None:
    free = free_port()
    assert asked("udp-message", free)["error"] == "Connection refused"
    assert asked("tcp-message", free)["error"] == "Connection refused"


def test_the_resolv_conf_is_the_container_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(resolv_conf()) <= probe.RESOLV_CONF_CHARACTERS

    def missing(*words: object, **more: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert resolv_conf() == ""


def test_the_server_answers_datagrams_of_probes_and_no_others() -> None:
    """Two that answered anything could answer each other for ever."""
    prober = Prober(-1, -1)
    said = prober._serve({"name": "one", "anywhere": True})
    assert said["datagrams"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        assert not prober._serve_datagrams(taken.getsockname()[1]), "somebody else has that port"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", said["port"]))
        client.settimeout(1)
        for data in (b"anything", probe.DATAGRAM):
            client.send(data)
            prober._turn(1)
        assert client.recv(100) == b'{"name": "one", "source": "127.0.0.1"}\n'
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(100)
    assert (
        prober._probe_all([{"protocol": "udp", "ip": "127.0.0.1", "port": said["port"]}])["answers"][0]["seen"]["name"] == "one"
    )
