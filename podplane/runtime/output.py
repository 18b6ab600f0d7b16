"""What containers say: pipes or a terminal, log files in the format of container runtimes, and those who listen in.

A line of the file is `<time> <stdout|stderr> <F|P> <text>`; P is a part of a line that goes on (CRI logging, kuberuntime/logs). A file that
has become large is put aside and a new one begun; the older one of two goes.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from podplane.runtime import reading
from podplane.runtime.descriptors import write_all
from podplane.runtime.terminals import Terminal

LINE_BYTES = CHUNK_BYTES = 16 * 1024
"""A longer line is logged in parts. So much is read at a time."""
LAST_CHUNKS = 16
"""So much is still read of a container that ended: what its pipe can hold, and more."""
ROTATE_BYTES = 10 * 1024 * 1024
"""As kubelet's containerLogMaxSize."""
ASIDE = ".1"
MAX_FILE_NAME = 255
"""In bytes (limits.h, NAME_MAX)."""
STDOUT, STDERR = "stdout", "stderr"
Listener = Callable[[str, bytes], None]
"""(stream, data) as it comes; no data when the stream ends."""


class LogFile(msgspec.Struct):
    """The log of one run of a container."""

    path: Path
    now: Callable[[], datetime.datetime]
    listeners: list[Callable[[bytes], None]] = msgspec.field(default_factory=list)
    is_closed: bool = False
    _file: BinaryIO | None = None
    _size: int = 0
    _partial: dict[str, bytes] = msgspec.field(default_factory=dict)

    def write(self, stream: str, data: bytes) -> None:
        """Log what came: whole lines, and the parts of lines that grow too long."""
        for start in range(0, len(data), LINE_BYTES):
            self._write(stream, data[start : start + LINE_BYTES])

    def _write(self, stream: str, data: bytes) -> None:
        """Of no more bytes than a line may have, only the first and the last line can be too long, with what came before."""
        *lines, rest = (self._partial.pop(stream, b"") + data).split(b"\n")
        stamp = self.now().strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode() + b" " + stream.encode()
        out = b""
        if lines:
            parts, lines[0] = _cut(lines[0], stamp)
            out = parts + stamp + b" F " + (b"\n" + stamp + b" F ").join(lines) + b"\n"
        parts, rest = _cut(rest, stamp)
        if rest:
            self._partial[stream] = rest
        if out or parts:
            self._append(out + parts)

    def finish(self, stream: str) -> None:
        """The stream has ended: a line that began is whole."""
        if self._partial.get(stream):
            self.write(stream, b"\n")

    def _append(self, data: bytes) -> None:
        try:
            if self._file is not None and self._size > ROTATE_BYTES:
                self._shut()
                self.path.replace(self.path.with_name(self.path.name + ASIDE))
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - open as long as the container runs
                self._size = self._file.tell()
            self._file.write(data)
            self._size += len(data)
        except OSError:
            pass  # a full disk stops no container
        for listener in self.listeners:
            listener(data)

    def close(self) -> None:
        """The container has ended, and so has its log; idempotent."""
        self._shut()
        self.is_closed = True
        for listener in self.listeners:
            listener(b"")
        self.listeners.clear()

    def _shut(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _cut(line: bytes, stamp: bytes) -> tuple[bytes, bytes]:
    """What of a line is logged in parts, and what is left of it."""
    out = b""
    while len(line) > LINE_BYTES:
        out += b"%s P %s\n" % (stamp, line[:LINE_BYTES])
        line = line[LINE_BYTES:]
    return out, line


def log_folder_name(namespace: str, name: str, uid: str) -> str:
    """The folder of a pod's logs, as a kubelet names it; a pod's name may be as long as a file's, so it is cut where it must be."""
    return f"{namespace}_{name}"[: MAX_FILE_NAME - len(uid) - 1] + f"_{uid}"


def remove(log: Path) -> None:
    """Forget the log of a run, if there is one."""
    for path in (log, log.with_name(log.name + ASIDE)):
        path.unlink(missing_ok=True)


class Output(msgspec.Struct, eq=False):
    """The standard streams of one run of a container: pipes, or a terminal, which comes when it runs. `stdio` is what its process gets
    without one; `begin` when it has them."""

    log: LogFile
    stdio: tuple[int, int, int]
    input: int = -1
    terminal: Terminal | None = None
    takes_input: bool = False
    listeners: list[Listener] = msgspec.field(default_factory=list)
    ended: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    _theirs: list[int] = msgspec.field(default_factory=list)
    _sources: dict[int, str] = msgspec.field(default_factory=dict)

    @classmethod
    def open(cls, log: LogFile, null: int, *, stdin: bool, tty: bool) -> Output:
        """Pipes, or a terminal, as the container's spec says."""
        if tty:
            output = cls(log, (null, null, null), takes_input=stdin)
            output.terminal = Terminal(output._begin_terminal)
            return output
        out, their_out = os.pipe2(os.O_CLOEXEC)
        err, their_err = os.pipe2(os.O_CLOEXEC)
        theirs, own, their_in = [their_out, their_err], -1, null
        if stdin:
            their_in, own = os.pipe2(os.O_CLOEXEC)
            theirs.append(their_in)
        output = cls(log, (their_in, their_out, their_err), own, takes_input=stdin)
        output._theirs, output._sources = theirs, {out: STDOUT, err: STDERR}
        for fd in {*output._sources, output.input} - {-1}:
            os.set_blocking(fd, False)
        return output

    def _begin_terminal(self, fd: int) -> None:
        self._sources[fd] = STDOUT
        self._listen(fd)

    def begin(self) -> None:
        """The process has its ends: read from now on."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs.clear()
        for fd in self._sources:
            self._listen(fd)

    def _listen(self, fd: int) -> None:
        reading.of_this_loop().add(fd, lambda: self._read(fd))

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal's other end any more
            data = b""
        if not data:
            self._end(fd)
            return
        self.log.write(self._sources[fd], data)
        self._tell(self._sources[fd], data)

    def _end(self, fd: int) -> None:
        stream = self._sources.pop(fd)
        self.log.finish(stream)
        reading.of_this_loop().remove(fd)
        if self.terminal is None:
            os.close(fd)
        self._tell(stream, b"")
        if not self._sources:
            self.ended.set()

    def _tell(self, stream: str, data: bytes) -> None:
        for listener in list(self.listeners):
            listener(stream, data)

    @property
    def open_streams(self) -> int:
        """How many of stdout and stderr have not ended."""
        return len(self._sources) + int(self.terminal is not None and self.terminal.is_awaited)

    def close(self) -> None:
        """Read what is left, then let go of everything; idempotent. What the container left running loses its output."""
        for fd in list(self._sources):
            for _ in range(LAST_CHUNKS):
                if fd in self._sources and _readable(fd):
                    self._read(fd)
        for fd in list(self._sources):
            self._end(fd)
        self.close_input()
        if self.terminal is not None:
            if self.terminal.is_awaited:
                self._tell(STDOUT, b"")
                self.ended.set()
            self.terminal.close()
        self.log.close()

    async def write(self, data: bytes) -> None:
        """To the container's standard input."""
        if self.terminal is not None:
            if self.takes_input:
                await self.terminal.write(data)
        elif self.input >= 0 and not await write_all(self.input, data):
            self.close_input()

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's new size, if there is one."""
        if self.terminal is not None:
            self.terminal.resize(columns, rows)

    def close_input(self) -> None:
        """No more input; idempotent. A terminal stays open."""
        if self.input >= 0:
            asyncio.get_running_loop().remove_writer(self.input)
            os.close(self.input)
            self.input, self.takes_input = -1, False


def _readable(fd: int) -> bool:
    """Is there more to read now, or its end?"""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
