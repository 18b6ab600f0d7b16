"""A lab for which this user can have too few processes says what to do, at whatever step it lacks them."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from podplane.lab import launch, silence
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


def slow(reporter: Reporter) -> None:
    """A lab that says nothing for long, and then that it is ready."""
    reporter.step("network")
    time.sleep(0.7)
    reporter.send(Progress(ready=True))


@pytest.mark.parametrize(("used", "seconds"), [(0.0, "0.2"), (1.0, "0.6")], ids=["idle", "busy"])
def test_a_lab_that_says_nothing_while_it_starts_is_waited_for_so_long(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, used: float, seconds: str
) -> None:
    waits(monkeypatch, used, most=3)
    kept = os.open(os.devnull, os.O_RDONLY)
    progress = launch.launch(folder, silent, kept, shows_homes=False)
    try:
        assert next(progress).step == "network"
        with pytest.raises(LabError, match=f"nothing was heard of the starting lab for {seconds} s, at its network"):
            next(progress)
    finally:
        os.close(kept)
        end(folder)


def test_a_lab_that_works_is_waited_for_longer(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    waits(monkeypatch, 1.0, most=1000)
    kept = os.open(os.devnull, os.O_RDONLY)
    try:
        assert [said.ready for said in launch.launch(folder, slow, kept, shows_homes=False)] == [False, True]
    finally:
        os.close(kept)


def waits(monkeypatch: pytest.MonkeyPatch, used: float, most: int) -> None:
    """For 0.2 s at a time, in each of which the lab uses so much of the processor, and so often at most."""
    looks = itertools.count()
    monkeypatch.setattr(silence, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(silence, "MOST", most)
    monkeypatch.setattr(silence, "processor_seconds", lambda _: used * next(looks))


def test_what_a_lab_uses_of_the_processor_is_told(folder: Folder) -> None:
    assert silence.processor_seconds(folder) == 0.0
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        folder.hold()
        while time.process_time() < 0.1:
            pass
        os.write(theirs, b".")
        signal.pause()
    try:
        os.read(ours, 1)
        assert 0.05 < silence.processor_seconds(folder) < 10
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def end(folder: Folder) -> None:
    """End the first process of the lab, which is no child of this one any more."""
    if (pid := folder.holder()) is not None:
        os.kill(pid, signal.SIGKILL)


def test_a_process_that_does_not_start_the_lab_is_ended(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(launch, "enter_namespaces", lambda *_, **__: os.kill(os.getpid(), signal.SIGSTOP))
    with pytest.raises(LabError, match=r"process \d+, which starts the lab, did not end within 0.2 s"):
        next(launch.launch(folder, odd, 0, shows_homes=False))
