"""System calls that Python 3.11 has no function for: namespaces and mounts, through the C library.

Each raises OSError with the errno and the name of the call.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import termios

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """setns(2); `fd` is that of a namespace, or a pidfd (then `flags` say which namespaces of the process)."""
    _check(_libc.setns(fd, flags), "setns")


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    """mount(2) without data."""
    kind_bytes = kind.encode() if kind else None
    _check(_libc.mount(source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), None), f"mount {target}")


def sethostname(name: str) -> None:
    """sethostname(2), for the UTS namespace of the caller."""
    data = name.encode()
    _check(_libc.sethostname(data, len(data)), "sethostname")


def set_controlling_terminal(fd: int) -> None:
    """Make the terminal `fd` that of the caller's session (TIOCSCTTY, tty_ioctl(4)); the caller leads the session."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
