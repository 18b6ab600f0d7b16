"""SPDY/3.1, the server's side: against a client of a few lines, however its bytes are cut, and whatever else comes."""

from __future__ import annotations

import itertools
import random
import re
import struct
import zlib
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.kubeapi import spdy


class Client:
    """What a client sends."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=spdy.DICTIONARY)

    def open(self, stream: int, headers: Mapping[str, str], flags: int = 0) -> bytes:
        pairs = b"".join(struct.pack(">I", len(t)) + t.encode() for pair in headers.items() for t in pair)
        block = self._deflate.compress(struct.pack(">I", len(headers)) + pairs) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return control(1, struct.pack(">IIH", stream, 0, 0) + block, flags)


def control(kind: int, body: bytes, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(body)) + body


def data(stream: int, content: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(content)) + content


def heard(*pieces: bytes) -> list[spdy.Event]:
    """The events, with the data of one stream in one piece."""
    server, events = spdy.Server(), []
    for piece in pieces:
        events += list(server.receive(piece))
    joined: list[spdy.Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, spdy.Data) and isinstance(last, spdy.Data) and last.stream == event.stream and not last.end:
            joined[-1] = spdy.Data(event.stream, last.data + event.data, event.end)
        else:
            joined.append(event)
    return joined


def conversation() -> tuple[bytes, list[spdy.Event]]:
    client = Client()
    error, stream = {"streamtype": "error", "port": "80"}, {"streamtype": "data", "port": "80", "requestid": "0"}
    sent = client.open(1, error, 1) + client.open(3, stream) + data(3, b"GET / HTTP/1.1\r\n") + control(6, struct.pack(">I", 5))
    sent += data(3, b"\r\n", 1) + control(4, bytes(4)) + control(3, struct.pack(">II", 3, 5)) + control(7, bytes(8))
    events: list[spdy.Event] = [spdy.Opened(1, error, True), spdy.Opened(3, stream)]
    events += [
        spdy.Data(3, b"GET / HTTP/1.1\r\n"),
        spdy.Pinged(5),
        spdy.Data(3, b"\r\n", True),
        spdy.Reset(3, 5),
        spdy.Leaving(),
    ]
    return sent, events


@settings(max_examples=50)
@given(st.lists(st.integers(0, 400), max_size=12))
def test_however_the_bytes_are_cut_the_events_are_the_same(cuts: list[int]) -> None:
    sent, events = conversation()
    edges = sorted({min(cut, len(sent)) for cut in (0, *cuts, len(sent))})
    assert heard(*(sent[a:b] for a, b in itertools.pairwise(edges))) == events


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_garbage_breaks_the_connection_at_most(garbage: bytes, after: int) -> None:
    server = spdy.Server()
    events = [*server.receive(conversation()[0][:after]), *server.receive(garbage)]
    broken = [position for position, event in enumerate(events) if isinstance(event, spdy.Broken)]
    assert broken in ([], [len(events) - 1])
    if broken:
        assert list(server.receive(conversation()[0])) == []


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (control(1, bytes(10), version=2), "version 2"),
        (control(1, bytes(4)), "it needs 10"),
        (Client().open(2, {}), "stream 2 was opened after 0: a client's are odd"),
        (control(4, b"", 0) + control(1, struct.pack(">IIH", 1, 0, 0) + b"nonsense"), "can't be unpacked"),
        (struct.pack(">HHI", 0x8003, 1, spdy.MAX_CONTROL_BYTES + 1), "at most 16384"),
        (control(2, struct.pack(">I", 1) + bytes(4)), "server opens none"),
    ],
)
def test_what_breaks_it_is_said(frame: bytes, why: str) -> None:
    (event,) = heard(frame)
    assert isinstance(event, spdy.Broken)
    assert re.search(why, event.why)


def test_a_header_block_that_unpacks_to_megabytes_is_refused() -> None:
    (event,) = heard(Client().open(1, {"a": "x" * 4_000_000}))
    assert event == spdy.Broken("a header block unpacks to more than 16384 bytes")


def test_a_stream_that_is_opened_twice_breaks_it() -> None:
    client = Client()
    assert isinstance(heard(client.open(3, {}), client.open(3, {}))[-1], spdy.Broken)


def test_what_the_server_sends_is_what_a_client_reads() -> None:
    server = spdy.Server()
    assert list(server.receive(Client().open(1, {}))) == [spdy.Opened(1, {})]
    first, second = server.reply(1), server.reply(3)
    inflate = zlib.decompressobj(zdict=spdy.DICTIONARY)
    for number, frame in ((1, first), (3, second)):
        assert struct.unpack(">HHI", frame[:8]) == (0x8003, 2, len(frame) - 8)
        assert struct.unpack(">I", frame[8:12]) == (number,)
        assert inflate.decompress(frame[12:]) == bytes(4)
    content = random.Random(1).randbytes(70_000)
    assert server.data(3, content, end=True) == struct.pack(">II", 3, 1 << 24 | 70_000) + content
    assert server.reset(5, spdy.REFUSED_STREAM) == control(3, struct.pack(">II", 5, 3))
    assert server.pong(7) == control(6, struct.pack(">I", 7))
    assert server.go_away(spdy.PROTOCOL_ERROR) == control(7, struct.pack(">II", 1, 1))
