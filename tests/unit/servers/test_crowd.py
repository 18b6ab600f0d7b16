"""Who of those that send more than can be read is kept from a socket, and how much of what it sends."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.servers import crowd
from podplane.servers.crowd import MOST, Crowd, passing

A, B, C = b"\x0a\0\0\x01", b"\x0a\0\0\x02", b"\x0a\0\0\x03"
counts = st.dictionaries(st.integers(0, 200).map(lambda n: n.to_bytes(4, "big")), st.integers(1, 50_000), max_size=80)


@given(counts, st.floats(100, 1e6), st.floats(0.01, 1))
def test_those_who_send_most_are_left_the_same_and_others_are_not_concerned(
    sent: dict[bytes, int], rate: float, seconds: float
) -> None:
    parts = passing(sent, {}, seconds, rate, least=0)
    left = {client: count / seconds * parts.get(client, 1.0) for client, count in sent.items()}
    assert all(0 <= part < 1 for part in parts.values()) and len(parts) <= MOST
    if sum(sent.values()) / seconds <= rate:
        assert not parts
    elif len(sent) <= MOST:
        assert sum(left.values()) == pytest.approx(rate)
        levels = [left[client] for client in parts]
        assert max(levels) == pytest.approx(min(levels))
        assert all(left[client] <= max(levels) * 1.001 for client in sent), "nobody else sends more than they may"


@given(counts, st.floats(100, 1e6), st.floats(1, 5000))
def test_nobody_is_left_less_than_the_least(sent: dict[bytes, int], rate: float, least: float) -> None:
    for client, part in passing(sent, {}, 1.0, rate, least).items():
        assert sent[client] * part >= least * 0.999


def test_what_was_kept_out_is_reckoned_with() -> None:
    assert passing({A: 100_000, B: 100}, {}, 1.0, 10_100) == {A: 0.1}
    assert passing({A: 10_000, B: 100}, {A: 0.1}, 1.0, 10_100) == {A: 0.1}
    assert passing({A: 500, B: 100}, {A: 0.1}, 1.0, 10_100) == {}, "it sends less now"
    assert passing({B: 100}, {A: 0.1}, 1.0, 10_100) == {}


class Rig:
    """A crowd whose batches a test makes up."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.batch = [A] * 63 + [B]
        self.limits: list[dict[bytes, float]] = []
        self.now = 0.0
        self.fails = False
        self.is_busy = True
        self.filled = 0.3

    def crowd(self) -> Crowd:
        return Crowd(self.socket, lambda: self.batch, self.limit, lambda: self.is_busy)

    def limit(self, bound: socket.socket, parts: Mapping[bytes, float]) -> None:
        if parts and self.fails:
            raise OSError("no filters here")
        self.limits.append(dict(parts))

    def perf_counter(self) -> float:
        return self.now

    def read(self, made: Crowd, batches: int, *, seconds: float = 0.0005, is_empty: bool = False) -> None:
        """Some batches, as fast as they can be read."""
        for _ in range(batches):
            self.now += seconds
            made.read(self.now - seconds, is_empty=is_empty)

    def rush(self, made: Crowd) -> None:
        """More than is read, until some are kept out."""
        self.read(made, 1, is_empty=True)
        for _ in range(30):
            self.read(made, 1)
            if self.limits[-1]:
                return
        raise AssertionError("nobody is kept out")


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig()
    monkeypatch.setattr(crowd.time, "perf_counter", made.perf_counter)
    monkeypatch.setattr(crowd, "LOOK_SECONDS", 1e9)
    monkeypatch.setattr(crowd, "DATAGRAM_BYTES", 1)
    monkeypatch.setattr(crowd, "filled", lambda bound: made.filled)
    yield made
    made.socket.close()


async def test_a_socket_that_is_emptied_takes_all(rig: Rig) -> None:
    made = rig.crowd()
    for _ in range(100):
        rig.read(made, 15)
        rig.read(made, 1, is_empty=True)
        rig.read(made, 15)
        made.empty(rig.now)
    assert rig.limits == [{}], "but what another process left is taken away"
    made.close()
    assert rig.limits == [{}]


