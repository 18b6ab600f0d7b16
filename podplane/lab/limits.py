"""The control groups of a lab: made by `up` before the lab's namespaces, noted in its folder, removed when it has ended."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import msgspec

from podplane.kernel import cgroups
from podplane.kernel.cgroups import MEMORY, Groups, Limits, Unusable
from podplane.kubeapi.errors import without_paths
from podplane.lab.folder import Folder

REMOVAL_SECONDS = 1.0
HELD: list[int] = []
"""Descriptors by which this process holds the groups of a lab that it starts, until it ends."""
SYSTEMD = "/run/systemd/system"
DELEGATED = "systemd-run --user --scope --quiet -p Delegate=yes "
"""Starts a command in control groups of its own, which it may divide (systemd.resource-control(5))."""


def prepare(folder: Folder) -> tuple[Groups, str]:
    """New groups for a lab that does not run, and what is to be said of limits that can't be had, "" for nothing. A lab whose groups can't
    be made, noted or bounded has none."""
    cgroups.tidy()
    name = f"{cgroups.PREFIX}{folder.name}-{zlib.crc32(os.fsencode(folder.path)):08x}"
    groups, why, held = Groups(), "", list[int]()
    try:
        groups = cgroups.prepare(name, held, is_root=os.geteuid() == 0)
        folder.groups.write_bytes(msgspec.json.encode([one.folder for one in groups.hierarchies]))
        groups.bound(Limits(memory=MEMORY - MEMORY // 10, processes=_processes() // 2, tcp=_tcp() // 2))
        HELD.extend(held)
    except (Unusable, OSError, ValueError) as error:
        why = without_paths(error)
        for fd in held:
            os.close(fd)
        for one in groups.hierarchies:
            cgroups.remove(one.folder)
        groups = Groups()
    missing = sorted({"memory", "cpu"} - groups.controllers)
    if not missing:
        return groups, ""
    return (
        groups,
        f"Limits of {' and '.join(missing)} are not applied to containers: {why or 'no such controller'}.{_remedy(folder)}",
    )


def _remedy(folder: Folder) -> str:
    if os.geteuid() == 0 or not os.path.isdir(SYSTEMD):
        return ""
    return f" Try `{DELEGATED}{folder.command('up')}`."


def _tcp() -> int:
    """Bytes that this machine has for all buffers of connections (tcp(7), tcp_mem)."""
    return int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


def _processes() -> int:
    """How many threads this machine can have."""
    return min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("threads-max", "pid_max"))


def discard(folder: Folder) -> None:
    """Remove the groups of a lab that has ended, and those of others that were killed together with their folders."""
    cgroups.tidy()
    try:
        noted = msgspec.json.decode(folder.groups.read_bytes(), type=list[str])
    except (OSError, msgspec.MsgspecError):
        return
    end = time.monotonic() + REMOVAL_SECONDS
    for path in noted:
        cgroups.remove(path)
        while os.path.exists(path) and time.monotonic() < end:  # the kernel is not yet done with a process that has ended
            time.sleep(0.01)
            cgroups.remove(path)
    folder.groups.unlink(missing_ok=True)
