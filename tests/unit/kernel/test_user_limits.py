"""Shares of limits: of none, of few, of many."""

from __future__ import annotations

import io
import os
import resource
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel import releases, user_limits
from podplane.kernel.user_limits import part

NONE = resource.RLIM_INFINITY


@pytest.mark.parametrize(("whole", "found"), [(NONE, NONE), (0, 0), (1, 1), (3, 1), (4, 1), (128, 32), (2**63, 2**61)])
def test_a_quarter(whole: int, found: int) -> None:
    assert part(whole, Fraction(1, 4)) == found


@given(st.integers(0, 2**63), st.fractions(0, 1))
def test_a_share_is_never_more_and_never_nothing_of_something(whole: int, share: Fraction) -> None:
    assert min(whole, 1) <= part(whole, share) <= whole


@pytest.mark.parametrize(
    ("soft", "hard", "found"),
    [(1000, 4000, (1000, 3000)), (4000, 4000, (3000, 3000)), (1000, NONE, (1000, NONE)), (NONE, NONE, (NONE, NONE))],
)
def test_limits_of_a_process(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, found: tuple[int, int]) -> None:
    set_: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", set_.__setitem__)
    user_limits.of_process()
    assert set_[resource.RLIMIT_NOFILE] == found


@pytest.mark.parametrize(
    ("pattern", "goes"), [("core\n", False), ("/var/crash/%p\n", False), ("|/usr/lib/x %P\n", True), (None, False)]
)
def test_no_program_of_the_machine_gets_a_pods_core(monkeypatch: pytest.MonkeyPatch, pattern: str | None, goes: bool) -> None:
    def read(_: str) -> io.StringIO:
        if pattern is None:
            raise FileNotFoundError
        return io.StringIO(pattern)

    set_: dict[int, tuple[int, int]] = {}
    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", set_.__setitem__)
        patch.setattr("builtins.open", read)
        user_limits.dumps_go_to_a_program.cache_clear()
        user_limits.of_process()
        user_limits.dumps_go_to_a_program.cache_clear()
    assert set_.get(resource.RLIMIT_CORE) == ((1, 1) if goes else None)


@pytest.mark.parametrize(
    ("release", "bounded"), [("5.10.0-1", False), ("5.14.0", True), ("6.13.7", True), ("6.14.0-rc1", False)]
)
def test_processes_of_a_user_are_bounded_where_those_of_a_namespace_are_not(
    monkeypatch: pytest.MonkeyPatch, release: str, bounded: bool
) -> None:
    set_: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "setrlimit", set_.__setitem__)
    monkeypatch.setattr(releases, "limits_processes", lambda: releases.is_linux(releases.PID_MAX_PER_NAMESPACE))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "m", release, "", "x86_64")))
    user_limits.of_process()
    assert (set_.get(resource.RLIMIT_NPROC) == (4096, 4096)) is bounded


@pytest.mark.parametrize("has_own_user", [True, False])
def test_a_lab_leaves_its_user_a_quarter_unless_it_has_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch, has_own_user: bool
) -> None:
    set_: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (400, 800))
    monkeypatch.setattr(resource, "setrlimit", set_.__setitem__)
    user_limits.of_lab(has_own_user=has_own_user)
    queues = resource.RLIMIT_MSGQUEUE
    assert set_ == ({queues: (1600, 1600)} if has_own_user else dict.fromkeys(user_limits.RESOURCES_OF_LAB, (300, 600)))


def test_root_that_may_raise_nothing_has_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    user_limits.of_lab(has_own_user=True)
