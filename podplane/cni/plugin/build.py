"""Builds `podplane-cni` of its C sources, where a compiler is at hand. Standard library only: the build of the package runs this file.

The program is linked statically, as it starts in a fifth of the time so: with musl where it is there, else with the compiler's own library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
NAME = "podplane-cni"
SOURCES = ("podplane-cni.c", "loopback.c", "journal.c")
OPTIONS = ("-std=c11", "-Os", "-Wall", "-s")
SECONDS = 60
"""A compiler that takes longer is given up."""


def build(target: Path) -> str:
    """Make the program there; the reason, in words, why there is none, or "". What was there is replaced at once or not at all."""
    made = target.with_name(f".{target.name}.{os.getpid()}")
    reasons = []
    try:
        for command in compilers():
            sources = [str(FOLDER / name) for name in SOURCES]
            problem = _run([*command, *OPTIONS, "-o", str(made), *sources])
            if not problem:
                made.chmod(0o755)
                made.replace(target)
                return ""
            reasons.append(problem)
    finally:
        made.unlink(missing_ok=True)
    return reasons[-1] if reasons else "there is no C compiler (musl-gcc, cc or what CC names)"


def compilers() -> Iterator[list[str]]:
    """Compilers that are there, with the options that link statically where that may work, best first."""
    named = os.environ.get("CC", "").split()
    own = [named] if named else [["musl-gcc"], ["cc"], ["gcc"], ["clang"]]
    present = [command for command in own if shutil.which(command[0])]
    yield from ([*command, "-static"] for command in present)
    yield from present


def _run(command: list[str]) -> str:
    """Run a compiler; why it failed, or ""."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"{command[0]}: {lines[-1]}"
