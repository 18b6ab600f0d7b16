"""How much the containers of a pod may write: all of it lies in memory, on file systems that have a size. Pure, but for that of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from podplane.model import quantity
from podplane.model.pod import Container, Pod, Volume

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
"""Bytes of this machine."""
USUAL = MEMORY // 8
"""What a container may write outside of its volumes, and a pod in all its emptyDirs that say no size."""
MOST = MEMORY // 2
"""What it may write where its pod says how much."""
STORAGE = "ephemeral-storage"
HUGE = "HugePages"
"""How the media of emptyDirs begin that a lab doesn't have."""


def layer(container: Container) -> int:
    """Bytes that a container may write outside of its volumes."""
    asked = amount(container.resources.get("limits", {}).get(STORAGE))
    return min(asked, MOST) or USUAL


def amount(text: str | int | None) -> int:
    """Whole bytes of a quantity, 0 for none."""
    return int(quantity.parse(text)) if text else 0


def sized(pod: Pod) -> dict[str, int]:
    """Bytes of those emptyDirs that have a size of their own; together a pod's may not have more than `MOST`. The others share `USUAL`."""
    found: dict[str, int] = {}
    for volume in empty_dirs(pod):
        asked = _asked(volume)
        if 0 < asked <= MOST - sum(found.values()):
            found[volume.name] = asked
    return found


def empty_dirs(pod: Pod) -> Sequence[Volume]:
    """Its emptyDirs."""
    return [volume for volume in pod.spec.volumes if volume.empty_dir is not None]


def _asked(volume: Volume) -> int:
    return amount(volume.empty_dir.size_limit) if volume.empty_dir is not None else 0


def not_applied(pod: Pod) -> Iterator[str]:
    """What it limits that has another bound, a sentence each."""
    own = sized(pod)
    for volume in empty_dirs(pod):
        if _asked(volume) and volume.name not in own:
            limit = volume.empty_dir.size_limit if volume.empty_dir is not None else ""
            yield (
                f"volume {volume.name}: sizeLimit {limit} is not applied: all of a pod's may be {mebibytes(MOST)}, half of the memory; "
                f"this one has {mebibytes(USUAL)} with those that say none"
            )
    for container in pod.spec.all_containers:
        limit = container.resources.get("limits", {}).get(STORAGE)
        if amount(limit) > MOST:
            yield f"container {container.name}: a limit of {STORAGE} of {limit} is not applied: it is {mebibytes(MOST)}, half of the memory"


def mebibytes(size: int) -> str:
    """As a quantity, in whole MiB."""
    return f"{size >> 20}Mi"
