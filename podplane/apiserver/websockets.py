"""What Kubernetes speaks over WebSockets: sub-protocols, streams as messages, tokens for clients that can set no header.

    v5.channel.k8s.io                      exec, attach: the first byte of a message names its channel, and channels can be closed
    v4.channel.k8s.io, channel.k8s.io, ""  as that, without closing; before v4 the error channel has plain text, and none on success
    v4.base64.channel.k8s.io, base64.…     texts: a digit for the channel, then base64
    binary.k8s.io, "", base64.binary.…     a log, to be read only
    any, or ""                             a watch: an event a message

"" is a WebSocket that asks for no sub-protocol. Sources: k8s.io/streaming, httpstream/wsstream; k8s.io/cri-streaming, remotecommand and
portforward (websocket.go); k8s.io/apiserver, endpoints/handlers/watch.go, authentication/request/websocket.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from podplane.apiserver.problems import Problem
from podplane.apiserver.together import until_one_ends
from podplane.kubeapi.messages import Messages, Request, Stream, Upgrade

BEARER = "base64url.bearer.authorization.k8s.io."
"""Before a token, in base64, that a client offers as a sub-protocol: a browser can set no header."""
BINARY, BASE64_BINARY = "binary.k8s.io", "base64.binary.k8s.io"
PLAIN = "text/plain"


def bearer(request: Request) -> tuple[str, Request]:
    """The token that is offered as a sub-protocol, "" for none, and the request without it."""
    tokens = [one.removeprefix(BEARER) for one in request.protocols if one.startswith(BEARER)]
    if not tokens:
        return "", request
    others = tuple(one for one in request.protocols if not one.startswith(BEARER))
    try:
        if len(tokens) == 1 and others:  # one must be left that the answer can choose
            token = base64.urlsafe_b64decode(tokens[0] + "=" * (-len(tokens[0]) % 4)).decode()
            return token, msgspec.structs.replace(request, protocols=others)
    except ValueError:  # no base64, or none of a text
        pass
    raise Problem("Unauthorized", f"Unauthorized: one sub-protocol {BEARER}TOKEN, and beside it another one")


def choose(request: Request, spoken: Sequence[str], first: str = "") -> str | None:
    """The sub-protocol to speak: `first` if the client offers it, else the first offered one that is `spoken`; None for none."""
    if first and first in request.protocols:
        return first
    return next((one for one in request.protocols or ("",) if one in spoken), None)


def is_text(protocol: str) -> bool:
    """Are its messages base64?"""
    return "base64." in protocol


def upgraded(protocol: str, serve: Callable[[Messages], Awaitable[None]]) -> Upgrade:
    """A conversation over channels: bytes to `serve`, base64 to the client where the protocol wants it."""
    if not is_text(protocol):
        return Upgrade(protocol, serve)
    return Upgrade(protocol, lambda messages: serve(Base64Channels(messages)), text=True)


class Base64Channels:
    """`Messages` with a byte for the channel, over messages with a digit for it and base64."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    async def receive(self) -> bytes | None:
        """The next message; what is no base64 is passed over."""
        while message := await self._messages.receive():
            try:
                return bytes([message[0] - ord("0")]) + base64.b64decode(message[1:], validate=True)
            except ValueError:
                continue
        return message

    async def send(self, message: bytes) -> None:
        """Send one."""
        await self._messages.send(chr(ord("0") + message[0]).encode() + base64.b64encode(message[1:]))


def conversation(stream: Stream, request: Request) -> Upgrade:
    """A log or a watch as messages to a client that has nothing to say."""
    if not stream.content_type.startswith(PLAIN):
        protocol = (*request.protocols, "")[0]
        return Upgrade(protocol, lambda messages: _tell(_lines(stream.chunks), messages), text=True)
    spoken = ("", BINARY, BASE64_BINARY)
    chosen = choose(request, spoken)
    if chosen is None:
        raise Problem(
            "BadRequest", f"the log needs a WebSocket of one of the sub-protocols {', '.join(spoken[1:])}, or of none"
        )
    if is_text(chosen):
        return Upgrade(chosen, lambda messages: _tell(_encoded(stream.chunks), messages), text=True)
    return Upgrade(chosen, lambda messages: _tell(_begun(stream.chunks), messages))


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b""  # tells the client that the log begins
    async for chunk in chunks:
        yield chunk


async def _encoded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in _begun(chunks):
        yield base64.b64encode(chunk)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a watch, an event each."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"


async def _tell(parts: AsyncIterator[bytes], messages: Messages) -> None:
    """Send each part as a message, until they end or the client leaves."""

    async def forward() -> None:
        async for part in parts:
            await messages.send(part)

    async def gone() -> None:
        while await messages.receive() is not None:
            pass

    await until_one_ends(forward(), gone())
