"""Removes all that is podplane's from a machine, and compares the machine with what it was before the agent's first start.

    no agent runs (the lock), no pod is attached ──► kernel objects with podplane's marks ──► sysctls ──► files ──► comparison

A sysctl that somebody else changed meanwhile stays as it is. With the one for forwarding the kernel changes others (ip-sysctl,
`ip_forward`: `accept_redirects` and `forwarding` of each link): those are set back, too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from podplane.agent.delegation import Plugins
from podplane.agent.ownership import ownership
from podplane.cni.network import NetworkError
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from podplane.kernel.sysctl import read_here, set_here
from podplane.machine import kube_proxy, snapshot
from podplane.machine.configuration import PLUGIN_PATH
from podplane.machine.errors import MachineError
from podplane.machine.journal import Journal
from podplane.machine.snapshot import WENT, Snapshot
from podplane.model.config import NetworkConfig
from podplane.model.words import counted
from podplane.pods.plan import VETH_PREFIX
from podplane.state.network import Link
from podplane.state.operations import Operation
from podplane.state.value import Value

OWN_FILES = (
    "cni.sock*",
    "networks.json*",
    "attachments.journal*",
    "delegated-*",
    "before.json*",
    "cluster",
    "cluster.new",
    "lock",
)
"""Of a run folder: what else is in it is not the agent's."""
SAME = "the network of this machine is as it was before the first start"
OTHERWISE = "nothing of podplane's is left in the kernel; what is otherwise than before the first start, by others:"
UNKNOWN = "nothing is known of how this machine was before the first start: nothing of podplane's is left in the kernel"
"""The last line but for differences: what is proved of a machine."""
INDENT = "  "
"""Before each difference."""
ENTAILED = ("forwarding", "accept_redirects")
"""Leaves of sysctls that the kernel changes with the one for forwarding."""


class Outcome(msgspec.Struct):
    """What was done, a line each; whether nothing of podplane's is left, and whether the machine is as it was before the first start."""

    lines: list[str]
    is_clean: bool
    is_same: bool = False


def uninstall(
    folder: Path,
    config: NetworkConfig,
    files: Iterable[Path],
    *,
    detach: bool,
    plugin_path: Sequence[str] = PLUGIN_PATH,
    folders: Sequence[str] = (),
) -> Outcome:
    """Do it, in the network namespace of this process. MachineError when pods are attached and are not to be detached.

    `folder` is the run folder, which is locked; the agent's files in it are removed, and whoever locked it removes it once it is empty.
    `files` go, too, where they are there. What plugins of others made for pods is undone by those in `plugin_path`. What is in `folders` is
    compared with what was there before the first start.
    """
    path = folder / "attachments.journal"
    made_here = {folder / "lock"} | ({path} if not path.exists() else set())
    journal = Journal(path)
    try:
        if (alive := _alive(journal)) and not detach:
            raise MachineError(
                f"{counted(alive, 'interface')} of pods would lose the network: drain the node first, or give --detach"
            )
        if (links := _links_of_pods(config)) and not detach:
            raise MachineError(
                f"{counted(links, 'link')} of pods would go, of which {folder} says nothing: give the --run-dir of the agent, or --detach"
            )
        before = snapshot.load(folder)
        undone = _undo(Plugins(folder, plugin_path))
        lines, failed = _remove_objects(config)
        failed += undone
        lines += _restore(journal, before)
    finally:
        journal.close()
    if failed:
        return Outcome([*lines, *failed, f"{folder} stays, for another try"], is_clean=False)
    lines += _remove_files((*_own_files(folder), *files), made_here)
    compared = list(_compared(before, folders))
    return Outcome([*lines, *compared], is_clean=True, is_same=compared[0].startswith(SAME))


def _alive(journal: Journal) -> int:
    """How many interfaces are in a network namespace that is still there: engines end pods while no agent runs, too."""
    return sum(os.path.exists(one.attach.netns_path) for one in journal.attachments.values())


