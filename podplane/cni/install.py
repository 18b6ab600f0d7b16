"""Puts the plugin where container engines look for it, and takes it away again.

    bin-dir    podplane-cni, and loopback where there is none     first, so that a configuration never names what is not there
    conf-dir   10-podplane.conflist                               last: a node is ready for pods as soon as an engine sees it

Each file is written beside its place and renamed: an engine sees the old one or the new one, whatever ends this halfway. What is not
podplane's stays as it is: a plugin is known by a text in it, the configuration by the plugin that it names.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from podplane.cni.plugin.build import FOLDER, NAME

BIN_DIR, CONF_DIR = "/opt/cni/bin", "/etc/cni/net.d"
CONFLIST = "10-podplane.conflist"
LOOPBACK = "loopback"
SCRIPT = "podplane_cni.py"
MARK = b"podplane-cni is a CNI plugin"
"""In each of the programs."""
SUFFIXES = (".conf", ".conflist", ".json")
"""Of files that engines read (libcni, ConfFiles)."""
UNFINISHED = ".podplane-unfinished-"
"""The beginning of the names of files that are being written."""
CAPABILITIES = ("portMappings", "bandwidth", "ips", "mac")


class InstallError(Exception):
    """What can't be done, why, and what to do."""


def configuration() -> bytes:
    """The network as an engine is told of it. containerd 1.6 knows its version; newer engines take the newest that they know."""
    plugin = {"type": NAME, "capabilities": dict.fromkeys(CAPABILITIES, True)}
    network = {
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": "podplane",
        "plugins": [plugin],
    }
    return msgspec.json.format(msgspec.json.encode(network), indent=2) + b"\n"


def install(bin_dir: Path, conf_dir: Path | None) -> list[str]:
    """Install; a line about each file. Without `conf_dir` the programs alone. InstallError, before anything is changed, when an engine
    would take another network."""
    if conf_dir is not None:
        _check_free(conf_dir)
    bin_dir.mkdir(parents=True, exist_ok=True)
    program, kind = _program()
    done = [_written(bin_dir / NAME, program, 0o755, kind)]
    if not (bin_dir / LOOPBACK).exists() or _is_ours(bin_dir / LOOPBACK):
        done.append(_written(bin_dir / LOOPBACK, program, 0o755, kind))
    else:
        done.append(f"kept {bin_dir / LOOPBACK}: it is another's, and does the same")
    return [*done, *([configure(conf_dir)] if conf_dir is not None else [])]


def configure(conf_dir: Path) -> str:
    """Write the configuration, unless somebody has changed it for a network of podplane's own; a line about it. InstallError when an engine
    would take another network."""
    _check_free(conf_dir)
    conf_dir.mkdir(parents=True, exist_ok=True)
    path = conf_dir / CONFLIST
    if path.exists() and path.read_bytes() != configuration() and _names_our_plugin(path):
        return f"kept {path}: it is not as it would be written; remove it to have it written anew"
    return _written(path, configuration(), 0o644, "the network's configuration")


def _check_free(conf_dir: Path) -> None:
    if others := list(_before_ours(conf_dir)):
        raise InstallError(f"{others[0]} comes before {CONFLIST}, and engines take the first network: move it away")
    if _is_anothers(conf_dir / CONFLIST):
        raise InstallError(f"{conf_dir / CONFLIST} is another network's: move it away")


def uninstall(bin_dir: Path, conf_dir: Path) -> list[str]:
    """Remove what is podplane's; a line about each file."""
    done = []
    files = [(conf_dir / CONFLIST, _names_our_plugin), (bin_dir / NAME, _is_ours), (bin_dir / LOOPBACK, _is_ours)]
    for path, is_ours in files:
        if not path.exists():
            continue
        if is_ours(path):
            path.unlink()
            done.append(f"removed {path}")
        else:
            done.append(f"kept {path}: it is another's")
    for folder in {bin_dir, conf_dir}:
        _clean(folder)
    return done or ["nothing of podplane's is there"]


def _program() -> tuple[bytes, str]:
    """The program, and what it is in words: the one that was built with the package, else the script, for this interpreter."""
    try:
        return (FOLDER / NAME).read_bytes(), "a static program"
    except FileNotFoundError:
        _, _, script = (FOLDER / SCRIPT).read_bytes().partition(b"\n")
        kind = "a Python script, slower to start: no C compiler was at hand when podplane was built"
        return f"#!{sys.executable} -ISB\n".encode() + script, kind


def _written(path: Path, content: bytes, mode: int, kind: str) -> str:
    if path.exists() and path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode:
        return f"{path} is current"
    _write(path, content, mode)
    return f"wrote {path}, {kind}"


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is there as a whole or not at all. OSError names the file."""
    _clean(path.parent)
    made = path.with_name(f"{UNFINISHED}{path.name}.{os.getpid()}")
    try:
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        made.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            made.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


def _clean(folder: Path) -> None:
    """Remove what an installation left that was ended halfway."""
    for path in folder.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _before_ours(conf_dir: Path) -> Iterator[Path]:
    """The configurations that an engine would take before podplane's."""
    names = sorted(path.name for path in conf_dir.glob("*") if path.suffix in SUFFIXES)
    yield from (conf_dir / name for name in names if name < CONFLIST)


def _is_ours(path: Path) -> bool:
    return path.is_file() and MARK in path.read_bytes()


def own_configuration(conf_dir: Path) -> Path | None:
    """The configuration of this folder, if it is podplane's."""
    path = conf_dir / CONFLIST
    return path if path.is_file() and _names_our_plugin(path) else None


def _names_our_plugin(path: Path) -> bool:
    """Is it a configuration with our plugin?"""
    return NAME in _types(path)


def _is_anothers(path: Path) -> bool:
    """Is it a whole configuration without our plugin? Half of one is nobody's."""
    return path.exists() and bool(types := _types(path)) and NAME not in types


def _types(path: Path) -> list[str]:
    """The plugins of a configuration; none when it makes no sense."""
    try:
        network: Any = msgspec.json.decode(path.read_bytes())
        return [str(plugin["type"]) for plugin in network["plugins"]]
    except (msgspec.DecodeError, LookupError, TypeError, RecursionError):
        return []
