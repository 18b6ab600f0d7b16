"""agnhost as a process on the loopback interface, and questions to it."""

from __future__ import annotations

import http.client
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ENTRY = "import sys; from podplane.runtime import image_files; image_files.run(['podplane/agnhost', '/agnhost', *sys.argv[1:]])"


class Program:
    """A process that serves, and the ports that its log names."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def port(self, protocol: str) -> int:
        """The (next) port that it serves with this protocol."""
        return int(self.said(rf"Serving {protocol} on port (\d+)")[1])

    def said(self, pattern: str) -> re.Match[str]:
        """The next line of its log that matches; read as far as that."""
        assert self.process.stderr is not None
        kept: list[str] = []
        for line in itertools.chain(self.lines, iter(self.process.stderr.readline, "")):
            if found := re.search(pattern, line):
                self.lines = kept + self.lines[len(kept) + 1 :]
                return found
            kept.append(line)
        raise AssertionError(f"it never said {pattern}: {kept}")


class Agnhost:
    """Starts programs, and ends them when the test is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()

    def start(self, *words: str, env: dict[str, str] | None = None) -> Program:
        """`agnhost` with these words, in a folder of its own."""
        process = subprocess.Popen(
            [sys.executable, "-c", ENTRY, *words],
            cwd=self.folder,
            env={"PYTHONPATH": ":".join(sys.path), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return Program(process)

    def run(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """To its end."""
        program = self.start(*words, env=env)
        out, errors = program.process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, program.process.returncode, out, errors)

    def close(self) -> None:
        """End all."""
        self._stack.close()


@pytest.fixture
def agnhost(tmp_path: Path) -> Iterator[Agnhost]:
    """What starts programs."""
    one = Agnhost(tmp_path)
    try:
        yield one
    finally:
        one.close()


def ask(port: int, target: str, method: str = "GET", body: str | None = None, host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and body of an HTTP answer."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
