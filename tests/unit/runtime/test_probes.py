"""Probes against servers on the loopback interface, and what they say, as a kubelet says it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.pod import Container, HttpGet, Probe
from podplane.runtime import http_probe
from podplane.runtime.http_probe import NoAnswer
from podplane.runtime.probes import ProbeFailed, Prober, watch
from tests.ports import free_port
from tests.unit.runtime.agnhost.programs import Agnhost, agnhost, ask
from tests.unit.virtual_time import virtual

__all__ = ["agnhost"]
HOST = "127.0.0.1"


class Here:
    """A namespace that is this process's own."""

    fd = -1

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


async def execute(command: tuple[str, ...], seconds: float) -> tuple[int, str]:
    """Commands of a container that hangs."""
    raise TimeoutError


async def says(container: dict[str, Any] | None = None, ip: str = HOST, **probe: Any) -> str:
    """What a probe says: a failure, or `warning:` and a warning, or nothing."""
    prober = Prober(msgspec.convert({"name": "c", **(container or {})}, Container), Here(), ip, execute)  # type: ignore[arg-type]
    try:
        warning = await prober.check(msgspec.convert({"timeoutSeconds": 1, **probe}, Probe))
    except ProbeFailed as error:
        return str(error)
    return f"warning: {warning}" if warning else ""


