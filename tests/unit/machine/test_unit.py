"""The systemd unit of an agent."""

from __future__ import annotations

import pytest

from podplane.machine.unit import unit


def test_it_starts_the_agent_with_its_options_and_keeps_its_folder() -> None:
    lines = unit(
        ["/opt/podplane/bin/python", "-m", "podplane", "agent", "--node-name", "a b", "--config", "50%"], "/run/podplane/"
    )
    assert "ExecStart=/opt/podplane/bin/python -m podplane agent --node-name 'a b' --config 50%%" in lines.splitlines()
    for line in (
        "Type=notify",
        "WatchdogSec=30s",
        "RuntimeDirectory=podplane",
        "RuntimeDirectoryPreserve=yes",
        "Restart=always",
    ):
        assert line in lines.splitlines()


@pytest.mark.parametrize("folder", ["/var/lib/podplane", "/run/", "/run", "run/podplane", "/run/../etc"])
def test_a_folder_that_would_survive_a_reboot_is_refused(folder: str) -> None:
    with pytest.raises(ValueError, match="is not below /run"):
        unit(["true"], folder)
