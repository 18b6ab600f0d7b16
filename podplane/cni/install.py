"""Puts the plugin where container engines look for it, and takes it away again.

    bin-dir    podplane-cni, and loopback where there is none     first, so that a configuration never names what is not there
    conf-dir   10-podplane.conflist                               last: a node is ready for pods as soon as an engine sees it

Each file is written beside its place and renamed: an engine sees the old one or the new one, whatever ends this halfway. What is not
podplane's stays as it is: a plugin is known by a text in it, the configuration by the plugin that it names (`networks`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from podplane.cni.networks import CONFLIST, check_free, clean, configure, names_our_plugin, put_back, written
from podplane.cni.plugin.build import FOLDER, NAME

BIN_DIR, CONF_DIR = "/opt/cni/bin", "/etc/cni/net.d"
LOOPBACK = "loopback"
SCRIPT = "podplane_cni.py"
MARK = b"podplane-cni is a CNI plugin"
"""In each of the programs."""


def install(bin_dir: Path, conf_dir: Path | None, *, replace: bool = False) -> list[str]:
    """Install; a line about each file. Without `conf_dir` the programs alone. InstallError, before anything is changed, when an engine
    would take another network, which `replace` moves aside."""
    if conf_dir is not None:
        check_free(conf_dir, replace=replace)
    bin_dir.mkdir(parents=True, exist_ok=True)
    program, kind = _program()
    done = [written(bin_dir / NAME, program, 0o755, kind)]
    if not (bin_dir / LOOPBACK).exists() or _is_ours(bin_dir / LOOPBACK):
        done.append(written(bin_dir / LOOPBACK, program, 0o755, kind))
    else:
        done.append(f"kept {bin_dir / LOOPBACK}: it is another's, and does the same")
    return [*done, *(configure(conf_dir, replace=replace) if conf_dir is not None else [])]


def uninstall(bin_dir: Path, conf_dir: Path) -> list[str]:
    """Remove what is podplane's, and put back what it moved aside; a line about each file."""
    done = []
    files = [(conf_dir / CONFLIST, names_our_plugin), (bin_dir / NAME, _is_ours), (bin_dir / LOOPBACK, _is_ours)]
    for path, is_ours in files:
        if not path.exists():
            continue
        if is_ours(path):
            path.unlink()
            done.append(f"removed {path}")
        else:
            done.append(f"kept {path}: it is another's")
    done += put_back(conf_dir)
    for folder in {bin_dir, conf_dir}:
        clean(folder)
    return done or ["nothing of podplane's is there"]


def _program() -> tuple[bytes, str]:
    """The program, and what it is in words: the one that was built with the package, else the script, for this interpreter."""
    try:
        return (FOLDER / NAME).read_bytes(), "a static program"
    except FileNotFoundError:
        _, _, script = (FOLDER / SCRIPT).read_bytes().partition(b"\n")
        kind = "a Python script, slower to start: no C compiler was at hand when podplane was built"
        return f"#!{sys.executable} -ISB\n".encode() + script, kind


def _is_ours(path: Path) -> bool:
    return path.is_file() and MARK in path.read_bytes()


def is_ours(path: Path) -> bool:
    """Is this file a program or a configuration of podplane's? OSError when it can't be read."""
    return _is_ours(path) if path.name in (NAME, LOOPBACK) else path.name == CONFLIST and names_our_plugin(path)
