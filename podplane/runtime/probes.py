"""Probes of containers, run from the node as a kubelet's are: HTTP, gRPC and TCP from the node's network namespace, commands
inside.

A probe is asked every period; so many outcomes in a row decide (Container probes, "Configure probes"). Until the startup probe has
succeeded, the others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from podplane.kernel.namespace import Namespace
from podplane.model.pod import Container, Grpc, HttpGet, Port, Probe, TcpSocket
from podplane.runtime import durations, http_probe
from podplane.runtime.dial import DialError, dial
from podplane.runtime.http_probe import USER_AGENT, Answer, NoAnswer

if TYPE_CHECKING:
    from podplane.runtime import grpc_health

log = logging.getLogger(__name__)
HOOK_AGENT = "kube-lifecycle/1.36"
REDIAL_SECONDS = (1.0, 1.6, 2.6, 4.1, 6.6)
"""Before a gRPC client tries to connect again, as its back-off has it (grpc/grpc, doc/connection-backoff.md)."""
CHUNK_BYTES = 16 * 1024
Exec = Callable[[tuple[str, ...], float], Awaitable[tuple[int, str]]]
"""Run a command in the container, at most so many seconds: (exit code, output)."""


class ProbeFailed(Exception):
    """The probe failed; one line that says how, in kubelet's words."""


class NoTls(ProbeFailed):
    """Who was asked over TLS doesn't speak it."""


@contextlib.contextmanager
def failing(what: str) -> Iterator[None]:
    """Whatever goes wrong within is ProbeFailed: what nobody thought of is logged, and ends neither a probe nor the stop of a container."""
    try:
        yield
    except ProbeFailed:
        raise
    except Exception as error:
        log.exception("%s failed", what)
        raise ProbeFailed(f"{type(error).__name__}: {error}") from error


