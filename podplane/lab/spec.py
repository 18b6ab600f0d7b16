"""What a lab is made of: the settings of `podplane up`, kept in the lab's folder so that it comes back the same."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from podplane.dns.message import Name, is_under, name_of
from podplane.dns.special_names import why_reserved
from podplane.ipam.plan import SECOND, Plan, PlanError, parse_cidrs
from podplane.lab.errors import LabError
from podplane.lab.folder import DEFAULT_NAME, state_home
from podplane.lab.host_paths import allowed_folders
from podplane.model.config import CLUSTER_DOMAIN, HEARTBEAT_SECONDS, NODE_GRACE_SECONDS
from podplane.routes import host_gw, table

DEFAULT_PORT = 6443
IN_PROCESS, PROCESSES = "in-process", "processes"
MAX_SUBNETS = 64
MAX_NODES = 1000
"""A bridge has at most 1,024 ports (BR_MAX_PORTS), and the underlay is one bridge."""
DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
MAX_DOMAIN = 99
"""So that the names of all ports of Services have 253 characters at most: `_<port>._tcp.<service>.<namespace>.svc.<domain>`."""
MIN_GRACE, MAX_GRACE, BEATS = 2, 86_400, 5
"""Seconds for which a node may be silent, and how many heartbeats it sends in them at least."""
OUTSIDE = "203.0.113.0/24,2001:db8:113::/64"
"""The network behind the gateway: documentation ranges (RFC 5737, RFC 3849)."""
OUTSIDE_ZONE = "example.test"
"""The zone that the host there serves."""


class LabSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of one lab. CIDRs are comma-separated, one a family; `port` 0 means the usual one or any free one.

    `agents_over_https`: agents and kubelets reach the API over HTTPS, as on a real cluster, and not by direct calls.
    `agents`: they are parts of the lab's process, or processes of their own, as on real machines, which always reach the API over HTTPS.
    `keep_connections`: those that a change of policies forbids go on. `mount_home`: pods see /home, /root and the user's home.
    `second_nic`: CIDRs of the nodes' eth1, "" for none.
    `node_monitor_grace_period`: seconds without a heartbeat after which a node is NotReady.
    `allow_host_paths`: folders of the machine, comma-separated, that pods get as they are. `allow_host_pid`: pods with `hostPID` see all
    processes of the lab.
    """

    name: str = DEFAULT_NAME
    nodes: int = 3
    cluster_cidr: str = "10.244.0.0/16,fd00:10:244::/48"
    service_cidr: str = "10.96.0.0/16,fd00:10:96::/112"
    backend: str = host_gw.BACKEND.name
    cross_subnet: str = ""
    node_cidr: str = "192.168.1.0/24,fd00:192:168:1::/64"
    subnets: int = 1
    second_nic: str = ""
    node_monitor_grace_period: int = int(NODE_GRACE_SECONDS)
    cluster_domain: str = CLUSTER_DOMAIN
    masquerade_exclude: str = ""
    node_port_addresses: str = ""
    sandbox_only: bool = False
    agents_over_https: bool = False
    agents: str = IN_PROCESS
    keep_connections: bool = False
    mount_home: bool = False
    allow_host_paths: str = ""
    allow_host_pid: bool = False
    port: int = 0

    @property
    def beat_seconds(self) -> float:
        """From one heartbeat of a node to the next: some come within the time for which it may be silent."""
        return min(HEARTBEAT_SECONDS, self.node_monitor_grace_period / BEATS)

    def plan(self) -> Plan:
        """The address plan. PlanError when a CIDR is wrong."""
        return Plan(
            cluster=parse_cidrs(self.cluster_cidr, "cluster CIDR"),
            service=parse_cidrs(self.service_cidr, "service CIDR"),
            node=parse_cidrs(self.node_cidr, "node CIDR"),
            outside=parse_cidrs(OUTSIDE, "network outside"),
            subnets=self.subnets,
            second=parse_cidrs(self.second_nic, SECOND) if self.second_nic else (),
        )

    @property
    def chosen_backend(self) -> str:
        """The name of the backend, with the tunnel between subnets."""
        return table.chosen(self.backend, self.cross_subnet).name

    @property
    def backend_option(self) -> str:
        """How `up` is told of it."""
        return f"--backend {self.backend}" + (f" --cross-subnet {self.cross_subnet}" if self.cross_subnet else "")

    @property
    def host_paths(self) -> tuple[str, ...]:
        """The folders of the machine that pods get as they are. LabError when there is one that they can't get."""
        try:
            return allowed_folders(self.allow_host_paths, os.path.realpath(state_home()))
        except ValueError as error:
            raise LabError(f"--allow-host-paths {error}") from None

    def check(self, pods_per_node: int = 0) -> None:
        """LabError unless this can be built."""
        if not 1 <= self.nodes <= MAX_NODES:
            raise LabError(f"{self.nodes} nodes: a lab has 1 to {MAX_NODES}")
        if not 1 <= self.subnets <= MAX_SUBNETS:
            raise LabError(f"--subnets {self.subnets}: give 1 to {MAX_SUBNETS}")
        if not MIN_GRACE <= self.node_monitor_grace_period <= MAX_GRACE:
            given = f"--node-monitor-grace-period {self.node_monitor_grace_period}"
            raise LabError(f"{given}: give {MIN_GRACE} to {MAX_GRACE:,} seconds")
        if not 0 <= self.port < 65536:
            raise LabError(f"--port {self.port}: give 1 to 65535")
        if not DOMAIN.fullmatch(self.cluster_domain) or len(self.cluster_domain) > MAX_DOMAIN:
            raise LabError(
                f"--cluster-domain {self.cluster_domain}: give a domain like {CLUSTER_DOMAIN}, in lower case, "
                f"of {MAX_DOMAIN} characters at most"
            )
        if why := _why_not_domain(name_of(self.cluster_domain)):
            raise LabError(f"--cluster-domain {self.cluster_domain}: {why}: give a domain like {CLUSTER_DOMAIN}")
        if self.agents not in (IN_PROCESS, PROCESSES):
            raise LabError(f"--agents {self.agents}: give {IN_PROCESS} or {PROCESSES}")
        _ = self.host_paths
        if self.backend not in table.NAMES:
            raise LabError(f"--backend {self.backend}: give {' or '.join(table.NAMES)}")
        try:
            table.chosen(self.backend, self.cross_subnet)
        except ValueError as error:
            raise LabError(f"--cross-subnet {self.cross_subnet}: {error}") from None
        try:
            self.plan().check(self.nodes, pods_per_node)
            for text, what in (
                (self.masquerade_exclude, "CIDR without masquerade"),
                (self.node_port_addresses, "CIDR of node port addresses"),
            ):
                for part in text.split(",") if text else ():
                    parse_cidrs(part, what)
        except PlanError as error:
            raise LabError(str(error)) from None


