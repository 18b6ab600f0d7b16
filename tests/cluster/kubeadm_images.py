"""The images that kubeadm wants, under the names that it has for them, made of programs of the PATH."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.cluster.rig import path
from tests.engines import image
from tools.image import interpreter, oci
from tools.image.layer import EXECUTABLE, Layer

NO_COMPRESSION = 0
"""They go nowhere else."""
BIN = "/usr/local/bin"
OF_ALL = {"pause", "kube-proxy", "coredns"}
OWN_COMMAND = {"coredns": {"Entrypoint": [f"{BIN}/coredns"]}, "pause": {"Entrypoint": [f"/{image.PROGRAM}", "pause"]}}
"""Where the pod has no command."""
TOOLS = {"kube-proxy": ("nft",)}
"""What a program starts."""


class Archives(NamedTuple):
    """Those for all nodes, and those for the control plane alone."""

    of_all: list[Path]
    of_control_plane: list[Path]


def version() -> str:
    """kubeadm's."""
    return subprocess.run(
        [path("kubeadm"), "version", "--output=short"], capture_output=True, text=True, check=True
    ).stdout.strip()


def has_new_etcd() -> bool:
    """Does etcd know the options that kubeadm has it started with?"""
    said = subprocess.run([path("etcd"), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"etcd Version: (\d+)\.(\d+)", said)
    return found is not None and tuple(map(int, found.groups())) >= (3, 6)


def names() -> Iterable[str]:
    """Those of all images, as kubeadm lists them without asking anybody."""
    words = [path("kubeadm"), "config", "images", "list", f"--kubernetes-version={version()}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def program_of(name: str) -> str:
    """`registry.k8s.io/coredns/coredns:v1` has coredns in it."""
    return name.rpartition("/")[2].partition(":")[0]


def written(folder: Path, program: Path) -> Archives:
    """The archives, in a folder; `program` is that of `tests.engines.image`, which pauses."""
    made = Archives([], [])
    for name in names():
        what = program_of(name)
        target = folder / f"{what}.tar"
        oci.write(target, name, platform.machine(), OWN_COMMAND.get(what, {}), [_layer(what, program).tar()], NO_COMPRESSION)
        (made.of_all if what in OF_ALL else made.of_control_plane).append(target)
    return made


def _layer(what: str, program: Path) -> Layer:
    layer = Layer()
    if what == "pause":
        layer.put(f"/{image.PROGRAM}", program.read_bytes(), EXECUTABLE)
        return layer
    layer.put(f"{BIN}/{what}", Path(path(what)).read_bytes(), EXECUTABLE)
    layer.folder("/tmp", 0o1777)
    for tool in TOOLS.get(what, ()):
        layer.copy(Path(path(tool)))
    interpreter.add_libraries(layer, [Path(path(one)) for one in (what, *TOOLS.get(what, ()))])
    return layer
