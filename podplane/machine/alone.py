"""One agent in a network namespace, whatever its run folder is: two would undo each other's work without end.

The namespace's own file is locked (flock(2)), which goes with the process. Anybody in there may lock it, so what counts is who has done so
(proc_locks(5)): a process of another user keeps no agent from starting.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from podplane.machine.errors import MachineError

log = logging.getLogger(__name__)
NAMESPACE = "/proc/thread-self/ns/net"
LOCKS = Path("/proc/locks")
SERVICE = "podplane-agent"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While it is entered, no other agent starts in this network namespace. MachineError when one runs there."""
    fd = os.open(NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _check_holder(os.fstat(fd))
        yield
    finally:
        os.close(fd)


def _check_holder(namespace: os.stat_result) -> None:
    pid = _holder(namespace)
    if pid and _user(pid) not in (os.geteuid(), None):
        log.warning("process %d of user %s has locked the network namespace, as agents do", pid, _user(pid))
        return
    who = f"process {pid}" if pid else "a process that is not seen from here"
    raise MachineError(
        f"an agent runs in this network namespace already ({who}), with another --run-dir; {how_to_stop(pid or 'PID')}"
    )


def how_to_stop(pid: int | str) -> str:
    """What a user does to end the agent that is this process. The unit starts an agent again that is killed."""
    return f"stop it first: `systemctl stop {SERVICE}`, or `kill {pid}` where it is no service"


def agent_here() -> int:
    """The process of the agent that runs in this network namespace; 0 when there is none, or none that is seen from here."""
    pid = _holder(os.stat(NAMESPACE))
    return pid if pid and _user(pid) == os.geteuid() else 0


def _holder(file: os.stat_result) -> int:
    """The process that has locked a file; 0 when it is in none of this process' namespaces."""
    where = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for words in map(str.split, LOCKS.read_text().splitlines()):
        if "FLOCK" in words and where in words:
            return max(int(words[words.index(where) - 1]), 0)
    return 0


def _user(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