@contextlib.asynccontextmanager
async def serving(answers: dict[str, bytes | None]) -> AsyncIterator[int]:
    """A server's port: its answers by target; None for one that never comes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        answer = answers[head.split()[1].decode()]
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def redirect(place: str) -> bytes:
    """An answer that leads there."""
    return f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 5\r\n\r\nthere".encode()


OK, BAD = b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 500 Internal Server Error\r\n\r\nbroken"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/ok", ""),
        ("/bad", "HTTP probe failed with statuscode: 500, answer: broken"),
        ("/to-ok", ""),
        ("/to-bad", "HTTP probe failed with statuscode: 500, answer: broken"),
        ("/away", "warning: Probe terminated redirects, Response body: there"),
        ("/nowhere", "warning: Probe terminated redirects, Response body: "),
        ("/round", 'Get "http://127.0.0.1:PORT/round": stopped after 10 redirects'),
        (
            "/hangs",
            'Get "http://127.0.0.1:PORT/hangs": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
        ),
        ("/noise", 'Get "http://127.0.0.1:PORT/noise": malformed HTTP response'),
        ("/bracket", 'Get "http://127.0.0.1:PORT/bracket": failed to parse Location header "http://[": Invalid IPv6 URL'),
        ("/bell", 'Get "http://127.0.0.1:PORT/bell": failed to parse Location header "/\a": invalid control character in URL'),
        ("/long-line", 'Get "http://127.0.0.1:PORT/long-line": a line of the server\'s response headers is too long'),
        ("/long-field", 'Get "http://127.0.0.1:PORT/long-field": a line of the server\'s response headers is too long'),
        ("/long-head", 'Get "http://127.0.0.1:PORT/long-head": server response headers exceeded 262144 bytes; aborted'),
        ("/long-status", 'Get "http://127.0.0.1:PORT/long-status": malformed HTTP response'),
        ("/two", "HTTP probe failed with statuscode: 500, answer: broken"),
        ("/wrong", "Get \"http://127.0.0.1:PORT/wrong\": http://127.0.0.1:x/: Port could not be cast to integer value as 'x'"),
    ],
)
async def test_http(path: str, said: str) -> None:
    answers: dict[str, bytes | None] = {
        "/ok": OK,
        "/bad": BAD,
        "/to-ok": redirect("ok"),
        "/to-bad": redirect("/to-bad2"),
        "/to-bad2": redirect("/bad"),
        "/away": redirect("http://192.0.2.1/"),
        "/nowhere": b"HTTP/1.1 304 Not Modified\r\n\r\n",
        "/round": redirect("/round"),
        "/hangs": None,
        "/noise": b"SSH-2.0\r\n\r\n",
        "/bracket": redirect("http://["),
        "/bell": redirect("/\a"),
        "/long-line": b"HTTP/1.1 200 " + b"x" * (1 << 17) + b"\r\n\r\n",
        "/long-field": b"HTTP/1.1 302 Found\r\nX: " + b"x" * (1 << 17) + b"\r\n\r\n",
        "/long-head": b"HTTP/1.1 302 Found\r\n" + b"X: y\r\n" * (1 << 16) + b"\r\n",
        "/long-status": b"HTTP/1.1 " + b"2" * 5000 + b"\r\n\r\n",
        "/two": b"HTTP/1.1 302 Found\nlocation:/bad\nLocation: /ok\n\n",
        "/wrong": redirect("http://127.0.0.1:x/"),
    }
    async with serving(answers) as port:
        assert await says(httpGet={"path": path, "port": port}) == said.replace("PORT", str(port))


class Endless:
    """What sends a head without an end, in lines as long as may be."""

    lines = 0

    async def readline(self) -> bytes:
        self.lines += 1
        return b"HTTP/1.1 302 Found\r\n" if self.lines == 1 else b"X: %s\r\n" % (b"x" * 60000)


async def test_a_head_is_read_no_further_than_its_limit() -> None:
    source = Endless()
    with pytest.raises(NoAnswer, match="exceeded"):
        await http_probe._answer(cast(asyncio.StreamReader, source))
    assert source.lines * 60000 <= http_probe.MAX_HEAD_BYTES + 2 * 60000


LINES = st.sampled_from(
    [b"HTTP/1.1 302", b"HTTP/1.0 99999999", b"Location: http://[::1", b"Location: //\xff:99999/", b"X", b""]
)
HEADS = st.lists(LINES | st.binary(max_size=30), max_size=8).map(b"\r\n".join)


@given(HEADS | st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_none(data: bytes) -> None:
    async def read() -> http_probe.Answer:
        reader = asyncio.StreamReader(limit=64)
        reader.feed_data(data)
        reader.feed_eof()
        return await http_probe._answer(reader)

    with contextlib.suppress(NoAnswer):
        assert 0 <= asyncio.run(read()).status <= 999


@given(st.text() | st.text("/:[]@?#%.x0\uff0e").map("http://".__add__))
def test_any_location_leads_to_the_same_host_or_to_none(location: str) -> None:
    first = "http://10.0.0.1:80/a"
    with contextlib.suppress(NoAnswer):
        found = http_probe._next(first, first, location)
        assert not found or urlsplit(found).hostname == "10.0.0.1"


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 70}.example"])
async def test_a_host_that_cannot_be_a_name(host: str) -> None:
    assert await says(tcpSocket={"port": 80, "host": host}) == f"dial tcp: lookup {host}: no such host"


@virtual
async def test_what_nobody_thought_of_is_a_failure_that_is_logged_and_the_probe_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[str] = []
    told: list[str] = []
    decisions: list[bool] = []

    async def breaks(command: tuple[str, ...], seconds: float) -> tuple[int, str]:
        asked.append(command[0])
        if len(asked) == 3:
            return 0, ""
        raise LookupError("of all things")

    async def tell(text: str) -> None:
        told.append(text)

    def decided(succeeded: bool) -> None:
        decisions.append(succeeded)
        if succeeded:
            watching.cancel()

    prober = Prober(Container("main"), Here(), HOST, breaks)  # type: ignore[arg-type]
    probe = msgspec.convert({"exec": {"command": ["x"]}, "failureThreshold": 2}, Probe)
    watching = asyncio.ensure_future(watch(prober, probe, decided, tell, tell))
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert (told, decisions) == (["LookupError: of all things"] * 2, [False, True])
    assert [record.message for record in caplog.records] == [f"probe of container=main ip={HOST} failed"] * 2


@pytest.mark.parametrize(("path", "wanted"), [("/ok", ""), ("/bad", "")])
async def test_any_answer_will_do_for_a_hook(path: str, wanted: str) -> None:
    async with serving({"/ok": OK, "/bad": BAD}) as port:
        assert await hooked({"path": path, "port": port}) == wanted


async def test_a_hook_over_tls_that_is_answered_without() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(OK)
        writer.close()

    async with await asyncio.start_server(talk, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        action = {"path": "/ok", "port": port, "scheme": "HTTPS"}
        assert "retry with HTTP succeeded" in await hooked(action)
        why = "http: server gave HTTP response to HTTPS client"
        assert await says(httpGet=action) == f'Get "https://{HOST}:{port}/ok": {why}'


async def test_a_hook_without_an_answer_fails() -> None:
    with pytest.raises(ProbeFailed, match="connection refused"):
        await hooked({"path": "/", "port": free_port()})


async def hooked(action: dict[str, Any]) -> str:
    """The warning of a hook."""
    prober = Prober(Container("c"), Here(), HOST, execute)  # type: ignore[arg-type]
    return await prober.hook(msgspec.convert(action, HttpGet))


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([], ["Host: PLACE", "User-Agent: kube-probe/1.36", "Accept: */*"]),
        (
            [("host", "web.example"), ("user-agent", ""), ("X", "1"), ("X", "2")],
            ["Accept: */*", "host: web.example", "X: 1", "X: 2"],
        ),
    ],
)
async def test_headers_of_a_probe(headers: list[tuple[str, str]], wanted: list[str]) -> None:
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    async with await asyncio.start_server(talk, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        own = [{"name": name, "value": value} for name, value in headers]
        assert await says(httpGet={"path": "/a?b=c", "port": port, "httpHeaders": own}) == ""
    lines = heads[0].decode().strip().split("\r\n")
    place = f"{HOST}:{port}"
    assert lines == ["GET /a?b=c HTTP/1.1", *(line.replace("PLACE", place) for line in wanted), "Connection: close"]


async def test_who_does_not_listen() -> None:
    port = free_port()
    refused = f"dial tcp {HOST}:{port}: connect: connection refused"
    assert await says(tcpSocket={"port": port}) == refused
    assert await says(httpGet={"path": "healthz", "port": port}) == f'Get "http://{HOST}:{port}/healthz": {refused}'
    why = f'timeout: failed to connect service "{HOST}:{port}" within 1s: context deadline exceeded'
    assert await says(grpc={"port": port}) == why


async def test_a_command_that_hangs() -> None:
    assert await says(exec={"command": ["sleep", "9"]}) == 'command "sleep 9" timed out after 1s'


async def test_a_port_by_name() -> None:
    async with serving({"/": OK}) as port:
        container = {"ports": [{"name": "web", "containerPort": port}]}
        assert await says(container, httpGet={"port": "web"}) == ""
        assert await says(container, tcpSocket={"port": "web"}) == ""
        assert await says(container, tcpSocket={"port": "db"}) == "the container has no port named 'db'"
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        await says(grpc={"port": "web"})


async def test_grpc(agnhost: Agnhost) -> None:
    program = agnhost.start("grpc-health-checking", "--port=0", "--http-port=0", "--service=shop")
    control, port = program.port("TCP"), program.port("TCP")
    assert await says(grpc={"port": port, "service": "shop"}) == ""
    unknown = "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"
    assert await says(grpc={"port": port, "service": None}) == unknown
    assert ask(control, "/make-not-serving")[0] == 200
    assert await says(grpc={"port": port, "service": "shop"}) == 'service unhealthy (responded with "NOT_SERVING")'
    assert ask(control, "/make-serving")[0] == 200
    assert await says(grpc={"port": port, "service": "shop"}) == ""
    assert ask(control, "/")[0] == 404


async def test_grpc_that_is_ill_from_the_beginning(agnhost: Agnhost) -> None:
    program = agnhost.start("grpc-health-checking", "--port=0", "--http-port=0", "--delay-unhealthy-sec=0")
    program.port("TCP")
    assert await says(grpc={"port": program.port("TCP")}) == 'service unhealthy (responded with "NOT_SERVING")'


async def test_grpc_to_a_server_that_speaks_something_else() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await says(grpc={"port": port})).startswith("timeout: failed to connect service")


async def test_grpc_that_is_never_answered() -> None:
    settings = b"\0\0\0\4\0\0\0\0\0"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(settings)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await says(grpc={"port": port}) == "timeout: health rpc did not complete within 1s"


def test_a_certificate_and_a_key_go_together(agnhost: Agnhost) -> None:
    done = agnhost.run("grpc-health-checking", "--tls-cert-file=/x")
    assert (done.returncode, "must be set" in done.stderr) == (1, True)
