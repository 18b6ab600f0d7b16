"""Commands in containers over a WebSocket on a real socket: channels both ways, how they end, and who lets go of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from podplane.kubeapi import channels as ch
from podplane.kubeapi import exec as cluster_exec
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.kubeapi.exec import ExecSession
from podplane.kubeapi.requests import execute
from podplane.kubeapi.streams import ExecRequest
from tests.unit.apiserver.live import FakeExecution, Live, access_to, connection, live
from tests.unit.apiserver.test_server import PODS


@pytest.fixture
async def lab() -> AsyncIterator[Live]:
    async with live() as lab:
        yield lab


def hear(session: ExecSession) -> dict[int, bytes]:
    """All that is said on each channel until it is over."""
    said: dict[int, bytes] = {}
    while not session.over:
        for channel, data in session.receive():
            said[channel] = said.get(channel, b"") + data
    return said


async def test_output_comes_on_its_channels_and_the_end_last(lab: Live) -> None:
    execution = FakeExecution([(ch.STDOUT, b"out"), (ch.STDERR, b"\x00err\xff"), (ch.STDOUT, b"put")])
    said = await lab.exec(execution, hear)
    assert list(said)[-1] == ch.ERROR
    assert (said[ch.STDOUT], said[ch.STDERR]) == (b"output", b"\x00err\xff")
    assert ch.exit_code(said[ch.ERROR]) == (0, "")
    assert execution.abandoned.is_set()


@pytest.mark.parametrize(("code", "error"), [(0, ""), (3, ""), (137, ""), (127, "nope: no such command")])
async def test_the_exit_code_comes_on_the_error_channel(lab: Live, code: int, error: str) -> None:
    said = await lab.exec(FakeExecution(code=code, error=error), hear)
    assert list(said) == [ch.ERROR]
    assert ch.exit_code(said[ch.ERROR]) == (code, error)


async def test_input_reaches_the_command_until_it_is_closed(lab: Live) -> None:
    def talk(session: ExecSession) -> dict[int, bytes]:
        session.send(b"hello ")
        session.send(b"")
        session.send("wörld\n".encode())
        session.close_input()
        return hear(session)

    execution = FakeExecution(echo=True)
    said = await lab.exec(execution, talk, stdin=True)
    assert said[ch.STDOUT] == "hello wörld\n".encode()
    assert execution.input_closed


async def test_nobody_waits_for_a_command_that_waits_for_input(lab: Live) -> None:
    def talk(session: ExecSession) -> dict[int, bytes]:
        for _ in range(20):
            select.select([session], [], [], 0.01)  # what makes it readable says nothing
            assert session.receive_ready() == []
        session.send(b"hello")
        session.close_input()
        return hear(session)

    said = await lab.exec(FakeExecution(echo=True), talk, stdin=True)
    assert said[ch.STDOUT] == b"hello"


async def test_a_client_that_reads_nothing_for_a_while_keeps_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Kubernetes, where no pings end it: this server would send one each 20 ms, if it sent any, and wait as long for its answer."""
    pings = {"ws_ping_interval": 0.02, "ws_ping_timeout": 0.02}
    config = uvicorn.Config
    monkeypatch.setattr(uvicorn, "Config", lambda *words, **options: config(*words, **{**pings, **options}))

    def talk(session: ExecSession) -> dict[int, bytes]:
        time.sleep(0.3)
        session.send(b"hello")
        session.close_input()
        return hear(session)

    async with live() as lab:
        said = await lab.exec(FakeExecution(echo=True), talk, stdin=True)
    assert said[ch.STDOUT] == b"hello"


async def test_much_output_arrives_whole_and_in_order(lab: Live) -> None:
    chunks = [bytes([i % 251]) * 32_768 for i in range(64)]
    said = await lab.exec(FakeExecution([(ch.STDOUT, chunk) for chunk in chunks]), hear)
    assert said[ch.STDOUT] == b"".join(chunks)


