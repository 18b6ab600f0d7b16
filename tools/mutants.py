"""Do the unit tests notice when the code is wrong? Runs them against a sample of mutants, and shows those that they let live.

    .venv/bin/pip install mutmut
    .venv/bin/python -m tools.mutants [--count 100] [--seed 1] [PACKAGE …]

mutmut makes the mutants (small changes of one function each: another operator, number, argument, …), knows which tests reach which
function, and runs only those, each mutant in a process of its own with a limit of CPU time. What is here is what mutmut does not do: a
sample that a seed names, taken from all mutants of some packages; a copy of the tree to work in, so that the checkout is never changed;
and survivors as diffs. mutmut leaves out what stands outside of functions (tables, fields) and functions with decorators other than
staticmethod and classmethod.

A mutant that no unit test reaches is listed too: only tests of the real kernel, if any, see it. Ends with 1 when a mutant survives.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

PACKAGES = ("state", "agent", "services", "ipam", "kernel")
READ = ("podplane", "bench", "tools", "charts", "deploy", "docs", "examples", "README.md")
"""What tests import and read."""
COPIED = (*READ, "tests", "pyproject.toml")
TESTS = (*PACKAGES, "policy", "cli", "lab", "apiserver/controllers")
"""Folders of tests/unit whose tests reach these packages."""
CHILDREN, COUNT, SEED = 2, 100, 1
TIME_LIMIT = 10.0
"""A mutant's tests may take so many times as long as they take without a mutation."""
NEGATIVE_PATTERN = r"^\s*case .*=-\d"
"""mutmut makes `+1` of a `-1` in a pattern of `match`, which is no Python, and then stops."""
SURVIVED, UNREACHED = "survived", "no tests"
ROOT = Path(__file__).resolve().parents[1]


def settings(packages: Iterable[str], tests: Iterable[str]) -> str:
    """What mutmut reads from pyproject.toml."""
    mutated = ", ".join(f'"podplane/{package}/*"' for package in packages)
    read = ", ".join(f'"{name}"' for name in READ)
    return f"""
[tool.mutmut]
source_paths = ["podplane"]
only_mutate = [{mutated}]
also_copy = [{read}]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = [{", ".join(f'"{path}"' for path in tests)}]
timeout_multiplier = {TIME_LIMIT}
use_git_change_detection = false
do_not_mutate_patterns = ['{NEGATIVE_PATTERN}']
"""


def statuses(text: str) -> dict[str, str]:
    """Mutant → what became of it, from the lines of `mutmut results`."""
    pairs = (line.strip().rpartition(": ") for line in text.splitlines())
    return {name: status for name, _, status in pairs if name}


def sample(names: Iterable[str], count: int, seed: int) -> list[str]:
    """So many of the names, the same for the same seed; all when there are not more."""
    ordered = sorted(names)
    return sorted(random.Random(seed).sample(ordered, min(count, len(ordered))))


def summary(chosen: Sequence[str], found: Mapping[str, str], total: int, seed: int) -> str:
    """One line: how many mutants there are, and what became of those that were tried."""
    counts = Counter(found[name] for name in chosen)
    text = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return f"{len(chosen)} of {total} mutants (seed {seed}): {text}"


def copy(folder: Path, packages: Sequence[str]) -> None:
    """The tree, as it is now, with settings for mutmut."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results.json"))
        else:
            shutil.copy(source, folder / name)
    with (folder / "pyproject.toml").open("a") as file:
        file.write(settings(packages, [f"tests/unit/{name}" for name in TESTS]))


class Mutmut:
    """mutmut in a copy of the tree."""

    def __init__(self, folder: Path, program: Sequence[str] = (sys.executable, "-m", "mutmut")) -> None:
        self._folder = folder
        self._program = program

    def __call__(self, *words: str) -> str:
        """Run a command of mutmut; its output."""
        command = [*self._program, *words]
        out = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=self._folder, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            return process.communicate()[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # its children too: they run the tests
            process.wait()
            raise

    def make(self) -> dict[str, str]:
        """Make all mutants, and run the tests once to learn which reach what. RuntimeError when the tests fail as they are."""
        text = self("run", "no.such.mutant")
        found = statuses(self("results", "--all", "true"))
        if not found or not (self._folder / "mutants" / "mutmut-stats.json").exists():
            raise RuntimeError(f"mutmut could not begin:\n{text[-3000:]}")
        return found

    def run(self, names: Sequence[str], children: int) -> dict[str, str]:
        """Run the tests against these mutants; what became of all."""
        text = self("run", "--max-children", str(children), *names)
        found = statuses(self("results", "--all", "true"))
        if any(found[name] == "not checked" for name in names):
            raise RuntimeError(f"mutmut did not try each mutant:\n{text[-3000:]}")
        return found


def main() -> int:
    """Copy, make, choose, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="how many mutants (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="which ones (%(default)s)")
    parser.add_argument("--children", type=int, default=CHILDREN, help="how many at a time (%(default)s)")
    parser.add_argument("packages", nargs="*", choices=[*PACKAGES, []], metavar="PACKAGE", help=", ".join(PACKAGES))
    options = parser.parse_args()
    if importlib.util.find_spec("mutmut") is None:
        print("mutmut is missing: .venv/bin/pip install mutmut", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy goes and mutmut ends
    with tempfile.TemporaryDirectory(prefix="podplane-mutants-") as folder:
        copy(Path(folder), options.packages or PACKAGES)
        mutmut = Mutmut(Path(folder))
        total = mutmut.make()
        chosen = sample(total, options.count, options.seed)
        found = mutmut.run(chosen, options.children)
        alive = [name for name in chosen if found[name] in (SURVIVED, UNREACHED)]
        for name in sorted(alive, key=lambda name: (found[name], name)):
            print(mutmut("show", name))
        print(summary(chosen, found, len(total), options.seed))
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
