"""The folders of the machine that pods get as they are, if they ask for them: `--allow-host-paths`."""

from __future__ import annotations

import os

from podplane.kernel.rootfs import is_below


def allowed_folders(text: str, labs: str) -> tuple[str, ...]:
    """The folders of `--allow-host-paths`, comma-separated; `labs` is where labs are. ValueError says what is wrong."""
    found = []
    for path in filter(None, (part.strip() for part in text.split(","))):
        real = os.path.realpath(path)
        if not os.path.isabs(path) or not os.path.isdir(path):
            raise ValueError(f"{path}: give absolute paths of folders that are there")
        if real == "/" or is_below(labs, real) or is_below(real, labs):
            raise ValueError(f"{path}: the keys of labs are in there: give folders beside them")
        found.append(real)
    return tuple(found)
