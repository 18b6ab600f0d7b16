"""Another version of podplane's image: the same layers, and one more with the module that says the version."""

from __future__ import annotations

import gzip
import json
import platform
import tarfile
from pathlib import Path
from typing import Any

from tools.image import __main__ as podplane_image
from tools.image import oci
from tools.image.interpreter import compile_
from tools.image.layer import Layer
from tools.image.packages import SITE

MODULE = f"{SITE}/podplane/__init__.py"


def write_other(archive: Path, target: Path, name: str, version: str) -> None:
    """Write it to `target`, made of an `archive` of this version."""
    source = f'"""podplane."""\n\n__version__ = "{version}"\n'.encode()
    layer = Layer()
    layer.put(MODULE, source)
    compile_(layer, MODULE, source)
    oci.write(target, name, platform.machine(), podplane_image.config(), [*_tars(archive), layer.tar()], level=1)


def _tars(archive: Path) -> list[bytes]:
    with tarfile.open(archive) as found:

        def blob(descriptor: dict[str, Any]) -> bytes:
            file = found.extractfile(f"blobs/{descriptor['digest'].replace(':', '/')}")
            assert file is not None
            return file.read()

        index = found.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]))
        return [gzip.decompress(blob(one)) for one in manifest["layers"]]
