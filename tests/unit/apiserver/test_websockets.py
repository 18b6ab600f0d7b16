"""WebSockets in each sub-protocol that Kubernetes speaks, by a client that only knows the RFC, on a real socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, RejectConnection, RejectData, TextMessage
from wsproto.events import Request as Opening

from podplane.apiserver.problems import Problem
from podplane.apiserver.websockets import BEARER, Base64Channels, bearer, choose
from podplane.kubeapi import channels as ch
from podplane.kubeapi.messages import Request
from podplane.kubeapi.streams import LogRequest, StreamError
from tests.unit.apiserver.live import FakeExecution, FakeStreams, Live, access_to, live
from tests.unit.apiserver.test_portforward import Pod
from tests.unit.apiserver.test_server import PODS

EXEC = f"{PODS}/web/exec?command=id&stdin=true&stdout=true&stderr=true"
BINARY = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", "")
BASE64 = ("v4.base64.channel.k8s.io", "base64.channel.k8s.io")


class Streams(FakeStreams):
    """Nodes with a log of two chunks, and a pod that says what it is told."""

    pods: dict[int, Pod]

    def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one\ntwo\xff"
            yield b"\nthree\n"

        return chunks()

    async def connect(self, namespace: str, pod: str, port: int) -> Pod:
        if port not in self.pods:
            raise StreamError("connection refused")
        return self.pods[port]


@pytest.fixture
async def lab() -> AsyncIterator[Live]:
    async with live() as lab:
        lab.streams = streams = Streams()
        streams.pods = {}
        lab.api.server.streams = streams  # type: ignore[assignment]  # what these tests reach
        yield lab


class Talk:
    """A WebSocket: what was chosen or refused, and what is said."""

    def __init__(self, port: int, path: str, *protocols: str, token: str = "secret") -> None:
        self._socket = (
            access_to(port).context().wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="127.0.0.1")
        )
        self._ws = WSConnection(ConnectionType.CLIENT)
        extra = [(b"authorization", f"Bearer {token}".encode())] if token else []
        self.protocol: str | None = None
        self.status, self.refusal, self.over = 0, b"", False
        self._messages: list[bytes | str] = []
        opening = Opening(host="127.0.0.1", target=path, subprotocols=list(protocols), extra_headers=extra)
        self._socket.sendall(self._ws.send(opening))
        while not self.status:
            self._turn()

    def _turn(self) -> None:
        data = self._socket.recv(65536)
        self._ws.receive_data(data or None)
        self.over = self.over or not data
        for event in self._ws.events():
            match event:
                case AcceptConnection():
                    self.status, self.protocol = 101, event.subprotocol
                case RejectConnection():
                    self.status = 0 if event.has_body else event.status_code
                    self._code = event.status_code
                case RejectData():
                    self.refusal += event.data
                    self.status = self._code if event.body_finished else 0
                case BytesMessage() | TextMessage():
                    assert event.message_finished
                    self._messages.append(event.data)
                case CloseConnection():
                    self.over = True

    def say(self, message: bytes | str) -> None:
        """Send a message, of bytes or of text."""
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        self._socket.sendall(self._ws.send(event))

    def hear(self) -> bytes | str:
        """The next message."""
        while not self._messages:
            assert not self.over, "it is over"
            self._turn()
        return self._messages.pop(0)

    def rest(self) -> list[bytes | str]:
        """All messages until the end."""
        while not self.over:
            self._turn()
        return self._messages

    def close(self) -> None:
        """Go away."""
        self._socket.close()


async def talk(lab: Live, path: str, *protocols: str, use: Callable[[Talk], Any] = Talk.rest, **more: str) -> tuple[Talk, Any]:
    """Talk in a thread: the conversation, and what `use` made of it."""

    def converse() -> tuple[Talk, Any]:
        with contextlib.closing(Talk(lab.port, path, *protocols, **more)) as found:
            return found, use(found) if found.status == 101 else None

    return await asyncio.to_thread(converse)


def coded(channel: int, data: bytes) -> str:
    """A message in base64."""
    return f"{channel}{base64.b64encode(data).decode()}"


SAID = [(ch.STDOUT, b"out"), (ch.STDERR, b"\x00err\xff")]


@pytest.mark.parametrize("protocol", BINARY)
async def test_a_command_in_each_protocol_of_bytes(lab: Live, protocol: str) -> None:
    lab.streams.executions.append(FakeExecution(SAID))
    found, said = await talk(lab, EXEC, *filter(None, [protocol]))
    assert (found.status, found.protocol or "") == (101, protocol)
    assert said[:3] == [b"\x01", b"\x01out", b"\x02\x00err\xff"]
    assert [json.loads(one[1:])["status"] for one in said[3:]] == (["Success"] if protocol.startswith("v") else [])


@pytest.mark.parametrize("protocol", BASE64)
async def test_a_command_in_each_protocol_of_base64(lab: Live, protocol: str) -> None:
    lab.streams.executions.append(FakeExecution(SAID))
    found, said = await talk(lab, EXEC, protocol)
    assert (found.status, found.protocol) == (101, protocol)
    assert said[:3] == ["1", coded(1, b"out"), coded(2, b"\x00err\xff")]
    assert [json.loads(base64.b64decode(one[1:]))["status"] for one in said[3:]] == (["Success"] if "v4" in protocol else [])


@pytest.mark.parametrize("protocol", [*BINARY, *BASE64])
async def test_a_command_that_fails_says_so_in_the_words_of_its_protocol(lab: Live, protocol: str) -> None:
    lab.streams.executions.append(FakeExecution(code=3))
    _, said = await talk(lab, EXEC, *filter(None, [protocol]))
    last = said[-1]
    words = base64.b64decode(last[1:]) if protocol in BASE64 else last[1:]
    assert last[:1] in ("3", b"\x03")
    if protocol.startswith("v"):
        assert ch.exit_code(words) == (3, "")
    else:
        assert words == b"command terminated with non-zero exit code: exit status 3"


@pytest.mark.parametrize("protocol", [*BINARY, *BASE64])
async def test_input_comes_in_each_protocol_and_only_v5_can_end_it(lab: Live, protocol: str) -> None:
    execution = FakeExecution(echo=True)
    lab.streams.executions.append(execution)

    def use(found: Talk) -> list[bytes | str]:
        if protocol in BASE64:
            found.say("0not base64!")
            found.say(coded(ch.STDIN, b"hello"))
            return [found.hear(), found.hear()]
        found.say(b"\x00hello")
        found.say(b"\xff\x00")
        return [found.hear(), found.hear()] + (found.rest() if protocol.startswith("v5") else [])

    _, said = await talk(lab, EXEC, *filter(None, [protocol]), use=use)
    assert said[1] == (coded(1, b"hello") if protocol in BASE64 else b"\x01hello")
    await asyncio.wait_for(execution.abandoned.wait(), 5)
    assert execution.input == b"hello"
    assert execution.input_closed is protocol.startswith("v5")


def test_the_first_protocol_that_is_known_is_spoken_but_v5_before_all() -> None:
    def offered(*protocols: str) -> str | None:
        return choose(Request("GET", "/", protocols=protocols), ch.PROTOCOLS, ch.PROTOCOL)

    assert offered("base64.channel.k8s.io", "v4.channel.k8s.io") == "base64.channel.k8s.io"
    assert offered("chat", "channel.k8s.io", "v5.channel.k8s.io") == "v5.channel.k8s.io"
    assert (offered(), offered("chat")) == ("", None)


@pytest.mark.parametrize(("protocols", "text"), [((), False), (("binary.k8s.io",), False), (("base64.binary.k8s.io",), True)])
async def test_a_log_comes_in_messages(lab: Live, protocols: tuple[str, ...], text: bool) -> None:
    found, said = await talk(lab, f"{PODS}/web/log", *protocols)
    assert (found.status, found.protocol) == (101, protocols[0] if protocols else None)
    assert len(said) == 3
    assert not said[0], "an empty message tells that it begins"
    plain = [base64.b64decode(one) for one in said] if text else said
    assert b"".join(plain) == b"one\ntwo\xff\nthree\n"
    assert all(isinstance(one, str) is text for one in said)


async def test_what_is_refused_is_refused_with_a_status(lab: Live) -> None:
    for path, protocol, code, words in (
        (f"{PODS}/web/log", "channel.k8s.io", 400, "binary.k8s.io"),
        (f"{PODS}/web/log?container=x", "binary.k8s.io", 400, "container x is not valid"),
        (f"{PODS}/none/log", "binary.k8s.io", 404, 'pods "none" not found'),
        (f"{PODS}/web/portforward?ports=80", "channel.k8s.io", 400, "not running"),
        (f"{PODS}?watch=true&fieldSelector=a=b", "", 400, "field label not supported: a"),
    ):
        found, _ = await talk(lab, path, *filter(None, [protocol]))
        assert found.status == code
        assert words in json.loads(found.refusal)["message"] or path.endswith("ports=80")


async def test_a_watch_says_an_event_a_message(lab: Live) -> None:
    def use(found: Talk) -> list[Any]:
        first = [json.loads(found.hear())]
        return [*first, json.loads(found.hear())]

    version = lab.api.store.version
    task = asyncio.ensure_future(talk(lab, f"{PODS}?watch=true&resourceVersion={version}", use=use))
    await asyncio.sleep(0)
    for name in ("a", "b"):
        await lab.api.pod(name)
    found, events = await task
    assert found.protocol is None
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [("ADDED", "a"), ("ADDED", "b")]


async def test_a_watch_that_ends_closes_and_what_was_there_came_first(lab: Live) -> None:
    found, said = await talk(lab, f"{PODS}?watch=true&timeoutSeconds=0.05", "binary.k8s.io")
    assert found.protocol == "binary.k8s.io"
    assert [json.loads(one)["object"]["metadata"]["name"] for one in said] == ["web"]
    assert all(isinstance(one, str) and one.endswith("\n") for one in said)


async def test_a_watch_whose_client_leaves_is_let_go(lab: Live) -> None:
    await talk(lab, f"{PODS}?watch=true", use=Talk.hear)
    hub = lab.api.server._records.hub
    for _ in range(500):
        if not any(hub._watchers.values()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("somebody still listens")


async def test_a_list_is_a_list_whatever_was_asked_for(lab: Live) -> None:
    found, _ = await talk(lab, PODS)
    assert found.status == 200
    assert json.loads(found.refusal)["kind"] == "PodList"


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
async def test_ports_in_each_protocol(lab: Live, protocol: str) -> None:
    await lab.api("PATCH", f"{PODS}/web/status", {"status": {"phase": "Running"}})
    pod = Pod()
    lab.streams.pods[80] = pod  # type: ignore[attr-defined]

    def use(found: Talk) -> list[Any]:
        first = [found.hear() for _ in range(4)]
        found.say(coded(0, b"GET /") if "base64" in protocol else b"\x00GET /")
        return [*first, found.hear(), found.hear()]

    pod.says.put_nowait(b"hello")
    found, said = await talk(lab, f"{PODS}/web/portforward?ports=80,81", *filter(None, [protocol]), use=use)
    assert (found.protocol or "") == protocol
    plain = [bytes([int(one[0])]) + base64.b64decode(one[1:]) for one in said] if "base64" in protocol else said
    assert plain[:4] == [bytes([channel]) + struct.pack("<H", 80 + channel // 2) for channel in range(4)]
    assert {one[:1]: one[1:] for one in plain[4:]}[b"\x00"] == b"hello"
    assert b"connection refused" in {one[:1]: one[1:] for one in plain[4:]}[b"\x03"]


def in_protocol(token: str) -> str:
    return BEARER + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


async def test_a_token_may_come_as_a_sub_protocol(lab: Live) -> None:
    lab.streams.executions.append(FakeExecution())
    found, _ = await talk(lab, EXEC, in_protocol("secret"), "v4.channel.k8s.io", token="")
    assert (found.status, found.protocol) == (101, "v4.channel.k8s.io")
    found, said = await talk(lab, f"{PODS}?watch=true&timeoutSeconds=0.05", "chat", in_protocol("secret"), token="")
    assert (found.protocol, len(said)) == ("chat", 1)


@pytest.mark.parametrize(
    "protocols",
    [
        (in_protocol("wrong"), "chat"),
        (in_protocol("secret"),),
        (in_protocol("secret"), in_protocol("secret"), "chat"),
        (BEARER + "é", "x"),
    ],
)
def test_tokens_in_sub_protocols_that_are_worth_nothing(protocols: tuple[str, ...]) -> None:
    try:
        assert bearer(Request("GET", "/", protocols=protocols))[0] == "wrong"
    except Problem as problem:
        assert problem.code == 401


class Silent:
    """Messages that a test gave."""

    def __init__(self, *messages: bytes | None) -> None:
        self._messages, self.sent = list(messages), [b""]

    async def receive(self) -> bytes | None:
        return self._messages.pop(0)

    async def send(self, message: bytes) -> None:
        self.sent.append(message)


async def test_base64_that_is_none_is_passed_over() -> None:
    silent = Silent(b"0*", b"\x00aGk=", "é".encode(), b"4aGk=", b"", None)
    messages = Base64Channels(silent)
    assert [await messages.receive() for _ in range(3)] == [b"\x04hi", b"", None]
    await messages.send(b"\x64x")
    assert silent.sent[-1].decode() == chr(48 + 100) + "eA=="
