"""The configuration file of an agent's process: YAML, and so JSON, too. A key that is unknown is refused.

    node_name: worker-1               default: the machine's host name
    run_dir: /run/podplane
    log_level: warning                debug, info, warning or error
    plugin_path: [/opt/cni/bin, …]    where plugins are that networks of further interfaces name
    sysctl_dir: /proc/sys/net         where sysctls can be set: in a container, another mount of the machine's
    allow_overlaps: [10.0.0.0/8]      networks of the machine that those of pods and Services may overlap (`machine.overlaps`)
    cni_conf_dir: /etc/cni/net.d      where container engines are told of the network once pods can be attached; default: nowhere
    migrate_from: cni0                the bridge of the network that the machine is migrated from; default: there was none
    cni_replace: false                are networks of others that come first there moved aside?
    clean_kube_proxy: false           is what kube-proxy left removed, once it is gone?
    network:                          what all nodes of the cluster have in common; and what is not found on the machine
      cluster_cidrs: [10.244.0.0/16]
      service_cidrs: [10.96.0.0/16]
    services: {…}                     settings of a feature, as `agent.settings` has them

What is left out of `network` is found out: `uplink` and `subnets` on the machine (`machine.uplink`), CIDRs in the cluster
(`machine.cidrs`). `mtu` is the largest packet on the uplink, in bytes: at most, and without it, what the uplink carries (`agent.agent`).
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from podplane.agent import settings
from podplane.agent.settings import Settings, SettingsError
from podplane.kernel.sysctl import NET
from podplane.machine.cidrs import Cidrs, holds, networks
from podplane.machine.errors import MachineError
from podplane.machine.uplink import Uplink
from podplane.model.config import AGENT_PORT, BESIDE_PORT, NAME_SERVER_PORT, STATUS_PORT, NetworkConfig
from podplane.routes.behind import METRIC
from podplane.routes.cluster_settings import KEYS
from podplane.routes.table import chosen
from podplane.state.value import network_of

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
OWN = (
    *("node_name", "run_dir", "log_level", "plugin_path", "sysctl_dir", "cni_conf_dir", "migrate_from"),
    *("cni_replace", "clean_kube_proxy", "allow_overlaps"),
)
PLUGIN_PATH = ("/opt/cni/bin", "/usr/lib/cni")
FOUND_OUT = ("former_backends", "kernel", "uplink_driver", "former_bridge", "route_metric", "left_out")
"""Of `network`: what can't be chosen."""
MTU = range(576, 65537)
PORTS = range(1, 65536)
RUN_DIR = "/run/podplane"
LOOPBACK = "lo"
SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""What the API takes as the name of a Node (RFC 1123, without a limit for a label)."""
NAME = re.compile(r"(?!\.{1,2}\Z)[^/:\s]{1,15}")
"""What the kernel takes as that of a link (dev_valid_name)."""
NO_UPLINK, NO_CIDRS = Uplink("", 1500), Cidrs()


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says. `features` are the parts of `Settings` as they stand there."""

    node_name: str = ""
    run_dir: str = RUN_DIR
    log_level: str = "warning"
    plugin_path: tuple[str, ...] = PLUGIN_PATH
    sysctl_dir: str = NET
    cni_conf_dir: str = ""
    migrate_from: str = ""
    cni_replace: bool = False
    clean_kube_proxy: bool = False
    allow_overlaps: tuple[str, ...] = ()
    features: Mapping[str, Any] = {}

    @property
    def checked_conf_dir(self) -> str:
        """Where no network file of others may sort before podplane's when an agent begins; "" for nowhere: while a machine is
        migrated there is one, and others are moved aside where it is asked for."""
        return "" if self.migrate_from or self.cni_replace else self.cni_conf_dir

    @property
    def folders(self) -> tuple[str, ...]:
        """Those of the machine, beside the run folder, in which podplane has files, or may have."""
        return (*self.plugin_path, *([self.cni_conf_dir] if self.cni_conf_dir else []))

    @property
    def names_cluster(self) -> bool:
        """Does it name the networks of pods?"""
        return bool(self._network.get("cluster_cidrs"))

    @property
    def names_services(self) -> bool:
        """Does it name those of Services? An empty list says that there are none."""
        return "service_cidrs" in self._network

    @property
    def needs_cidrs(self) -> bool:
        """Is there a network of the cluster that it does not name?"""
        return not (self.names_cluster and self.names_services)

    @property
    def agent_port(self) -> int:
        """Where the agent answers over HTTP: the port that it names, else kube-proxy's, or another one beside that."""
        services = self.features.get("services")
        is_beside = isinstance(services, Mapping) and services.get("enabled") is False
        port: int = self._network.get("agent_port", BESIDE_PORT if is_beside else AGENT_PORT)
        return port

    @property
    def _network(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.features.get("network", {})
        return found

    def settings(self, uplink: Uplink, cidrs: Cidrs = NO_CIDRS, *, has_former: bool = False) -> Settings:
        """The agent's, on a machine with this uplink, in a cluster with these networks. `has_former`: the bridge that it is migrated from
        is there. MachineError when they can't be that."""
        found_out = {"cluster_cidrs": cidrs.cluster, "service_cidrs": cidrs.service}
        network = {
            "permanent_neighbours": False,
            "uplink": uplink.name,
            "mtu": MTU[-1],
            "subnets": uplink.subnets,
            "agent_port": self.agent_port,
        } | found_out
        own = {name: value for name, value in self._network.items() if name != "cluster_cidrs" or value}
        try:
            found = settings.decode({**self.features, "network": network | own})
        except SettingsError as error:
            raise MachineError(str(error)) from None
        _check(found.network)
        _check_port(found)
        if not self.migrate_from:
            return found
        former = self.migrate_from if has_former else ""
        migrated = msgspec.structs.replace(found.network, route_metric=METRIC, former_bridge=former)
        return msgspec.structs.replace(found, network=migrated)

    def warnings(self, uplink: Uplink) -> list[str]:
        """What it says that does not fit this uplink."""
        if (mtu := self._network.get("mtu", 0)) <= uplink.mtu:
            return []
        return [f"network.mtu is {mtu}, and the uplink {uplink.name} carries no more than {uplink.mtu}: {uplink.mtu} is taken"]

    def outside(self, blocks: Iterable[str]) -> list[str]:
        """A line for each of the own Node's blocks that the networks it names do not hold: pods there would be taken for strangers."""
        if not self.names_cluster:
            return []
        named = tuple(map(network_of, self._network["cluster_cidrs"]))
        wrong = [one for one in map(network_of, networks(blocks)) if not any(holds(cidr, one) for cidr in named)]
        cidrs = ", ".join(map(str, named))
        return [f"the block {one} of this node is not within network.cluster_cidrs ({cidrs}): correct these" for one in wrong]

    @property
    def has_name_server(self) -> bool:
        """Does the agent start a name server?"""
        dns = self.settings(NO_UPLINK).dns
        return bool(dns.ips) and dns.serve

    def network(self) -> NetworkConfig:
        """What tells podplane's objects in the kernel from others."""
        return self.settings(NO_UPLINK).network


def _check(network: NetworkConfig) -> None:
    """MachineError for what has the right type and can't be, which would be found only where a node is there already."""
    for name in ("cluster_cidrs", "service_cidrs", "subnets"):
        for cidr in getattr(network, name):
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                raise MachineError(f"settings of network.{name}: {error}") from None
    if network.mtu not in MTU:
        raise MachineError(f"settings of network.mtu: {network.mtu} is not within {MTU[0]} and {MTU[-1]}")
    for name, read_text in KEYS.values():
        try:
            read_text(str(getattr(network, name)))
        except ValueError as error:
            raise MachineError(f"settings of network.{name}: {error}") from None
    try:
        chosen(network.backend, network.cross_subnet)
    except ValueError as error:
        raise MachineError(f"settings of network.cross_subnet: {error}") from None
    for name in FOUND_OUT:
        if getattr(network, name):
            raise MachineError(f"settings of network.{name}: that is found out, and can't be chosen")


def _check_port(found: Settings) -> None:
    """MachineError for a port of the agent that something else of the node has."""
    port, proxy = found.network.agent_port, () if found.services.enabled else (AGENT_PORT,)
    if port not in PORTS:
        raise MachineError(f"settings of network.agent_port: {port} is not within {PORTS[0]} and {PORTS[-1]}")
    if port in (STATUS_PORT, *proxy):
        raise MachineError(f"settings of network.agent_port: {port} is kube-proxy's")
    if port == NAME_SERVER_PORT:
        raise MachineError(f"settings of network.agent_port: {port} is the name server's")


def read(path: str) -> Configuration:
    """The configuration in a file; the defaults without one ("" as `path`). MachineError when it can't be that."""
    try:
        return parsed(content_of(Path(path)) if path else {})
    except MachineError as error:
        raise MachineError(f"{path}: {error}" if path else str(error)) from None


def content_of(path: Path) -> object:
    """What a file in YAML says. MachineError when it can't be read."""
    import yaml  # costs a start without a file nothing

    try:
        return yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) or {}
    except OSError as error:
        raise MachineError(f"it can't be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise MachineError(f"it is no YAML: {error}") from None


def parsed(content: object) -> Configuration:
    """The configuration that this is. MachineError names what is wrong with it."""
    if not isinstance(content, Mapping) or not isinstance(content.get("network", {}), Mapping):
        raise MachineError("it is to be a mapping, and `network` in it, too")
    own = {name: content[name] for name in OWN if name in content}
    features = {name: value for name, value in content.items() if name not in OWN}
    try:
        found = msgspec.convert(own | {"features": features}, Configuration)
    except msgspec.ValidationError as error:
        raise MachineError(str(error)) from None
    if found.log_level not in LEVELS:
        raise MachineError(f"log_level: {found.log_level!r} is none of {', '.join(LEVELS)}")
    _check_own(found)
    network = found.settings(NO_UPLINK).network
    if network.uplink == LOOPBACK:
        raise MachineError(f"settings of network.uplink: {LOOPBACK} leads to no other node")
    if found.migrate_from and not (NAME.fullmatch(found.migrate_from) and found.migrate_from != network.bridge):
        raise MachineError(f"migrate_from: {found.migrate_from!r} can't be the bridge of another network")
    _check_apart(network)
    return found


def _check_own(found: Configuration) -> None:
    if found.clean_kube_proxy and not found.settings(NO_UPLINK).services.enabled:
        raise MachineError("clean_kube_proxy: Services are left to kube-proxy (services.enabled: false)")
    if found.node_name:
        check_node_name(found.node_name)
    check_run_dir(found.run_dir)
    for name, path in (("sysctl_dir", found.sysctl_dir), *(("plugin_path", one) for one in found.plugin_path)):
        _check_absolute(name, path)
    if found.cni_conf_dir:
        _check_absolute("cni_conf_dir", found.cni_conf_dir)
    for network in found.allow_overlaps:
        try:
            network_of(network)
        except ValueError as error:
            raise MachineError(f"allow_overlaps: {error}") from None


def check_node_name(name: str) -> None:
    """MachineError when no Node can have this name, for which an agent would wait for ever."""
    if not SUBDOMAIN.fullmatch(name):
        raise MachineError(
            f"node_name: {name!r} can be the name of no Node: it has lowercase letters, digits, '-' and '.' alone"
        )


def check_run_dir(path: str) -> None:
    """MachineError when this is no absolute path."""
    _check_absolute("run_dir", path)


def _check_absolute(name: str, path: str) -> None:
    if not Path(path).is_absolute():
        raise MachineError(f"{name}: {path!r} is no absolute path")


def _check_apart(network: NetworkConfig) -> None:
    """Those that the file names: what is found in a cluster is as it is, and works there."""
    for pods, services in itertools.product(network.cluster_cidrs, network.service_cidrs):
        one, other = ipaddress.ip_network(pods), ipaddress.ip_network(services)
        if one.version == other.version and one.overlaps(other):
            raise MachineError(f"settings of network: service_cidrs {services} overlaps cluster_cidrs {pods}")
