"""The real kernel: links of others in the place of ours, a subscription that lost something, and sockets of two threads."""

from __future__ import annotations

import errno
import subprocess
import threading
from typing import Any

import pytest

from podplane.agent.watcher import Watcher
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.state.ledger import Ledger
from podplane.state.network import Link, Peer
from podplane.state.operations import Operation
from podplane.state.ownership import link_alias
from podplane.state.value import fragment
from tests.kernel.test_monitor import changes, machine, run
from tests.plans import OWNER

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("is_up", [True, False])
def test_a_link_of_somebody_else_in_the_place_of_ours_stays_as_it_is_when_ours_is_wanted_no_more(is_up: bool) -> None:
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    ledger = Ledger(kernel.matches)
    watcher = Watcher("n", ledger, kernel, OWNER, lambda: 0.0, lambda what, tables: None)
    watcher.start()
    ours = Link(name="pp1", kind="veth", alias=link_alias("pod/default/web"), peer=Peer(name="far1"))
    ledger.replace("k", fragment([ours]))
    ledger.acknowledge(kernel.apply(ledger.take(ledger.due)), 0.0)
    watcher.take_notifications()
    run("ip link delete pp1\nip link add pp1 type bridge" + ("\nip link set pp1 up" if is_up else ""))
    watcher.take_notifications()
    ledger.replace("k", {})
    for _ in range(3):
        ledger.acknowledge(kernel.apply(ledger.take(ledger.due)), 0.0)
        watcher.take_notifications()
    shown = subprocess.run(["ip", "-o", "link", "show", "pp1"], capture_output=True, text=True, check=True).stdout
    assert not is_up or "UP" in shown.split("<")[1].split(">")[0].split(",")


def test_proxies_are_read_while_another_thread_removes_links() -> None:
    kernel = Kernel(NetworkNamespace.create(Workers()), KernelOpener())
    links = [Link(name=f"pp{n}", kind="veth", alias=link_alias("x"), peer=Peer(name=f"far{n}")) for n in range(30)]
    assert not kernel.apply([Operation(None, link) for link in links]).failed
    failed: list[object] = []
    is_done = threading.Event()

    def remove() -> None:
        for link in links:
            failed.extend(kernel.apply([Operation(link, None)]).failed)
        is_done.set()

    def poll() -> None:
        while not is_done.wait(0.002):
            kernel.read_proxies(OWNER)

    threads = [threading.Thread(target=work, daemon=True) for work in (remove, poll)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failed and not any(thread.is_alive() for thread in threads)


def test_a_loss_is_told_once_the_links_can_be_read() -> None:
    _, monitor = machine()
    real, list_links = monitor._socket, monitor._list_links

    class Overflown:
        """Reports ENOBUFS once."""

        is_told = False

        def recv(self, size: int) -> bytes:
            if not self.is_told:
                self.is_told = True
                raise OSError(errno.ENOBUFS, "No buffer space available")
            return real.recv(size)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    def fail() -> list[bytes]:
        raise OSError(errno.EMFILE, "Too many open files")

    monitor._socket, monitor._list_links = Overflown(), fail  # type: ignore[assignment]
    with pytest.raises(OSError, match="Too many open files"):
        monitor.changes()
    monitor._list_links = list_links
    assert monitor.changes().lost
    run("ip neigh delete 192.168.1.11 dev eth0\nip address delete 10.244.1.1/24 dev cbr0")
    assert len({o.identity for o in changes(monitor).observations if o.value is None}) >= 2
