"""podman on the machine, with its CNI back end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import until
from tests.engines import image
from tests.engines.conftest import Site
from tests.engines.machine import Program

NEEDED = {"podman": "podman", "conmon": "conmon", "runc": "runc"}
"""Programs, and Debian's packages of them."""
SERVE = ("serve", "8080")
CONFIG = """
[network]
network_backend = "cni"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[containers]
log_driver = "k8s-file"
apparmor_profile = "unconfined"
"""
"""There is no systemd on the machine, which would be asked to make control groups and to keep events and logs."""


class Podman:
    """podman; each call is a command."""

    def __init__(self, site: Site) -> None:
        self._machine = site.machine
        config = site.machine.logs / "containers.conf"
        config.write_text(CONFIG)
        self._command = ("env", f"CONTAINERS_CONF={config}", "podman")
        if self("info", "--format", "{{.Host.NetworkBackend}}", code=None).strip() != "cni":
            pytest.skip("this podman was built without its CNI back end")
        self("load", "--quiet", "--input", str(site.archive))

    def __call__(self, *words: str, code: int | None = 0) -> str:
        """What a command prints."""
        return self._machine(*self._command, *words, code=code)

    def run(self, name: str, *options: str, words: tuple[str, ...] = SERVE) -> str:
        """A container in the network `podplane` that runs our program with these words; its id. One that serves does so by now."""
        own = ("--name", name, "--network", "podplane", "--cgroup-parent", self._machine.group)
        id_ = self("run", "--detach", *own, *options, image.NAME, *words).strip()
        self.until_it_serves(name, words)
        return id_

    def begin(self, *words: str) -> Program:
        """A command that goes on."""
        return self._machine.start(*self._command, *words)

    def until_it_serves(self, name: str, words: tuple[str, ...] = SERVE) -> None:
        """Wait until a container that is to serve does so."""
        until(lambda: words[0] != "serve" or self.ask(name, "127.0.0.1", code=None))

    def ips(self, name: str) -> list[str]:
        """Its addresses, as podman tells them."""
        network: dict[str, Any] = json.loads(self("inspect", name))[0]["NetworkSettings"]["Networks"]["podplane"]
        return [network["IPAddress"], network["GlobalIPv6Address"]]

    def ask(self, name: str, ip: str, port: int = 8080, code: int | None = 0) -> str:
        """What a server tells the container."""
        return self("exec", name, f"/{image.PROGRAM}", "ask", ip, str(port), "5", code=code).strip()
