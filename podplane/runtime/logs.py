"""Reading logs as `kubectl logs` asks for them: the last lines, since when, with times, and on as they come."""

from __future__ import annotations

import asyncio
import datetime
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from podplane.kubeapi.streams import LogRequest
from podplane.runtime.output import ASIDE, LogFile

BLOCK_BYTES = 256 * 1024
BACKLOG_BYTES = 16 * 1024 * 1024
LINE = re.compile(rb"(\S+) (stdout|stderr) ([FP]) (.*)", re.DOTALL)


@dataclass(slots=True)
class Filter:
    """What of a log is wanted, line by line."""

    request: LogRequest
    _left: int | None = field(init=False)
    _begins: bool = True

    def __post_init__(self) -> None:
        self._left = self.request.limit_bytes

    @property
    def is_done(self) -> bool:
        """Has all that may be sent been sent?"""
        return self._left is not None and self._left <= 0

    def text(self, line: bytes) -> bytes:
        """What goes out of a line of the file."""
        found = LINE.fullmatch(line)
        if found is None:
            return b""
        stamp, _, kind, text = found.groups()
        if self.request.since is not None and time_of(stamp) < self.request.since:
            return b""
        head = stamp + b" " if self.request.timestamps and self._begins else b""
        self._begins = kind == b"F"
        out = head + text + (b"\n" if self._begins else b"")
        if self._left is not None:
            out = out[: max(0, self._left)]
            self._left -= len(out)
        return out


def time_of(stamp: bytes) -> datetime.datetime:
    """The time that a line begins with."""
    return datetime.datetime.fromisoformat(stamp[:26].decode() + "+00:00")


async def read(path: Path, request: LogRequest, live: LogFile | None = None) -> AsyncIterator[bytes]:
    """The log as it was asked for, in chunks; when it is followed, until `live`, the log that is being written, is closed."""
    wanted, more = Filter(request), _Follower()
    following = live is not None and request.follow and not live.is_closed
    if live is not None and following:
        live.listeners.append(more.tell)
    files = _open(path)
    try:
        if request.tail_lines is not None:
            await _seek_last(files, request.tail_lines)
        size, out = 0, list[bytes]()
        for line in _lines(files):
            size += len(line)
            out.append(wanted.text(line))
            if wanted.is_done:
                break
            if size > BLOCK_BYTES:
                if chunk := b"".join(out):
                    yield chunk
                size, out = 0, []
                await asyncio.sleep(0)
        if chunk := b"".join(out):
            yield chunk
        while following and not wanted.is_done:
            if not (data := await more.next()):
                return
            if chunk := b"".join(map(wanted.text, data.splitlines())):
                yield chunk
    finally:
        for file, _ in files:
            file.close()
        if live is not None and more.tell in live.listeners:
            live.listeners.remove(more.tell)


class _Follower:
    """What is written after the log was opened. Who doesn't read it is cut off rather than filling the memory."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._event = asyncio.Event()

    def tell(self, data: bytes) -> None:
        """Lines that were written; nothing when the log is closed."""
        self._size += len(data)
        if data and self._size > BACKLOG_BYTES:
            self._waiting.clear()
            data = b""
        self._waiting.append(data)
        self._event.set()

    async def next(self) -> bytes:
        """The next lines; nothing at the end."""
        while not self._waiting:
            self._event.clear()
            await self._event.wait()
        data = self._waiting.popleft()
        self._size -= len(data)
        return data


def _open(path: Path) -> list[tuple[BinaryIO, int]]:
    """The files of a log and how long they are now, those put aside first: what is written from now on comes another way."""
    found: list[tuple[BinaryIO, int]] = []
    for place in (path.with_name(path.name + ASIDE), path):
        try:
            file = open(place, "rb")  # noqa: SIM115 - closed by who reads it
        except OSError:
            continue
        found.append((file, os.fstat(file.fileno()).st_size))
    return found


def _lines(files: list[tuple[BinaryIO, int]]) -> Iterator[bytes]:
    for file, size in files:
        with file:
            while file.tell() < size and (line := file.readline()):
                yield line.rstrip(b"\n")


async def _seek_last(files: list[tuple[BinaryIO, int]], count: int) -> None:
    """Put the files where the last so many lines begin, where parts of one line count as one; read from their end, a block a turn."""
    found = 0  # ends of lines
    is_last = True
    for number in reversed(range(len(files))):
        file, size = files[number]
        at, rest = size, b""
        while at:
            begin = max(0, at - BLOCK_BYTES)
            file.seek(begin)
            lines = _cut(file.read(at - begin) + rest)
            end, at = at + len(rest), begin
            rest = lines.pop(0) if begin else b""
            for line in reversed(lines):
                found += is_last or _is_whole(line)
                is_last = False
                if found > count:
                    file.seek(end)
                    for earlier, its_size in files[:number]:
                        earlier.seek(its_size)
                    return
                end -= len(line)
            await asyncio.sleep(0)
        file.seek(0)


def _cut(data: bytes) -> list[bytes]:
    """The lines, each with its end."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _is_whole(line: bytes) -> bool:
    found = LINE.fullmatch(line.rstrip(b"\n"))
    return found is None or found[3] == b"F"