def changed(old: LabSpec, given: Mapping[str, object]) -> LabSpec:
    """The settings with those that are given. A tunnel between subnets is of the backend that it was given with."""
    other = "backend" in given and given["backend"] != old.backend
    return msgspec.structs.replace(old, **{**({"cross_subnet": ""} if other else {}), **given})


def check_given(given: Mapping[str, object], wanted: LabSpec) -> None:
    """LabError when what `up` was told contradicts a setting of the lab that it makes."""
    if given.get("agents_over_https") is False and wanted.agents == PROCESSES:
        raise LabError(
            f"--agents-direct: agents that are processes (--agents {PROCESSES}) always reach the API over HTTPS: leave it out, "
            f"or add --agents {IN_PROCESS}"
        )


def _why_not_domain(domain: Name) -> str:
    """Why a cluster can't have it; "" when it can. It would hide the names of others."""
    if is_under(name_of(OUTSIDE_ZONE), domain):
        return f"the host outside serves {OUTSIDE_ZONE}"
    return why_reserved(domain)


SWITCHES = {
    "sandbox_only": ("--with-processes", "--sandbox-only"),
    "agents_over_https": ("--agents-direct", "--agents-over-https"),
    "keep_connections": ("--cut-connections", "--keep-connections"),
    "mount_home": ("--hide-home", "--mount-home"),
    "allow_host_pid": ("--refuse-host-pid", "--allow-host-pid"),
}
"""Settings that are on or off: the options of `up` for off and on."""


def option(name: str, value: object) -> str:
    """How `up` is told this value of a setting."""
    if name in SWITCHES:
        return SWITCHES[name][bool(value)]
    flag = "--" + name.replace("_", "-")
    return f"{flag} {value}" if value else f"no {flag}"


def load(path: Path) -> LabSpec | None:
    """The settings in this file; None when there is none. LabError when it can't be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabSpec)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise LabError(f"{path} can't be read ({error}): remove the folder {path.parent} to delete this lab") from None


def save(path: Path, spec: LabSpec) -> None:
    """Write the settings; the file is whole or not there (rename)."""
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n")
    draft.rename(path)