class Prober(msgspec.Struct, frozen=True):
    """Where a container's probes go: from a namespace, to the pod's address; and how a command is run in it."""

    container: Container
    namespace: Namespace
    ip: str
    execute: Exec

    async def check(self, probe: Probe) -> str:
        """Probe once; a warning, or nothing. ProbeFailed says what is wrong."""
        seconds = float(probe.timeout_seconds or 1)
        if probe.http_get is not None:
            return await self.http(probe.http_get, seconds)
        if probe.tcp_socket is not None:
            await self.tcp(probe.tcp_socket, seconds)
        elif probe.grpc is not None:
            await self.grpc(probe.grpc, seconds)
        elif probe.exec is not None:
            await self.command(probe.exec.command, seconds)
        return ""

    async def command(self, command: tuple[str, ...], seconds: float) -> None:
        """Run a command. ProbeFailed unless it ends with 0."""
        try:
            code, output = await self.execute(command, seconds)
        except TimeoutError:
            raise ProbeFailed(f'command "{" ".join(command)}" timed out after {durations.written(seconds)}') from None
        if code:
            raise ProbeFailed(output.strip() or f"command {list(command)} ended with exit code {code}")

    async def tcp(self, action: TcpSocket, seconds: float | None = None) -> None:
        """Open a connection. ProbeFailed when that can't be."""
        host, port = action.host or self.ip, self._port(action.port)
        try:
            async with asyncio.timeout(seconds):
                (await dial(self.namespace, host, port)).close()
        except TimeoutError:
            raise ProbeFailed(f"dial tcp {written(host, port)}: i/o timeout") from None
        except DialError as error:
            raise ProbeFailed(str(error)) from None

    async def http(self, action: HttpGet, seconds: float) -> str:
        """Send a request; a warning when the answer leads to another host. ProbeFailed unless the answer is one of 200 to 399."""
        answer = await self._get(self._url(action), action, USER_AGENT, seconds)
        if not 200 <= answer.status < 400:
            said = f", answer: {answer.body}" if answer.body else ""
            raise ProbeFailed(f"HTTP probe failed with statuscode: {answer.status}{said}")
        return f"Probe terminated redirects, Response body: {answer.body}" if answer.status >= 300 else ""

    async def hook(self, action: HttpGet) -> str:
        """Send the request of a lifecycle hook: any answer will do, one without TLS too, then with a warning. ProbeFailed without one
        (kubernetes, pkg/kubelet/lifecycle/handlers.go)."""
        url = self._url(action)
        try:
            await self._get(url, action, HOOK_AGENT, None)
        except NoTls:
            await self._get(url.replace("https:", "http:", 1), action, HOOK_AGENT, None)
            return "request to HTTPS lifecycle hook got HTTP response, retry with HTTP succeeded"
        return ""

    def _url(self, action: HttpGet) -> str:
        place = written(action.host or self.ip, self._port(action.port))
        return f"{action.scheme.lower()}://{place}{action.path if action.path.startswith('/') else f'/{action.path}'}"

    async def _get(self, url: str, action: HttpGet, agent: str, seconds: float | None) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                connect = functools.partial(dial, self.namespace)
                return await http_probe.get(url, action.http_headers, connect, agent)
        except TimeoutError:
            why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            raise ProbeFailed(f'Get "{url}": {why}') from None
        except http_probe.NoTls:
            raise NoTls(f'Get "{url}": http: server gave HTTP response to HTTPS client') from None
        except (OSError, DialError, NoAnswer) as error:
            raise ProbeFailed(f'Get "{url}": {error}') from None

    async def grpc(self, action: Grpc, seconds: float) -> None:
        """Ask for the health of a service. ProbeFailed unless it serves."""
        health = await asyncio.to_thread(_grpc_health)
        place, within = written(self.ip, action.port), durations.written(seconds)
        call = health.Check(place, action.service or "", USER_AGENT)
        try:
            async with asyncio.timeout(seconds):
                for pause in itertools.chain(REDIAL_SECONDS, itertools.repeat(REDIAL_SECONDS[-1])):
                    await self._converse(call, action.port)
                    if call.connected:
                        break
                    await asyncio.sleep(pause)
                    call = health.Check(place, action.service or "", USER_AGENT)
        except TimeoutError:
            if not call.connected:
                why = "context deadline exceeded"
                raise ProbeFailed(f'timeout: failed to connect service "{place}" within {within}: {why}') from None
        if call.outcome is None or call.outcome.code == health.DEADLINE_EXCEEDED:
            raise ProbeFailed(f"timeout: health rpc did not complete within {within}")
        if why := health.failure(call.outcome):
            raise ProbeFailed(why)

    async def _converse(self, call: grpc_health.Check, port: int) -> None:
        """Carry a call over a connection of its own, to its end."""
        loop = asyncio.get_running_loop()
        try:
            with await dial(self.namespace, self.ip, port) as sock:
                while call.outcome is None:
                    if data := call.pending():
                        await loop.sock_sendall(sock, data)
                    call.receive(await loop.sock_recv(sock, CHUNK_BYTES))
        except (OSError, DialError):
            call.receive(b"")

    def _port(self, port: Port) -> int:
        """A number, or the number of the container's port of that name. ProbeFailed when there is none."""
        if isinstance(port, int) or port.isdecimal():
            return int(port)
        found = next((p.container_port for p in self.container.ports if p.name == port), None)
        if found is None:
            raise ProbeFailed(f"the container has no port named {port!r}")
        return found


def _grpc_health() -> Any:
    """The module, which takes 70 ms to import."""
    from podplane.runtime import grpc_health

    return grpc_health


def written(host: str, port: int) -> str:
    """host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Streak(msgspec.Struct):
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
    prober: Prober,
    probe: Probe,
    decided: Callable[[bool], None],
    failed: Callable[[str], Awaitable[None]],
    warned: Callable[[str], Awaitable[None]],
) -> None:
    """Probe until cancelled; tell each decision, and each failure and warning in words."""
    streak = Streak(max(1, probe.success_threshold), max(1, probe.failure_threshold))
    await asyncio.sleep(probe.initial_delay_seconds)
    while True:
        try:
            with failing(f"probe of container={prober.container.name} ip={prober.ip}"):
                warning = await prober.check(probe)
            outcome = True
            if warning:
                await warned(warning)
        except ProbeFailed as error:
            outcome = False
            await failed(str(error))
        decision = streak.add(outcome)
        if decision is not None:
            decided(decision)
        await asyncio.sleep(max(1, probe.period_seconds))
