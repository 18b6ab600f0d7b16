"""Probes of containers, run from the node as a kubelet's are: HTTP and TCP from the node's network namespace, commands inside.

A probe is asked every period; so many outcomes in a row decide (Container probes, "Configure probes"). Until the startup probe has
succeeded, the others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from podplane.kernel.namespace import Namespace
from podplane.model.pod import Container, HttpGet, Port, Probe, TcpSocket
from podplane.runtime.dial import DialError, dial

ANSWER_BYTES = 10 * 1024
"""So much of an answer is read and shown (kubelet, maxRespBodyLength)."""
USER_AGENT = "kube-probe/1.36"
Exec = Callable[[tuple[str, ...], float], Awaitable[tuple[int, str]]]
"""Run a command in the container, at most so many seconds: (exit code, output)."""


class ProbeFailed(Exception):
    """The probe failed; one line that says how."""


@dataclass(frozen=True, slots=True)
class Prober:
    """Where a container's probes go: from a namespace, to the pod's address; and how a command is run in it."""

    container: Container
    namespace: Namespace
    ip: str
    execute: Exec

    async def check(self, probe: Probe) -> None:
        """Probe once. ProbeFailed says what is wrong."""
        seconds = float(probe.timeout_seconds or 1)
        try:
            async with asyncio.timeout(seconds):
                if probe.http_get is not None:
                    await self.http(probe.http_get)
                elif probe.tcp_socket is not None:
                    await self.tcp(probe.tcp_socket)
                elif probe.exec is not None:
                    await self.command(probe.exec.command, seconds)
                else:
                    raise ProbeFailed("gRPC probes are not supported: use httpGet, tcpSocket or exec")
        except TimeoutError:
            raise ProbeFailed(f"timed out after {seconds:g} s") from None

    async def command(self, command: tuple[str, ...], seconds: float) -> None:
        """Run a command. ProbeFailed unless it ends with 0."""
        code, output = await self.execute(command, seconds)
        if code:
            raise ProbeFailed(output.strip() or f"command {list(command)} ended with exit code {code}")

    async def tcp(self, action: TcpSocket) -> None:
        """Open a connection. ProbeFailed when that can't be."""
        (await self._connect(action.host or self.ip, self._port(action.port))).close()

    async def http(self, action: HttpGet) -> None:
        """Send a request. ProbeFailed unless the answer is one of 200 to 399."""
        host, port = action.host or self.ip, self._port(action.port)
        sock = await self._connect(host, port)
        secure = _unverified() if action.scheme == "HTTPS" else None
        try:
            reader, writer = await asyncio.open_connection(sock=sock, ssl=secure, server_hostname="" if secure else None)
            try:
                writer.write(_request(action, host, port))
                status, body = await _answer(reader)
            finally:
                writer.close()
        except OSError as error:
            raise ProbeFailed(f"GET {host}:{port}{action.path}: {error}") from None
        if not 200 <= status < 400:
            raise ProbeFailed(f"HTTP probe failed with statuscode: {status}" + (f", answer: {body}" if body else ""))

    async def _connect(self, host: str, port: int) -> socket.socket:
        try:
            return await dial(self.namespace, host, port)
        except DialError as error:
            raise ProbeFailed(str(error)) from None

    def _port(self, port: Port) -> int:
        """A number, or the number of the container's port of that name. ProbeFailed when there is none."""
        if isinstance(port, int) or port.isdecimal():
            return int(port)
        found = next((p.container_port for p in self.container.ports if p.name == port), None)
        if found is None:
            raise ProbeFailed(f"the container has no port named {port!r}")
        return found


def _request(action: HttpGet, host: str, port: int) -> bytes:
    headers = {"Host": f"{host}:{port}", "User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"}
    headers |= {header.name: header.value for header in action.http_headers}
    lines = [f"GET {action.path or '/'} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """(status, the beginning of the body). ProbeFailed for what is no HTTP."""
    words = (await reader.readline()).split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ProbeFailed("malformed HTTP response")
    body = b""
    if int(words[1]) >= 400:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            body = await reader.read(ANSWER_BYTES)
    return int(words[1]), body.decode(errors="replace").strip()


def _unverified() -> ssl.SSLContext:
    """As a kubelet does, a probe takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(slots=True)
class Streak:
    """How many outcomes in a row were the same, and when that decides."""

    successes: int
    failures: int
    _is: bool | None = None
    _count: int = 0

    def add(self, succeeded: bool) -> bool | None:
        """One more outcome: what is decided by it, None when nothing is yet."""
        self._count = self._count + 1 if succeeded is self._is else 1
        self._is = succeeded
        return succeeded if self._count >= (self.successes if succeeded else self.failures) else None


async def watch(
    prober: Prober, probe: Probe, decided: Callable[[bool], None], failed: Callable[[str], Awaitable[None]]
) -> None:
    """Probe until cancelled; tell each decision, and each failure in words."""
    streak = Streak(max(1, probe.success_threshold), max(1, probe.failure_threshold))
    await asyncio.sleep(probe.initial_delay_seconds)
    while True:
        try:
            await prober.check(probe)
            outcome = True
        except ProbeFailed as error:
            outcome = False
            await failed(str(error))
        decision = streak.add(outcome)
        if decision is not None:
            decided(decision)
        await asyncio.sleep(max(1, probe.period_seconds))
