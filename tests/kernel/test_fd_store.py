"""What was opened in pods' namespaces is kept by the service manager for the next agent."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from podplane.cni.network import Attachment
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.kernel.opener import has_link
from podplane.kernel.passed import Passed
from podplane.machine import fd_store
from podplane.machine.fd_store import FdStore
from podplane.machine.host import MachineHost
from podplane.machine.journal import Journal
from podplane.machine.notify import Notifier
from tests.kernel.test_passed import Sealed, all_of

pytestmark = pytest.mark.kernel


class Manager:
    """A service manager: it keeps descriptors by name, and gives them to the next process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.kept: list[tuple[str, int]] = []

    def fill(self) -> None:
        """Have as many messages wait as it takes."""
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one,
            contextlib.suppress(BlockingIOError),
        ):
            while True:
                one.sendto(b"STATUS=x", str(self._path))

    def listen(self) -> None:
        while True:
            try:
                message, fds, _, _ = socket.recv_fds(self._socket, 1000, 10)
            except BlockingIOError:
                return
            lines = dict(line.split("=", 1) for line in message.decode().split("\n"))
            if lines.get("FDSTOREREMOVE"):
                for one in [one for one in self.kept if one[0] == lines["FDNAME"]]:
                    os.close(one[1])
                    self.kept.remove(one)
            self.kept += [(lines.get("FDNAME", ""), fd) for fd in fds]

    def environment(self, more: Sequence[tuple[str, int]] = ()) -> dict[str, str]:
        """That of a process that inherits what is kept, from `fd_store.FIRST` on."""
        passed = [*self.kept, *more]
        first = fd_store.FIRST = max(map(int, os.listdir("/proc/self/fd"))) + 100
        for number, (_, fd) in enumerate(passed):
            os.dup2(fd, first + number)
        names = ":".join(name for name, _ in passed)
        own = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": names}
        return own | {"NOTIFY_SOCKET": str(self._path)}

    def names(self) -> list[str]:
        self.listen()
        return [name for name, _ in self.kept]


def attachment(name: str, netns: NetworkNamespace, ifname: str = "eth0") -> Attachment:
    return Attachment(name, name, "default", name, netns, ifname, netns_path=f"/proc/self/fd/{netns.fd}")


def test_it_is_restored_after_a_restart_and_forgotten_with_the_pod(tmp_path: Path) -> None:
    workers, manager = Workers(1), Manager(tmp_path / "notify")
    environment = manager.environment()
    host = MachineHost(Journal(tmp_path / "j"), Sealed(0), FdStore(Notifier(environment), environment))
    pods = {}
    for name in ("a", "b"):
        pods[name] = NetworkNamespace.create(workers)
        passed = Passed.take(pods[name].fd, all_of(pods[name]))
        given = NetworkNamespace(os.dup(pods[name].fd), Sealed(0), passed)
        host.attaching(attachment(name, given), ("10.0.0.2",))
        host.attaching(attachment(name, given, "net1"), ("10.0.0.2",))
    a, b = (f"netns-{one.cookie}" for one in pods.values())
    assert manager.names() == [a, a, a, b, b, b]
    host.detached(("a", "net1"))
    assert a in manager.names()
    host.detached(("a", "eth0"))
    assert manager.names() == [b, b, b]

    null = os.open("/dev/null", os.O_RDONLY)
    odd = [("other", null), ("netns-4711", manager.kept[0][1]), (b, null)]
    environment = manager.environment(odd)
    again = MachineHost(Journal(tmp_path / "j"), Sealed(0), FdStore(Notifier(environment), environment))
    found = again.found["b", "eth0"]
    assert found.cookie == pods["b"].cookie and has_link(found, "lo"), "nobody entered it"
    assert list(again.found) == [("b", "eth0")], "its further interface is in the same one"
    assert [request.netns for request, _ in again.attached()] == [found, found]
    found.close()
    os.close(null)
    again.detached(("b", "net1"))
    again.detached(("b", "eth0"))
    assert manager.names() == []
    assert max(map(int, os.listdir("/proc/self/fd"))) < fd_store.FIRST, "all that was inherited is closed"
    workers.close()


def test_a_manager_that_is_slow_is_told_again(tmp_path: Path) -> None:
    workers, manager = Workers(1), Manager(tmp_path / "notify")
    environment = manager.environment()
    notifier = Notifier(environment)
    host = MachineHost(Journal(tmp_path / "j"), Sealed(0), FdStore(notifier, environment))
    manager.fill()
    pods = {}
    for name in ("a", "b", "c"):
        pods[name] = NetworkNamespace.create(workers)
        given = NetworkNamespace(os.dup(pods[name].fd), Sealed(0), Passed.take(pods[name].fd, all_of(pods[name])))
        host.attaching(attachment(name, given), ("10.0.0.2",))
    host.detached(("c", "eth0"))
    assert manager.names() == []
    notifier.with_beat()
    assert manager.names() == [f"netns-{pods[name].cookie}" for name in ("a", "a", "a", "b", "b", "b")]
    workers.close()


def test_an_agent_that_may_enter_namespaces_has_nothing_kept(tmp_path: Path) -> None:
    workers, manager = Workers(1), Manager(tmp_path / "notify")
    environment = manager.environment()
    host = MachineHost(Journal(tmp_path / "j"), workers, FdStore(Notifier(environment), environment))
    pod = NetworkNamespace.create(workers)
    pod.passed = Passed.take(pod.fd, all_of(pod))
    host.attaching(attachment("a", pod), ("10.0.0.2",))
    assert manager.names() == []
    workers.close()
