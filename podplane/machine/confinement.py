"""What may deny to root what capabilities allow: a security module (AppArmor, SELinux), by the profile or context of this process.

The kernel answers EACCES or EPERM and does not say who refused. So it is said what the process is confined by, and where denials are found.
Source: proc_pid_attr(5); AppArmor and SELinux both show the label of a process there.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable
from pathlib import Path

LABELS = (Path("/proc/self/attr/apparmor/current"), Path("/proc/self/attr/current"))
FREE = ("unconfined", "kernel")
"""Labels of what is not confined."""
DENIALS = frozenset({errno.EACCES, errno.EPERM})


def confined_by(labels: Iterable[Path] = LABELS) -> str:
    """In words, what this process is confined by; "" for nothing that is known."""
    for path in labels:
        with contextlib.suppress(OSError):
            label = path.read_bytes().rstrip(b"\0\n").decode(errors="replace")
            if label and not label.startswith(FREE):
                return f"the SELinux context {label}" if label.count(":") >= 2 else f"the AppArmor profile {label}"
    return ""


def denied(text: str, number: int | None, labels: Iterable[Path] = LABELS) -> str:
    """What was refused with this errno, and who may have refused it, though this is root."""
    if number not in DENIALS:
        return text
    who = confined_by(labels)
    what = f"this process is confined by {who}" if who else "this process is root, so a security module or a mount may be why"
    return f"{text}: {what}: see what was denied (journalctl -k | grep -i denied)"
