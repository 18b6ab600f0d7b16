"""System calls that Python 3.11 has no function for: namespaces and mounts, through the C library.

Each raises OSError with the errno, the name of the call, and a path if it was given one: its `strerror`, without that path, may be told
to the owner of a pod.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
import termios

CLONE_VM, CLONE_FILES = 0x100, 0x400
CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MNT_DETACH = 2
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_OPENAT2, SYS_MOUNT_SETATTR = 428, 429, 437, 442
SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 430, 431, 432
"""The numbers of open_tree(2), move_mount(2), openat2(2), mount_setattr(2), fsopen(2), fsconfig(2) and fsmount(2), the same on all
architectures."""
FSOPEN_CLOEXEC, FSCONFIG_CMD_CREATE, FSMOUNT_CLOEXEC = 1, 6, 1
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 1, 4, 0x40
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_IDMAP = 1, 2, 4, 8, 0x0010_0000
PR_SET_NAME, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = (
    15,
    4,
    24,
    28,
    36,
    38,
)
SECBIT_NO_SETUID_FIXUP = 4
RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x02, 0x08, 0x10
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "armv7l": 218, "ppc64le": 203, "s390x": 217}
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "armv7l": 311, "ppc64le": 271, "s390x": 280}
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_SETPERM = 1, 5
KEY_SPEC_SESSION_KEYRING = -3

_libc = ctypes.CDLL(None, use_errno=True)
_unshare, _setns, _mount, _sethostname = _libc.unshare, _libc.setns, _libc.mount, _libc.sethostname
_umount2, _syscall, _prctl = _libc.umount2, _libc.syscall, _libc.prctl
_clone, _sleep = _libc.clone, _libc.sleep
_stack = ctypes.create_string_buffer(64 * 1024)
_STACK_TOP = ctypes.c_void_p((ctypes.addressof(_stack) + len(_stack)) & ~0xFFF)
"""Of the processes that `sleep_in` makes. All of them write the same there, so it may be that of a former one that has not quite ended."""
_PIVOT_ROOT = SYS_PIVOT_ROOT.get(os.uname().machine, -1)
_KEYCTL = SYS_KEYCTL.get(os.uname().machine, -1)
_mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _failed(call: str, path: str | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", path)


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _unshare(flags):
        raise _failed("unshare")


def sleep_in(flags: int, seconds: int) -> int:
    """clone(2): a process in new namespaces that sleeps for so long and ends; its id. It shares the caller's memory and descriptors, so
    nothing is copied for it, and executes nothing of Python. Only for a process with one thread."""
    pid = int(_clone(_sleep, _STACK_TOP, flags | CLONE_VM | CLONE_FILES | signal.SIGCHLD, ctypes.c_void_p(seconds)))
    if pid < 0:
        raise _failed("clone")
    return pid


def open_within(folder: int, path: str, flags: int, *, as_root: bool = False) -> int:
    """openat2(2) (Linux 5.6), through no link of /proc: no `..` and no link leads out of the folder, EXDEV else, whoever changes it
    meanwhile; or, with `as_root`, all of them begin and end at it."""
    if "\0" in path:
        raise ValueError("embedded null byte")
    resolve = (RESOLVE_IN_ROOT if as_root else RESOLVE_BENEATH) | RESOLVE_NO_MAGICLINKS
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, 0, resolve)
    fd = int(_syscall(SYS_OPENAT2, folder, path.encode(), how, len(how)))
    if fd < 0:
        raise _failed("openat2")
    return fd


def setns(fd: int, flags: int) -> None:
    """setns(2); `fd` is that of a namespace, or a pidfd (then `flags` say which namespaces of the process)."""
    if _setns(fd, flags):
        raise _failed("setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    if _mount(source.encode(), target.encode(), kind.encode() if kind else None, flags, data.encode() if data else None):
        raise _failed("mount", target)


def unmount(target: str) -> None:
    """umount2(2), lazily: what still uses it keeps it."""
    if _umount2(target.encode(), MNT_DETACH):
        raise _failed("umount", target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    if _syscall(_PIVOT_ROOT, new.encode(), old.encode()):
        raise _failed("pivot_root", new)


def set_attributes(target: str, attributes: int, *, recursive: bool = True) -> None:
    """mount_setattr(2): these attributes (MOUNT_ATTR_*) for this mount, and all below it (Linux 5.12)."""
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    if _syscall(SYS_MOUNT_SETATTR, AT_FDCWD, target.encode(), AT_RECURSIVE if recursive else 0, wanted, len(wanted)):
        raise _failed("attributes of mount", target)


def new_mount(kind: str, attributes: int) -> int:
    """fsopen(2), fsmount(2) (Linux 5.2): a descriptor of a new file system of this kind, mounted nowhere; it goes with the descriptor, and
    with what is open in it."""
    opened = _syscall(SYS_FSOPEN, kind.encode(), FSOPEN_CLOEXEC)
    if opened < 0:
        raise _failed("fsopen")
    try:
        if _syscall(SYS_FSCONFIG, opened, FSCONFIG_CMD_CREATE, None, None, 0):
            raise _failed("fsconfig")
        mounted = int(_syscall(SYS_FSMOUNT, opened, FSMOUNT_CLOEXEC, attributes))
        if mounted < 0:
            raise _failed("fsmount")
    finally:
        os.close(opened)
    return mounted


def bind_to(source: str, target: int, attributes: int) -> None:
    """Bind a file or folder, and all that is mounted below, with these attributes (MOUNT_ATTR_*) over what the descriptor is of."""
    tree = _syscall(SYS_OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC)
    if tree < 0:
        raise _failed("open_tree", source)
    try:
        wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
        if _syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, wanted, len(wanted)):
            raise _failed("attributes of mount", source)
        if _syscall(SYS_MOVE_MOUNT, tree, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH):
            raise _failed("move_mount")
    finally:
        os.close(tree)


def bind_with_ids(source: str, target: str, user_namespace: int, attributes: int) -> None:
    """Bind a folder, read-only or otherwise by `attributes`, so that its files belong to the users of a user namespace that have the
    numbers of their owners (idmapped mounts, Linux 5.12); only who is root of the user namespace that mounted it may do that."""
    tree = _syscall(SYS_OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC)
    if tree < 0:
        raise _failed("open_tree", source)
    try:
        wanted = struct.pack("=QQQQ", attributes | MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
        if _syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, wanted, len(wanted)):
            raise _failed("ids of mount", source)
        if _syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH):
            raise _failed("mount", target)
    finally:
        os.close(tree)


def keep_capabilities() -> None:
    """prctl(2), PR_SET_SECUREBITS: no change of the caller's ids takes or gives capabilities, until it enters a user namespace."""
    if _prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0):
        raise _failed("prctl")


