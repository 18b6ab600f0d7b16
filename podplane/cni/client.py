"""A node's network as a container runtime asks for it: CNI calls over the socket of its agent, as the plugin makes them.

add, delete, check, gc ── environment, configuration ──► agent ── exit status, result or error ──► Attached, NetworkError
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from podplane.cni import call as calls
from podplane.cni import wire
from podplane.cni.arguments import BandwidthLimits, PortMapping
from podplane.cni.errors import Code
from podplane.cni.network import Attached, Attachment, NetworkError, TryAgainError
from podplane.cni.result import NEWEST, Result, attached_by
from podplane.cni.socket_path import reachable
from podplane.model.host_ports import why_refused
from podplane.model.view import NO_LIMITS

NETWORK = "podplane"
"""The name of the network in its configuration."""
PATIENCE_SECONDS = 30.0
"""So long an ADD waits for an agent that is away."""
ANSWER_SECONDS = 120.0
"""So long for its answer: a kubelet gives a runtime as much for a sandbox."""
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.02, 1.0
"""From one try to reach an agent that is away to the next, at first and later."""
AGAIN = frozenset((Code.TRY_AGAIN, Code.NOT_AVAILABLE, Code.LIMITED_CONNECTIVITY))
CHUNK_BYTES = 1 << 16


class _Away(Exception):
    """The agent could not be asked, or did not answer; the text says why."""


class _Error(msgspec.Struct):
    """An error as it came."""

    code: int
    msg: str
    details: str = ""


class PluginNetwork:
    """`cni.Network` of the agent that listens at `path`; its methods run on one event loop.

    An ADD of what is attached already succeeds, as `Network` says: it is sent as one whose answer did not come.
    """

    def __init__(self, path: str | Path, patience: float = PATIENCE_SECONDS, network: str = NETWORK) -> None:
        self._path, self._patience, self._network = Path(path), patience, network
        self._results: dict[calls.Id, Any] = {}

    async def add(self, request: Attachment) -> Attached:
        """Attach a pod. NetworkError when that can't be, TryAgainError when the agent is away for longer than `patience`."""
        try:
            fields: dict[str, Any] = {"runtimeConfig": _runtime(request)}
        except ValueError as error:
            raise NetworkError(f"{request.who}: {error}") from None
        if request.requested_ips:
            fields["args"] = {"podplane": {"formerIPs": request.requested_ips}}
        answer = await self._ask(calls.ADD, request, fields, self._patience)
        try:
            raw = msgspec.json.decode(answer)
            attached = attached_by(msgspec.convert(raw, Result), request.ifname)
        except (msgspec.DecodeError, msgspec.ValidationError, StopIteration) as error:
            raise NetworkError(f"the agent's answer to ADD makes no sense: {error}") from None
        self._results[request.id] = raw
        return attached

    async def delete(self, request: Attachment) -> None:
        """Detach a pod; waits until an agent does it."""
        await self._ask(calls.DEL, request, self._previous(request))
        self._results.pop(request.id, None)

    async def check(self, request: Attachment) -> None:
        """NetworkError unless the pod's network is as planned."""
        await self._ask(calls.CHECK, request, self._previous(request), self._patience)

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Detach every pod that is not in `keep`; waits until an agent does it."""
        kept = [{"containerID": one.container_id, "ifname": one.ifname} for one in keep]
        await self._ask(calls.GC, None, {calls.VALID_ATTACHMENTS[0]: kept})

    def _previous(self, request: Attachment) -> dict[str, Any]:
        """What its ADD has made, as far as that is known: one before this process may have asked for it."""
        made = {"interfaces": [{"name": request.ifname, "sandbox": request.netns_path or "/proc"}]}
        return {"prevResult": self._results.get(request.id, made)}

    async def _ask(
        self, verb: str, request: Attachment | None, fields: Mapping[str, Any], patience: float | None = None
    ) -> bytes:
        """The standard output of a call. What is not answered is asked again, for `patience` seconds or for ever."""
        env, fds = _environment(verb, request)
        stdin = msgspec.json.encode({"cniVersion": NEWEST, "name": self._network, "type": "podplane-cni", **fields})
        data = wire.request(env, stdin)
        loop, pause = asyncio.get_running_loop(), LOOK_SECONDS
        end = None if patience is None else loop.time() + patience
        while True:
            try:
                return _checked(await self._exchange(data, fds))
            except _Away as error:
                if end is not None and loop.time() + pause > end:
                    raise TryAgainError(f"the node's agent does not answer at {self._path}: {error}") from None
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK_SECONDS)

    async def _exchange(self, data: bytes, fds: list[int]) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as connection:
            try:
                with reachable(self._path) as short:
                    connection.connect(short)
                sent = socket.send_fds(connection, [data], fds)
                async with asyncio.timeout(ANSWER_SECONDS):
                    if sent < len(data):  # an agent that has answered already takes not even nothing
                        await loop.sock_sendall(connection, data[sent:])
                    answer = bytearray()
                    while len(answer) <= wire.ANSWER_BYTES and (chunk := await loop.sock_recv(connection, CHUNK_BYTES)):
                        answer += chunk
            except TimeoutError:
                raise _Away(f"no answer in {ANSWER_SECONDS:g} s") from None
            except OSError as error:
                raise _Away(error.strerror or str(error)) from None
        if not answer:
            raise _Away("it ended before it answered")
        return bytes(answer)


def _environment(verb: str, request: Attachment | None) -> tuple[dict[str, str], list[int]]:
    """The variables of a call, and the descriptors that go with it."""
    env, fds = {"CNI_COMMAND": verb, "CNI_PATH": "/"}, list[int]()
    if request is None:
        return env, fds
    env |= {"CNI_CONTAINERID": request.container_id, "CNI_IFNAME": request.ifname, "CNI_ARGS": _arguments(request)}
    if verb != calls.DEL:
        fds = [request.netns.fd]
        path = request.netns_path or f"/proc/{os.getpid()}/fd/{request.netns.fd}"
        env |= {"CNI_NETNS": path, wire.FDS: wire.NETNS, wire.AGAIN: "1"}
    return env, fds


def _arguments(request: Attachment) -> str:
    pairs = {
        "K8S_POD_NAMESPACE": request.namespace,
        "K8S_POD_NAME": request.name,
        "K8S_POD_INFRA_CONTAINER_ID": request.container_id,
        "K8S_POD_UID": request.pod_uid,
    }
    return ";".join(("IgnoreUnknown=1", *(f"{key}={value}" for key, value in pairs.items())))


def _runtime(request: Attachment) -> dict[str, Any]:
    """Its `runtimeConfig`: the capabilities that it asks for. ValueError when no pod can have them."""
    if why := why_refused(request.host_ports):
        raise ValueError(why)
    limits = request.bandwidth
    asked = {
        "portMappings": [msgspec.to_builtins(PortMapping.of(one)) for one in request.host_ports],
        "bandwidth": {} if limits == NO_LIMITS else msgspec.to_builtins(BandwidthLimits.of(limits)),
        "ips": request.asked_ips,
        "mac": request.mac,
    }
    return {name: value for name, value in asked.items() if value}


def _checked(answer: bytes) -> bytes:
    """The standard output of a call that succeeded. NetworkError, or a kind of it, of one that did not."""
    if answer[0] == 0:
        return answer[1:]
    try:
        error = msgspec.json.decode(answer[1:], type=_Error)
    except msgspec.DecodeError:
        raise NetworkError(f"the agent refused, and gave no reason (exit status {answer[0]})") from None
    kind = TryAgainError if error.code in AGAIN else NetworkError
    raise kind(": ".join(filter(None, (error.msg, error.details))))
