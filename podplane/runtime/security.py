"""`securityContext`: what of it a container gets, and what a lab does not do. Pure.

A container that asks for nothing has the capabilities that containerd gives it.

A pod has one user, 0: there are no others in a user namespace that an ordinary user makes (user_namespaces(7)).
"""

from __future__ import annotations

from collections.abc import Iterator

from podplane.kernel.rights import NAMES, Rights
from podplane.model.pod import Container, Pod, PodSecurityContext, SecurityContext
from podplane.runtime.environment import ConfigError

ALL = "ALL"
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


def rights(container: Container) -> Rights:
    """What its processes may do in the pod's namespaces: the usual, what is added, and not what is dropped; all that is dropped before
    (containerd, internal/cri/opts, WithCapabilities). ConfigError for an unknown capability."""
    context = container.security_context
    capabilities = context.capabilities
    if context.privileged:
        return Rights()
    (adds_all, added), (drops_all, dropped) = _numbers(capabilities.add), _numbers(capabilities.drop)
    before = frozenset() if drops_all else EVERY if adds_all else USUAL
    kept = (before | added) - dropped
    return Rights(tuple(sorted(EVERY - kept)), is_final=context.allow_privilege_escalation is False)


def _numbers(names: tuple[str, ...]) -> tuple[bool, set[int]]:
    """Is ALL among them? The numbers of the others."""
    plain = {name.upper().removeprefix("CAP_"): name for name in names}
    found = {plain_name: name for plain_name, name in plain.items() if plain_name != ALL}
    for one in found.keys() - set(NAMES):
        raise ConfigError(f"capability {found[one]!r} is not known: use the names of capabilities(7), or {ALL}")
    return ALL in plain, {NAMES.index(one) for one in found}


def not_applied(pod: Pod) -> Iterator[str]:
    """What its security contexts ask for that it does not get, a sentence each."""
    own = pod.spec.security_context
    yield from _of("the pod", own)
    if own.fs_group:
        yield f"the pod: fsGroup {own.fs_group} is not applied: files of volumes belong to user and group 0"
    if own.supplemental_groups:
        yield "the pod: supplementalGroups are not applied: a pod of a lab has one group, 0"
    for container in pod.spec.all_containers:
        yield from _of(f"container {container.name}", container.security_context)
        if container.security_context.proc_mount == "Unmasked":
            yield f"container {container.name}: procMount Unmasked is not applied: what tells of the machine stays hidden in /proc"


def not_shared(pod: Pod) -> Iterator[str]:
    """What else it asks for that it does not get: namespaces of others; a sentence each."""
    spec = pod.spec
    if spec.host_pid:
        yield "hostPID is not applied: each container of a lab has a PID namespace of its own"
    if spec.host_ipc:
        yield "hostIPC is not applied: a pod of a lab has an IPC namespace of its own"
    if spec.share_process_namespace:
        yield "shareProcessNamespace is not applied: each container of a lab has a PID namespace of its own"


def _of(whose: str, context: SecurityContext | PodSecurityContext) -> Iterator[str]:
    for name, number in (("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)):
        if number:
            yield f"{whose}: {name} {number} is not applied: processes of a lab's pods are user and group 0 of their pod"
    if context.run_as_non_root and not context.run_as_user:
        yield f"{whose}: runAsNonRoot is not applied: processes of a lab's pods are user 0 of their pod"
    if context.seccomp_profile is not None and context.seccomp_profile.type != "Unconfined":
        yield f"{whose}: seccompProfile {context.seccomp_profile.type} is not applied: no system call is filtered"
    if context.app_armor_profile is not None and context.app_armor_profile.type != "Unconfined":
        yield f"{whose}: appArmorProfile {context.app_armor_profile.type} is not applied: a lab loads no profiles"
    if context.se_linux_options:
        yield f"{whose}: seLinuxOptions are not applied: processes of a lab's pods have the label of the lab"
