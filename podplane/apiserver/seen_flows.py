"""Which flows nodes saw in the last hour: their agents are asked, all at once and for a moment only."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import msgspec

from podplane.apiserver.problems import Problem
from podplane.apiserver.proxy_target import Destination, Wish
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.streams import NodeStreams, StreamError
from podplane.model.answers import SeenFlow, SeenFlows
from podplane.model.config import AGENT_PORT
from podplane.model.objects import Node

AT_ONCE = 16
"""So many agents are asked at one time."""
MAX_BYTES = 8 * 1024 * 1024
"""Of one answer: some four times as long as an agent's may be."""
DECODER = msgspec.json.Decoder(SeenFlows)


class Asked(msgspec.Struct):
    """What nodes saw, and denied, and the names of those that did not say it."""

    flows: list[SeenFlow] = msgspec.field(default_factory=list)
    denied: list[SeenFlow] = msgspec.field(default_factory=list)
    silent: list[str] = msgspec.field(default_factory=list)


class NodesAsked:
    """Asks the agents of nodes by what reaches into nodes; `token` is the API server's own."""

    def __init__(self, streams: Callable[[], NodeStreams | None], token: str) -> None:
        self._streams, self._token = streams, token

    async def __call__(self, nodes: Iterable[Node], seconds: float) -> Asked:
        """What they say within so many seconds."""
        streams, found, answered = self._streams(), Asked(), set[str]()
        todo = [node for node in nodes if node.internal_ips]
        if streams is None or not todo:
            return found
        from podplane.apiserver import proxy  # costs a start that asks nobody nothing, and the first answers none of their time

        room = asyncio.Semaphore(AT_ONCE)

        async def ask(node: Node) -> None:
            async with room:
                said = await self._answer(node, partial(proxy.forward, streams=streams, token=self._token))
            if said is not None and not said.error:
                found.flows += said.flows
                found.denied += said.denied
                answered.add(node.metadata.name)

        tasks = [asyncio.ensure_future(ask(node)) for node in todo]
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found.silent = sorted(node.metadata.name for node in todo if node.metadata.name not in answered)
        return found

    @staticmethod
    async def _answer(node: Node, forward: Callable[..., Awaitable[Answer]]) -> SeenFlows | None:
        """None: it says nothing that can be read."""
        prefix = f"/api/v1/nodes/{node.metadata.name}:{AGENT_PORT}/proxy"
        wish = Wish("nodes", "", f"{node.metadata.name}:{AGENT_PORT}", prefix, "/flows")
        at = Destination(str(ipaddress.ip_address(node.internal_ips[0])), AGENT_PORT)
        try:
            answer = await forward(wish, at, request=Request("GET", f"{prefix}/flows"))
            if not isinstance(answer, Response | Stream) or answer.status != 200:
                return None
            return DECODER.decode(answer.body if isinstance(answer, Response) else await _read(answer))
        except (Problem, StreamError, OSError, ValueError):  # ValueError: it is not what an agent answers
            return None


async def _read(stream: Stream) -> bytes:
    parts, size = list[bytes](), 0
    async for chunk in stream.chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise ValueError("an answer is too long")
    return b"".join(parts)


def silent_text(names: Sequence[str], shown: int = 3) -> str:
    """That some did not say it."""
    more = len(names) - shown
    return f"what {', '.join(names[:shown])}{f' and {more} more' if more > 0 else ''} saw in the last hour is not known"
