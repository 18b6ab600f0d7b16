"""Terminals of a container: made in the devpts of its own mounts, so that they have a name there (`tty`, /dev/pts/0).

What a container has at /dev/ptmx is the container's: only the device is taken, whoever put something else there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import stat
import struct

PTMX = "/dev/ptmx"
DEVICE = os.makedev(5, 2)
"""Of ptmx (Documentation/admin-guide/devices.txt)."""
UNLOCK, PEER = (0x8004_5431, 0x2000_5441) if platform.machine().startswith("ppc") else (0x4004_5431, 0x5441)
"""TIOCSPTLCK and TIOCGPTPEER (ioctl_tty(2), Linux 4.13), which Python has no names for."""


def make() -> tuple[int, int]:
    """A new terminal in the mount namespace of this process: descriptors of the end of who looks on, which does not block, and of that of
    the program. OSError when there can be none."""
    master = os.open(PTMX, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(master)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != DEVICE:
            raise OSError(errno.ENODEV, f"{PTMX} is no terminal device")
        fcntl.ioctl(master, UNLOCK, struct.pack("i", 0))
        return master, fcntl.ioctl(master, PEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
