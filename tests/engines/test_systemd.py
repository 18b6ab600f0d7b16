"""The agent of a node as systemd runs it by its unit: what that forbids it does no harm, and sockets of pods outlive its restarts."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.cni.install import BIN_DIR
from podplane.machine.unit import NAME
from tests.e2e.conftest import until
from tests.engines.conftest import NODE, PODPLANE, Site
from tests.engines.machine import GROUPS, Machine, needing

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("engines"),
    needing({"/lib/systemd/systemd": "systemd", "systemctl": "systemd"}),
    pytest.mark.skipif(
        not (GROUPS / "systemd").is_dir(), reason="control groups of version 1 are needed, with a hierarchy of systemd's"
    ),
]
UNITS = "/run/test-units"
BOOT = f"""
echo $$ > {GROUPS}/systemd$1/cgroup.procs
exec unshare --cgroup --mount --propagation slave --pid --fork --mount-proc --kill-child sh -euc '
    mount -t tmpfs tmpfs {GROUPS}
    mkdir {GROUPS}/systemd
    mount -t cgroup -o none,name=systemd cgroup {GROUPS}/systemd
    exec env -i PATH=$PATH container=test SYSTEMD_UNIT_PATH={UNITS} SYSTEMD_GENERATOR_PATH={UNITS}/none \\
        /lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=no'
"""
TARGET = f"[Unit]\nDefaultDependencies=no\nWants={NAME}\n"


class Systemd:
    """A service manager of the machine, with the agent's unit and no other."""

    def __init__(self, machine: Machine, unit: str) -> None:
        folder = Path(machine.path(UNITS))
        (folder / f"{NAME}.d").mkdir(parents=True)
        (folder / NAME).write_text(unit)
        (folder / f"{NAME}.d" / "test.conf").write_text("[Unit]\nDefaultDependencies=no\n")  # there are no others to depend on
        (folder / "test.target").write_text(TARGET)
        self._program = machine.start("sh", "-euc", BOOT, "sh", machine.group)

    def _pid(self) -> int:
        """The manager's, on the host: its parent is `unshare`, which was started by `nsenter`."""
        return int(Path(f"/proc/{self._program.pid}/task/{self._program.pid}/children").read_text())

    def __call__(self, *words: str) -> str:
        """What systemctl says."""
        entered = ["nsenter", "--target", str(self._pid()), "--all", "--", "systemctl", *words]
        done = subprocess.run(entered, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"systemctl {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def shown(self, name: str) -> str:
        """A property of the agent's service."""
        return self("show", NAME, "--property", name, "--value")

    def close(self) -> None:
        """It ends with all that it runs."""
        self._program.end(signal.SIGKILL)


@pytest.fixture
def systemd(site: Site) -> Iterator[Systemd]:
    files = [f"--{name}={site.machine.logs / name}" for name in ("kubeconfig", "config")]
    site.agent.end(signal.SIGTERM)
    manager = Systemd(site.machine, site.machine(*PODPLANE, "agent", *files, "--node-name", NODE, "unit"))
    yield manager
    manager.close()
    site.start_agent()


def call(site: Site, verb: str, container: str) -> str:
    """A call of the plugin for a container that is no pod."""
    names = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_NETNS": f"/run/netns/{container}"}
    words = ["env", *(f"{name}={value}" for name, value in names.items()), f"{BIN_DIR}/podplane-cni"]
    return site.machine(*words, stdin=json.dumps({"cniVersion": "1.0.0", "name": "podplane", "type": "podplane-cni"}))


def test_pods_are_repaired_after_restarts_without_a_right_to_enter_them(site: Site, systemd: Systemd) -> None:
    until(lambda: site.status() == "")
    site.machine("ip", "netns", "add", "alone")
    call(site, "ADD", "alone")
    until(lambda: systemd.shown("NFileDescriptorStore") == "3")
    for words in (("restart", NAME), ("kill", "--signal=KILL", "--kill-who=main", NAME)):
        agent = systemd.shown("MainPID")
        systemd(*words)
        until(lambda former=agent: systemd.shown("MainPID") not in ("0", former) and site.status() == "")
        assert systemd.shown("NFileDescriptorStore") == "3"
        site.machine("ip", "netns", "exec", "alone", "ip", "link", "set", "eth0", "down")
        until(lambda: "default via" in site.machine("ip", "netns", "exec", "alone", "ip", "route"))
    call(site, "DEL", "alone")
    until(lambda: systemd.shown("NFileDescriptorStore") == "0")
    site.machine("ip", "netns", "del", "alone")
