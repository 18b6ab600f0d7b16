"""Of an agent that is a process: the folders of its machine in which plugins of others keep what they know, /var/lib/cni say.

They are the node's own, as on a real machine: without that, plugins of all nodes would share those of the machine that the lab is on, and
leave files there. The process has a mount namespace of its own, in which a folder of the lab is over /var/lib and /run. All that the
machine has there is bound into it, but for what is the plugins'; what is new there is in the lab's folder, and goes with the lab.
"""

from __future__ import annotations

import os
import sys

from podplane.kernel import syscalls

OWN = {"/var/lib": frozenset({"cni"}), "/run": frozenset({"cni", "xtables.lock"})}
"""Folders of the machine, and what in them a node has for itself."""


def enter(place: str) -> None:
    """Have this process, which has one thread, see them; they are kept below `place`, for the next process of the same node. OSError when
    that can't be."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    for folder, own in OWN.items():
        if os.path.isdir(folder):
            _cover(os.path.realpath(folder), os.path.join(place, folder.strip("/").replace("/", "-")), own)


def _cover(folder: str, place: str, own: frozenset[str]) -> None:
    """Bind `place` over a folder, with all in it that is there but for `own`."""
    os.makedirs(place, mode=0o755, exist_ok=True)
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name not in own]
    for entry in found:
        try:
            _bind(entry, os.path.join(place, entry.name))
        except OSError as error:  # it has gone, say
            print(f"{entry.path} is not seen by the agent and its plugins: {error.strerror}", file=sys.stderr)
    syscalls.mount(place, folder, None, syscalls.MS_BIND | syscalls.MS_REC)


def _bind(entry: os.DirEntry[str], target: str) -> None:
    if entry.is_symlink():
        if not os.path.lexists(target):
            os.symlink(os.readlink(entry.path), target)
        return
    if entry.is_dir():
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):  # to open a pipe that is there would wait
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    syscalls.mount(entry.path, target, None, syscalls.MS_BIND | syscalls.MS_REC)
