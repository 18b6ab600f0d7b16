"""What all benches share: commands of a lab with state of its own, quiet between runs, medians, rows of a table."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.judging import ABSOLUTE, is_kept, must_here
from podplane.kubeapi.http import HttpClient
from podplane.lab.folder import Folder

PODPLANE = [sys.executable, "-m", "podplane"]
QUIET_MILLISECONDS, QUIET_TRIES = 15.0, 60


@dataclass
class Row:
    """One line of the result: what was measured, what it must be on the reference machine, and every sample. `unit` goes with both.

    `work` says which machine factor fits the must (see `judging`). `factor` is that one, measured in the same run, and `steady` says
    whether it stayed the same meanwhile. `floor` is what the kernel alone takes for the same, where that can be measured, and
    `floor_must` the most that the figure may be of it.
    """

    what: str
    samples: list[float]
    unit: str = "s"
    must: float | None = None
    at_least: bool = False
    note: str = ""
    extra: dict[str, list[float]] = field(default_factory=dict)
    work: str = ABSOLUTE
    factor: float = 1.0
    steady: bool = True
    floor: list[float] = field(default_factory=list)
    floor_must: float | None = None

    @property
    def value(self) -> float:
        """The median."""
        return median(self.samples)

    @property
    def must_here(self) -> float | None:
        """What it must be on this machine."""
        return None if self.must is None else must_here(self.must, self.factor, self.at_least)

    @property
    def floor_ratio(self) -> float | None:
        """How many times as long as the kernel alone, by medians."""
        return self.value / median(self.floor) if self.floor else None

    @property
    def verdict(self) -> str:
        """Whether it is all that it must be; "unsure" when it is by a factor that changed meanwhile; nothing where nothing is promised."""
        kept = [] if self.must is None else [is_kept(self.value, self.must, self.factor, self.at_least)]
        if self.floor_must is not None:
            kept.append(self.floor_ratio is not None and self.floor_ratio <= self.floor_must)
        if not kept:
            return ""
        if not all(kept):
            return "no"
        return "yes" if self.steady or self.work == ABSOLUTE else "unsure"


class Lab:
    """A lab for one bench, gone with it."""

    def __init__(self, name: str = "bench") -> None:
        self.name = name
        self._home = tempfile.TemporaryDirectory(prefix="podplane-bench-")
        os.environ["XDG_STATE_HOME"] = self._home.name
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users have bytecode, from the second start on
        os.environ["PODPLANE_LAB"] = name

    def __call__(self, *words: str) -> str:
        """Run a command; its output. CalledProcessError when it fails."""
        done = subprocess.run([*PODPLANE, *words], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(f"podplane {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def timed(self, *words: str) -> float:
        """Seconds of a command, from start to exit."""
        began = time.monotonic()
        self(*words)
        return time.monotonic() - began

    @property
    def api(self) -> HttpClient:
        """A client."""
        return HttpClient(Folder(self.name).access())

    @property
    def peak_megabytes(self) -> float:
        """Peak memory of the lab's process."""
        pid = Folder(self.name).holder()
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) / 1024

    def close(self) -> None:
        """Stop and forget."""
        subprocess.run([*PODPLANE, "down", "--all", "--purge"], capture_output=True, timeout=60)
        self._home.cleanup()


@contextlib.contextmanager
def lab(name: str = "bench") -> Iterator[Lab]:
    """A lab's commands; it is gone afterwards, whatever happens."""
    made = Lab(name)
    try:
        yield made
    finally:
        made.close()


def quiet() -> None:
    """Wait until the kernel has cleaned up the namespaces of what ran before: new ones are quick again."""
    good = 0
    for _ in range(QUIET_TRIES):
        began = time.monotonic()
        subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True)
        good = good + 1 if (time.monotonic() - began) * 1000 < QUIET_MILLISECONDS else 0
        if good >= 3:
            return
        time.sleep(0.25)
