"""Orders to a name server, as they go through the socket."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from podplane.kernel.interpreter import connected
from podplane.nameserver import control


async def test_an_order_that_is_too_long_is_said_and_those_after_it_come(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = connected(control.MESSAGE_BYTES)
    with ours, theirs, caplog.at_level(logging.ERROR):
        sender = control.Sender(ours)
        sender.send(control.Hosts(come=("2001:db8::1",) * 15_000))
        sender.send(control.Ping())
        assert control.receive(theirs)[0] == control.Ping()
        assert "Hosts" in caplog.text and "too long" in caplog.text
        sender.close()


async def test_orders_wait_for_one_that_reads_slowly_and_end_with_it() -> None:
    ours, theirs = connected(control.MESSAGE_BYTES)
    hosts = list(control.hosts((f"2001:db8:1234:5678:9abc:def0:1234:{n:x}" for n in range(20_000)), gone=("192.0.2.1",)))
    with ours:
        with theirs:
            sender = control.Sender(ours)
            for one in hosts:
                sender.send(one)
            assert sender._waiting, "more than the socket takes"
            theirs.setblocking(False)
            assert [await _next(theirs) for _ in hosts] == hosts and not sender._waiting
        sender.send(control.Ping())
        assert not sender._waiting
        sender.close()


async def _next(connection: socket.socket) -> control.Order | None:
    while True:
        try:
            return control.receive(connection)[0]
        except BlockingIOError:
            await asyncio.sleep(0)
