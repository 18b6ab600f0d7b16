"""Whether the node's own name server answers: it is asked, at the bridge's address, for its own name (`id.server`, RFC 4892).

Any response counts, for it is about the server and not about names. One that is silent for FAILURES questions does not answer; one that has
not answered yet is given START_SECONDS.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Callable

from podplane.dns import message
from podplane.dns.message import CHAOS, TXT, Question, name_of
from podplane.dns.node import PORT
from podplane.model.view import View
from podplane.pods.bridge import gateway_of

ASK_SECONDS, ANSWER_SECONDS = 1.0, 1.0
"""From one question to the next, and from a question to its answer."""
FAILURES = 3
"""So many questions in a row that nobody answers."""
START_SECONDS = 30.0
RESPONSE = 0x80
"""QR, the first bit of the third byte (RFC 1035, 4.1.1)."""
QUESTION = message.HEADER.pack(0, 0, 1, 0, 0, 0)[2:] + message.asked_of(Question(name_of("id.server"), TXT, CHAOS))
"""Without its id."""


class NameServerWatch:
    """Asks, and calls `told` whenever that changes; its methods run on one event loop."""

    def __init__(self, view: Callable[[], View], told: Callable[[bool], None]) -> None:
        self._view, self._told = view, told
        self._answers: bool | None = None
        self._failures = 0
        self._since = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        while True:
            began = loop.time()
            if (address := self._address()) is not None:
                self._heard(await asks(address), loop.time())
            await asyncio.sleep(max(0.0, began + ASK_SECONDS - loop.time()))

    def _address(self) -> str | None:
        """Where it is asked: the bridge's address of the node's first block; None while the node has none."""
        node = self._view().node
        blocks = node.spec.pod_cidrs if node is not None else ()
        return str(gateway_of(ipaddress.ip_network(blocks[0]))) if blocks else None

    def _heard(self, answered: bool, now: float) -> None:
        """The answer to a question came, or did not."""
        self._failures = 0 if answered else self._failures + 1
        if self._answers is None and not answered and now - self._since < START_SECONDS:
            return
        if (answered or self._failures >= FAILURES) and self._answers is not answered:
            self._answers = answered
            self._told(answered)


async def asks(address: str) -> bool:
    """Does a name server answer at this address?"""
    id_ = secrets.token_bytes(2)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one:
        try:
            one.connect((address, PORT))
            one.send(id_ + QUESTION)
            async with asyncio.timeout(ANSWER_SECONDS):
                while not _is_response(await loop.sock_recv(one, message.HEADER.size), id_):
                    pass
        except (OSError, TimeoutError):
            return False
    return True


def _is_response(head: bytes, id_: bytes) -> bool:
    return len(head) == message.HEADER.size and head[:2] == id_ and bool(head[2] & RESPONSE)
