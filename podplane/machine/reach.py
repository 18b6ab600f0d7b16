"""Which files root may read that has no capability for it (CAP_DAC_OVERRIDE): those that are its own, or everybody's."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path


def unreadable(paths: Iterable[str]) -> Iterator[str]:
    """Those of these files that it can't read, and what keeps it from that: `/home/a/config: /home/a is user 1000's alone`."""
    for path in paths:
        whole = Path(path).resolve()
        for one in (*reversed(whole.parents), whole):
            try:
                found = one.stat()
            except OSError as error:
                yield f"{path}: {error.strerror}"
                break
            if not _may(found.st_mode, found.st_uid, found.st_gid):
                yield f"{path}: {one} is user {found.st_uid}'s alone"
                break


def _may(mode: int, user: int, group: int) -> bool:
    """May user and group 0 pass a folder, or read a file?"""
    wanted = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
    shift = 6 if user == 0 else 3 if group == 0 else 0
    return bool(mode & wanted << shift)
