"""An execution over the channels of a WebSocket: both directions at once, until either side ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from podplane.apiserver import websockets
from podplane.apiserver.logs import container_of
from podplane.apiserver.problems import Problem
from podplane.apiserver.together import until_one_ends
from podplane.kubeapi import channels as ch
from podplane.kubeapi.errors import UNDECODABLE
from podplane.kubeapi.messages import Messages, Request, Upgrade
from podplane.kubeapi.streams import ExecRequest, Execution, NodeStreams, StreamError


def execute(pod: dict[str, Any], streams: NodeStreams | None, request: Request) -> Upgrade:
    """Run the command of a request in a pod. Problem when that can't be."""
    if request.upgrade and not request.query.get("command"):
        raise Problem("BadRequest", "you must specify at least one command for the container")
    return _upgrade(pod, streams, request, lambda nodes, wanted: nodes.execute(wanted))


def attach(pod: dict[str, Any], streams: NodeStreams | None, request: Request) -> Upgrade:
    """Join the conversation of a container's main process. Problem when that can't be."""
    return _upgrade(pod, streams, request, lambda nodes, wanted: nodes.attach(wanted))


def _upgrade(
    pod: dict[str, Any],
    streams: NodeStreams | None,
    request: Request,
    begin: Callable[[NodeStreams, ExecRequest], Execution],
) -> Upgrade:
    if streams is None:
        raise Problem("ServiceUnavailable", "this API server reaches no node")
    wanted = ExecRequest(
        namespace=pod["metadata"]["namespace"],
        pod=pod["metadata"]["name"],
        container=container_of(pod, request.parameter("container")),
        command=request.query.get("command", []),
        stdin=request.flag("stdin"),
        tty=request.flag("tty"),
    )
    protocol = websockets.choose(request, ch.PROTOCOLS, ch.PROTOCOL)
    try:
        streams.check(wanted)  # first: kubectl goes on to SPDY whatever the reason, and shows what that was refused for
        if not request.upgrade or protocol is None:
            offered = f"one of the sub-protocols {', '.join(filter(None, ch.PROTOCOLS))}"
            raise Problem("BadRequest", f"this request needs an upgrade to a WebSocket of {offered}")
        execution = begin(streams, wanted)
    except StreamError as error:
        raise Problem("BadRequest", str(error)) from None

    spoken = protocol

    async def serve(messages: Messages) -> None:
        await converse(execution, messages, spoken)

    return websockets.upgraded(spoken, serve)


async def converse(execution: Execution, messages: Messages, protocol: str) -> None:
    """Carry an execution over a connection until it ends, on either side."""
    try:
        await until_one_ends(_input(execution, messages, protocol), _output(execution, messages, protocol))
    finally:
        execution.abandon()


async def _input(execution: Execution, messages: Messages, protocol: str) -> None:
    while (message := await messages.receive()) is not None:
        if not message:
            continue
        channel, data = message[0], message[1:]
        if channel == ch.STDIN and data:
            await execution.write(data)
        elif protocol == ch.PROTOCOL and channel == ch.CLOSE and data == bytes([ch.STDIN]):
            execution.close_input()
        elif channel == ch.RESIZE:
            try:
                size = msgspec.json.decode(data, type=ch.TerminalSize)
            except UNDECODABLE:
                continue
            execution.resize(size.width, size.height)


async def _output(execution: Execution, messages: Messages, protocol: str) -> None:
    await messages.send(bytes([ch.STDOUT]))  # tells the client that the connection stands
    async for channel, data in execution.output():
        await messages.send(bytes([channel]) + data)
    code, error = await execution.outcome()
    if words := ch.last_words(protocol, code, error):
        await messages.send(bytes([ch.ERROR]) + words)
