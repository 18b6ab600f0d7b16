"""Settings of a lab: what is refused, in words that say what to do; what is kept; what machines are asked for."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podplane.cli.labs import SECOND_NIC
from podplane.ipam.plan import PlanError
from podplane.kernel import link_kinds
from podplane.lab import operations, preflight, second_nic, spec
from podplane.lab.agents import agent_settings
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.lab.spec import MAX_NODES, LabSpec
from podplane.state.network import Link, Peer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A lab's folder, made."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = Folder.named("one")
    made.create()
    return made


def test_what_is_saved_is_loaded(folder: Folder) -> None:
    assert spec.load(folder.spec) is None
    wanted = LabSpec(name="one", nodes=7, sandbox_only=True, agents_over_https=True, masquerade_exclude="10.0.0.0/8")
    spec.save(folder.spec, wanted)
    assert spec.load(folder.spec) == wanted
    assert [p.name for p in folder.path.iterdir() if p.suffix == ".new"] == []


@pytest.mark.parametrize("content", ["", "{", '{"nodes": "many"}', '{"colour": "red"}'])
def test_a_broken_file_names_itself_and_the_way_out(folder: Folder, content: str) -> None:
    folder.spec.write_text(content)
    with pytest.raises(LabError, match=r"lab\.json can't be read .*remove the folder"):
        spec.load(folder.spec)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes": 0}, "0 nodes: a lab has 1 to 1000"),
        ({"nodes": 1001}, "1001 nodes: a lab has 1 to 1000"),
        ({"cluster_cidr": "10.244.0.0/22"}, "room for 4 nodes with 253 pods each"),
        ({"cluster_cidr": "10.96.0.0/16"}, "overlaps service CIDR 10.96.0.0/16"),
        ({"cluster_cidr": "203.0.0.0/16"}, "overlaps network outside 203.0.113.0/24"),
        ({"cluster_cidr": "10.244.0.1/16"}, "has host bits set"),
        ({"cluster_cidr": "ten"}, "cluster CIDR ten: "),
        ({"cluster_cidr": ","}, "cluster CIDR is empty"),
        ({"cluster_cidr": "10.1.0.0/16,10.2.0.0/16"}, "one CIDR for each IP family at most"),
        ({"service_cidr": "10.96.0.0/16"}, "the cluster CIDR has IPv4 and IPv6|the service CIDR 10.96.0.0/16 has not"),
        ({"port": 65536}, "--port 65536: give 1 to 65535"),
        ({"port": -1}, "--port -1"),
        ({"node_monitor_grace_period": 1}, "--node-monitor-grace-period 1: give 2 to 86,400 seconds"),
        ({"node_monitor_grace_period": 86_401}, "--node-monitor-grace-period 86401"),
        (
            {"cluster_domain": "x" * 64},
            "--cluster-domain x{64}: give a domain like cluster.local, in lower case, of 99 characters at most",
        ),
        ({"cluster_domain": "Lab.example"}, "--cluster-domain Lab.example"),
        ({"cluster_domain": ""}, "--cluster-domain"),
        ({"cluster_domain": "arpa"}, r"arpa: it has the names of addresses \(RFC 3172\): give a domain like cluster.local"),
        ({"cluster_domain": "10.in-addr.arpa"}, "it has the names of addresses"),
        ({"cluster_domain": "localhost"}, "it means every machine itself"),
        ({"cluster_domain": "k8s.localhost"}, "it means every machine itself"),
        ({"cluster_domain": "invalid"}, "it has no names"),
        ({"cluster_domain": "k8s.onion"}, "its names are Tor's"),
        ({"cluster_domain": "k8s.alt"}, "its names are none of DNS"),
        ({"cluster_domain": "local"}, "it is multicast DNS's"),
        ({"cluster_domain": "test"}, "the host outside serves example.test"),
        ({"cluster_domain": "example.test"}, "the host outside serves example.test"),
        ({"cluster_domain": ".".join(["abcdefghi"] * 10) + "a"}, "--cluster-domain"),
        ({"masquerade_exclude": "10.0.0.0/8,x"}, "CIDR without masquerade x"),
    ],
)
def test_what_does_not_make_a_lab(given: dict[str, Any], message: str) -> None:
    with pytest.raises((LabError, PlanError), match=message):
        LabSpec(**({"nodes": 5} | given)).check(2)


def test_settings_are_as_given_else_as_they_were_else_the_defaults(folder: Folder) -> None:
    assert operations.settings(folder, {"nodes": 2}) == LabSpec(name="one", nodes=2)
    spec.save(folder.spec, LabSpec(name="one", nodes=4, port=7000))
    assert operations.settings(folder, {"nodes": 5}) == LabSpec(name="one", nodes=5, port=7000)


@pytest.mark.parametrize(
    "domain", ["cluster.local", "k8s", "corp.local", "k8s.home.arpa", "k8s.example.test", "notarpa", "a.b.test"]
)
def test_other_domains_make_one(domain: str) -> None:
    LabSpec(cluster_domain=domain).check()


def test_settings_that_objects_were_made_with_stay(folder: Folder) -> None:
    spec.save(folder.spec, LabSpec(name="one", nodes=4))
    assert operations.settings(folder, {"nodes": 2}).nodes == 2, "nothing was made with four yet"
    folder.store.touch()
    with pytest.raises(LabError, match=r"has 4 nodes already, it can only get more: .*down --name one --purge"):
        operations.settings(folder, {"nodes": 2})
    with pytest.raises(LabError, match=r"was made with --cluster-cidr 10\.244\.0\.0/16"):
        operations.settings(folder, {"cluster_cidr": "10.1.0.0/16"})
    with pytest.raises(LabError, match=r"was made with no --second-nic: .*down --name one --purge"):
        operations.settings(folder, {"second_nic": SECOND_NIC})


@pytest.mark.parametrize(
    ("cidrs", "why"),
    [
        ("192.168.1.128/25,fd00:1::/64", "node CIDR 192.168.1.0/24 overlaps second NIC's CIDR 192.168.1.128/25"),
        ("203.0.112.0/20,fd00:1::/64", "second NIC's CIDR 203.0.112.0/20 overlaps network outside 203.0.113.0/24"),
        ("172.30.0.0/24", "the cluster CIDR has IPv6, the second NIC's CIDR 172.30.0.0/24 has not: add one"),
        (
            "172.30.0.0/28,fd00:1::/64",
            "6 nodes with 0 pods each don't fit: .*second NIC's CIDR 172.30.0.0/28,fd00:1::/64 have room for 5",
        ),
        ("127.0.0.0/24,fd00:1::/64", "second NIC's CIDR 127.0.0.0/24 is loopback"),
        ("172.30.0.5/24", "second NIC's CIDR 172.30.0.5/24: .* has host bits set"),
        ("none", "second NIC's CIDR none: "),
    ],
)
def test_networks_of_second_interfaces_that_can_not_be_are_refused(cidrs: str, why: str) -> None:
    with pytest.raises(LabError, match=why):
        LabSpec(nodes=6, second_nic=cidrs).check()


def test_the_usual_network_of_second_interfaces_has_room_for_all_nodes_that_a_lab_may_have() -> None:
    of = LabSpec(nodes=MAX_NODES, second_nic=SECOND_NIC, cluster_cidr="10.0.0.0/11", node_cidr="192.168.0.0/16")
    of.check()
    macs = {port.mac for n in range(1, MAX_NODES + 1) for port in _ends(of, n)}
    assert len(macs) == MAX_NODES


def _ends(of: LabSpec, number: int) -> Iterator[Peer]:
    yield from (v.peer for v in second_nic.port(of.plan(), number, "there") if isinstance(v, Link) and v.peer)


def test_the_port_that_was_asked_for_or_any() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 is not available .*choose another --port"):
            preflight.listen(LabSpec(port=port))
    with preflight.listen(LabSpec(port=port)) as own, preflight.listen(LabSpec()) as other:
        assert own.getsockname() == ("127.0.0.1", port)
        assert other.getsockname()[1] not in (0, port)


@pytest.mark.parametrize(("versions", "lacking"), [((4,), "gre"), ((6,), "ip6gre"), ((6, 4), "gre and ip6gre")])
def test_a_backend_that_the_kernel_has_no_links_for(
    monkeypatch: pytest.MonkeyPatch, versions: tuple[int, ...], lacking: str
) -> None:
    """Whichever IP versions nodes have, which may come one by one."""
    monkeypatch.setattr(link_kinds, "missing", sorted)
    with pytest.raises(LabError, match=f"--backend gre: this kernel makes no links of type {lacking}, it lacks the module"):
        preflight.check_backend("gre", iter(versions), "--backend gre")


def test_too_few_open_files_for_a_large_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(
        LabError, match=r"100 nodes with 1,000 pods need some [\d,]+ open files, the limit here is 512: raise it"
    ):
        preflight.check_file_limit(100, 1000)
    preflight.check_file_limit(1, 1)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("nodes", 3, "--nodes 3"),
        ("cluster_cidr", "10.0.0.0/8", "--cluster-cidr 10.0.0.0/8"),
        ("masquerade_exclude", "", "no --masquerade-exclude"),
        ("sandbox_only", False, "--with-processes"),
        ("sandbox_only", True, "--sandbox-only"),
        ("agents_over_https", False, "--agents-direct"),
        ("keep_connections", True, "--keep-connections"),
        ("mount_home", True, "--mount-home"),
        ("allow_host_pid", True, "--allow-host-pid"),
        ("allow_host_paths", "/srv", "--allow-host-paths /srv"),
    ],
)
def test_a_setting_as_an_option(name: str, value: object, text: str) -> None:
    assert spec.option(name, value) == text


def test_every_switch_of_up_is_known() -> None:
    switches = {field.name for field in msgspec.structs.fields(LabSpec) if field.type is bool}
    assert switches == spec.SWITCHES.keys()


def test_agents_that_are_processes_are_not_told_to_call_the_api_directly(folder: Folder) -> None:
    direct = {"agents_over_https": False}
    with pytest.raises(LabError, match=r"^--agents-direct: agents that are processes"):
        operations.settings(folder, {"agents": "processes", **direct})
    assert operations.settings(folder, {"agents": "processes"}).agents == "processes"
    assert operations.settings(folder, {"agents": "processes", "agents_over_https": True}).agents_over_https
    assert operations.settings(folder, {"agents": "in-process", **direct}) == LabSpec(name="one")
    spec.save(folder.spec, LabSpec(name="one", agents="processes"))
    with pytest.raises(LabError, match="always reach the API over HTTPS"):
        operations.settings(folder, direct)


@pytest.mark.parametrize("keep", [True, False])
def test_agents_are_told_whether_connections_are_kept(keep: bool) -> None:
    wanted = LabSpec(keep_connections=keep)
    assert agent_settings(wanted.plan(), wanted).policies.takes_back is not keep
