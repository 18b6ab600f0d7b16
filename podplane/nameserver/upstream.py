"""One server that questions are passed on to: over UDP, then TCP when the answer is cut; or over TLS. What it can is learned on the way."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from podplane.dns import asking, config, responses
from podplane.dns import message as m
from podplane.dns.asking import Ask
from podplane.dns.health import Health
from podplane.dns.responses import Limits, Reply
from podplane.nameserver import failures
from podplane.nameserver.datagrams import Batches, Datagrams
from podplane.nameserver.randomness import Randomness
from podplane.nameserver.streams import Streams

CASE_LOST = 3
"""Answers with letters in another case than the question's, until it is believed that the server does so. Each was asked again by TCP."""
CUT = m.TC >> 8
"""Of the first byte of flags: the answer did not fit into a datagram."""
NO_EDNS_SECONDS = 900.0
"""So long a server that refused EDNS is asked without."""
OUR_OWN = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""Errors that say nothing about a server: this machine is short of something."""
Done = Callable[[Reply | str], None]
"""Told what the server said, or in words why it said nothing."""


class Opener(Protocol):
    """Opens sockets in the network that an address is reached from."""

    def open(self, ip: str, kind: socket.SocketKind) -> socket.socket:
        """A socket that does not block. OSError when there can be none."""


@dataclass(slots=True)
class Means:
    """What all upstreams share."""

    opener: Opener
    randomness: Randomness
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time
    batches: Batches = field(default_factory=Batches)
    tls_context: ssl.SSLContext | None = None
    """What certificates of servers are verified by; None: the machine's authorities."""


class Upstream:
    """A server. Its methods run on one event loop. `changed` is called when it goes down or comes up."""

    def __init__(self, server: config.Upstream, means: Means, opener: Opener, changed: Callable[[Upstream], None]) -> None:
        self.server = server
        self.source = f"upstream {server}"
        """Of its answers."""
        self.health = Health(means.clock())
        self._means, self._opener, self._changed = means, opener, changed
        self._loop = asyncio.get_running_loop()
        self._datagrams = Datagrams(self._connect, means.randomness, means.batches)
        self._streams = Streams(
            server, partial(opener.open, server.ip, socket.SOCK_STREAM), means.randomness, means.tls_context
        )
        self.is_checked = False
        """Is it known whether its questions come back here (`probes`)?"""
        self._answered_at = float("-inf")
        self._case_lost = 0
        self._no_edns_until = 0.0

    def close(self) -> None:
        """Ask no more."""
        self._datagrams.close()
        self._streams.close()

    @property
    def ignored(self) -> int:
        """Datagrams that answered nothing that was asked."""
        return self._datagrams.ignored

    def ask(self, ask: Ask, done: Done) -> None:
        """Ask it; `done` is told once, perhaps at once."""
        edns = not self._no_edns_until or self._loop.time() >= self._no_edns_until
        self._ask(ask, done, edns=edns, stream=self.server.tls)

    def _ask(self, ask: Ask, done: Done, *, edns: bool, stream: bool) -> None:
        asked = ask.asked
        if self._case_lost < CASE_LOST and not stream:
            asked = asking.mixed(asked, self._means.randomness.take(len(asked) - m.TAIL_BYTES))
        message = asking.written(ask, asked, edns=edns, pad=self.server.tls)
        heard = partial(self._heard, ask, done, asked, edns, stream)
        try:
            (self._streams if stream else self._datagrams).ask(message, asked, heard)
        except OSError as error:
            self._not_sent(done, error)

    def _not_sent(self, done: Done, error: OSError) -> None:
        why = failures.words(error)
        if error.errno in OUR_OWN:
            done(why)
        else:
            self._failed(done, why)

    def _heard(
        self, ask: Ask, done: Done, asked: bytes, edns: bool, stream: bool, data: bytes | str | OSError, seconds: float
    ) -> None:
        if isinstance(data, str):
            self._failed(done, data, seconds)
        elif isinstance(data, OSError):
            self._not_sent(done, data)
        elif data[2] & CUT or data[3] & m.RCODE_MASK or not data.startswith(asked, m.HEADER_BYTES):
            self._look(ask, done, asked, data, seconds, edns=edns, stream=stream)
        else:
            self._read(ask, done, data, seconds)

    def _look(self, ask: Ask, done: Done, asked: bytes, data: bytes, seconds: float, *, edns: bool, stream: bool) -> None:
        """Look whether a response means that the server is to be asked in another way."""
        if edns and data[3] & m.RCODE_MASK in (m.FORMERR, m.NOTIMP) and data[10:12] == b"\0\0":
            self._no_edns_until = self._loop.time() + NO_EDNS_SECONDS  # RFC 6891, 7
            self._ask(ask, done, edns=False, stream=stream)
            return
        if (
            not stream
            and self._case_lost < CASE_LOST
            and not data.startswith(asked, m.HEADER.size)
            and len(data) > m.HEADER.size
        ):
            self._case_lost += 1
            self._ask(ask, done, edns=edns, stream=True)
            return
        if not stream and data[2] & CUT:
            self._answered(seconds)
            self._ask(ask, done, edns=edns, stream=True)
            return
        if len(data) == m.HEADER.size:
            self._failed(done, f"it answers {m.RCODES[data[3] & m.RCODE_MASK]}")
            return
        self._read(ask, done, data, seconds)

    def _read(self, ask: Ask, done: Done, data: bytes, seconds: float) -> None:
        try:
            reply = responses.read(data, ask.asked, self._means.limits)
        except responses.Endless as error:  # which says nothing about the server
            self._answered(seconds)
            done(str(error))
            return
        except m.Malformed as error:
            self._failed(done, f"its answer can't be read: {error}")
            return
        self._answered(seconds)
        done(reply)

    def _answered(self, seconds: float) -> None:
        self._answered_at = self._loop.time()
        if self.health.answered(self._means.clock(), seconds):
            self._changed(self)

    def _failed(self, done: Done, why: str, waited: float = 0.0) -> None:
        if self._answered_at > self._loop.time() - waited:
            self.health.failed += 1  # it answered others while this one waited
        elif self.health.failure(self._means.clock(), why):
            self._changed(self)
        done(why)

    def _connect(self) -> socket.socket:
        opened = self._opener.open(self.server.ip, socket.SOCK_DGRAM)
        try:
            opened.connect((self.server.ip, self.server.port))
        except OSError:
            opened.close()
            raise
        return opened
