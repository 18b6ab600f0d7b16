"""An image made on the spot: one static program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from podplane.cni.plugin import build
from tools.image import oci
from tools.image.layer import EXECUTABLE, Layer

NAME = "localhost/podplane-probe:1"
PROGRAM = "probe"
SOURCE = Path(__file__).with_name("probe.c")


def compiled(folder: Path) -> Path:
    """The program; the test is left out where no compiler links it statically."""
    target, problem = folder / PROGRAM, "there is none"
    for command in build.compilers():
        if "-static" in command:
            done = subprocess.run([*command, "-Os", "-s", "-o", target, SOURCE], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return target
            problem = done.stderr.strip()
    pytest.skip(f"a C compiler that links statically is needed (gcc and libc6-dev): {problem}")


def archive(program: Path, machine: str) -> Path:
    """An archive beside the program, with an image of it alone, for machines of this kind (`platform.machine()`)."""
    layer = Layer()
    layer.put(f"/{PROGRAM}", program.read_bytes(), EXECUTABLE)
    target = program.with_suffix(".tar")
    oci.write(target, NAME, machine, {"Entrypoint": [f"/{PROGRAM}"], "Cmd": ["pause"]}, [layer.tar()])
    return target
