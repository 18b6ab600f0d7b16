"""Fields of a pod that a lab takes and does not act on: those for which an event is enough, and those without which a pod makes no sense.

A test holds them against all fields that there are in the API, so that none is silently ignored. Those about security are in `security`,
limits in `limits`. Pure.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator

from podplane.kernel.ids import Ids
from podplane.model import bandwidth
from podplane.model.pod import Container, Pod, PodSpec
from podplane.model.pod_info import NETWORKS
from podplane.runtime import limits, security, users

LINUX = "linux"
SIGNALS = {
    **{one.name: int(one) for one in signal.Signals},
    **{f"SIGRTMIN+{number}": signal.SIGRTMIN + number for number in range(1, 16)},
    **{f"SIGRTMAX-{number}": signal.SIGRTMAX - number for number in range(1, 15)},
}
"""Names of `stopSignal` (core/v1, Signal)."""


def stop_signal(container: Container) -> int:
    """What asks a container to end."""
    name = container.lifecycle.stop_signal if container.lifecycle is not None else ""
    return SIGNALS.get(name, signal.SIGTERM)


def told(pod: Pod, controllers: Collection[str], ids: Ids, *, shows_processes: bool) -> Iterator[tuple[str, str]]:
    """Reasons and messages of the events that say what it does not get; `controllers` are those of the lab's control groups, `ids` those of
    its pods, `shows_processes` whether these may see all of the lab's."""
    for sentence in (*security.not_applied(pod), *users.not_applied(pod, ids)):
        yield "SecurityContextNotApplied", sentence
    for sentence in (
        *security.not_shared(pod, shows_processes=shows_processes),
        *not_applied(pod),
        *limits.not_applied(pod, controllers),
    ):
        yield "NotApplied", sentence


def why_refused(pod: Pod) -> str:
    """Why no node of a lab can run it, "" when one can."""
    spec = pod.spec
    if (name := spec.os.get("name", LINUX)) != LINUX:
        return f"its os is {name}, and nodes of a lab run {LINUX}"
    if spec.resource_claims:
        return "it claims devices (resourceClaims), and a lab has none"
    try:
        bandwidth.limits(pod.metadata.annotations)
    except ValueError as error:
        return str(error)
    for container in spec.all_containers:
        if container.lifecycle is not None and container.lifecycle.stop_signal not in ("", *SIGNALS):
            return f"container {container.name}: stopSignal {container.lifecycle.stop_signal!r} is not known"
    return ""


def not_applied(pod: Pod) -> Iterator[str]:
    """What it says that makes no difference, a sentence each."""
    yield from _of_spec(pod.spec)
    for name in (bandwidth.INGRESS, bandwidth.EGRESS, NETWORKS):
        if pod.spec.host_network and name in pod.metadata.annotations:
            yield f"annotation {name} is not applied: the pod is in the node's own network"
    for container in pod.spec.all_containers:
        yield from (f"container {container.name}: {sentence}" for sentence in _of_container(container))
    for container in pod.spec.containers:
        if container.restart_policy:
            yield f"container {container.name}: restartPolicy {container.restart_policy} is not applied: that of the pod is"


def _of_spec(spec: PodSpec) -> Iterator[str]:
    context = spec.security_context
    if spec.priority_class_name:
        yield f"priorityClassName {spec.priority_class_name} is not applied: a lab has no priorities, and evicts no pod for another"
    elif spec.priority:
        yield f"priority {spec.priority} is not applied: a lab has no priorities, and evicts no pod for another"
    if spec.runtime_class_name:
        yield f"runtimeClassName {spec.runtime_class_name} is not applied: a lab has one runtime"
    if spec.resources:
        yield "resources of the pod are not applied: those of its containers are"
    if spec.scheduling_group:
        yield "schedulingGroup is not applied: pods are scheduled one by one"
    if context.fs_group_change_policy:
        yield f"fsGroupChangePolicy {context.fs_group_change_policy} is not applied: volumes of a lab are new, and have no files of others"
    if context.se_linux_change_policy:
        yield f"seLinuxChangePolicy {context.se_linux_change_policy} is not applied: a lab labels no files"
    if context.windows_options:
        yield "windowsOptions are not applied: nodes of a lab run linux"


def _of_container(container: Container) -> Iterator[str]:
    if container.restart_policy_rules:
        yield "restartPolicyRules are not applied: its restartPolicy, or that of the pod, is"
    if container.security_context.windows_options:
        yield "windowsOptions are not applied: nodes of a lab run linux"
    for mount in container.volume_mounts:
        if mount.mount_propagation not in ("", "None"):
            yield f"mountPropagation {mount.mount_propagation} of {mount.mount_path} is not applied: mounts of a container stay in it"