async def test_a_long_input_arrives_whole(lab: Live) -> None:
    data = bytes(range(256)) * 2048

    def talk(session: ExecSession) -> dict[int, bytes]:
        session.send(data)
        session.close_input()
        return hear(session)

    execution = FakeExecution(echo=True)
    said = await lab.exec(execution, talk)
    assert bytes(execution.input) == data == said[ch.STDOUT]


async def test_the_terminal_has_the_size_that_was_told(lab: Live) -> None:
    def talk(session: ExecSession) -> None:
        session.resize(120, 40)
        session.resize(80, 24)
        session.close_input()
        hear(session)

    execution = FakeExecution(echo=True)
    await lab.exec(execution, talk, tty=True, stdin=True)
    assert execution.sizes == [(120, 40), (80, 24)]


async def test_the_node_is_asked_for_what_was_typed(lab: Live) -> None:
    command = ("sh", "-c", "echo 'a+b & c=d' > /tmp/ä; true", "", "--stdin=true")
    await lab.exec(FakeExecution(), hear, *command, container="main", stdin=True, tty=True)
    assert lab.streams.asked == [ExecRequest("default", "web", "main", list(command), stdin=True, tty=True)]
    await lab.exec(FakeExecution(), hear, "id")
    assert lab.streams.asked[1] == ExecRequest("default", "web", "main", ["id"])


def refusal(port: int, pod: str = "web", token: str = "secret", command: tuple[str, ...] = ("id",), **options: Any) -> ApiError:
    with pytest.raises(ApiError) as refused:
        ExecSession(access_to(port), execute(token, "default", pod, command, **options))
    return refused.value


async def test_refusals_before_the_upgrade_are_exceptions(lab: Live) -> None:
    missing = await asyncio.to_thread(refusal, lab.port, pod="nope")
    assert (type(missing), str(missing)) == (NotFound, 'pods "nope" not found')
    stranger = await asyncio.to_thread(refusal, lab.port, token="wrong")
    assert (stranger.code, stranger.reason) == (401, "Unauthorized")
    container = await asyncio.to_thread(refusal, lab.port, container="side")
    assert (container.code, str(container)) == (400, "container side is not valid for pod web")
    nothing = await asyncio.to_thread(refusal, lab.port, command=())
    assert nothing.code == 400


async def test_a_server_without_nodes_says_so(lab: Live) -> None:
    lab.api.server.streams = None
    assert (await asyncio.to_thread(refusal, lab.port)).code == 503


async def test_nobody_at_home_is_an_api_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert refusal(port).code == 503


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_goes_away_ends_the_command(lab: Live, politely: bool) -> None:
    execution = FakeExecution([(ch.STDOUT, b"x")], lasts=True)

    def leave(session: ExecSession) -> None:
        assert session.receive() == [(ch.STDOUT, b"x")]
        if not politely:
            session._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST instead of FIN

    await lab.exec(execution, leave)
    await asyncio.wait_for(execution.abandoned.wait(), 2)


async def test_after_the_end_nothing_happens_any_more(lab: Live) -> None:
    def talk(session: ExecSession) -> None:
        hear(session)
        session.send(b"late")
        session.resize(1, 1)
        session.close_input()
        assert session.receive() == []
        assert session.over
        session.close()
        session.close()

    execution = FakeExecution()
    await lab.exec(execution, talk)
    assert not execution.input
    assert not execution.sizes


async def test_a_session_waits_in_a_selector_with_what_came_early(lab: Live) -> None:
    def talk(session: ExecSession) -> list[tuple[int, bytes]]:
        assert session.fileno() >= 0
        found: list[tuple[int, bytes]] = []
        while not session.over:
            pending = session.has_pending
            got = session.receive()
            assert got or not pending
            found += got
        assert not session.has_pending
        return found

    found = await lab.exec(FakeExecution([(ch.STDOUT, b"x")]), talk)
    assert [channel for channel, _ in found] == [ch.STDOUT, ch.ERROR]


