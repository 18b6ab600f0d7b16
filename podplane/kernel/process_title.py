"""What `ps` and /proc show of a process: its command line, its environment and its name, for a fork that became another program.

execve(2) puts them where the kernel finds them. A fork without it shows those of its parent, so it says where its own are:
prctl(2), PR_SET_MM_MAP, which needs no privilege and a kernel with CONFIG_CHECKPOINT_RESTORE, as those of the distributions are.
Without that, they are written over the old ones, as far as there is room (setproctitle(3) does so).
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping, Sequence

PR_SET_NAME, PR_SET_MM, PR_SET_MM_MAP = 15, 35, 14
"""Of linux/prctl.h."""
NAME_BYTES = 15
"""TASK_COMM_LEN without the NUL."""
NO_FILE = 0xFFFF_FFFF
FIELDS = {
    "start_code": 26,
    "end_code": 27,
    "start_data": 45,
    "end_data": 46,
    "start_brk": 47,
    "start_stack": 28,
}
"""Numbers of fields of /proc/PID/stat (proc_pid_stat(5)); they stay as they are."""
ARG_START, ENV_END = 48, 51


class _Map(ctypes.Structure):
    """struct prctl_mm_map."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk")),
        *((name, ctypes.c_uint64) for name in ("start_stack", "arg_start", "arg_end", "env_start", "env_end", "auxv")),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    ]


_libc = ctypes.CDLL(None, use_errno=True)
_prctl, _sbrk = _libc.prctl, _libc.sbrk
_sbrk.restype = ctypes.c_void_p
_shown: list[bytearray | ctypes.c_char] = []
"""What the kernel reads from now on: it must stay where it is."""


def show(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Let this process be seen with these words, these variables, and the first word's last part as its name."""
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    _prctl(PR_SET_NAME, os.fsencode(os.path.basename(argv[0]))[:NAME_BYTES], 0, 0, 0)
    if not point_to(words, variables):
        write_over(words)


def point_to(words: bytes, variables: bytes) -> bool:
    """Let the kernel read these; False when it doesn't do that."""
    fields = layout_of_process()
    args, env = bytearray(words) or bytearray(1), bytearray(variables) or bytearray(1)
    shown = [
        ctypes.c_char.from_buffer(args),
        ctypes.c_char.from_buffer(env),
    ]  # no array: that would be a new type for each length
    arg_start, env_start = map(ctypes.addressof, shown)
    layout = _Map(
        **{name: fields[number] for name, number in FIELDS.items()},
        brk=_sbrk(0),
        arg_start=arg_start,
        arg_end=arg_start + len(words),
        env_start=env_start,
        env_end=env_start + len(variables),
        exe_fd=NO_FILE,
    )
    if _prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.byref(layout), ctypes.sizeof(layout), 0):
        return False
    _shown[:] = [args, env, *shown]
    return True


def write_over(words: bytes) -> None:
    """Write these where execve(2) put the words of the parent, and nothing where the rest of its words and variables were."""
    fields = layout_of_process()
    start, end = fields[ARG_START], fields[ENV_END]
    data = words[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, data, len(data))


@functools.cache
def layout_of_process() -> dict[int, int]:
    """The numeric fields of /proc/self/stat, by number. Those that are used here are the same in a fork, so the zygote reads them."""
    with open("/proc/self/stat", "rb") as file:
        words = file.read().rpartition(b")")[2].split()
    return {number: int(word) for number, word in enumerate(words[1:], 4)}
