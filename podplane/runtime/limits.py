"""How much the containers of a pod may write: all of it lies in memory, on file systems that have a size. Pure, but for that of memory."""

from __future__ import annotations

import os

from podplane.model import quantity
from podplane.model.pod import Container

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
"""Bytes of this machine."""
USUAL = MEMORY // 8
"""What a container may write outside of its volumes, and a pod in all its emptyDirs that say no size."""
MOST = MEMORY // 2
"""What it may write where its pod says how much."""
STORAGE = "ephemeral-storage"


def layer(container: Container) -> int:
    """Bytes that a container may write outside of its volumes."""
    asked = amount(container.resources.get("limits", {}).get(STORAGE))
    return min(asked, MOST) or USUAL


def amount(text: str | int | None) -> int:
    """Whole bytes of a quantity, 0 for none."""
    return int(quantity.parse(text)) if text else 0
