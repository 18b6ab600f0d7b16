"""`securityContext`: what of it a container gets, and what a lab does not do. Pure.

A container that asks for nothing has the capabilities that containerd gives it, and its system calls are filtered, as a kubelet does with
`seccompDefault`. A privileged one has all, and no filter.
"""

from __future__ import annotations

from collections.abc import Iterator

from podplane.kernel import seccomp
from podplane.kernel.rights import NAMES, Rights
from podplane.model.pod import Container, Pod, PodSecurityContext, SecurityContext
from podplane.runtime.environment import ConfigError
from podplane.runtime.users import User

ALL = "ALL"
HOST_PID = "--allow-host-pid"
"""The option of `up`."""
RUNTIME_DEFAULT, UNCONFINED = "RuntimeDefault", "Unconfined"
EVERY = frozenset(range(len(NAMES)))
USUAL = frozenset(
    map(
        NAMES.index,
        (
            *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
            *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
        ),
    )
)
"""containerd, pkg/oci/spec.go, defaultUnixCaps."""


def rights(pod: Pod, container: Container, who: User) -> Rights:
    """What processes of this user may do in the pod's namespaces: the usual, what is added, and not what is dropped; all that is dropped
    before (containerd, internal/cri/opts, WithCapabilities). ConfigError for an unknown capability."""
    context = container.security_context
    capabilities = context.capabilities
    if context.privileged:
        return Rights(user=who.user, group=who.group, groups=who.groups)
    (adds_all, added), (drops_all, dropped) = _numbers(capabilities.add), _numbers(capabilities.drop)
    before = frozenset() if drops_all else EVERY if adds_all else USUAL
    kept = (before | added) - dropped
    is_final = context.allow_privilege_escalation is False
    is_filtered = _is_filtered(pod, container) and seccomp.is_known()
    return Rights(tuple(sorted(EVERY - kept)), is_final, who.user, who.group, who.groups, is_filtered)


def usual() -> Rights:
    """What a container may do that asks for nothing else."""
    return Rights(tuple(sorted(EVERY - USUAL)), is_filtered=seccomp.is_known())


def _is_filtered(pod: Pod, container: Container) -> bool:
    """Does it get the default filter of system calls? ConfigError for a profile that there is not."""
    profile = container.security_context.seccomp_profile or pod.spec.security_context.seccomp_profile
    if profile is None or profile.type == RUNTIME_DEFAULT:
        return True
    if profile.type != UNCONFINED:
        name = profile.localhost_profile or profile.type
        raise ConfigError(f"cannot load seccomp profile {name!r}: a lab has {RUNTIME_DEFAULT} and {UNCONFINED}")
    return False


def _numbers(names: tuple[str, ...]) -> tuple[bool, set[int]]:
    """Is ALL among them? The numbers of the others."""
    plain = {name.upper().removeprefix("CAP_"): name for name in names}
    found = {plain_name: name for plain_name, name in plain.items() if plain_name != ALL}
    for one in found.keys() - set(NAMES):
        raise ConfigError(f"capability {found[one]!r} is not known: use the names of capabilities(7), or {ALL}")
    return ALL in plain, {NAMES.index(one) for one in found}


def not_applied(pod: Pod) -> Iterator[str]:
    """What its security contexts ask for that no pod of a lab gets, a sentence each."""
    yield from _of("the pod", pod.spec.security_context)
    if not seccomp.is_known():
        yield "the pod: seccompProfile RuntimeDefault is not applied: a lab has no filter of system calls for this kind of machine"
    for container in pod.spec.all_containers:
        yield from _of(f"container {container.name}", container.security_context)
        if container.security_context.proc_mount == "Unmasked":
            yield f"container {container.name}: procMount Unmasked is not applied: what tells of the machine stays hidden in /proc"


def check_host_pid(pod: Pod, *, shows_processes: bool) -> None:
    """ConfigError for a pod that asks for the processes of the lab where `up` did not allow that."""
    if pod.spec.host_pid and not shows_processes and not _is_debugger(pod):
        raise ConfigError(f"hostPID: pods of this lab do not see the processes of others; `podplane up {HOST_PID}` shows them")


def _is_debugger(pod: Pod) -> bool:
    """Was it made by `kubectl debug node/NODE`, which asks for all that a node has?"""
    return pod.metadata.name.startswith("node-debugger-")


def not_shared(pod: Pod, *, shows_processes: bool = False) -> Iterator[str]:
    """What else it asks for that it does not get, and starts without: namespaces of others; a sentence each."""
    spec = pod.spec
    if spec.host_pid and not shows_processes and _is_debugger(pod):
        yield f"hostPID is not applied: containers of this lab see processes of their own; `podplane up {HOST_PID}` shows them all"
    if spec.host_ipc:
        yield "hostIPC is not applied: a pod of a lab has an IPC namespace of its own"


def _of(whose: str, context: SecurityContext | PodSecurityContext) -> Iterator[str]:
    if context.app_armor_profile is not None and context.app_armor_profile.type != "Unconfined":
        yield f"{whose}: appArmorProfile {context.app_armor_profile.type} is not applied: a lab loads no profiles"
    if context.se_linux_options:
        yield f"{whose}: seLinuxOptions are not applied: processes of a lab's pods have the label of the lab"
