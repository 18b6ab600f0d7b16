"""`python -m tools.image FILE [--name NAME]`: see the package."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import podplane
from tools.image import interpreter, oci, packages
from tools.image.layer import LEVEL, Layer

NAME = f"localhost/podplane:{podplane.__version__}"
PATH = f"{packages.HOME}/bin:/usr/local/bin:/usr/bin:/bin"
FOLDERS = {
    "/etc": 0o755,
    "/proc": 0o555,
    "/sys": 0o555,
    "/dev": 0o755,
    "/run": 0o755,
    "/var": 0o755,
    "/root": 0o711,
    "/tmp": 0o1777,
}
"""root's home can be passed by everybody: the interpreter may be in it, and pods of a check are nobody's."""
FILES = {
    "/etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def layers() -> list[Layer]:
    """What Python and podplane's dependencies are, and podplane."""
    base, own = Layer(), Layer()
    for path, mode in FOLDERS.items():
        base.folder(path, mode)
    for path, text in FILES.items():
        base.put(path, text.encode())
    base.link("/var/run", "/run")
    packages.environment(base, interpreter.add(base))
    interpreter.add_libraries(base, packages.add_dependencies(base))
    packages.add_podplane(own)
    return [base, own]


def config() -> dict[str, object]:
    """How a container of the image is started."""
    return {
        "Entrypoint": [f"{packages.HOME}/bin/podplane"],
        "Env": [f"PATH={PATH}", "LANG=C.UTF-8"],
        "WorkingDir": "/",
        "Labels": {
            "org.opencontainers.image.title": "podplane",
            "org.opencontainers.image.version": podplane.__version__,
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    }


def write(target: Path, name: str = NAME, level: int = LEVEL) -> tuple[int, int]:
    """Write the archive: its bytes, compressed at this level of gzip, and unpacked."""
    tars = [layer.tar() for layer in layers()]
    return oci.write(target, name, platform.machine(), config(), tars, level), sum(map(len, tars))


def main(words: list[str]) -> int:
    """Write the archive, and say how large it is: 0, or 1 without a plugin."""
    parser = argparse.ArgumentParser(prog="python -m tools.image", description="Build podplane's image without a registry.")
    parser.add_argument("file", type=Path, help="the archive to write")
    parser.add_argument("--name", default=NAME, help=f"of the image (default {NAME})")
    options = parser.parse_args(words)
    if problem := packages.build_plugin():
        print(f"the image has no CNI plugin: {problem}", file=sys.stderr)
        return 1
    sent, unpacked = write(options.file, options.name)
    print(f"{options.file}: {options.name}, {sent / 1e6:.1f} MB compressed, {unpacked / 1e6:.1f} MB on disk")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
