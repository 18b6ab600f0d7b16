"""Children of the zygote that wait to be containers: they were forked while nobody waited for that.

A fork copies what the zygote has mapped, some milliseconds of the start of a container, and the new PID namespace takes a while, too. What
they are made for need not be known before. So the zygote has one such child when it has rested for a moment since it last started a
container; while many are asked for, each is forked when its turn comes. A lab that starts says how many it is going to need: these are
forked while it sets up its nodes.

Such a child also makes what file systems of most containers have in common (`rootfs.begin`). It holds nothing of the zygote but the
socket to the lab, on which it reports. When the zygote ends it ends.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Set
from typing import NoReturn

import msgspec

from podplane.kernel import sandbox
from podplane.kernel.rootfs import Begun
from podplane.kernel.sandbox import Sandbox
from podplane.kernel.zygote_child import Child, Place, Program, Share
from podplane.kernel.zygote_messages import NOT_EXECUTABLE, Spawn, receive

REST_SECONDS = 0.03
"""So long the zygote has nothing to do before it makes one."""
LAST_DESCRIPTOR = 1 << 20


class Spare(msgspec.Struct, frozen=True):
    """One that waits; `common` are the control groups that it is in."""

    pid: int
    connection: socket.socket
    common: frozenset[str]

    def take(self, command: Spawn, descriptors: list[int]) -> bool:
        """Be this container, which has no volumes of its pod's own mount namespace; False when it can't: it is gone, say."""
        try:
            socket.send_fds(self.connection, [msgspec.json.encode(command)], descriptors)
        except OSError:
            return False
        return True


class Spares:
    """Those that wait. `make` makes one; None when there can be none. While one gets ready, `selector` waits for what it says."""

    def __init__(self, make: Callable[[], Spare | None], selector: selectors.BaseSelector) -> None:
        self._make = make
        self._selector = selector
        self._latest: Spare | None = None
        """The one that gets ready: one at a time, as whoever sets up nodes meanwhile needs a processor."""
        self._waiting: dict[int, Spare] = {}
        """By process id, the first one made first."""
        self._wanted = 0
        """So many are to be made as soon as there is nothing else to do."""
        self._lacks_one = False
        """Is one to be made after a rest?"""

    @property
    def patience(self) -> float | None:
        """Seconds with nothing to do after which `add` is to be called; None for never."""
        if self._latest is not None:
            return None
        if self._wanted:
            return 0.0
        return REST_SECONDS if self._lacks_one else None

    def add(self) -> None:
        """There is nothing else to do: make one."""
        self._lacks_one = False
        made = self._make()
        self._wanted = max(0, self._wanted - 1) if made is not None else 0
        if made is not None:
            self._waiting[made.pid] = self._latest = made
            self._selector.register(made.connection, selectors.EVENT_READ)

    def got_ready(self) -> None:
        """The latest one is ready, or has ended."""
        if self._latest is not None:
            self._selector.unregister(self._latest.connection)
            self._latest = None

    def want(self, count: int) -> None:
        """Have so many, and no more."""
        while len(self._waiting) > count:
            self._let_go(next(reversed(self._waiting)))
        self._wanted, self._lacks_one = count - len(self._waiting), False

    def take(self, command: Spawn, descriptors: list[int], common: Set[str]) -> int:
        """The process id of one in these groups that is this container now; 0 when there is none. After a rest there is another one."""
        self._lacks_one = True
        while self._waiting:
            one = next(iter(self._waiting.values()))
            if one is self._latest:
                break  # it may yet fail, and the container with it
            is_taken = one.common == common and one.take(command, descriptors)
            self._let_go(one.pid)
            if is_taken:
                return one.pid
        self._wanted = max(0, self._wanted - 1)  # who asks now forks for itself what was to be made for it
        return 0

    def ended(self, pid: int) -> None:
        """A child of the zygote has ended."""
        if pid in self._waiting:
            self._wanted = 0  # what kept it from getting ready would keep others, too
            self._let_go(pid)

    def _let_go(self, pid: int) -> None:
        one = self._waiting.pop(pid)
        if one is self._latest:
            self.got_ready()
        one.connection.close()


def make(
    fork: Callable[[], int],
    common: frozenset[str],
    news: socket.socket,
    programs: Mapping[str, Program],
    place: Callable[[Sandbox, Begun | None], Place],
    begin: Callable[[], Begun | None],
) -> Spare | None:
    """Have one wait; None when there can be none. `fork` is fork(2) into a new PID namespace, `news` the socket to the lab, `begin` begins
    with a file system, `place` says where a container of a pod belongs."""
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        return None
    try:
        pid = fork()
    except OSError:
        ours.close()
        theirs.close()
        return None
    if pid == 0:
        _wait(theirs, news, programs, place, begin)
    theirs.close()
    return Spare(pid, ours, common)


def _wait(
    own: socket.socket,
    news: socket.socket,
    programs: Mapping[str, Program],
    place: Callable[[Sandbox, Begun | None], Place],
    begin: Callable[[], Begun | None],
) -> NoReturn:
    """The child, until it is a container, or nobody can ask it any more. It does not return."""
    try:
        signal.set_wakeup_fd(-1)
        first = 3
        for fd in sorted((own.fileno(), news.fileno())):
            os.closerange(first, fd)
            first = fd + 1
        os.closerange(first, LAST_DESCRIPTOR)
        begun = begin()
        own.shutdown(socket.SHUT_WR)  # it waits from now on; a byte that the zygote does not read would take its command away
        data, descriptors = receive(own)
        own.close()
        if data:
            command = msgspec.json.decode(data, type=Spawn)
            namespaces = Sandbox(*descriptors[1 : 1 + len(sandbox.KINDS)])
            Child(command, descriptors, place(namespaces, begun), Share(command.group, command.oom), news, programs).become()
    except Exception:  # nobody else hears of it
        traceback.print_exc()
    finally:
        os._exit(NOT_EXECUTABLE)
