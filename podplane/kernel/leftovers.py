"""What a container leaves behind among the processes of others, when its first process has ended: with a PID namespace of its own the
kernel ends it all, without one this does, as container engines do by control groups.

What belongs to it is known by its mount namespace. A process that has made one of its own runs on until the namespace of processes ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import NoReturn

from podplane.kernel import syscalls

SECONDS, PAUSE = 3.0, 0.001
"""For how long what was found is looked for again: it may have started more meanwhile; and after which pause."""


def become(mounts: int) -> NoReturn:
    """For a fork in the PID namespace in which these are: end all whose mount namespace has this inode, and then this process."""
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        end(mounts)
    finally:
        os._exit(0)


def end(mounts: int) -> None:
    """End all processes of /proc whose mount namespace has this inode; returns when there are none, or they outrun it."""
    until = time.monotonic() + SECONDS
    while [pid for name in os.listdir("/proc") if name.isdigit() and _end(pid := int(name), mounts)]:
        if time.monotonic() > until:
            return
        time.sleep(PAUSE)


def _mounts_of(pid: int) -> Iterator[int]:
    """The inodes of the mount namespaces of its threads; one that has ended has none, though others may go on."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            yield os.stat(f"/proc/{pid}/task/{thread}/ns/mnt").st_ino


def _end(pid: int, mounts: int) -> bool:
    """Send SIGKILL to this process if it is one of them; the number may be another one's at any moment."""
    with contextlib.suppress(OSError):  # it has ended
        process = os.pidfd_open(pid)
        try:
            if mounts in _mounts_of(pid):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                return True
        finally:
            os.close(process)
    return False
