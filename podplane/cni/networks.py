"""The folder where container engines look for networks: podplane's own there, those of others that come first, and what others chain to it.

    10-podplane.conflist              engines take the first file by its name, and run its plugins one after the other
    05-other.conflist                 comes before: refused, or, when somebody said so, moved aside ──► 05-other.conflist.podplane-saved
    plugins behind ours in our file   others' (a service mesh adds its own): they stay, whatever becomes of our entry

Each file is written beside its place and renamed: an engine sees the old one or the new one, whatever ends this halfway. Nothing of
others is deleted; what was moved aside has a suffix that engines pass over, and is put back by `put_back`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from podplane.cni.plugin.build import NAME
from podplane.model import plain_files

CONFLIST = "10-podplane.conflist"
SUFFIXES = (".conf", ".conflist", ".json")
"""Of files that engines read (libcni, ConfFiles)."""
SAVED = ".podplane-saved"
"""The suffix of what was moved aside."""
UNFINISHED = ".podplane-unfinished-"
"""The beginning of the names of files that are being written."""
CAPABILITIES = ("portMappings", "bandwidth", "ips", "mac")


class InstallError(Exception):
    """What can't be done, why, and what to do. It goes to the API, which takes no names that are no UTF-8 as they are."""

    def __str__(self) -> str:
        return super().__str__().encode(errors="backslashreplace").decode()


def entry() -> dict[str, Any]:
    """Our plugin, in the list of plugins."""
    return {"type": NAME, "capabilities": dict.fromkeys(CAPABILITIES, True)}


def configuration() -> bytes:
    """The network as an engine is told of it. containerd 1.6 knows its version; newer engines take the newest that they know."""
    network = {"cniVersion": "1.0.0", "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"], "name": "podplane"}
    return msgspec.json.format(msgspec.json.encode({**network, "plugins": [entry()]}), indent=2) + b"\n"


def configure(conf_dir: Path, *, replace: bool = False) -> list[str]:
    """Write the configuration, unless somebody has changed it for a network of podplane's own; a line about each file. InstallError, before
    anything is changed, when an engine would take another network, which `replace` moves aside."""
    check_free(conf_dir, replace=replace)
    conf_dir.mkdir(parents=True, exist_ok=True)
    path = conf_dir / CONFLIST
    done = [_moved_aside(path)] if _is_anothers(path) else []
    return [*done, _configured(path), *map(_moved_aside, list(_before_ours(conf_dir)) if replace else [])]


def _configured(path: Path) -> str:
    """Write it, unless it has an entry of ours already: what others have chained to that stays."""
    plugins = _network(path).get("plugins", [])
    own = [one for one in plugins if one["type"] == NAME]
    if any(one != entry() for one in own):
        return f"kept {path}: it is not as it would be written; remove it to have it written anew"
    others = [str(one["type"]) for one in plugins if one["type"] != NAME]
    if not own or not others:
        return written(path, configuration(), 0o644, "the network's configuration")
    return f"kept {path}: it is current, with {', '.join(others)} beside {NAME}, which others have added"


def check_free(conf_dir: Path, *, replace: bool) -> None:
    """InstallError when an engine would take another network, and it is not to be moved aside, or can't be."""
    own = conf_dir / CONFLIST
    before = list(_before_ours(conf_dir))
    if replace:
        for path in (*before, *([own] if _is_anothers(own) else [])):
            if (saved := _saved(path)).exists() and not _are_alike(saved, path):
                raise InstallError(
                    f"{path} came back, and is not what {saved} has: end what writes it, and move one of both away"
                )
        return
    if before:
        raise InstallError(
            f"{before[0]} comes before {CONFLIST}, and engines take the first network: move it away, or have it moved aside (--replace)"
        )
    if _is_anothers(own):
        raise InstallError(f"{own} is another network's: move it away, or have it moved aside (--replace)")


def _saved(path: Path) -> Path:
    return path.with_name(f"{path.name}{SAVED}")


def _are_alike(one: Path, other: Path) -> bool:
    try:
        return plain_files.has(one, plain_files.read(other))
    except OSError:
        return False


def _moved_aside(path: Path) -> str:
    path.rename(_saved(path))
    return f"moved {path} aside, to {_saved(path).name}"


def put_back(conf_dir: Path) -> list[str]:
    """What was moved aside is where it was, unless another one is there by now; a line about each file."""
    done = []
    for saved in sorted(conf_dir.glob(f"*{SAVED}")):
        path = saved.with_name(saved.name.removesuffix(SAVED))
        if path.exists():
            done.append(f"kept {saved}: {path} is there again")
        else:
            saved.rename(path)
            done.append(f"put {path} back")
    return done


def written(path: Path, content: bytes, mode: int, kind: str) -> str:
    """Write a file, unless it is so; a line about it."""
    if plain_files.has(path, content) and _mode(path) == mode:
        return f"{path} is current"
    _write(path, content, mode)
    return f"wrote {path}, {kind}"


def _mode(path: Path) -> int:
    """0 when it has gone meanwhile."""
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return 0


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is there as a whole or not at all. OSError names the file."""
    clean(path.parent)
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


def clean(folder: Path) -> None:
    """Remove what an installation left that was ended halfway."""
    for path in folder.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _before_ours(conf_dir: Path) -> Iterator[Path]:
    """The configurations that an engine would take before podplane's."""
    paths = (path for path in conf_dir.glob("*") if path.is_symlink() or not path.is_dir())
    names = sorted(path.name for path in paths if path.suffix in SUFFIXES)
    yield from (conf_dir / name for name in names if name < CONFLIST)


def own_configuration(conf_dir: Path) -> Path | None:
    """The configuration of this folder, if it is podplane's."""
    path = conf_dir / CONFLIST
    return path if path.is_file() and names_our_plugin(path) else None


def names_our_plugin(path: Path) -> bool:
    """Is it a configuration with our plugin?"""
    return NAME in _types(path)


def _is_anothers(path: Path) -> bool:
    """Is it a whole configuration without our plugin? Half of one is nobody's."""
    return path.exists() and bool(types := _types(path)) and NAME not in types


def _types(path: Path) -> list[str]:
    return [str(plugin["type"]) for plugin in _network(path).get("plugins", [])]


def _network(path: Path) -> dict[str, Any]:
    """A configuration whose plugins have types; nothing when it makes no sense, or is not there."""
    try:
        network = msgspec.json.decode(plain_files.read(path))
        return network if all(plugin["type"] for plugin in network["plugins"]) else {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
