"""A cluster of two nodes on which podplane is installed as docs/install.md says."""

from __future__ import annotations

import platform
from collections.abc import Iterator

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
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The cluster, with podplane."""
    if missing := rig.missing():
        pytest.skip(f"not on the PATH: {', '.join(missing)}")
    if why := why_not():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("cluster")
    program = image.compiled(folder)
    assert packages.build_plugin() == ""
    own = folder / "podplane.tar"
    podplane_image.write(own, podplane_image.NAME, FASTEST)
    archives = [own, image.archive(program, platform.machine())]
    with rig.up(folder, program, archives, nodes=2) as found:
        installed = Installed(found)
        installed.install()
        yield installed
