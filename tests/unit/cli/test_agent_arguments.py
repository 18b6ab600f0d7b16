"""Arguments of `agent` that can't be are refused before anything is waited for, or written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from podplane.cli.agent import agent
from podplane.machine.errors import MachineError


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--node-name", "Bad Name!"], "'Bad Name!' can be the name of no Node"),
        (["--run-dir", "relative"], "run_dir: 'relative' is no absolute path"),
    ],
)
@pytest.mark.parametrize("command", [[], ["unit"]])
def test_it_names_what_can_not_be(tmp_path: Path, options: list[str], why: str, command: list[str]) -> None:
    done = CliRunner().invoke(agent, ["--kubeconfig", str(tmp_path / "none"), *options, *command])
    assert isinstance(done.exception, MachineError) and why in str(done.exception)


def test_a_run_dir_that_is_relative_is_not_uninstalled() -> None:
    done = CliRunner().invoke(agent, ["--run-dir", "relative", "uninstall"])
    assert isinstance(done.exception, MachineError) and "run_dir: 'relative' is no absolute path" in str(done.exception)
