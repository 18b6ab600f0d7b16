"""What pods of other ids find in place of files of the machine that only root may read, and that programs need to be there.

Without them a pod could not become another of its users (PAM reads /etc/shadow), add one, or install a package. Nothing of the machine's
own files is in them: passwords are locked, lock files and folders for drafts are empty.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PASSWORDS = {"/etc/shadow": ("/etc/passwd", ":*:::::::"), "/etc/gshadow": ("/etc/group", ":*::")}
"""Files that have a line for each name of another one, and what follows the name (shadow(5), gshadow(5))."""
EMPTY_FILES = (
    "/etc/.pwd.lock",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/etc/shadow-",
    "/var/cache/apt/archives/lock",
    "/var/cache/debconf/passwords.dat",
    "/var/lib/apt/lists/lock",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/triggers/Lock",
)
EMPTY_FOLDERS = ("/var/cache/apt/archives/partial", "/var/cache/ldconfig", "/var/lib/apt/lists/partial")
OPAQUE = "user.overlay.opaque"
"""With it, a folder of an overlay's layer has nothing of the layers below (overlayfs, "userxattr")."""


def write(place: str, owner: int) -> None:
    """Write those that this machine has below `place`, for a user and group; all may read them."""
    for path in (*PASSWORDS, *EMPTY_FILES, *EMPTY_FOLDERS):
        if os.path.lexists(path):
            with contextlib.suppress(OSError):
                _make_above(place, path, owner)
                (_make_folder if path in EMPTY_FOLDERS else _make_file)(place, path, owner)


def _make_above(place: str, path: str, owner: int) -> None:
    for folder in reversed(Path(path).parents[:-1]):
        if not os.path.isdir(f"{place}{folder}"):
            os.mkdir(f"{place}{folder}", 0o755)
            os.chown(f"{place}{folder}", owner, owner)


def _make_folder(place: str, path: str, owner: int) -> None:
    os.mkdir(place + path, 0o755)
    os.setxattr(place + path, OPAQUE, b"y")  # refused by a tmpfs before Linux 6.6: then it is merged, and can't be read
    os.chown(place + path, owner, owner)


def _make_file(place: str, path: str, owner: int) -> None:
    names, rest = PASSWORDS.get(path, ("", ""))
    text = "".join(locked(Path(names).read_text(errors="surrogateescape"), rest)) if names else ""
    Path(place + path).write_text(text, errors="surrogateescape")
    os.chmod(place + path, 0o644)
    os.chown(place + path, owner, owner)


def locked(names: str, rest: str) -> Iterator[str]:
    """A line for each name of a file like passwd(5), whose password is locked."""
    for line in names.splitlines():
        name = line.partition(":")[0]
        if name:
            yield f"{name}{rest}\n"
