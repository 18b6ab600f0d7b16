"""Batches of datagrams over real sockets of the loopback: who is answered, in what order, and what is left over."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from podplane.kernel.datagrams import BYTES, COUNT, Address, Datagrams, Incoming, Outgoing

FAMILIES = {4: (socket.AF_INET, "127.0.0.1"), 6: (socket.AF_INET6, "::1")}


class Rig:
    """A socket that is asked, and one that asks."""

    def __init__(self, version: int) -> None:
        family, self.ip = FAMILIES[version]
        self.server, self.client = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        for one in (self.server, self.client):
            one.bind((self.ip, 0))
            one.settimeout(10)
        self.datagrams = Datagrams(version)
        self.senders = {socket.inet_pton(family, self.ip): b"!"}
        self.counts = [0] * 4

    def ask(self, *datagrams: bytes) -> None:
        for one in datagrams:
            self.client.sendto(one, self.server.getsockname())

    def exchange(self, replies: dict[bytes, tuple[bytes, int, object]]) -> list[tuple[bytes, Address]] | None:
        """What was left over."""
        done = self.datagrams.exchange(self.server.fileno(), self.senders, replies, self.counts)
        return None if done is None else list(done.others)

    def answers(self, count: int) -> list[bytes]:
        return [self.client.recv(BYTES) for _ in range(count)]


@pytest.fixture(params=[4, 6])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(request.param)
    yield made
    made.server.close()
    made.client.close()


def test_nothing_waits(rig: Rig) -> None:
    assert rig.exchange({}) is None


def test_what_is_known_is_answered_with_its_id_and_counted_by_kind(rig: Rig) -> None:
    rig.ask(b"\x01\x02what", b"\x03\x04what", b"\x05\x06who")
    assert rig.exchange({b"what": (b"that", 1, ()), b"who": (b"she, of all", 3, ())}) == []
    assert rig.answers(3) == [b"\x01\x02that", b"\x03\x04that", b"\x05\x06she, of all"]
    assert rig.counts == [0, 2, 0, 1]


def test_what_is_not_known_is_left_over_with_its_sender_and_the_rest_answered(rig: Rig) -> None:
    rig.ask(b"..a", b"..?", b"..b", b"", b"x", b"..a")
    replies: dict[bytes, tuple[bytes, int, object]] = {b"a": (b"A", 0, ()), b"b": (b"B", 0, ())}
    left = rig.exchange(replies) or []
    assert [(data, ip) for data, (ip, _) in left] == [(b"..?", rig.ip), (b"", rig.ip), (b"x", rig.ip)]
    assert rig.answers(3) == [b"..A", b"..B", b"..A"]
    assert rig.counts == [3, 0, 0, 0]


def test_of_senders_own_replies_only_that_sender_gets_them(rig: Rig) -> None:
    replies: dict[bytes, tuple[bytes, int, object]] = {b"!q": (b"mine", 0, ()), b"?q": (b"another's", 0, ())}
    rig.ask(b"..q")
    assert rig.exchange(replies) == []
    assert rig.answers(1) == [b"..mine"]


def test_who_is_not_known_is_left_over(rig: Rig) -> None:
    rig.senders.clear()
    rig.ask(b"..q")
    assert [(data, ip) for data, (ip, _) in rig.exchange({b"q": (b"r", 0, ())}) or []] == [(b"..q", rig.ip)]


def test_bytes_are_counted(rig: Rig) -> None:
    rig.ask(b"..q", b"..unknown")
    done = rig.datagrams.exchange(rig.server.fileno(), rig.senders, {b"q": (b"long", 0, ())}, rig.counts)
    assert done is not None
    assert (done.received, done.answered, done.received_bytes, done.answered_bytes) == (2, 1, 12, 6)


def test_more_than_a_batch_waits_for_the_next(rig: Rig) -> None:
    replies: dict[bytes, tuple[bytes, int, object]] = {b"q": (b"r", 0, ())}
    rig.ask(*[b"..q"] * (COUNT + 1))
    assert rig.exchange(replies) == [] and rig.counts[0] == COUNT
    assert rig.exchange(replies) == [] and rig.counts[0] == COUNT + 1
    assert rig.answers(COUNT + 1) == [b"..r"] * (COUNT + 1)


def test_a_datagram_that_is_too_long_is_cut(rig: Rig) -> None:
    rig.ask(b"..q" + bytes(BYTES))
    left = rig.exchange({b"q": (b"r", 0, ())})
    assert left is not None and [len(data) for data, _ in left] == [BYTES]


def test_the_longest_reply_fits_and_its_neighbours_stay_whole(rig: Rig) -> None:
    longest = bytes(range(256)) * (BYTES // 256)
    rig.ask(b"..q", b"..l", b"..q")
    assert rig.exchange({b"q": (b"r", 0, ()), b"l": (longest[:-2], 1, ())}) == []
    assert rig.answers(3) == [b"..r", b".." + longest[:-2], b"..r"]


def test_one_serves_several_sockets(rig: Rig) -> None:
    family, ip = FAMILIES[4 if ":" not in rig.ip else 6]
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        other.bind((ip, 0))
        for bound in (rig.server, other, rig.server):
            rig.client.sendto(b"..q", bound.getsockname())
            rig.datagrams.exchange(bound.fileno(), rig.senders, {b"q": (b"r", 0, ())}, rig.counts)
            assert rig.client.recvfrom(BYTES) == (b"..r", bound.getsockname())


def test_who_is_left_over_is_answered_by_its_address(rig: Rig) -> None:
    rig.ask(b"..one", b"..two")
    left = rig.exchange({}) or []
    answers = [(name, data.upper()) for data, (_, name) in left]
    assert Outgoing().send(rig.server.fileno(), answers) == 2
    assert [rig.client.recvfrom(BYTES) for _ in range(2)] == [(one, rig.server.getsockname()) for one in (b"..ONE", b"..TWO")]


def test_sending_ends_before_what_cant_be_sent(rig: Rig) -> None:
    rig.ask(b"..q")
    ((_, (_, name)),) = rig.exchange({}) or []
    nowhere = name[:2] + bytes(2) + name[4:]
    assert Outgoing().send(rig.server.fileno(), [(name, b"a"), (nowhere, b"b"), (name, b"c")]) == 1
    assert Outgoing().send(rig.server.fileno(), [(nowhere, b"b"), (name, b"c")]) == 0
    assert rig.answers(1) == [b"a"]
    with pytest.raises(ValueError, match="4097 bytes"):
        Outgoing().send(rig.server.fileno(), [(name, bytes(BYTES + 1))])


def test_batches_of_connected_sockets_are_sent_and_received_in_order(rig: Rig) -> None:
    rig.client.connect(rig.server.getsockname())
    rig.server.connect(rig.client.getsockname())
    sent = [bytes((i,)) * (i * 50) for i in range(COUNT)]
    assert Outgoing().send(rig.client.fileno(), [(b"", one) for one in sent]) == COUNT
    incoming = Incoming()
    assert incoming.receive(rig.server.fileno()) == sent
    assert incoming.receive(rig.server.fileno()) == []


def test_a_port_that_nobody_listens_at_is_an_error(rig: Rig) -> None:
    rig.client.connect(rig.server.getsockname())
    rig.server.close()
    assert Outgoing().send(rig.client.fileno(), [(b"", b"q")]) == 1
    with pytest.raises(ConnectionRefusedError):
        Incoming().receive(rig.client.fileno())
