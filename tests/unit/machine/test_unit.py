"""The systemd unit of an agent."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from podplane.machine.unit import quoted, unit


def test_it_starts_the_agent_with_its_options_and_keeps_its_folder() -> None:
    lines = unit(
        ["/opt/podplane/bin/python", "-m", "podplane", "agent", "--node-name", "a b", "--config", "50%"], "/run/podplane/"
    )
    assert 'ExecStart=/opt/podplane/bin/python -m podplane agent --node-name "a b" --config "50%%"' in lines.splitlines()
    for line in (
        "Type=notify",
        "WatchdogSec=30s",
        "RuntimeDirectory=podplane",
        "RuntimeDirectoryPreserve=yes",
        "Restart=always",
        "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW",
        "FileDescriptorStoreMax=16384",
    ):
        assert line in lines.splitlines()


def test_the_manager_knows_what_it_is_told(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    path = tmp_path / "podplane-agent.service"
    path.write_text(unit(["/bin/true", "$a b%"], "/run/pod plane", "/etc/cni/net.d"))
    done = subprocess.run([program, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    assert "podplane-agent.service:" not in done.stderr


WORDS = {
    "/etc/podplane/kubeconfig": "/etc/podplane/kubeconfig",
    "": '""',
    "a b": '"a b"',
    "it's": '"it\'s"',
    'say "x"': r'"say \"x\""',
    "back\\slash": r'"back\\slash"',
    "50%": '"50%%"',
    "$HOME": '"$$HOME"',
    ";": '";"',
    "two\nlines": r'"two\nlines"',
    "ü": '"ü"',
}


@pytest.mark.parametrize(("word", "expected"), WORDS.items())
def test_words_are_quoted_as_systemd_reads_them(word: str, expected: str) -> None:
    assert quoted(word) == expected


def test_a_program_has_no_variables() -> None:
    lines = unit(["/opt/$x 1/python", "$x"], "/run/a $x %n").splitlines()
    assert 'ExecStart="/opt/$x 1/python" "$$x"' in lines
    assert 'RuntimeDirectory="a $x %%n"' in lines


def test_it_may_write_to_the_folder_of_networks_where_it_is_to() -> None:
    assert "ReadWritePaths=-/etc/cni/net.d" in unit(["true"], "/run/podplane", "/etc/cni/net.d").splitlines()
    assert "ReadWritePaths" not in unit(["true"], "/run/podplane")


def test_a_folder_with_a_colon_is_refused() -> None:
    with pytest.raises(ValueError, match="/run/a:b has a colon in its name"):
        unit(["true"], "/run/a:b")


@pytest.mark.parametrize("folder", ["/var/lib/podplane", "/run/", "/run", "run/podplane", "/run/../etc"])
def test_a_folder_that_would_survive_a_reboot_is_refused(folder: str) -> None:
    with pytest.raises(ValueError, match="is not below /run"):
        unit(["true"], folder)
