"""Another version of podplane's image: the same layers, and one more with modules that are otherwise.

It has another number, and the sets of its table for Services have comments. The kernel can't change a set: it is a table of another shape.
"""

from __future__ import annotations

import gzip
import json
import platform
import tarfile
from pathlib import Path
from typing import Any

import podplane
from tools.image import __main__ as podplane_image
from tools.image import oci
from tools.image.interpreter import compile_
from tools.image.layer import Layer
from tools.image.packages import SITE

CHANGES = {
    "__init__.py": ('__version__ = "', '__version__ = "9'),
    "services/tables.py": (
        "        rank=RANK.get(kind, 0),\n",
        '        rank=RANK.get(kind, 0),\n        comment="of another version",\n',
    ),
}
"""Modules of podplane, and what becomes what in them."""
VERSION = f"9{podplane.__version__}"


def write_other(archive: Path, target: Path, name: str) -> None:
    """Write it to `target`, made of an `archive` of this version."""
    layer = Layer()
    for module, (old, new) in CHANGES.items():
        text = Path(podplane.__path__[0], module).read_text()
        assert text.count(old) == 1, module
        path, source = f"{SITE}/podplane/{module}", text.replace(old, new).encode()
        layer.put(path, source)
        compile_(layer, path, source)
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