def reap_orphans() -> None:
    """prctl(2), PR_SET_CHILD_SUBREAPER: descendants of the caller that lose their parent become its children, in its PID namespace."""
    if _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise _failed("prctl")


def set_dumpable(*, is_dumpable: bool) -> None:
    """prctl(2), PR_SET_DUMPABLE: may processes of this user look into this one (ptrace(2), most of /proc/PID)? A fork inherits it."""
    if _prctl(PR_SET_DUMPABLE, int(is_dumpable), 0, 0, 0):
        raise _failed("prctl")


def drop_from_bounding_set(capability: int) -> None:
    """prctl(2), PR_CAPBSET_DROP; one that this kernel does not know is dropped anyhow."""
    if _prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
        raise _failed("prctl")


def capget(header: bytes) -> bytes:
    """capget(2): the effective, permitted and inheritable sets of this thread, in two halves."""
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data):
        raise _failed("capget")
    return data.raw


def capset(header: bytes, data: bytes) -> None:
    """capset(2)."""
    if _libc.capset(header, data):
        raise _failed("capset")


def seccomp(number: int, operation: int, flags: int, arguments: bytes) -> None:
    """seccomp(2), by its number."""
    if _syscall(number, operation, flags, arguments):
        raise _failed("seccomp")


def set_no_new_privileges() -> None:
    """prctl(2), PR_SET_NO_NEW_PRIVS."""
    if _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _failed("prctl")


def name_thread(name: str) -> None:
    """prctl(2), PR_SET_NAME: this thread's name, of which 15 bytes are shown."""
    if _prctl(PR_SET_NAME, name.encode(), 0, 0, 0):
        raise _failed("prctl")


def join_new_session_keyring(*, is_closed: bool = False) -> None:
    """keyctl(2): a session keyring that is new and empty, instead of what was inherited; nobody can read a closed one, or add to it."""
    if _syscall(_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        raise _failed("keyctl")
    if is_closed and _syscall(_KEYCTL, KEYCTL_SETPERM, KEY_SPEC_SESSION_KEYRING, 0) < 0:
        raise _failed("keyctl")


def sethostname(name: str) -> None:
    """sethostname(2), for the UTS namespace of the caller."""
    data = name.encode()
    if _sethostname(data, len(data)):
        raise _failed("sethostname")


def set_controlling_terminal(fd: int) -> None:
    """Make the terminal `fd` that of the caller's session (TIOCSCTTY, tty_ioctl(4)); the caller leads the session."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
