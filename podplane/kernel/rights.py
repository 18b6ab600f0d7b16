"""What a container's processes may do: who they are, their capabilities, and whether a program may give them more (capabilities(7),
no_new_privs)."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

import msgspec

from podplane.kernel import ids, seccomp, syscalls

NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE"),
    *("NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO"),
    *("SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME"),
    *("SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
"""Capabilities by number (linux/capability.h), without CAP_."""
VERSION_3 = 0x2008_0522
"""_LINUX_CAPABILITY_VERSION_3: sets of 64 bits, in two halves."""
HALF = 0xFFFF_FFFF


class Rights(msgspec.Struct, frozen=True, omit_defaults=True):
    """`without`: the numbers of capabilities that it does not have; `is_final`: no program gives it more than it has. `user`, `group` and
    `groups` are its ids in the pod. What is not user 0 has no capabilities, until it starts a program that gives it some.
    `is_filtered`: its system calls are (`kernel.seccomp`).
    """

    without: tuple[int, ...] = ()
    is_final: bool = False
    user: int = 0
    group: int = 0
    groups: tuple[int, ...] = ()
    is_filtered: bool = False

    @property
    def kept(self) -> frozenset[str]:
        """The names of the capabilities that it has, or may get."""
        return frozenset(name for number, name in enumerate(NAMES) if number not in self.without)


def effective() -> frozenset[str]:
    """The names of the capabilities that this thread has."""
    low, _, _, high, _, _ = struct.unpack("=6I", syscalls.capget(struct.pack("=Ii", VERSION_3, 0)))
    return frozenset(name for number, name in enumerate(NAMES) if (low | high << 32) >> number & 1)


@contextlib.contextmanager
def only(name: str) -> Iterator[None]:
    """Have no capability but this one for a while."""
    header = struct.pack("=Ii", VERSION_3, 0)
    before = syscalls.capget(header)
    low, high = (1 << NAMES.index(name)) & HALF, (1 << NAMES.index(name)) >> 32
    _, permitted_low, _, _, permitted_high, _ = struct.unpack("=6I", before)
    syscalls.capset(header, struct.pack("=6I", low, permitted_low, 0, high, permitted_high, 0))
    try:
        yield
    finally:
        syscalls.capset(header, before)


def give_up() -> None:
    """This thread has no capability any more, nor will it get one by a program; nor will threads that it starts."""
    syscalls.capset(struct.pack("=Ii", VERSION_3, 0), bytes(24))
    syscalls.set_no_new_privileges()


def apply(rights: Rights) -> None:
    """Give up what is not among these, for good: it is left out of the bounding set too."""
    for number in rights.without:
        syscalls.drop_from_bounding_set(number)
    if rights.is_filtered:  # while it has SYS_ADMIN: nobody is to be kept from programs with more rights for that
        seccomp.install(seccomp.program(rights.kept))
    if rights.groups or (os.getuid(), os.getgid()) != (rights.user, rights.group):
        ids.become(rights.user, rights.group, rights.groups)
    if rights.without or rights.user:
        kept = 0 if rights.user else sum(1 << number for number in range(len(NAMES)) if number not in rights.without)
        low, high = kept & HALF, kept >> 32
        syscalls.capset(struct.pack("=Ii", VERSION_3, 0), struct.pack("=6I", low, low, 0, high, high, 0))
    if rights.is_final:
        syscalls.set_no_new_privileges()