def _undo(plugins: Plugins) -> list[str]:
    """Have plugins of others undo what they made for pods, which only they know; why one could not."""
    try:
        asyncio.run(plugins.gc(frozenset()))
    except NetworkError as error:
        return [f"still there: further interfaces of pods: {error}"]
    return []


def _owned(kernel: Kernel, config: NetworkConfig) -> list[Value]:
    return list(kernel.read(ownership(config)).values())


def _links_of_pods(config: NetworkConfig) -> int:
    """How many there are in the kernel, whatever a journal says."""
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    try:
        return sum(
            isinstance(one, Link) and one.kind == "veth" and one.name.startswith(VETH_PREFIX) for one in _owned(kernel, config)
        )
    finally:
        kernel.close()


def _remove_objects(config: NetworkConfig) -> tuple[list[str], list[str]]:
    """Lines about what went, and about what did not."""
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    try:
        owned = _owned(kernel, config)
        report = kernel.apply([Operation(value, None) for value in owned])
        left = _owned(kernel, config)
    finally:
        kernel.close()
    errors = {failure.operation.value.identity: str(failure.error) for failure in report.failed}
    kinds: dict[str, int] = {}
    for value in owned:
        kinds[value.identity[0]] = kinds.get(value.identity[0], 0) + 1
    what = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
    failed = [f"still there: {one}: {errors.get(one.identity, 'it came back: does an agent run?')}" for one in left]
    return [f"removed from the kernel: {what or 'nothing, there was nothing'}"], failed


def _restore(journal: Journal, before: Snapshot | None) -> list[str]:
    """Set sysctls back."""
    wanted, theirs = dict[str, str](), dict[str, str]()
    now = read_here(journal.originals)
    for name, one in journal.originals.items():
        if name not in now or one.was is None or now[name] == one.was:
            continue
        if now[name] == one.set:
            wanted[name] = one.was
        else:
            theirs[name] = now[name]
    changed = _set(wanted)
    changed |= _set(_entailed(before, theirs)) if changed else {}
    lines = [f"sysctl {name} is {value} again" for name, value in changed.items()]
    return [*lines, *(f"sysctl {name} is {value}: somebody else changed it, and it stays" for name, value in theirs.items())]


def _entailed(before: Snapshot | None, theirs: Collection[str]) -> dict[str, str]:
    """What the kernel changed with these, as it was, without those of others."""
    if before is None:
        return {}
    names = {name: value for name, value in before.sysctls.items() if name.endswith(ENTAILED)}
    now = read_here(names)
    return {name: value for name, value in names.items() if name not in theirs and now.get(name, value) != value}


def _set(values: dict[str, str]) -> dict[str, str]:
    """Those that could be set. One by one: with one the kernel may change others."""
    return {name: value for name, value in values.items() if not set_here({name: value})}


def _own_files(folder: Path) -> Iterator[Path]:
    for pattern in OWN_FILES:
        yield from sorted(folder.glob(pattern))


def _remove_files(files: Iterable[Path], unsaid: Collection[Path]) -> Iterator[str]:
    """A line for each of them that was there, but for those that this command has made itself."""
    for path in files:
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            yield f"{path} can't be removed: {error.strerror}"
        else:
            if path not in unsaid:
                yield f"removed {path}"


def _compared(before: Snapshot | None, folders: Sequence[str]) -> Iterator[str]:
    if before is None:
        yield UNKNOWN
        return
    after = snapshot.take(CurrentNamespace(), folders)
    differences = list(before.differences(after))
    gone = [line for line in differences if line.startswith(WENT) and kube_proxy.had(line.removeprefix(WENT))]
    if differences == gone and not (gone and kube_proxy.why_runs()):
        but = (
            f", but for kube-proxy, which has gone since: {', '.join(line.removeprefix(WENT) for line in gone)}" if gone else ""
        )
        yield f"{SAME}{but} ({after.counted()})"
        return
    yield OTHERWISE
    yield from (f"{INDENT}{line}" for line in differences)
