"""Sampling mutants: which are chosen, what mutmut is told, what its words mean."""

from __future__ import annotations

import os
import re
import signal
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools import mutants

NAMES = st.sets(st.text("abcdef.", min_size=1, max_size=8), max_size=30)


@given(NAMES, st.integers(0, 40), st.integers())
def test_a_sample_is_a_part_of_what_it_is_taken_from(names: set[str], count: int, seed: int) -> None:
    chosen = mutants.sample(names, count, seed)
    assert set(chosen) <= names
    assert len(chosen) == len(set(chosen)) == min(count, len(names))


@given(NAMES, st.integers(0, 40), st.integers(), st.randoms())
def test_the_same_seed_chooses_the_same_in_whatever_order_names_come(names: set[str], count: int, seed: int, random) -> None:  # type: ignore[no-untyped-def]  # hypothesis' own
    shuffled = list(names)
    random.shuffle(shuffled)
    assert mutants.sample(shuffled, count, seed) == mutants.sample(names, count, seed)


def test_another_seed_chooses_others() -> None:
    names = [f"m{number}" for number in range(1000)]
    assert mutants.sample(names, 10, 1) != mutants.sample(names, 10, 2)


def test_results_are_read_line_by_line() -> None:
    text = "    podplane.ipam.pool.x_take__mutmut_1: survived\n    podplane.ipam.pool.xǁRingǁnext__mutmut_2: no tests\n\n"
    assert mutants.statuses(text) == {
        "podplane.ipam.pool.x_take__mutmut_1": "survived",
        "podplane.ipam.pool.xǁRingǁnext__mutmut_2": "no tests",
    }
    assert mutants.statuses("") == {}


def test_settings_are_toml_that_names_the_packages_and_tests() -> None:
    found = tomllib.loads(mutants.settings(["state", "agent"], ["tests/unit/state"]))["tool"]["mutmut"]
    assert found["only_mutate"] == ["podplane/state/*", "podplane/agent/*"]
    assert found["pytest_add_cli_args_test_selection"] == ["tests/unit/state"]
    assert found["timeout_multiplier"] == mutants.TIME_LIMIT
    (left_out,) = found["do_not_mutate_patterns"]
    assert re.search(left_out, "            case nft.Lookup(dreg=-1):")
    assert not re.search(left_out, "            case nft.Lookup(dreg=1):")
    assert not re.search(left_out, "    return call(dreg=-1)")


def test_packages_and_tests_are_there() -> None:
    assert all((mutants.ROOT / "podplane" / name).is_dir() for name in mutants.PACKAGES)
    assert all((mutants.ROOT / "tests" / "unit" / name).is_dir() for name in mutants.TESTS)


def test_a_copy_has_the_tree_and_the_settings(tmp_path: Path) -> None:
    mutants.copy(tmp_path, ["ipam"])
    assert {path.name for path in tmp_path.iterdir()} == set(mutants.COPIED)
    assert not list(tmp_path.rglob("__pycache__"))
    source = Path("podplane/ipam/pool.py")
    assert (tmp_path / source).read_bytes() == (mutants.ROOT / source).read_bytes()
    tool = tomllib.loads((tmp_path / "pyproject.toml").read_text())["tool"]
    assert tool["mutmut"]["only_mutate"] == ["podplane/ipam/*"]
    assert tool["pytest"]  # what was there stays


def test_the_summary_counts_what_was_chosen_only() -> None:
    found = {"a": "killed", "b": "survived", "c": "killed", "d": "not checked"}
    assert mutants.summary(["a", "b", "c"], found, 4, 7) == "3 of 4 mutants (seed 7): 2 killed, 1 survived"


class Scripted(mutants.Mutmut):
    """mutmut, with results that a test gives."""

    def __init__(self, folder: Path, results: str) -> None:
        super().__init__(folder)
        self.results = results
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *words: str) -> str:
        self.asked.append(words)
        return self.results if words[0] == "results" else "1 failed"


def test_tests_that_fail_as_they_are_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="1 failed"):
        Scripted(tmp_path, "    a: not checked").make()


def test_mutants_are_listed_once_it_is_known_which_tests_reach_them(tmp_path: Path) -> None:
    (tmp_path / "mutants").mkdir()
    (tmp_path / "mutants" / "mutmut-stats.json").touch()
    assert Scripted(tmp_path, "    a: not checked\n    b: not checked").make() == {"a": "not checked", "b": "not checked"}
    with pytest.raises(RuntimeError):
        Scripted(tmp_path, "").make()


def test_only_the_chosen_are_run_and_none_is_left_out(tmp_path: Path) -> None:
    mutmut = Scripted(tmp_path, "    a: killed\n    b: not checked")
    assert mutmut.run(["a"], 2)["a"] == "killed"
    assert mutmut.asked[0] == ("run", "--max-children", "2", "a")
    with pytest.raises(RuntimeError, match="did not try"):
        mutmut.run(["a", "b"], 2)


def test_what_mutmut_says_is_read_from_both_outputs_in_its_folder(tmp_path: Path) -> None:
    mutmut = mutants.Mutmut(tmp_path, ("sh", "-c", 'pwd; echo "$0 $1" >&2'))
    assert mutmut("run", "a") == f"{tmp_path}\nrun a\n"


def test_an_interrupt_ends_mutmut_and_its_children(tmp_path: Path) -> None:
    """The stand-in interrupts the caller once its own child holds the pipe; the pipe ends when that child is gone."""
    read, write = os.pipe()
    script = 'import os, signal, subprocess; child = subprocess.Popen(["sleep", "1000"], pass_fds=[WRITE]); '
    script += "os.kill(os.getppid(), signal.SIGINT); child.wait()"
    os.set_inheritable(write, True)
    program = (sys.executable, "-c", f"import os; WRITE = os.open('/proc/%d/fd/{write}' % os.getppid(), os.O_WRONLY); {script}")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what is in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            mutants.Mutmut(tmp_path, program)("run")
    finally:
        signal.signal(signal.SIGINT, before)
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
