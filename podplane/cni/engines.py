"""Where container engines of this machine look for plugins and networks, as far as their configuration says otherwise than by default."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from podplane.cni.networks import CONFLIST, SUFFIXES

CONTAINERD = Path("/etc/containerd/config.toml")
PLUGINS = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""What has containerd's settings of networks: in version 2 of its configuration, and in version 3, of containerd 2."""


def notes(bin_dir: Path, conf_dir: Path, containerd: Path | None = None) -> list[str]:
    """Why engines would not use what is installed in these folders, and what to do; nothing when they would.

    Of containerd, what its configuration says, if it is there.
    """
    return [*_elsewhere(bin_dir, conf_dir, containerd or CONTAINERD), *_meanwhile(conf_dir)]


def _meanwhile(conf_dir: Path) -> Iterator[str]:
    """The network that engines take as long as podplane's is not there."""
    names = sorted(path.name for path in conf_dir.glob("*") if path.suffix in SUFFIXES)
    if names and CONFLIST not in names:
        what = f"{conf_dir / names[0]} is the first network there, and engines attach pods to it until {CONFLIST} is there, too"
        yield f"{what}: move it away"


def _elsewhere(bin_dir: Path, conf_dir: Path, containerd: Path) -> Iterator[str]:
    try:
        found = tomllib.loads(containerd.read_text())
    except (OSError, ValueError):  # no configuration, or none that containerd would take
        return
    yield from _notes(found, bin_dir, conf_dir, containerd)


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
