"""The file systems of a pod's containers, and their shares of the machine: what is mounted where, how much can be written, and had; and
whose processes they see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from podplane.kernel import ids
from podplane.kernel.cgroups import Group, Limits
from podplane.kernel.releases import limits_processes
from podplane.kernel.rootfs import Root
from podplane.kernel.user_limits import MAX_PROCESSES
from podplane.kernel.zygote_messages import LAB
from podplane.model.pod import Container, Pod
from podplane.runtime import image_files, limits, security, sysctls
from podplane.runtime.container import ContainerRun
from podplane.runtime.environment import ConfigError
from podplane.runtime.host_paths import HostPaths
from podplane.runtime.images import files_of
from podplane.runtime.mounts import PodFolder
from podplane.runtime.node import Node
from podplane.runtime.status import RUNNING

PAUSE = "_pause"
"""No container has this name."""


def of_container(
    node: Node, files: PodFolder | None, pod: Pod, container: Container, variables: Mapping[str, str]
) -> Root | None:
    """That of a container; None where containers see the machine as it is. ConfigError when there is something missing."""
    if files is None or node.folder is None:
        return None
    binds = [*image_files.binds(node.folder, files_of(container.image)), *files.binds(pod, container, variables)]
    return Root(
        str(node.folder),
        binds,
        0 if is_in_lab(node, pod) else MAX_PROCESSES,  # that bounds all of a PID namespace
        node.hidden,
        node.shows_homes,
        container.security_context.read_only_root_filesystem,
        limits.layer(container),
        container.termination_message_path,
        node.layers,
        sysctls.of(pod, ids.of_pods()),
    )


def is_in_lab(node: Node, pod: Pod) -> bool:
    """Are its containers among the processes of the lab (`hostPID`)?"""
    return pod.spec.host_pid and node.shows_processes


def bare(node: Node) -> Root | None:
    """That of what runs in no container: without volumes."""
    if node.folder is None:
        return None
    return Root(str(node.folder), (), MAX_PROCESSES, node.hidden, node.shows_homes, size=limits.USUAL, layers=node.layers)


def share(node: Node, pod: Pod, container: Container, run: ContainerRun | None) -> tuple[Group | None, int]:
    """The control groups of a container's next run, and its `oom_score_adj`. ConfigError for limits with which it can't start."""
    limits.check(container, node.groups.controllers)
    is_bounded = limits_processes() and not is_in_lab(node, pod)
    limited = limits.share(container, 0 if is_bounded else MAX_PROCESSES)
    name = f"{pod.metadata.uid}-{container.name}-{run.state.restarts if run is not None else 0}"
    return node.groups.of_container(name, limited), limits.oom_score(pod, container)


def share_of_pause(node: Node, pod: Pod, number: int) -> Group | None:
    """The control groups of what containers share the processes of (`shared_processes`), the so many-th of its pod."""
    return node.groups.of_container(f"{pod.metadata.uid}-{PAUSE}-{number}", Limits())


def target(node: Node, pod: Pod, container: Container, runs: Iterable[ContainerRun]) -> int:
    """The number of the process whose PID namespace a container shares, 0 for none. ConfigError when that does not run, or it may not."""
    security.check_host_pid(pod, shows_processes=node.shows_processes)
    if is_in_lab(node, pod):
        return LAB
    if not (name := container.target_container_name):
        return 0
    for run in runs:
        if run.spec.name == name and run.process is not None and run.state.state == RUNNING:
            return run.process.id
    raise ConfigError(f"unable to find target container {name!r}: it does not run")


def host_paths(node: Node) -> HostPaths:
    """Which folders of the machine its pods may have, and which they do not see."""
    return HostPaths(tuple(node.host_paths), tuple(node.hidden), node.shows_homes, node.layers, node.up)
