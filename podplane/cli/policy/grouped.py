"""One name for pods that fare alike. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence


def group_names(groups: Sequence[Sequence[str]]) -> list[str]:
    """One name for pods that fare alike: `shop/web-* (3 pods)`, if that means no others."""
    return [_group_name(group, (path for other in groups if other is not group for path in other)) for group in groups]


def _group_name(paths: Sequence[str], others: Iterable[str]) -> str:
    if len(paths) == 1:
        return paths[0]
    common = os.path.commonprefix(list(paths))  # noqa: RUF071 - characters are meant
    if "-" in common.partition("/")[2]:
        beginning = common[: common.rindex("-") + 1]
        if not any(path.startswith(beginning) for path in others):
            return f"{beginning}* ({len(paths)} pods)"
    return f"{paths[0]} and {len(paths) - 1:,} more"
