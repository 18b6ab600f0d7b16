"""What the plugin opened in pods' network namespaces, kept by the service manager for the next agent (systemd.service(5),
FileDescriptorStoreMax). An agent that can't enter namespaces (no CAP_SYS_ADMIN) could do nothing inside of standing pods otherwise.

    ADD ──► sockets and folder from the plugin ──► FDSTORE=1, FDNAME=netns-4711        DEL ──► FDSTOREREMOVE=1
    restart, crash ──► LISTEN_FDS, LISTEN_FDNAMES ──► the namespaces of the journal with these numbers

The manager lets go of them when the service is stopped. What can't be kept is no failure: it is as if there were no manager.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterator, Mapping

from podplane.kernel.namespace import NetworkNamespace
from podplane.kernel.passed import DIAG, IPV6, PROTOCOLS, ROUTE, Passed
from podplane.machine.journal import Id
from podplane.machine.notify import Notifier

PREFIX = "netns-"
FIRST = 3
"""SD_LISTEN_FDS_START."""


class FdStore:
    """The manager's, as far as it is about namespaces; they are named by the kernel's numbers of them (`NetworkNamespace.cookie`)."""

    def __init__(self, notifier: Notifier, environment: Mapping[str, str] = os.environ) -> None:
        """What a process before this one had kept is this one's."""
        self._notifier = notifier
        notifier.with_beat = self.tell
        self._kept: dict[Id, int] = {}
        self._uses: Counter[int] = Counter()
        self._untold: dict[int, Passed] = {}
        """What the manager could not be told of: many pods came at once, and it was slow."""
        self._found: dict[int, dict[str, int]] = {}
        for name, fd in _inherited(environment):
            os.set_inheritable(fd, False)
            number = name.removeprefix(PREFIX)
            if name.startswith(PREFIX) and number.isdecimal() and (kind := _kind(fd)):
                self._found.setdefault(int(number), {})[kind] = fd
            else:
                os.close(fd)

    def restore(self, id_: Id, namespace: NetworkNamespace, cookie: int) -> None:
        """Give the namespace of an attachment what was kept of the one with this number, and have that kept on."""
        if namespace.passed is None:
            with contextlib.suppress(ValueError):  # it is another one's
                namespace.passed = Passed.take(namespace.fd, self._found.get(cookie, {}))
        if namespace.passed is not None:
            self._count(id_, cookie)

    def close_rest(self) -> None:
        """Let go of what was kept of others, which are gone."""
        for cookie, descriptors in self._found.items():
            if not self._uses[cookie]:
                self._notifier.forget(f"{PREFIX}{cookie}")
            for fd in descriptors.values():
                os.close(fd)
        self._found.clear()

    def keep(self, id_: Id, passed: Passed) -> None:
        """Have what was opened in the namespace of an attachment kept."""
        if self._kept.get(id_) == passed.cookie:
            return
        self.drop(id_)
        if self._count(id_, passed.cookie) == 1:
            self._untold[passed.cookie] = passed
        self.tell()

    def tell(self) -> None:
        """Tell the manager what it has not been told of."""
        for cookie, passed in tuple(self._untold.items()):
            if not self._notifier.store(f"{PREFIX}{cookie}", passed.descriptors):
                return
            del self._untold[cookie]

    def _count(self, id_: Id, cookie: int) -> int:
        self._kept[id_] = cookie
        self._uses[cookie] += 1
        return self._uses[cookie]

    def drop(self, id_: Id) -> None:
        """An attachment is gone; so is what was kept for it, unless another one is in the same namespace."""
        if (cookie := self._kept.pop(id_, None)) is not None:
            self._uses[cookie] -= 1
            if not self._uses[cookie]:
                del self._uses[cookie]
                if self._untold.pop(cookie, None) is None:
                    self._notifier.forget(f"{PREFIX}{cookie}")


def _inherited(environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Name and descriptor of each that the manager passed to this process (sd_listen_fds_with_names(3))."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    count = environment.get("LISTEN_FDS", "")
    for number in range(min(int(count) if count.isdecimal() else 0, len(names))):
        yield names[number], FIRST + number


def _kind(fd: int) -> str:
    """What a descriptor is of those that the plugin passes; "" for something else."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        return IPV6
    if not stat.S_ISSOCK(mode):
        return ""
    with socket.socket(fileno=os.dup(fd)) as one:
        return next((kind for kind in (ROUTE, DIAG) if one.proto == PROTOCOLS[kind]), "")
