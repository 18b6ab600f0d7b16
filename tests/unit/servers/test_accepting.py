"""Connections of the loopback, more than are begun at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator

import pytest

from podplane.servers import accepting
from podplane.servers.accepting import TakingTurns
from podplane.servers.turns import Turns


class Rig:
    """An acceptor, and what it has begun."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.at = self.listener.getsockname()
        self.begun: list[str] = []
        self.sockets: list[socket.socket] = []

    def acceptor(self) -> TakingTurns:
        return TakingTurns(self.listener, self.begin)

    def begin(self, accepted: socket.socket, ip: str) -> None:
        self.begun.append(ip)
        self.sockets.append(accepted)

    def connect(self, *ips: str) -> list[socket.socket]:
        made = []
        for ip in ips:
            one = socket.socket()
            one.bind((ip, 0))
            one.connect(self.at)
            made.append(one)
        self.sockets += made
        return made

    async def has_begun(self, count: int) -> None:
        while len(self.begun) < count:  # noqa: ASYNC110  # nobody says when
            await asyncio.sleep(0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for one in (made.listener, *made.sockets):
        one.close()


def is_reset(connection: socket.socket) -> bool:
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        try:
            connection.recv(1)
        except ConnectionResetError:
            return True
    return False


A, B = "127.0.0.1", "127.0.0.2"


async def test_of_each_client_one_in_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "BEGUN_AT_ONCE", 1)
    rig.connect(A, A, A, B, B)
    made = rig.acceptor()
    await rig.has_begun(5)
    assert rig.begun == [A, B, A, B, A]
    rig.connect(B)
    await rig.has_begun(6)
    made.close()


async def test_who_connects_without_end_finds_its_own_closed(rig: Rig) -> None:
    made = rig.acceptor()
    made._turns = Turns(6, 3)
    many = rig.connect(*[A] * 10)
    (other,) = rig.connect(B)
    await rig.has_begun(4)
    assert rig.begun == [A, B, A, A]
    assert [is_reset(one) for one in many] == [False] * 3 + [True] * 7 and not is_reset(other)
    made.close()


async def test_closed_it_takes_none(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "BEGUN_AT_ONCE", 1)
    made = rig.acceptor()
    many = rig.connect(*[A] * 3)
    await rig.has_begun(1)
    for _ in range(2):
        made.close()
    await asyncio.sleep(0.01)
    assert rig.begun == [A] and [is_reset(one) for one in many] == [False, True, True]
    with pytest.raises(ConnectionRefusedError):
        rig.connect(A)


class Failing:
    """A listener that fails at first."""

    def __init__(self, listener: socket.socket, *numbers: int) -> None:
        self._listener, self._numbers = listener, list(numbers)

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if self._numbers:
            raise OSError(self._numbers.pop(0), "of a test")
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        self._listener.close()


async def test_what_befalls_one_connection_and_what_all(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.01)
    made = rig.acceptor()
    made._acceptor._listener = Failing(rig.listener, errno.ECONNABORTED, errno.EMFILE)  # type: ignore[assignment]
    rig.connect(A)
    with caplog.at_level(logging.WARNING):
        await rig.has_begun(1)
    assert [one.getMessage() for one in caplog.records] == [
        f"no connections are taken for 0.01 s: [Errno {errno.EMFILE}] of a test"
    ]
    made.close()


async def test_a_pause_ends_with_it(rig: Rig) -> None:
    made = rig.acceptor()
    made._acceptor._listener = Failing(rig.listener, errno.ENFILE)  # type: ignore[assignment]
    rig.connect(A)
    while made._acceptor._pause is None:  # noqa: ASYNC110  # nobody says when
        await asyncio.sleep(0)
    made.close()
    assert made._acceptor._pause.cancelled() and not rig.begun
