"""A lab's certificates are made by a process beside the one that starts: with its imports that takes a sixth of a start.

begin ── fork ──> certificates.prepare, of_localhost ── pipe ──> Making.wait
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from podplane.lab.errors import LabError


class Certificates(msgspec.Struct, frozen=True):
    """The authority's certificate as PEM, and the files of the server's certificate and key."""

    authority: str
    certificate: Path
    key: Path


class Made(msgspec.Struct, frozen=True):
    """What was made: the API's certificates, and (certificate, key) of localhost as PEM, which pods of one image serve with."""

    api: Certificates
    localhost: tuple[bytes, bytes]


class Outcome(msgspec.Struct, frozen=True):
    """What the other process says: what it made, or why it could not."""

    made: Made | None = None
    error: str = ""


class Making:
    """Certificates that are being made."""

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid = pid
        self._pipe = pipe

    def wait(self) -> Made:
        """What was made, when it is. LabError when it could not be. To be called once."""
        with open(self._pipe, "rb") as pipe:
            said = pipe.read()
        with contextlib.suppress(ChildProcessError):  # somebody reaps all children
            os.waitpid(self._pid, 0)
        try:
            outcome = msgspec.msgpack.decode(said, type=Outcome, dec_hook=_path)
        except msgspec.MsgspecError:
            raise LabError("the lab's certificates can't be made: the process that makes them ended early") from None
        if outcome.made is None:
            raise LabError(f"the lab's certificates can't be made: {outcome.error}")
        return outcome.made


def begin(make: Callable[[], Made]) -> Making:
    """Call a function in a process of its own. The caller has one thread."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _make(make, writing)
    os.close(writing)
    return Making(pid, reading)


def _make(make: Callable[[], Made], writing: int) -> None:
    """The other process; it does not return."""
    try:
        try:
            outcome = Outcome(make())
        except Exception as error:
            outcome = Outcome(error=str(error) or type(error).__name__)
        with open(writing, "wb") as pipe:
            pipe.write(msgspec.msgpack.encode(outcome, enc_hook=os.fspath))
    finally:
        os._exit(0)


def _path(type_: type, text: str) -> Path:
    return Path(text)
