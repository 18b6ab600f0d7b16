"""The configuration file of an agent's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from podplane.machine import configuration
from podplane.machine.cidrs import Cidrs
from podplane.machine.errors import MachineError
from podplane.machine.uplink import Uplink
from podplane.routes.behind import METRIC

NETWORK = {"cluster_cidrs": ["10.244.0.0/16"], "service_cidrs": ["10.96.0.0/16"]}
FILE = """
node_name: worker-1
log_level: info
network:
  cluster_cidrs: [10.244.0.0/16]
nodes:
  masquerade: false
"""


def test_a_file_says_what_is_the_same_on_all_nodes_and_the_machine_the_rest(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(FILE)
    found = configuration.read(str(tmp_path / "config"))
    assert (found.node_name, found.log_level, found.run_dir) == ("worker-1", "info", "/run/podplane")
    settings = found.settings(Uplink("ens3", 1450))
    assert (settings.network.uplink, settings.network.mtu) == ("ens3", 65536), "as much as the uplink carries"
    assert not settings.nodes.masquerade
    assert not settings.network.permanent_neighbours, "a real machine finds the others by itself"


def test_sysctls_are_set_where_the_file_says() -> None:
    assert configuration.parsed({"network": NETWORK}).sysctl_dir == "/proc/sys/net"
    assert configuration.parsed({"network": NETWORK, "sysctl_dir": "/host/net"}).sysctl_dir == "/host/net"


def test_a_machine_that_is_migrated_has_routes_behind_and_a_former_bridge_while_that_is_there() -> None:
    found = configuration.parsed({"network": NETWORK, "migrate_from": "cni0"})
    gone, there = (found.settings(Uplink("ens3", 1450), has_former=has).network for has in (False, True))
    assert (gone.former_bridge, gone.route_metric) == ("", METRIC)
    assert (there.former_bridge, there.route_metric) == ("cni0", METRIC)
    usual = configuration.parsed({"network": NETWORK}).settings(Uplink("ens3", 1450), has_former=True).network
    assert (usual.former_bridge, usual.route_metric) == ("", 0)


def test_beside_kube_proxy_the_agent_has_another_port() -> None:
    for content, port in (
        ({}, 10256),
        ({"services": {"enabled": False}}, 10356),
        ({"services": {"enabled": False}, "network": {"agent_port": 9999}}, 9999),
        ({"network": {"agent_port": 10356}}, 10356),
    ):
        found = configuration.parsed(content)
        assert (found.agent_port, found.network().agent_port) == (port, port)


def test_what_is_said_counts_before_what_is_found() -> None:
    network = NETWORK | {"mtu": 1400, "permanent_neighbours": True}
    settings = configuration.parsed({"network": network}).settings(Uplink("ens3", 1450))
    assert (settings.network.uplink, settings.network.mtu, settings.network.permanent_neighbours) == ("ens3", 1400, True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"network": NETWORK, "nodename": "x"}, "nodename"),
        ({"network": NETWORK | {"mtv": 1}}, "settings of network: .*mtv"),
        ({"network": NETWORK | {"cluster_cidrs": ["10.244.0.0/99"]}}, "network.cluster_cidrs: '10.244.0.0/99'"),
        ({"network": NETWORK | {"service_cidrs": ["10.96.0.1/16"]}}, "network.service_cidrs: 10.96.0.1/16 has host bits"),
        ({"network": NETWORK | {"cluster_cidrs": "10.244.0.0/16"}}, "network.cluster_cidrs: .*array"),
        ({"network": NETWORK | {"mtu": 5}}, "network.mtu: 5 is not within 576 and 65536"),
        ({"network": NETWORK | {"subnets": ["192.168.1.5/24"]}}, "network.subnets: 192.168.1.5/24 has host bits"),
        ({"network": NETWORK | {"backend": "grf"}}, "network.backend: there is no backend 'grf': choose one of host-gw, vxlan"),
        (
            {"network": NETWORK | {"cross_subnet": "auto"}},
            "network.cross_subnet: there is no tunnel 'auto': choose one of vxlan, gre",
        ),
        ({"network": NETWORK | {"backend": "auto", "cross_subnet": "gre"}}, "network.cross_subnet: it is of host-gw"),
        ({"network": NETWORK | {"vxlan_vni": 0}}, "network.vxlan_vni: '0' is no whole number from 1 to 16777215"),
        ({"network": NETWORK | {"vxlan_port": 65536}}, "network.vxlan_port: '65536' is no whole number from 1 to 65535"),
        ({"network": NETWORK | {"former_backends": ["vxlan"]}}, "network.former_backends: that is found out"),
        ({"network": NETWORK | {"uplink_driver": "veth"}}, "network.uplink_driver: that is found out"),
        ({"network": NETWORK | {"kernel": "6.1"}}, "network.kernel: that is found out"),
        ({"network": NETWORK | {"left_out": [["10.9.0.0/24", "so"]]}}, "network.left_out: that is found out"),
        ({"network": NETWORK | {"former_bridge": "cni0"}}, "network.former_bridge: that is found out"),
        ({"network": NETWORK | {"route_metric": 7}}, "network.route_metric: that is found out"),
        ({"migrate_from": "cbr0"}, "migrate_from: 'cbr0' can't be the bridge of another network"),
        ({"migrate_from": "a/b"}, "migrate_from: 'a/b' can't be the bridge"),
        ({"migrate_from": "a-name-of-16-byt"}, "migrate_from: 'a-name-of-16-byt' can't be the bridge"),
        ({"migrate_from": ["cni0"]}, "migrate_from"),
        ({"network": NETWORK | {"tunnel_offload": "off"}}, "network.tunnel_offload: there is no 'off': choose one of auto"),
        ({"network": NETWORK, "log_level": "loud"}, "'loud' is none of debug, info, warning, error"),
        ({"network": NETWORK, "node_name": 7}, "node_name"),
        ({"network": NETWORK | {"agent_port": 0}}, "network.agent_port: 0 is not within 1 and 65535"),
        ({"network": NETWORK | {"agent_port": 10249}}, "network.agent_port: 10249 is kube-proxy's"),
        ({"network": NETWORK | {"agent_port": 9153}}, "network.agent_port: 9153 is the name server's"),
        ({"network": {"agent_port": 10256}, "services": {"enabled": False}}, "network.agent_port: 10256 is kube-proxy's"),
        ({"services": {"enabled": False}, "clean_kube_proxy": True}, "clean_kube_proxy: Services are left to kube-proxy"),
        ({"services": {"enabled": "no"}}, "services.enabled"),
        ({"cni_conf_dir": "net.d"}, "cni_conf_dir: 'net.d' is no absolute path"),
        ({"cni_conf_dir": True}, "cni_conf_dir"),
        ({"run_dir": "relative"}, "run_dir: 'relative' is no absolute path"),
        ({"run_dir": ""}, "run_dir: '' is no absolute path"),
        ({"sysctl_dir": "net"}, "sysctl_dir: 'net' is no absolute path"),
        ({"plugin_path": ["/opt/cni/bin", "bin"]}, "plugin_path: 'bin' is no absolute path"),
        ({"node_name": "Bad Name!"}, "node_name: 'Bad Name!' can be the name of no Node"),
        ({"node_name": "a" * 254}, "can be the name of no Node"),
        ({"network": NETWORK | {"uplink": "lo"}}, "network.uplink: lo leads to no other node"),
        (
            {"network": {"cluster_cidrs": ["10.96.0.0/16", "fd00::/56"], "service_cidrs": ["fd01::/112", "10.96.128.0/20"]}},
            "service_cidrs 10.96.128.0/20 overlaps cluster_cidrs 10.96.0.0/16",
        ),
        ({"network": []}, "mapping"),
        ([], "mapping"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(content: object, why: str) -> None:
    with pytest.raises(MachineError, match=why):
        configuration.parsed(content)


@pytest.mark.parametrize("name", ["worker-1", "ip-10-0-0-1.eu.compute.internal", "1", "a" * 253])
def test_a_name_that_a_node_can_have_is_taken(name: str) -> None:
    assert configuration.parsed({"network": NETWORK, "node_name": name}).node_name == name


def test_an_mtu_that_the_uplink_does_not_carry_is_told() -> None:
    found = configuration.parsed({"network": NETWORK | {"mtu": 9000}})
    small, large = Uplink("ens3", 1500), Uplink("ens3", 9000)
    assert found.settings(small).network.mtu == 9000, "the uplink may come to carry it"
    assert found.warnings(small) == ["network.mtu is 9000, and the uplink ens3 carries no more than 1500: 1500 is taken"]
    assert (found.settings(large).network.mtu, found.warnings(large)) == (9000, [])


def test_a_block_outside_the_networks_that_are_named_is_told() -> None:
    found = configuration.parsed({"network": NETWORK | {"cluster_cidrs": ["10.244.0.0/16", "fd00::/56"]}})
    assert found.outside(("10.244.3.0/24", "fd00::300:0/120", "no network")) == []
    assert found.outside(("10.9.0.0/24", "fd00::/64")) == [
        "the block 10.9.0.0/24 of this node is not within network.cluster_cidrs (10.244.0.0/16, fd00::/56): correct these"
    ]
    assert found.outside(("10.0.0.0/8",)), "it holds the network, and is not within it"
    assert configuration.parsed({}).outside(("10.9.0.0/24",)) == [], "the network is made of blocks"


@pytest.mark.parametrize(("text", "why"), [("{", "no YAML"), ("\0", "no YAML"), ("network: &a [*a]", "")])
def test_a_file_that_is_no_configuration_is_refused_by_its_path(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(MachineError, match=f"^{path}: .*{why}"):
        configuration.read(str(path))
    with pytest.raises(MachineError, match="none: it can't be read: No such file"):
        configuration.read(str(tmp_path / "none"))


def test_networks_that_are_not_named_are_those_that_were_found() -> None:
    found = Cidrs(("10.244.0.0/16",), ("10.96.0.0/16",))
    for content, needs, cluster, service in (
        ({}, True, found.cluster, found.service),
        ({"network": {"cluster_cidrs": []}}, True, found.cluster, found.service),
        ({"network": {"cluster_cidrs": ["10.0.0.0/8"]}}, True, ("10.0.0.0/8",), found.service),
        ({"network": {"service_cidrs": []}}, True, found.cluster, ()),
        ({"network": {"cluster_cidrs": ["10.0.0.0/8"], "service_cidrs": []}}, False, ("10.0.0.0/8",), ()),
    ):
        parsed = configuration.parsed(content)
        network = parsed.settings(Uplink("ens3", 1450), found).network
        assert (parsed.needs_cidrs, network.cluster_cidrs, network.service_cidrs) == (needs, cluster, service)
    assert configuration.read("").run_dir == "/run/podplane"