@pytest.mark.parametrize("message", [b"\x04{broken", b"\x04[]", b"\xff", b"\xff\x01", b"\x63what", b"\x00", b""])
async def test_messages_that_make_no_sense_are_passed_over(lab: Live, message: bytes) -> None:
    def talk(session: ExecSession) -> dict[int, bytes]:
        session._send(message)
        session.send(b"sense")
        session.close_input()
        return hear(session)

    execution = FakeExecution(echo=True)
    assert (await lab.exec(execution, talk))[ch.STDOUT] == b"sense"
    assert execution.sizes == []


async def test_a_silent_command_is_waited_for(lab: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_exec, "TIMEOUT_SECONDS", 0.2)
    loop, execution = asyncio.get_running_loop(), FakeExecution(echo=True)

    def talk(session: ExecSession) -> list[tuple[int, bytes]]:
        def speak() -> None:
            execution.input += b"at last"
            execution.wake.set()

        loop.call_soon_threadsafe(loop.call_later, 0.3, speak)
        return session.receive()

    assert await lab.exec(execution, talk) == [(ch.STDOUT, b"at last")]


async def plain(lab: Live, method: str) -> tuple[int, Any]:
    """Exec as plain HTTP, without an upgrade."""

    def ask() -> tuple[int, Any]:
        with contextlib.closing(connection(lab.port)) as plain:
            plain.request(method, f"{PODS}/web/exec?command=id&stdout=true", headers={"authorization": "Bearer secret"})
            answer = plain.getresponse()
            return answer.status, answer.read()

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_an_upgrade_no_command_is_left_running(lab: Live, method: str) -> None:
    execution = FakeExecution(lasts=True)
    lab.streams.executions.append(execution)
    status, _ = await plain(lab, method)
    assert status == 400
    assert execution.abandoned.is_set() or lab.streams.asked == []


async def test_without_an_upgrade_the_refusal_is_a_status(lab: Live) -> None:
    lab.streams.executions.append(FakeExecution())
    _, body = await plain(lab, "GET")
    assert json.loads(body)["reason"] == "BadRequest"
    assert "needs an upgrade" in json.loads(body)["message"]


async def test_what_is_wrong_with_the_container_is_said_to_those_who_fell_back_from_a_websocket(lab: Live) -> None:
    status, body = await plain(lab, "POST")
    assert (status, json.loads(body)["message"]) == (400, "container main is not valid for pod web")


def handshake(port: int, path: str, protocols: str) -> bytes:
    """The first line that answers an opening handshake."""
    plain = socket.create_connection(("127.0.0.1", port), 5)
    with access_to(port).context().wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer secret\r\n{protocols}\r\n".encode()
        )
        return connection.recv(4096)


async def test_other_sub_protocols_are_refused_and_start_nothing(lab: Live) -> None:
    lab.streams.executions.append(FakeExecution())
    for protocol in ("v3.channel.k8s.io", "chat", "binary.k8s.io"):
        protocols = f"Sec-WebSocket-Protocol: {protocol}\r\n"
        answer = await asyncio.to_thread(handshake, lab.port, f"{PODS}/web/exec?command=id", protocols)
        assert answer.startswith(b"HTTP/1.1 400")
    assert lab.streams.asked == []


async def test_the_sub_protocol_is_chosen_among_several(lab: Live) -> None:
    lab.streams.executions.append(FakeExecution(lasts=True))
    protocols = "Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io\r\n"
    answer = (await asyncio.to_thread(handshake, lab.port, f"{PODS}/web/exec?command=id", protocols)).lower()
    assert answer.startswith(b"http/1.1 101")
    assert b"sec-websocket-protocol: v5.channel.k8s.io\r\n" in answer


async def test_many_sessions_at_once_are_kept_apart(lab: Live) -> None:
    def talk(session: ExecSession) -> bytes:
        session.send(str(session.fileno()).encode())
        time.sleep(0.001)
        session.close_input()
        return hear(session)[ch.STDOUT] + b" " + str(session.fileno()).encode()

    for said in await asyncio.gather(*(lab.exec(FakeExecution(echo=True), talk) for _ in range(10))):
        assert len(set(said.split())) == 1
