"""What the service manager is told."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.agent.node import Started
from podplane.machine.notify import Notifier
from podplane.machine.program import say_ready


@pytest.fixture(params=["notify", f"{'long-' * 30}/notify", "@"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, socket.socket]]:
    """A manager's socket and its name: short, longer than an address may be, or abstract."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        if request.param == "@":
            one.bind(f"\0podplane-test-{os.getpid()}")
            yield f"@podplane-test-{os.getpid()}", one
        else:
            path = tmp_path / request.param
            path.parent.mkdir(exist_ok=True)
            monkeypatch.chdir(path.parent)
            one.bind(path.name)
            yield str(path), one


def test_it_says_when_it_is_ready_what_it_waits_for_and_that_it_ends(manager: tuple[str, socket.socket]) -> None:
    name, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.status("waiting for the API:\nno answer")
    assert listener.recv(1000) == b"STATUS=waiting for the API: no answer"
    notifier.ready(X_MORE="1")
    assert listener.recv(1000).split(b"\n") == [b"READY=1", b"STATUS=the network of this node is in place", b"X_MORE=1"]
    notifier.stopping()
    assert listener.recv(1000) == b"STOPPING=1"


def test_descriptors_are_kept_by_the_manager_and_forgotten(manager: tuple[str, socket.socket]) -> None:
    name, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    with open(os.devnull) as null:
        notifier.store("netns-1", [null.fileno()] * 2)
    lines, fds, _, _ = socket.recv_fds(listener, 1000, 4)
    assert lines.split(b"\n") == [b"FDSTORE=1", b"FDNAME=netns-1", b"FDPOLL=0"]
    assert [os.path.samestat(os.fstat(fd), os.stat(os.devnull)) for fd in fds] == [True, True]
    for fd in fds:
        os.close(fd)
    notifier.forget("netns-1")
    assert listener.recv(1000).split(b"\n") == [b"FDSTOREREMOVE=1", b"FDNAME=netns-1"]


async def test_the_watchdog_hears_of_it_more_often_than_it_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        notifier = Notifier({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "30000", "WATCHDOG_PID": str(os.getpid())})
        assert notifier.watchdog_seconds == 0.03
        beats = asyncio.create_task(notifier.beat())
        loop = asyncio.get_running_loop()
        assert [await loop.sock_recv(listener, 100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        beats.cancel()


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
async def test_where_nobody_asks_no_beat_is_sent(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    assert notifier.watchdog_seconds == 0
    await asyncio.wait_for(notifier.beat(), 5)
    notifier.ready()


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    assert "notify socket=" in caplog.text


@pytest.mark.parametrize(("environment", "level"), [({}, "WARNING"), ({"NOTIFY_SOCKET": "@none"}, "INFO")])
def test_that_it_is_ready_is_in_the_log_by_default_where_no_manager_says_so(
    environment: dict[str, str], level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    say_ready(Notifier(environment), "worker-1", Started(7, (), 0.25))
    text = "ready: the network of this node is in place node=worker-1 changes=7 seconds=0.250"
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [(level, text)]
