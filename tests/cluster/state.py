"""What a machine's network is, and the files that podplane writes, by programs of the host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from podplane.cni.install import BIN_DIR, CONF_DIR
from tests.engines.machine import Machine

STATE = {
    "links": ("ip", "-details", "-oneline", "link"),
    "addresses": ("ip", "-oneline", "address"),
    "routes": ("ip", "-details", "route", "show", "table", "all"),
    "routes of IPv6": ("ip", "-6", "-details", "route", "show", "table", "all"),
    "rules": ("ip", "rule"),
    "rules of IPv6": ("ip", "-6", "rule"),
    "permanent neighbours": ("ip", "neigh", "show", "nud", "permanent"),
    "tables": ("nft", "list", "ruleset"),
    "sockets": ("ss", "-H", "-l", "-n", "-t", "-u"),
    "mounts": ("sh", "-c", "grep -E ' /(run/netns|var/run/netns|run/podplane|opt/cni|etc/cni)/' /proc/self/mountinfo || true"),
    "sysctls": ("sysctl", "--all", "--pattern", r"^net\."),
}
"""What is compared, and what shows it."""
OF_ITSELF = re.compile(
    r"(valid_lft|preferred_lft|expires|age|nf_conntrack_count|dentry|tcp_mem|udp_mem)\W+\S+|packets \d+ bytes \d+"
)
"""What changes while nobody does anything."""


def state_of(machine: Machine) -> Mapping[str, list[str]]:
    found = {what: sorted(OF_ITSELF.sub("", machine(*words)).splitlines()) for what, words in STATE.items()}
    folders = (machine.path(one) for one in (BIN_DIR, CONF_DIR, "/run/podplane"))
    return found | {"files": sorted(str(file) for one in folders for file in Path(one).rglob("*"))}


def differences(before: Mapping[str, list[str]], machine: Machine) -> dict[str, set[str]]:
    """What is otherwise on a machine."""
    after = state_of(machine)
    return {what: set(before[what]) ^ set(after[what]) for what in after if before[what] != after[what]}
