"""One agent in a network namespace, and who may keep it from starting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from podplane.cli.cni import cni
from podplane.machine import alone as module
from podplane.machine.alone import agent_here, alone
from podplane.machine.errors import MachineError

pytestmark = pytest.mark.kernel


def beside(function: Callable[[], None]) -> int:
    """Run it in a child; its exit status."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        function()
    except MachineError as error:
        os._exit(1 if f"(process {os.getppid()})" in str(error) and f"`kill {os.getppid()}`" in str(error) else 2)
    except BaseException:
        os._exit(3)
    os._exit(0)


def enter() -> None:
    with alone():
        pass


def test_a_second_agent_of_a_namespace_is_refused_until_the_first_one_ends() -> None:
    with alone():
        assert beside(enter) == 1
    assert beside(enter) == 0


def test_another_user_keeps_no_agent_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    with alone():
        monkeypatch.setattr(module, "_user", lambda pid: 4711)
        assert beside(enter) == 0


def test_the_agent_of_this_namespace_is_found_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent_here() == 0
    with alone():
        assert agent_here() == os.getpid()
        monkeypatch.setattr(module, "_user", lambda pid: 4711)
        assert agent_here() == 0


def test_who_removes_the_plugin_beside_an_agent_is_warned(tmp_path: Path) -> None:
    words = ["uninstall", "--bin-dir", str(tmp_path), "--conf-dir", str(tmp_path)]
    with alone():
        said = CliRunner().invoke(cni, words).output
    assert f"warning: an agent runs here (process {os.getpid()}), and pods of this node hang in" in said
    assert "warning" not in CliRunner().invoke(cni, words).output
