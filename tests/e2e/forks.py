"""Commands as forks of a process that has imported them: what a command does is the same, and it begins at once.

A new interpreter with what a command imports takes more of a processor than all else that most commands do. Each command is executed anew,
as a user's is, the first time that a worker calls it (`Podplane.__call__`), so what it imports by itself is tried, too.

    the worker ── argv, environment, descriptors 0, 1, 2 ──► the parent ── fork ──► the command
               ◄─ its process id, then how it ended ────────
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from podplane.cli.main import COMMANDS, main

SERVED = frozenset(COMMANDS) - {"up", "agent", "cni"}
"""What `up` starts is known to tests by the environment of its processes, which a fork does not have; agents stay what they are."""
GROUPS = frozenset({"backend", "cluster", "dns", "policy"})
"""Whose second word says what is done."""
BEFORE = ("podplane.cli.check.command", "podplane.kubeapi.http", "podplane.kubeapi.access", "http.client", "ssl", "yaml")
"""What most commands import once they are called."""
AT_START = ("LANG", "LC_", "PYTHON")
"""So begin the names of variables that an interpreter looks at when it starts."""
OF_TESTS = ("XDG_STATE_HOME", "PODPLANE_LAB")
"""Variables by which tests know the processes of their labs; the parent of commands is none."""
MESSAGE, INPUT = 1 << 18, 1 << 15
"""Bytes of a request, and of what a pipe takes before anybody reads it."""


class Forks:
    """The parent of commands, and the way to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._environment = {name: value for name, value in os.environ.items() if name not in OF_TESTS}
        words = [sys.executable, "-m", "tests.e2e.forks", str(theirs.fileno())]
        pipe = subprocess.PIPE  # as commands have them: what Python has made for a file at its start would try to seek
        self._process = subprocess.Popen(
            words, pass_fds=[theirs.fileno()], stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment
        )
        theirs.close()
        self._executed: set[tuple[str, ...]] = set()

    def serves(self, words: Sequence[str], environment: Mapping[str, str], stdin: str | None) -> bool:
        """Is this command the same as one that is executed, and was it executed before?"""
        verb = tuple(words[: 2 if words[0] in GROUPS else 1])
        is_known = verb in self._executed
        self._executed.add(verb)
        names = {name for name in (*environment, *self._environment) if name.startswith(AT_START)}
        is_same = all(environment.get(name) == self._environment.get(name) for name in names)
        fits = (
            len((stdin or "").encode()) < INPUT and sum(map(len, (*words, *environment, *environment.values()))) < MESSAGE // 8
        )
        return is_known and words[0] in SERVED and is_same and fits and self._process.poll() is None

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], stdin: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """The same as `subprocess.run` with text that is captured."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reads, writes = zip(os.pipe(), os.pipe(), strict=True)
        request = json.dumps({"words": words, "environment": dict(environment), "directory": os.getcwd()}).encode()
        with ours, contextlib.ExitStack() as stack:
            for fd in reads:
                stack.callback(os.close, fd)
            given = _input(stdin)
            socket.send_fds(self._socket, [request], [given, *writes, theirs.fileno()])
            for fd in (given, *writes):
                os.close(fd)
            theirs.close()
            pid = int(ours.recv(MESSAGE))
            try:
                out, err = _read(reads, timeout)
                ours.settimeout(timeout)
                status = int(ours.recv(MESSAGE))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout) from None
        return subprocess.CompletedProcess(list(words), os.waitstatus_to_exitcode(status), out, err)


def _input(text: str | None) -> int:
    """A descriptor from which this is read; without a text, nothing, as a worker's own."""
    if text is None:
        return os.open(os.devnull, os.O_RDONLY)
    reads, writes = os.pipe()
    with os.fdopen(writes, "wb") as to:
        to.write(text.encode())
    return reads


def _read(fds: Sequence[int], timeout: float) -> list[str]:
    """All that comes of each. TimeoutError when that has no end."""
    end, found = time.monotonic() + timeout, {fd: bytearray() for fd in fds}
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    left = set(fds)
    while left:
        ready = poll.poll(max(0.0, end - time.monotonic()) * 1000)
        if not ready:
            raise TimeoutError
        for fd, _ in ready:
            if part := os.read(fd, 1 << 16):
                found[fd] += part
            else:
                poll.unregister(fd)
                left.discard(fd)
    return [bytes(one).decode().replace("\r\n", "\n") for one in found.values()]


# In the parent.


def serve(way: socket.socket) -> None:
    """Fork for each request, until there can be none any more."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for fd in select.select([way, *running], [], [])[0]:
            if fd is way:
                request, fds, _, _ = socket.recv_fds(way, MESSAGE, 4)
                if not request:
                    return
                pid = os.fork()
                if pid == 0:
                    way.close()
                    _become(json.loads(request), fds)
                for one in fds[:3]:
                    os.close(one)
                reply = socket.socket(fileno=fds[3])
                reply.send(str(pid).encode())
                running[os.pidfd_open(pid)] = pid, reply
            else:
                pid, reply = running.pop(fd)
                os.close(fd)
                with reply, contextlib.suppress(OSError):  # nobody may wait any more
                    reply.send(str(os.waitpid(pid, 0)[1]).encode())


def _become(request: dict[str, object], fds: Sequence[int]) -> NoReturn:
    """Be the command."""
    try:
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number)
        os.closerange(3, max(fds) + 100)
        os.environ.clear()
        os.environ.update(request["environment"])  # type: ignore[call-overload]  # as it was sent
        os.chdir(str(request["directory"]))
        random.seed()
        main(list(request["words"]))  # type: ignore[call-overload]  # likewise
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _modules() -> Iterator[str]:
    yield from (row[0] for name, row in COMMANDS.items() if name in SERVED)
    yield from BEFORE


if __name__ == "__main__":
    for module in _modules():
        importlib.import_module(module)
    serve(socket.socket(fileno=int(sys.argv[1])))
