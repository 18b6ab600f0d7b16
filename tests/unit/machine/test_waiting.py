"""What an agent does before the API was heard: it says what it waits for, refuses nothing for good, and changes nothing."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from podplane.cni.network import Attachment, TryAgainError
from podplane.kernel.fakes.world import FakeOpener
from podplane.machine.cluster import SAID_SECONDS, Waiting
from podplane.machine.errors import MachineError
from podplane.machine.journal import Journal
from podplane.machine.network import Front
from podplane.machine.program import check_root, run_folder


def test_the_manager_is_told_of_each_change_and_the_log_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    told, now = list[str](), 0.0
    waiting = Waiting(told.append, lambda: now)
    caplog.set_level(logging.WARNING)
    for second in range(int(2 * SAID_SECONDS)):
        now = float(second)
        waiting.says("waiting for the API: connection refused" if second < 90 else "waiting for the Node: none")
    assert told == ["waiting for the API: connection refused", "waiting for the Node: none"]
    assert len(caplog.messages) == 2
    assert waiting.reason == "waiting for the Node: none"


async def test_without_an_agent_nothing_is_attached_and_what_is_not_attached_is_detached(tmp_path: Path) -> None:
    waiting, journal = Waiting(lambda text: None), Journal(tmp_path / "journal")
    front = Front(journal, waiting, patience=0.01)
    waiting.says("waiting for the API: connection refused")
    pod = Attachment("a", "uid", "default", "a", FakeOpener().namespace())
    await front.delete(pod)
    journal.attach(pod, ("10.244.1.2",), 0)
    for call in (front.begun(), front.add(pod), front.check(pod), front.delete(pod), front.gc(())):
        with pytest.raises(TryAgainError, match="has not begun: waiting for the API: connection refused"):
            await call
    unready = front.unready()
    assert unready is not None and "connection refused" in unready.reason
    assert list(journal.attachments) == [("a", "eth0")]


class Begun:
    """In place of an agent that has begun."""

    def __init__(self) -> None:
        self.deleted: list[Attachment] = []

    async def delete(self, request: Attachment) -> None:
        self.deleted.append(request)


async def test_calls_wait_for_an_agent_that_starts(tmp_path: Path) -> None:
    journal, agent = Journal(tmp_path / "journal"), Begun()
    front = Front(journal, Waiting(lambda text: None))
    pod = Attachment("a", "uid", "default", "a", FakeOpener().namespace())
    journal.attach(pod, ("10.244.1.2",), 0)
    calls = [asyncio.create_task(call) for call in (front.begun(), front.delete(pod))]
    await asyncio.sleep(0)
    assert not any(call.done() for call in calls)
    front.begin(agent)  # type: ignore[arg-type]
    await asyncio.gather(*calls)
    assert agent.deleted == [pod]


async def test_calls_do_not_wait_for_an_agent_whose_process_ends(tmp_path: Path) -> None:
    front = Front(Journal(tmp_path / "journal"), Waiting(lambda text: None))
    call = asyncio.create_task(front.begun())
    await asyncio.sleep(0)
    front.end()
    with pytest.raises(TryAgainError, match="has not begun: it is still starting"):
        await call


def test_a_folder_has_one_agent_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with run_folder(str(path)) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        with (
            pytest.raises(
                MachineError,
                match=rf"an agent runs here already \(process {os.getpid()}\): .*/lock.* stop it first: .*kill {os.getpid()}`",
            ),
            run_folder(str(path)),
        ):
            raise AssertionError
    with run_folder(str(path)):
        pass


def test_a_folder_that_can_not_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(MachineError, match=f"{tmp_path}/file.*: give a folder in --run-dir"),
        run_folder(f"{tmp_path}/file/run"),
    ):
        raise AssertionError


def test_a_folder_of_others_is_not_taken(tmp_path: Path) -> None:
    used = tmp_path / "etc"
    used.mkdir(mode=0o755)
    (used / "hosts").write_text("127.0.0.1 localhost")
    with pytest.raises(MachineError, match="etc has files, and others may use it"), run_folder(str(used)):
        raise AssertionError
    assert os.listdir(used) == ["hosts"] and used.stat().st_mode & 0o777 == 0o755


def test_no_link_is_followed_to_what_is_locked(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    (tmp_path / "precious").write_text("text")
    (run / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(MachineError, match="lock: Too many levels"), run_folder(str(run)):
        raise AssertionError
    assert (tmp_path / "precious").read_text() == "text"


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    with pytest.raises(MachineError, match="run it as root"):
        check_root()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    check_root()
