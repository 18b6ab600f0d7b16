"""Starting and stopping labs, as commands do it: settings, checks, launch; and down, which is a kill.

Starts and stops of one lab exclude each other. A lab runs when a process holds the lock on its settings (see `folder`),
so a stale file can not mislead a command.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import select
import signal
import socket
from collections.abc import Iterator, Mapping

from podplane.kernel.cgroups import Groups
from podplane.lab import certificate_maker, limits, preflight, spec
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.lab.launch import Progress, Reporter, launch
from podplane.lab.spec import LabSpec
from podplane.model.words import counted

END_SECONDS = 30.0
FIXED = ("cluster_cidr", "service_cidr", "node_cidr", "subnets", "second_nic")
"""Settings that objects of the lab were made with."""


def settings(folder: Folder, given: Mapping[str, object]) -> LabSpec:
    """The lab's settings: as given, else as they were, else the defaults. LabError when they contradict its state."""
    old = spec.load(folder.spec)
    wanted = spec.changed(old or LabSpec(name=folder.name), given)
    spec.check_given(given, wanted)
    if old is not None and folder.store.exists():
        purge = f"`{folder.command('down')} --purge` deletes it"
        for name in FIXED:
            if getattr(old, name) != getattr(wanted, name):
                made = spec.option(name, getattr(old, name))
                raise LabError(f"lab {folder.name!r} was made with {made}: {purge}, or choose another --name")
        if wanted.nodes < old.nodes:
            raise LabError(f"lab {folder.name!r} has {counted(old.nodes, 'node')} already, it can only get more: {purge}")
    return wanted


def up(folder: Folder, given: Mapping[str, object], pods_per_node: int) -> Iterator[Progress]:
    """Start a lab that doesn't run; yields its progress until it is ready. LabError when it can't be started.

    The caller holds `folder.exclusive()`. A lab that is new leaves nothing behind when it can't be started.
    """
    wanted = settings(folder, given)
    wanted.check(pods_per_node)
    preflight.check_file_limit(wanted.nodes, wanted.nodes * pods_per_node)
    preflight.check_backend(wanted.chosen_backend, (cidr.version for cidr in wanted.plan().node), wanted.backend_option)
    listener = preflight.listen(wanted)
    is_new = not folder.store.exists()
    spec.save(folder.spec, wanted)
    groups, note = (Groups(), "") if wanted.sandbox_only else limits.prepare(folder)
    if note:
        yield Progress(note=note)
    try:
        yield from launch(
            folder,
            lambda reporter: _first_process(wanted, folder, listener, pods_per_node, reporter, groups),
            listener.fileno(),
            shows_homes=wanted.mount_home,
            host_paths=wanted.host_paths,
        )
    except LabError:
        stop(folder)
        if is_new:
            folder.delete()
        raise
    finally:
        listener.close()


def _first_process(
    wanted: LabSpec, folder: Folder, listener: socket.socket, pods_per_node: int, reporter: Reporter, groups: Groups
) -> None:
    """PID 1: the zygote starts, and certificates are made, while the rest is imported. Until the lab is up, what is made stays: a garbage
    collection frees nothing."""
    gc.disable()
    from podplane.kernel import zygote

    preflight.raise_file_limit()
    began = zygote.start("podplane.runtime.zygote")
    making = certificate_maker.begin(lambda: _made(wanted, folder))
    from podplane.lab import lab

    lab.body(wanted, folder, listener, pods_per_node, began, reporter, groups, making)


def _made(wanted: LabSpec, folder: Folder) -> certificate_maker.Made:
    from podplane.lab import certificates  # which costs nobody else anything

    return certificates.of_lab(wanted, folder.pki, datetime.datetime.now(datetime.UTC))


def stop(folder: Folder) -> bool:
    """End the lab and wait until nothing of it is left; True when it ran. LabError when it doesn't end."""
    pid = folder.holder()
    if pid is not None:
        _kill(folder, pid)
    limits.discard(folder)
    folder.clear()
    return pid is not None


def _kill(folder: Folder, pid: int) -> None:
    """SIGKILL to process 1 of the lab. Its end is the end of all its processes and namespaces: the kernel waits for them."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if folder.holder() != pid:
            return  # it ended just now, and the number may be somebody else's
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        ready, _, _ = select.select([pidfd], [], [], END_SECONDS)
        if not ready:
            raise LabError(f"process {pid} of the lab does not end: look at it with `ps -o stat,wchan {pid}`")
    except PermissionError:
        raise LabError(f"process {pid} of the lab belongs to another user: stop it as that user") from None
    finally:
        os.close(pidfd)
