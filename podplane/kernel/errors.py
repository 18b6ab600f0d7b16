"""Errors of the kernel door, by the decision that a caller takes on them.

Each is one line: what was tried, why it was refused (the kernel's own words where it gave some), and what to do where
that is known.
"""

from __future__ import annotations

import errno
import os


class KernelError(Exception):
    """The kernel refused an operation; `errno` is its number, 0 when there is none."""

    def __init__(self, operation: str, reason: str, number: int = 0, hint: str = "") -> None:
        self.operation, self.reason, self.errno, self.hint = operation, reason, number, hint
        super().__init__(f"{operation}: {reason}" + (f"; {hint}" if hint else ""))


class NotFound(KernelError):
    """What the operation needs, or was to remove, is not there."""


class Exists(KernelError):
    """What the operation was to create is there already."""


class Retry(KernelError):
    """The kernel is busy or short of memory; the same operation may succeed later."""


class Denied(KernelError):
    """This process may not do that."""


class Unsupported(KernelError):
    """This kernel can't do that, or lacks the module for it."""


KINDS: dict[int, type[KernelError]] = {
    errno.ENOENT: NotFound,
    errno.ENODEV: NotFound,
    errno.ESRCH: NotFound,
    errno.EADDRNOTAVAIL: NotFound,
    errno.ENXIO: NotFound,
    errno.EEXIST: Exists,
    errno.EAGAIN: Retry,
    errno.EBUSY: Retry,
    errno.EINTR: Retry,
    errno.ENOMEM: Retry,
    errno.ENOBUFS: Retry,
    errno.EPERM: Denied,
    errno.EACCES: Denied,
    errno.EOPNOTSUPP: Unsupported,
    errno.EAFNOSUPPORT: Unsupported,
    errno.EPROTONOSUPPORT: Unsupported,
}

HINTS: dict[type[KernelError], str] = {
    Denied: "this needs root in the network namespace's user namespace",
    Unsupported: "this kernel lacks the feature or its module",
}


def from_errno(operation: str, number: int, text: str = "") -> KernelError:
    """The error for this errno; `text` is the kernel's own reason (extended ACK)."""
    kind = KINDS.get(number, KernelError)
    reason = f"{text} ({os.strerror(number)})" if text else os.strerror(number)
    return kind(operation, reason, number, HINTS.get(kind, ""))
