"""The files that images bring along: their program as a file, so that a shell in a container finds it, and agnhost's certificate.

A program of an image is started by the zygote, which is quicker and smaller. The file is for what starts it itself: a shell, `xargs`,
netexec's `/shell`. Python is named in full, because a container may have any PATH.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from podplane.kernel.process_title import show
from podplane.kernel.rootfs import Bind
from podplane.runtime.program_names import AGNHOST_IMAGE, CLIENT_IMAGE

FOLDER = "images"
AGNHOST_FILE, PAUSE_FILE, CERTIFICATE_FILE, KEY_FILE = "agnhost", "pause", "localhost.crt", "localhost.key"
PROGRAM_FILES = {AGNHOST_FILE: AGNHOST_IMAGE, PAUSE_FILE: CLIENT_IMAGE}
ENTRY = "import sys; sys.path[:] = sys.argv[1].split(chr(0x1f)); from podplane.runtime import image_files; image_files.run(sys.argv[2:])"
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)


def prepare(folder: Path, certificate: bytes, key: bytes) -> None:
    """Write the files into the lab's folder: `certificate` and `key` (PEM) are those of localhost."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    for name, program in PROGRAM_FILES.items():
        (place / name).write_text(script(program))
        (place / name).chmod(0o755)
    for name, content in ((CERTIFICATE_FILE, certificate), (KEY_FILE, key)):
        (place / name).write_bytes(content)


def binds(folder: Path, files: Mapping[str, str]) -> list[Bind]:
    """What a container sees of these files, and where."""
    return [Bind(str(folder / FOLDER / name), target, copied=True) for target, name in files.items()]


def script(program: str) -> str:
    """A shell script that is this program; of the length and the blanks of a path, a first line `#!` would take few."""
    words = [sys.executable, "-I", "-S", "-c", ENTRY, chr(0x1F).join(sys.path), program]
    return f'#!/bin/sh\nexec {shlex.join(words)} "$0" "$@"\n'


def run(words: list[str]) -> None:
    """Be the program `words[0]` with the other words, and end with its exit code."""
    from podplane.runtime.programs import PROGRAMS  # here, where they run: a lab needs their names only

    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    show(words[1:], os.environ)
    sys.exit(PROGRAMS[words[0]](words[1:], os.environ, lambda: None))
