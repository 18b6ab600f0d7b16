"""The default filter of system calls (seccomp(2)): what programs in containers rarely need, and holes of kernels are often found in.

It refuses what containerd's default profile (contrib/seccomp, DefaultProfile) does not allow, by the capabilities of the container. A call
that is newer than this table does not exist for it (ENOSYS), so that programs do without; so do 32-bit calls on others than x86. The kernel
asks the filter once for each call whose arguments it does not look at (Linux 5.11), so that its length costs nothing.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from podplane.kernel import syscalls

LOAD, AND_JUMP, EQUAL, GREATER, ALWAYS, RETURN = 0x20, 0x45, 0x15, 0x25, 0x05, 0x06
"""BPF_LD|BPF_W|BPF_ABS, and of BPF_JMP|BPF_K: JSET, JEQ, JGT; JA; BPF_RET|BPF_K."""
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
"""In struct seccomp_data; the low half of an argument comes first on these machines."""
ALLOW, ERROR = 0x7FFF_0000, 0x0005_0000
SET_MODE_FILTER, SPEC_ALLOW = 1, 4
"""Of seccomp(2). SPEC_ALLOW: programs are not slowed down for the sake of old processors, as runc has it."""
LAST = 466
"""The highest number that the table knows (removexattrat); from 424 on they are the same on all architectures."""
NAMESPACES = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
AF_VSOCK = 40
PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFF_FFFF)
ADMIN = "SYS_ADMIN"
ALSO_ADMIN = frozenset({"BPF", "PERFMON", "SYSLOG"})
"""Capabilities that SYS_ADMIN had in it before they came."""

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, operand."""


class Numbers(NamedTuple):
    """Of a call, by architecture, -1 where there is none."""

    x86_64: int
    i386: int
    generic: int


class Architecture(NamedTuple):
    """AUDIT_ARCH_* (linux/audit.h), and the column of the table."""

    audit: int
    column: int


MACHINES = {
    "x86_64": (Architecture(0xC000_003E, 0), Architecture(0x4000_0003, 1)),
    "aarch64": (Architecture(0xC000_00B7, 2),),
    "riscv64": (Architecture(0xC000_00F3, 2),),
}
"""What programs of a machine may be made for, by `os.uname().machine`."""
SECCOMP, CLONE, CLONE3, SOCKET, PERSONALITY = (
    Numbers(317, 354, 277),
    Numbers(56, 120, 220),
    Numbers(435, 435, 435),
    Numbers(41, 359, 198),
    Numbers(135, 136, 92),
)
REFUSED: dict[str, dict[str, Numbers]] = {
    "": {
        "add_key": Numbers(248, 286, 217),
        "keyctl": Numbers(250, 288, 219),
        "request_key": Numbers(249, 287, 218),
        "create_module": Numbers(174, 127, -1),
        "get_kernel_syms": Numbers(177, 130, -1),
        "query_module": Numbers(178, 167, -1),
        "io_uring_setup": Numbers(425, 425, 425),
        "io_uring_enter": Numbers(426, 426, 426),
        "io_uring_register": Numbers(427, 427, 427),
        "kexec_load": Numbers(246, 283, 104),
        "kexec_file_load": Numbers(320, -1, 294),
        "migrate_pages": Numbers(256, 294, 238),
        "move_pages": Numbers(279, 317, 239),
        "nfsservctl": Numbers(180, 169, 42),
        "pivot_root": Numbers(155, 217, 41),
        "swapon": Numbers(167, 87, 224),
        "swapoff": Numbers(168, 115, 225),
        "_sysctl": Numbers(156, 149, -1),
        "sysfs": Numbers(139, 135, -1),
        "uselib": Numbers(134, 86, -1),
        "userfaultfd": Numbers(323, 374, 282),
        "ustat": Numbers(136, 62, -1),
        "vm86": Numbers(-1, 166, -1),
        "vm86old": Numbers(-1, 113, -1),
        "statmount": Numbers(457, 457, 457),
        "listmount": Numbers(458, 458, 458),
        "lsm_get_self_attr": Numbers(459, 459, 459),
        "lsm_set_self_attr": Numbers(460, 460, 460),
        "lsm_list_modules": Numbers(461, 461, 461),
    },
    "SYS_ADMIN": {
        "fanotify_init": Numbers(300, 338, 262),
        "fsconfig": Numbers(431, 431, 431),
        "fsmount": Numbers(432, 432, 432),
        "fsopen": Numbers(430, 430, 430),
        "fspick": Numbers(433, 433, 433),
        "lookup_dcookie": Numbers(212, 253, 18),
        "mount": Numbers(165, 21, 40),
        "mount_setattr": Numbers(442, 442, 442),
        "move_mount": Numbers(429, 429, 429),
        "open_tree": Numbers(428, 428, 428),
        "quotactl": Numbers(179, 131, 60),
        "quotactl_fd": Numbers(443, 443, 443),
        "setdomainname": Numbers(171, 121, 162),
        "sethostname": Numbers(170, 74, 161),
        "setns": Numbers(308, 346, 268),
        "umount": Numbers(-1, 22, -1),
        "umount2": Numbers(166, 52, 39),
        "unshare": Numbers(272, 310, 97),
    },
    "BPF": {
        "bpf": Numbers(321, 357, 280),
    },
    "DAC_READ_SEARCH": {
        "open_by_handle_at": Numbers(304, 342, 265),
    },
    "PERFMON": {
        "perf_event_open": Numbers(298, 336, 241),
    },
    "SYS_BOOT": {
        "reboot": Numbers(169, 88, 142),
    },
    "SYS_CHROOT": {
        "chroot": Numbers(161, 61, 51),
    },
    "SYS_MODULE": {
        "delete_module": Numbers(176, 129, 106),
        "init_module": Numbers(175, 128, 105),
        "finit_module": Numbers(313, 350, 273),
    },
    "SYS_NICE": {
        "get_mempolicy": Numbers(239, 275, 236),
        "mbind": Numbers(237, 274, 235),
        "set_mempolicy": Numbers(238, 276, 237),
        "set_mempolicy_home_node": Numbers(450, 450, 450),
    },
    "SYS_PACCT": {
        "acct": Numbers(163, 51, 89),
    },
    "SYS_PTRACE": {
        "kcmp": Numbers(312, 349, 272),
        "pidfd_getfd": Numbers(438, 438, 438),
        "process_madvise": Numbers(440, 440, 440),
        "process_vm_readv": Numbers(310, 347, 270),
        "process_vm_writev": Numbers(311, 348, 271),
    },
    "SYS_RAWIO": {
        "iopl": Numbers(172, 110, -1),
        "ioperm": Numbers(173, 101, -1),
    },
    "SYSLOG": {
        "syslog": Numbers(103, 103, 116),
    },
    "SYS_TIME": {
        "clock_adjtime": Numbers(305, 343, 266),
        "clock_adjtime64": Numbers(-1, 405, 405),
        "clock_settime": Numbers(227, 264, 112),
        "clock_settime64": Numbers(-1, 404, 404),
        "settimeofday": Numbers(164, 79, 170),
        "stime": Numbers(-1, 25, -1),
    },
    "SYS_TTY_CONFIG": {
        "vhangup": Numbers(153, 111, 58),
    },
}
"""Calls by the capability that allows them, "" for none."""


