"""podplane and its dependencies, as they are installed where this runs, in a virtual environment of the image."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement

import podplane
from podplane.cni.plugin import build
from tools.image.interpreter import UNUSED, compile_
from tools.image.layer import EXECUTABLE, PLAIN, Layer

NAME = "podplane"
HOME = "/opt/podplane"
SITE = f"{HOME}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
KEPT = ("METADATA", "entry_points.txt")
"""What the image says of podplane as an installed package."""


def environment(layer: Layer, interpreter: Path) -> None:
    """An empty virtual environment (PEP 405)."""
    layer.put(f"{HOME}/pyvenv.cfg", f"home = {interpreter.parent}\ninclude-system-site-packages = false\n".encode())
    layer.link(f"{HOME}/bin/python", str(interpreter))


def dependencies() -> list[Distribution]:
    """The distributions that podplane needs, and those that they need; in the order of their names."""
    found: dict[str, Distribution] = {}
    left = [NAME]
    while left:
        for requirement in map(Requirement, importlib.metadata.distribution(left.pop()).requires or ()):
            if requirement.name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found[requirement.name] = importlib.metadata.distribution(requirement.name)
                left.append(requirement.name)
    return [found[name] for name in sorted(found)]


def add_dependencies(layer: Layer) -> list[Path]:
    """Add them; where their files are on this machine."""
    sources = []
    for distribution in dependencies():
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and _is_used(source):
                _put(layer, f"{SITE}/{file}", source)
                sources.append(source)
    return sources


def add_podplane(layer: Layer) -> None:
    """Add podplane's sources, the plugin, and its command."""
    folder = Path(podplane.__path__[0])
    for source in sorted(_files(folder)):
        _put(layer, f"{SITE}/{NAME}/{source.relative_to(folder)}", source)
    distribution = importlib.metadata.distribution(NAME)
    for name in KEPT:
        text = distribution.read_text(name) or ""
        layer.put(f"{SITE}/{NAME}-{distribution.version}.dist-info/{name}", text.encode())
    command = f"#!{HOME}/bin/python\nfrom podplane.cli.main import main\n\nmain()\n"
    layer.put(f"{HOME}/bin/{NAME}", command.encode(), EXECUTABLE)


def build_plugin() -> str:
    """Build the CNI plugin where its sources are; why that can't be done, "" when it is there."""
    return build.build(build.FOLDER / build.NAME)


def _files(folder: Path) -> Iterator[Path]:
    return (one for one in folder.rglob("*") if one.is_file() and _is_used(one))


def _is_used(source: Path) -> bool:
    return source.is_file() and source.suffix not in UNUSED and "tests" not in source.parts[-3:-1]


def _put(layer: Layer, path: str, source: Path) -> None:
    content = source.read_bytes()
    layer.put(path, content, EXECUTABLE if source.stat().st_mode & 0o100 else PLAIN)
    if source.suffix == ".py":
        compile_(layer, path, content)
