"""Debian's kernel for virtual machines, and what runs it: packages that are there, or are fetched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

META = "linux-image-cloud-amd64"
"""The package that depends on the newest kernel."""
PACKAGES = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static"}
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")
"""In Debian 13 and later, of the package virtiofsd; before."""


class Missing(Exception):
    """Something is not on this machine, and can't be had; one line that says what."""


class Kernel(NamedTuple):
    """Its image, its version, and the folder of its modules by version."""

    image: Path
    version: str
    modules: Path


def cache() -> Path:
    """Where kernels are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "podplane" / "vm"


def program(name: str) -> str:
    """Where a program is. Missing, with the package to install."""
    if (found := shutil.which(name)) is None:
        raise Missing(f"{name} is missing: install {PACKAGES[name]}")
    return found


def virtiofsd() -> str:
    """Where it is. Missing when it is nowhere."""
    for path in VIRTIOFSD:
        if os.path.exists(path):
            return path
    raise Missing("virtiofsd is missing: install it, or qemu-system-common of Debian 12")


def kernel() -> Kernel:
    """The newest that is kept, or else that of the distribution, which is fetched. Missing when that can't be."""
    kept = sorted((path for path in cache().glob("*") if (path / "lib/modules").is_dir()), key=lambda path: _number(path.name))
    return _in(kept[-1] if kept else fetch())


def fetch() -> Path:
    """Fetch the package, and unpack it in the cache: nothing is installed."""
    said = _run("apt-cache", "depends", META)
    found = re.search(r"Depends: (linux-image-\S+)", said)
    if found is None:
        raise Missing(f"the package lists know no {META}: run `apt-get update`")
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix=".new-") as draft:
        _run("apt-get", "download", "-q", found[1], folder=draft)
        (package,) = Path(draft).glob("*.deb")
        whole = Path(draft, "whole")
        _run("dpkg-deb", "--extract", str(package), str(whole))
        version = next((whole / "lib/modules").iterdir()).name
        _run(program("busybox"), "depmod", "-b", str(whole), version)
        place = cache() / version
        if not place.exists():
            whole.rename(place)
    return place


def _in(place: Path) -> Kernel:
    folder = place / "lib/modules"
    version = next(folder.iterdir()).name
    return Kernel(place / "boot" / f"vmlinuz-{version}", version, folder)


def _number(version: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", version)]


def _run(*words: str, folder: str | None = None) -> str:
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise Missing(f"{words[0]} is missing") from None
    except subprocess.CalledProcessError as error:
        raise Missing(f"`{' '.join(words)}` failed: {error.stderr.strip().splitlines()[-1:]}") from None
    return done.stdout
