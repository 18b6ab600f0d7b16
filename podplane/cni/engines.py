"""Where container engines of this machine look for plugins and networks, as far as their configuration says otherwise than by default."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CONTAINERD = Path("/etc/containerd/config.toml")
PLUGINS = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""What has containerd's settings of networks: in version 2 of its configuration, and in version 3, of containerd 2."""


def notes(bin_dir: Path, conf_dir: Path, containerd: Path | None = None) -> list[str]:
    """Why containerd would not find what is installed in these folders, and what to do; nothing when it would, or is not there."""
    path = containerd or CONTAINERD
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError):  # no configuration, or none that containerd would take
        return []
    return list(_notes(found, bin_dir, conf_dir, path))


def _notes(found: Mapping[str, Any], bin_dir: Path, conf_dir: Path, containerd: Path) -> Iterator[str]:
    for cni in (_table(found, "plugins", name, "cni") for name in PLUGINS):
        bins, confs = _folders(cni, "bin_dirs", "bin_dir"), _folders(cni, "conf_dir")
        wanted = []
        if bins and bin_dir not in bins:
            wanted.append(("--bin-dir", bins[0]))
        if confs and conf_dir not in confs:
            wanted.append(("--conf-dir", confs[0]))
        if wanted:
            options = " ".join(f"{option} {shlex.quote(os.fspath(folder))}" for option, folder in wanted)
            yield f"containerd looks elsewhere, says {containerd}: `podplane cni install {options}`"


def _table(found: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A table within others; an empty one when it is none."""
    for name in names:
        inner = found.get(name)
        if not isinstance(inner, Mapping):
            return {}
        found = inner
    return found


def _folders(table: Mapping[str, Any], *names: str) -> list[Path]:
    """The folders of a setting that is one or several, by the first of its names that says any."""
    for name in names:
        value = table.get(name)
        several = value if isinstance(value, list) else [value]
        if folders := [Path(one) for one in several if isinstance(one, str) and one]:
            return folders
    return []
