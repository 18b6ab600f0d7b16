"""The two programs that engines may run as podplane-cni: the C program, built for the tests, and the script."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import msgspec
import pytest

from podplane.cni.plugin import build

SCRIPT = build.FOLDER / "podplane_cni.py"
PROGRAMS = ("c", "python")


class Ended(NamedTuple):
    """How a program ended."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def output(self) -> Any:
        """What it printed, decoded; None when it printed nothing."""
        return msgspec.json.decode(self.stdout) if self.stdout else None


@cache
def _built() -> tuple[Path, str]:
    target = Path(mkdtemp(prefix="podplane-cni-")) / "podplane-cni"
    return target, build.build(target)


def words_of(program: str, folder: Path, name: str = "podplane-cni") -> list[str]:
    """The command of one of the programs by a name; the test is left out where there is no C compiler."""
    if program == "python":
        link = folder / name
        if not link.exists():
            link.symlink_to(SCRIPT)
        return [sys.executable, "-ISB", str(link)]
    target, problem = _built()
    if problem:
        pytest.skip(f"the C program can't be built: {problem}")
    link = folder / name
    if not link.exists():
        link.symlink_to(target)
    return [str(link)]


def clean() -> None:
    """Remove what was built."""
    if _built.cache_info().currsize:
        target, _ = _built()
        target.unlink(missing_ok=True)
        target.parent.rmdir()
        _built.cache_clear()


async def run(words: list[str], stdin: bytes, **env: str) -> Ended:
    """Run a program with this environment, and nothing else of the test's."""
    pipe = asyncio.subprocess.PIPE
    variables = {name: os.environ[name] for name in ("PATH",) if name in os.environ} | env
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe, env=variables)
    stdout, stderr = await process.communicate(stdin)
    return Ended(process.returncode or 0, stdout, stderr)
