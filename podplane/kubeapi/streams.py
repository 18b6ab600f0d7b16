"""What users ask of nodes through the API: run a command in a container, as a conversation.

The API server knows `NodeStreams`, the runtime implements it, the lab introduces them to each other.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec


class ExecRequest(msgspec.Struct, frozen=True):
    """A command for a container of a pod; no container name means the first one."""

    namespace: str
    pod: str
    container: str
    command: Sequence[str]
    stdin: bool = False
    tty: bool = False


class LogRequest(msgspec.Struct, frozen=True):
    """What of a container's log is wanted (core/v1 PodLogOptions); no container name means the first one."""

    namespace: str
    pod: str
    container: str = ""
    follow: bool = False
    previous: bool = False
    since: datetime.datetime | None = None
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None


class StreamError(Exception):
    """The command can't be run there; one line that says why."""


class Execution(Protocol):
    """A command that runs."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, data) as it comes, until it has closed its output."""

    async def write(self, data: bytes) -> None:
        """To its standard input."""

    def close_input(self) -> None:
        """No more input; idempotent."""

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's new size."""

    async def outcome(self) -> tuple[int, str]:
        """(exit code, why it could not be started or "")."""

    def abandon(self) -> None:
        """Nobody listens any more: end it and let go of everything; idempotent."""


class Connection(Protocol):
    """A connection to a port of a pod."""

    async def read(self) -> bytes:
        """What comes next; nothing at its end."""

    async def write(self, data: bytes) -> None:
        """Send; waits while the pod doesn't read."""

    def end_writing(self) -> None:
        """Nothing more is sent; idempotent."""

    def close(self) -> None:
        """Let go of it; idempotent."""


class NodeStreams(Protocol):
    """The nodes, as far as users reach into pods."""

    def check(self, request: ExecRequest) -> None:
        """StreamError unless there is such a container, and it runs now."""

    def execute(self, request: ExecRequest) -> Execution:
        """Start a command. StreamError when there is no such container to start it in."""

    def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        """A container's log, in chunks. StreamError when there is no such container, or no log."""

    def attach(self, request: ExecRequest) -> Execution:
        """Listen to a container's main process, and talk to it. StreamError when it doesn't run."""

    async def dial(self, host: str, port: int, *, tls: bool = False) -> Connection:
        """Connect to an address of the nodes' network, whatever its certificate. StreamError when that can't be."""

    async def reach(self, namespace: str, pod: str, host: str, port: int, *, tls: bool = False) -> Connection:
        """Connect to an address of a pod from its node, whatever its certificate. StreamError when that can't be."""

    async def connect(self, namespace: str, pod: str, port: int) -> Connection:
        """Connect to a port of a pod's localhost. StreamError when that can't be."""
