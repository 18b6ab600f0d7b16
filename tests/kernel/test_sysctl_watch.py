"""Sysctls that are looked at through open files show their own namespace, whoever reads them."""

from __future__ import annotations

import os
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.kernel import syscalls, sysctl
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.kernel.sysctl import LINKS, NodeSysctls, Sysctls
from podplane.state.network import Sysctl
from podplane.state.operations import Operation

pytestmark = pytest.mark.kernel
FORWARD, PORTS = "net.ipv4.ip_forward", "net.ipv4.ip_local_port_range"


def test_it_shows_the_namespace_that_it_was_opened_in_and_what_others_change_there() -> None:
    other = Kernel(NetworkNamespace.create(Workers(1)), KernelOpener())
    expected = {FORWARD: "1", PORTS: "32768 60999"}
    assert not other.apply([Operation(None, Sysctl(name=name, value=value)) for name, value in expected.items()]).failed
    with open("/proc/sys/net/ipv4/ip_forward", "w") as here:
        here.write("0")
    watch = other.sysctl_watch(expected)
    assert (watch.changed(expected), watch.unwatched) == ({}, frozenset())
    other.apply([Operation(None, Sysctl(name=FORWARD, value="0")), Operation(None, Sysctl(name=PORTS, value="40000 50000"))])
    assert watch.changed(expected) == {FORWARD: "0", PORTS: "40000 50000"}
    assert watch.changed({FORWARD: "0"}) == {}


def test_what_is_missing_or_goes_with_its_link_is_not_watched_and_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    subprocess.run(["ip", "link", "add", "eth0", "type", "bridge"], check=True)
    expected = {"net.ipv4.conf.eth0.rp_filter": "7", "net.ipv4.none": "1", FORWARD: "7"}
    namespace = CurrentNamespace()
    node = NodeSysctls(namespace)
    watch = node.watch(expected)
    assert watch.unwatched == {"net.ipv4.none"}
    assert watch.changed(expected).keys() == {"net.ipv4.conf.eth0.rp_filter", FORWARD}
    subprocess.run(["ip", "link", "delete", "eth0"], check=True)
    assert watch.changed(expected).keys() == {FORWARD}
    assert watch.unwatched == {"net.ipv4.none", "net.ipv4.conf.eth0.rp_filter"}
    watch.close()
    watch.close()
    node.close()
    namespace.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_sysctls_of_links_of_a_node_are_set_through_one_folder_without_entering_its_namespace() -> None:
    before = len(os.listdir("/proc/self/fd"))
    workers = Workers(1)
    place = NetworkNamespace.create(workers)
    ran: list[object] = []

    class Counted(NetworkNamespace):
        def run(self, function: Any, *arguments: Any) -> Any:
            ran.append(function)
            return super().run(function, *arguments)

    node = NodeSysctls(Counted(place.fd, workers))
    for name in ("eth0", "eth.1"):
        subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)  # here; the node's come later
    disabled = "net.ipv6.conf.{}.disable_ipv6"
    assert str(node.set({disabled.format("eth0"): "1"})[disabled.format("eth0")]).count("no such sysctl")
    for name in ("eth0", "eth.1"):
        place.run(subprocess.run, ["ip", "link", "add", name, "type", "bridge"])
    entered = len(ran)
    for name in ("eth0", "eth/1"):
        assert node.set({disabled.format(name): "1"}) == {}
    assert len(ran) == entered == 1
    assert node.set({FORWARD: "1", disabled.format("eth0"): "0"}) == {} and len(ran) == 2
    assert node.read([FORWARD, disabled.format("eth0"), disabled.format("eth/1")]) == {
        FORWARD: "1",
        disabled.format("eth0"): "0",
        disabled.format("eth/1"): "1",
    }
    entered = len(ran)
    watch = node.watch([disabled.format("eth0"), disabled.format("gone"), disabled.format("eth/1")])
    assert watch.unwatched == {disabled.format("gone")} and len(ran) == entered
    assert watch.changed(dict.fromkeys(map(disabled.format, ("eth0", "eth/1")), "0")) == {disabled.format("eth/1"): "1"}
    watch.close()
    assert [Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").read_text() for name in ("eth0", "eth.1")] == ["0\n"] * 2
    node.close()
    node.close()
    place.close()
    workers.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_the_folder_is_not_there_sysctls_are_looked_up_from_the_top() -> None:
    class Odd(CurrentNamespace):
        def run(self, function: Any, *arguments: Any) -> Any:
            if arguments == (LINKS,):
                raise FileNotFoundError(LINKS)
            return super().run(function, *arguments)

    node = NodeSysctls(Odd())
    assert node.set({"net.ipv6.conf.lo.accept_dad": "1"}) == {}
    assert node.set({}) == {}
    expected = {"net.ipv6.conf.lo.accept_dad": "1"}
    watch = node.watch(expected)
    assert watch.changed(expected) == {} and not watch.unwatched
    watch.close()


@pytest.fixture
def few_in_one() -> Iterator[None]:
    """A thread takes a procfs of its own after two files."""
    former, sysctl.OPENED_IN_ONE = sysctl.OPENED_IN_ONE, 2
    yield
    sysctl.OPENED_IN_ONE = former


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def in_pid_namespace(body: Callable[[], None]) -> None:
    """As PID 1 of one, as a lab is: it may mount procfs."""
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        try:
            body()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def each_shows_its_own(mounted: int) -> None:
    before = descriptors()
    workers = Workers(1)
    parts = [Sysctls(NetworkNamespace.create(workers)) for _ in range(6)]
    for number, part in enumerate(parts):
        assert part.set({FORWARD: str(number % 2)}) == {}
        assert "there is no such sysctl" in str(part.set({"net.ipv4.none": "1"})["net.ipv4.none"])
    assert [part.read([FORWARD, "net.ipv4.none"]) for part in parts] == [{FORWARD: str(number % 2)} for number in range(6)]
    assert descriptors() == before + len(parts) + mounted
    workers.close()
    assert descriptors() == before + len(parts)


def test_each_of_many_namespaces_shows_its_own_in_one_procfs_after_the_other(few_in_one: None) -> None:
    in_pid_namespace(lambda: each_shows_its_own(mounted=1))


def test_where_no_procfs_can_be_mounted_the_machines_is_good_enough(few_in_one: None) -> None:
    each_shows_its_own(mounted=0)


def test_threads_that_end_leave_no_procfs(few_in_one: None) -> None:
    def body() -> None:
        before = descriptors()
        threads = [threading.Thread(target=lambda: [sysctl.read_here([FORWARD]) for _ in range(5)]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert descriptors() == before

    in_pid_namespace(body)
