"""A cluster of two nodes on which podplane is installed as docs/install.md says."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import rig
from tests.cluster.podplane import Installed
from tests.engines import image
from tests.engines.machine import why_not
from tools.image import __main__ as podplane_image
from tools.image import packages

FASTEST = 1
"""Level of compression: the image goes nowhere else."""


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The program of `tests.engines.image`, and archives of all images that nodes have."""
    if missing := rig.missing():
        pytest.skip(f"not on the PATH: {', '.join(missing)}")
    if why := why_not():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("images")
    program = image.compiled(folder)
    assert packages.build_plugin() == ""
    own = folder / "podplane.tar"
    podplane_image.write(own, podplane_image.NAME, FASTEST)
    return program, [own, image.archive(program, platform.machine())]


@pytest.fixture(scope="package")
def cluster(images: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The cluster, with podplane."""
    program, archives = images
    with rig.up(tmp_path_factory.mktemp("cluster"), program, archives, nodes=2) as found:
        installed = Installed(found)
        installed.install()
        yield installed
