"""A filter of a socket, with datagrams over the loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from podplane.kernel.socket_filter import MOST, limit, program

COUNT = 100
FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    family, ip = request.param
    with socket.socket(family, socket.SOCK_DGRAM) as bound, socket.socket(family, socket.SOCK_DGRAM) as client:
        bound.bind((ip, 0))
        bound.setblocking(False)
        client.bind((ip, 0))
        client.connect(bound.getsockname())
        yield bound, client


def come_in(pair: tuple[socket.socket, socket.socket], count: int = COUNT) -> int:
    """How many of so many datagrams do."""
    bound, client = pair
    for i in range(count):
        client.send(bytes(i % 50))
    received = 0
    while True:
        try:
            bound.recv(100)
        except BlockingIOError:
            return received
        received += 1


def others(family: int, count: int) -> list[bytes]:
    pattern = "127.0.1.{}" if family == socket.AF_INET else "::1:{}"
    return [socket.inet_pton(family, pattern.format(i)) for i in range(count)]


def test_of_an_address_a_part_comes_in_and_of_others_all(pair: tuple[socket.socket, socket.socket]) -> None:
    bound, _ = pair
    own = socket.inet_pton(bound.family, bound.getsockname()[0])
    limit(bound, {own: 0.0})
    assert come_in(pair) == 0
    limit(bound, dict.fromkeys(others(bound.family, MOST), 0.0))
    assert come_in(pair) == COUNT
    limit(bound, {**dict.fromkeys(others(bound.family, MOST - 1), 1.0), own: 0.0})
    assert come_in(pair) == 0
    limit(bound, {own: 0.5})
    assert 300 < sum(come_in(pair) for _ in range(10)) < 700, "by chance: outside of that once in 10^36 times"
    for _ in range(2):
        limit(bound, {})
        assert come_in(pair) == COUNT


def test_it_is_what_the_kernel_takes() -> None:
    passing = dict.fromkeys(others(socket.AF_INET6, MOST), 0.5)
    assert len(program(passing)) < 4096
    assert program({}) == [(0x06, 0, 0, 0xFFFFFFFF)]
    with pytest.raises(ValueError, match="65 addresses are too many"):
        program(dict.fromkeys(others(socket.AF_INET, MOST + 1), 0.5))


def test_a_socket_that_is_closed_is_refused() -> None:
    closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    closed.close()
    for passing in ({}, {b"\x7f\0\0\1": 0.5}):
        with pytest.raises(OSError, match="Bad file descriptor"):
            limit(closed, passing)
