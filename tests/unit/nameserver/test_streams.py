"""Connections to other servers: what comes by them that is no message."""

from __future__ import annotations

import asyncio

from podplane.nameserver.streams import _Connection


class Ended(asyncio.Transport):
    """Says whether the connection was given up."""

    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


def test_what_is_shorter_than_a_header_ends_the_connection() -> None:
    heard: list[bytes] = []
    connection, transport = _Connection(heard.append, lambda *_: None), Ended()
    connection.connection_made(transport)
    connection.data_received(b"\0\x0c" + bytes(12))
    assert heard == [bytes(12)] and not transport.is_aborted
    connection.data_received(bytes(1 << 18))
    assert transport.is_aborted and len(heard) == 1, "no half million empty messages in one turn of the event loop"