async def test_nobody_is_kept_out_while_there_is_room(rig: Rig) -> None:
    """Clients that wait for their answers are never many enough, however slowly those come."""
    rig.filled = 0.2
    made = rig.crowd()
    rig.read(made, 1, is_empty=True)
    rig.read(made, 100)
    assert rig.limits == [{}]
    rig.filled = 0.3
    rig.read(made, 1)
    assert list(rig.limits[-1]) == [A]
    made.close()


def test_what_waits_in_a_socket_fills_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        bound.bind(("127.0.0.1", 0))
        assert crowd.filled(bound) == 0
        room = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        for _ in range(room // 2 // crowd.DATAGRAM_BYTES):
            asking.sendto(bytes(40), bound.getsockname())
        assert 0.4 < crowd.filled(bound) < 0.6
        while crowd.filled(bound):
            bound.recv(64)


async def test_who_fills_a_socket_is_kept_from_it_until_it_sends_less(rig: Rig) -> None:
    made = rig.crowd()
    rig.rush(made)
    assert list(rig.limits[-1]) == [A] and 0.005 < rig.limits[-1][A] < 0.5
    rig.batch = [B] * 3
    rig.read(made, 4, is_empty=True)
    rig.now += 0.05
    made._look()
    assert rig.limits[-1] == {}


async def test_the_log_says_now_and_then_who_sends_most(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.batch = [A] * 40 + [B] * 24
    made = rig.crowd()
    with caplog.at_level(logging.WARNING):
        for seconds in (0, 30, 40):
            rig.now += seconds
            rig.rush(made)
            made._let_in({})
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 2, "not each time"
    assert said[0].startswith("more questions come than can be read: of those of 10.0.0.1 the socket takes ")


async def test_a_process_that_is_late_blames_nobody_for_what_waited(rig: Rig) -> None:
    made = rig.crowd()
    rig.read(made, 15)
    assert rig.limits == [{}], "before it was there"
    rig.read(made, 1, is_empty=True)
    rig.now += 2.0
    rig.read(made, 19)
    assert rig.limits == [{}], "while it did something else"


async def test_less_is_let_in_as_long_as_the_socket_is_not_emptied(rig: Rig) -> None:
    made = rig.crowd()
    rig.rush(made)
    for is_empty in (False, False, True, True):
        before = rig.limits[-1][A]
        count = int(20_000 * before)  # as if it sent always the same
        rig.batch = [A] * count
        rig.read(made, 1, seconds=count / 60_000, is_empty=is_empty)
        rig.now = made._since + 0.05
        made._look()
        assert rig.limits[-1][A] < before if not is_empty else rig.limits[-1][A] >= before
    made.close()
    assert rig.limits[-1] == {}


async def test_more_is_let_in_while_nothing_else_waits(rig: Rig) -> None:
    made = rig.crowd()
    rig.rush(made)
    busy = rig.limits[-1][A]
    made.close()
    rig.is_busy = False
    idle = rig.crowd()
    rig.rush(idle)
    assert rig.limits[-1][A] > 2 * busy


async def test_no_more_is_let_in_than_there_is_room_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    room = rig.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    monkeypatch.setattr(crowd, "DATAGRAM_BYTES", room / 400)  # 2000 in a second
    rig.batch = [A] * 64
    rig.rush(rig.crowd())
    sent = 64 / 0.0005
    assert rig.limits[-1][A] * sent == pytest.approx(2000, rel=0.1)


async def test_where_there_are_no_filters_all_is_let_in_and_the_log_says_why(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.fails = True
    made = rig.crowd()
    rig.read(made, 1, is_empty=True)
    with caplog.at_level(logging.WARNING):
        rig.read(made, 100)
    assert [one.getMessage() for one in caplog.records] == [
        "clients that send too much can't be kept from a socket: no filters here"
    ]
    assert rig.limits == [{}]


async def test_they_are_looked_at_again_by_and_by(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "LOOK_SECONDS", 0)
    made = rig.crowd()
    rig.rush(made)
    rig.now += 1
    for _ in range(100):
        if rig.limits[-1] == {}:
            break
        await asyncio.sleep(0)
    assert len(rig.limits) == 3 and rig.limits[-1] == {}
