"""`podplane agent unit` with files that are there, and that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from podplane.cli import agent as module
from podplane.cli.agent import agent
from podplane.machine.errors import MachineError


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that is usable. Units are written to the folder that it is in."""
    monkeypatch.setattr(module, "UNIT_FOLDER", str(tmp_path))
    path = tmp_path / "kubeconfig"
    content = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "b", "user": "c"}}],
        "clusters": [{"name": "b", "cluster": {"server": "https://192.0.2.1:6443"}}],
        "users": [{"name": "c", "user": {"token": "secret"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def run(kubeconfig: Path, *words: str) -> Result:
    return CliRunner().invoke(agent, ["--kubeconfig", str(kubeconfig), "unit", *words])


def test_a_unit_needs_no_configuration(kubeconfig: Path) -> None:
    done = run(kubeconfig, "--install")
    assert f"{kubeconfig.parent}/podplane-agent.service is written: systemctl daemon-reload" in done.output
    assert f"agent --kubeconfig {kubeconfig}\n" in (kubeconfig.parent / "podplane-agent.service").read_text()


def test_a_unit_that_could_not_start_is_not_installed(kubeconfig: Path) -> None:
    for content, why in ((None, "No such file"), ("[]", "it is no mapping"), ("{}", "has no context")):
        if content is None:
            kubeconfig.unlink()
        else:
            kubeconfig.write_text(content)
        done = run(kubeconfig, "--install")
        assert isinstance(done.exception, MachineError) and why in str(done.exception) and not done.output
        assert not (kubeconfig.parent / "podplane-agent.service").exists()


def test_a_unit_is_printed_for_a_kubeconfig_that_is_to_come(kubeconfig: Path) -> None:
    kubeconfig.unlink()
    done = run(kubeconfig)
    assert done.exit_code == 0 and f"--kubeconfig {kubeconfig}\n" in done.stdout
    assert done.stderr == f"warning: {kubeconfig} is not there, and the agent does not start without it\n"