def is_known(machine: str = os.uname().machine) -> bool:
    """Is there a filter for this machine?"""
    return machine in MACHINES


@functools.lru_cache(16)
def program(kept: Collection[str], machine: str = os.uname().machine) -> bytes:
    """The filter of a container that has these capabilities, as the kernel takes it. KeyError for a machine that is not known."""
    code: list[Instruction] = [(LOAD, 0, 0, ARCHITECTURE_AT)]
    for one in MACHINES[machine]:
        section = list(_section(one, kept))
        code += [(EQUAL, 1, 0, one.audit), (ALWAYS, 0, 0, len(section)), *section]
    return b"".join(struct.pack("=HBBI", *one) for one in (*code, _error(errno.ENOSYS)))


def _section(architecture: Architecture, kept: Collection[str]) -> Iterator[Instruction]:
    """What becomes of the calls of one architecture."""
    column, is_admin = architecture.column, ADMIN in kept
    yield LOAD, 0, 0, NUMBER_AT
    yield GREATER, 0, 1, LAST
    yield _error(errno.ENOSYS)
    for capability, calls in REFUSED.items():
        if capability not in kept and not (capability in ALSO_ADMIN and is_admin):
            for numbers in calls.values():
                if numbers[column] >= 0:
                    yield EQUAL, 0, 1, numbers[column]
                    yield _error(errno.EPERM)
    if not is_admin:
        yield EQUAL, 0, 1, CLONE3[column]  # whose flags are in memory: without it, programs use clone
        yield _error(errno.ENOSYS)
        yield from _by_argument(CLONE[column], (AND_JUMP, 0, 1, NAMESPACES), _error(errno.EPERM))
    yield from _by_argument(SOCKET[column], (EQUAL, 0, 1, AF_VSOCK), _error(errno.EPERM))
    allowed: list[Instruction] = [(EQUAL, len(PERSONALITIES) - n, 0, value) for n, value in enumerate(PERSONALITIES)]
    yield from _by_argument(PERSONALITY[column], *allowed, _error(errno.EPERM))
    yield RETURN, 0, 0, ALLOW


def _by_argument(number: int, *body: Instruction) -> Iterator[Instruction]:
    """Instructions for a call alone, with its first argument; then with its number again."""
    yield EQUAL, 0, len(body) + 2, number
    yield LOAD, 0, 0, FIRST_ARGUMENT_AT
    yield from body
    yield LOAD, 0, 0, NUMBER_AT


def _error(number: int) -> Instruction:
    return RETURN, 0, 0, ERROR | number


def install(code: bytes) -> None:
    """Filter the calls of this process and of all that it starts, for good. OSError when that can't be: it needs CAP_SYS_ADMIN in the
    user namespace, or no_new_privs."""
    kept = ctypes.create_string_buffer(code, len(code))  # struct sock_fprog points to it
    number = SECCOMP[MACHINES[os.uname().machine][0].column]
    syscalls.seccomp(number, SET_MODE_FILTER, SPEC_ALLOW, struct.pack("@HP", len(code) // 8, ctypes.addressof(kept)))
