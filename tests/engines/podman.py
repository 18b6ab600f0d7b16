"""podman on the machine, with its CNI back end."""

from __future__ import annotations

import json
from typing import Any

from tests.engines import image
from tests.engines.conftest import Site

NEEDED = {"podman": "podman", "conmon": "conmon", "runc": "runc"}
"""Programs, and Debian's packages of them."""
CONFIG = """
[network]
network_backend = "cni"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[containers]
log_driver = "k8s-file"
"""
"""There is no systemd on the machine, which would be asked to make control groups and to keep events and logs."""


class Podman:
    """podman; each call is a command."""

    def __init__(self, site: Site) -> None:
        self._machine = site.machine
        config = site.machine.logs / "containers.conf"
        config.write_text(CONFIG)
        self._command = ("env", f"CONTAINERS_CONF={config}", "podman")
        self("load", "--quiet", "--input", str(site.archive))

    def __call__(self, *words: str, code: int | None = 0) -> str:
        """What a command prints."""
        return self._machine(*self._command, *words, code=code)

    def run(self, name: str, *options: str, words: tuple[str, ...] = ("serve", "8080")) -> str:
        """A container in the network `podplane` that runs our program with these words; its id."""
        own = ("--name", name, "--network", "podplane", "--cgroup-parent", self._machine.group)
        return self("run", "--detach", *own, *options, image.NAME, *words).strip()

    def ips(self, name: str) -> list[str]:
        """Its addresses, as podman tells them."""
        network: dict[str, Any] = json.loads(self("inspect", name))[0]["NetworkSettings"]["Networks"]["podplane"]
        return [network["IPAddress"], network["GlobalIPv6Address"]]

    def ask(self, name: str, ip: str, port: int = 8080) -> str:
        """What a server tells the container."""
        return self("exec", name, f"/{image.PROGRAM}", "ask", ip, str(port), "5").strip()
