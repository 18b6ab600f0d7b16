"""A lab for which this user can have too few processes says what to do, at whatever step it lacks them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from podplane.lab import launch
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.lab.launch import Progress, Reporter

WHY = "the processes and threads of a lab can't be had: raise this user's limit of processes (ulimit -u)"


def no_fork() -> NoReturn:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def no_thread(_: Reporter) -> NoReturn:
    raise RuntimeError("can't start new thread")


def no_zygote(_: Reporter) -> NoReturn:
    no_fork()


def odd(_: Reporter) -> NoReturn:
    raise RuntimeError("odd")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(launch, "_detach_from_terminal", lambda _: None)
    monkeypatch.setattr(launch, "_mounts", lambda _: None)
    monkeypatch.setattr(launch, "enter_namespaces", lambda *_, **__: [])
    monkeypatch.setattr(os, "setsid", lambda: None)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "lab.json").touch()
    return Folder(tmp_path / "lab")


def test_the_first_process_can_not_be_had(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", no_fork)
    with pytest.raises(LabError) as refused:
        next(launch.launch(folder, odd, 0, shows_homes=False))
    assert str(refused.value) == WHY


def said(work: Callable[[Reporter], object]) -> str:
    """The error that is reported."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            work(Reporter(theirs))
        finally:
            theirs.close()
            text = ours.makefile("rb").readline()
            ERRORS.append(msgspec.json.decode(text, type=Progress).error if text else "")
    return ERRORS[-1]


ERRORS: list[str] = []


def test_the_second_one_can_not_be_had(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", no_fork)
    assert said(lambda reporter: launch._enter(folder, reporter, odd, False, ())) == WHY


@pytest.mark.parametrize(("body", "error"), [(no_thread, WHY), (no_zygote, WHY), (odd, "")])
def test_what_the_lab_needs_can_not_be_had(folder: Folder, body: Callable[[Reporter], None], error: str) -> None:
    with pytest.raises((RuntimeError, BlockingIOError)):  # its log has the traceback
        said(lambda reporter: launch._first_process(folder, reporter, body))
    assert ERRORS.pop() == error


def silent(reporter: Reporter) -> None:
    """A lab that says how far it is, and then nothing."""
    reporter.step("network")
    signal.pause()


def test_a_lab_that_says_nothing_while_it_starts_is_waited_for_so_long(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SILENT_SECONDS", 1.0)
    kept = os.open(os.devnull, os.O_RDONLY)
    progress = launch.launch(folder, silent, kept, shows_homes=False)
    try:
        assert next(progress).step == "network"
        with pytest.raises(LabError, match="nothing was heard of the starting lab for 1 s, at its network"):
            next(progress)
    finally:
        os.close(kept)
        end(folder)


def end(folder: Folder) -> None:
    """End the first process of the lab, which is no child of this one any more."""
    if (pid := folder.holder()) is not None:
        os.kill(pid, signal.SIGKILL)


def test_a_process_that_does_not_start_the_lab_is_ended(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(launch, "enter_namespaces", lambda *_, **__: os.kill(os.getpid(), signal.SIGSTOP))
    with pytest.raises(LabError, match=r"process \d+, which starts the lab, did not end within 0.2 s"):
        next(launch.launch(folder, odd, 0, shows_homes=False))
