"""podplane on clusters with IPv6, alone and beside IPv4: all that one with IPv4 has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from podplane.cli.check.promises import OUTSIDE
from tests.cluster import rig
from tests.cluster.families import V4, V6, Family
from tests.cluster.podplane import AGENTS, Installed
from tests.cluster.state import differences
from tests.cluster.under_load import begin, check_load, service, under_load

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
NODES = ("w1", "w2")
FRONTS, BACKS = [f"front-{node}" for node in NODES], [f"back-{node}" for node in NODES]
SECONDS = 400
"""For a whole check, or removal, on a busy machine."""
BY_TUNNEL = r" via \S+ dev (podplane-vxlan\d) "
VXLAN = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "podplane-network", "namespace": "kube-system"},
    "data": {"backend": "vxlan"},
}


@pytest.fixture(scope="module", params=[(V4, V6), (V6,)], ids=["dual-stack", "ipv6"])
def cluster(
    request: pytest.FixtureRequest, images: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """A cluster with these families, podplane's name servers, and a server and a client on each node."""
    program, archives = images
    with rig.up(tmp_path_factory.mktemp("families"), program, archives, len(NODES), request.param) as made:
        found = Installed(made)
        found.install(with_names=True)
        for node in NODES:
            begin(found, node)
        found.ready(*FRONTS, *BACKS)
        yield found


def families(cluster: Installed) -> Sequence[Family]:
    return cluster.rig.families


def test_pods_have_an_address_of_each_family_and_see_each_other_s(cluster: Installed) -> None:
    for node in NODES:
        blocks = cluster.rig.get("node", node)["spec"]["podCIDRs"]
        for pod in (f"front-{node}", f"back-{node}"):
            ips = cluster.ips(pod)
            assert [":" in ip for ip in ips] == [one.is_6 for one in families(cluster)]
            assert all(ip.startswith(block.partition("/")[0].rstrip("0")) for ip, block in zip(ips, blocks, strict=True))
    for front in FRONTS:
        for back in BACKS:
            for own, far in zip(cluster.ips(front), cluster.ips(back), strict=True):
                assert cluster.ask(front, far) == own


def test_services_of_each_family_and_of_both_show_their_servers_who_asks(cluster: Installed) -> None:
    versions = ["IPv6" if one.is_6 else "IPv4" for one in families(cluster)]
    wanted: dict[str, dict[str, Any]] = {f"only-{one.lower()}": {"ipFamilies": [one]} for one in versions}
    wanted["preferred"] = {"ipFamilyPolicy": "PreferDualStack", "type": "NodePort", "externalTrafficPolicy": "Local"}
    if len(versions) == 2:
        wanted["turned"] = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    for name, more in wanted.items():
        cluster.apply({**service(**more), "metadata": {"name": name}})
    found = {name: cluster.rig.get("service", name)["spec"] for name in wanted}
    for name, spec in found.items():
        assert spec["ipFamilies"] == wanted[name].get("ipFamilies", versions), name
        assert [":" in ip for ip in spec["clusterIPs"]] == [one == "IPv6" for one in spec["ipFamilies"]]
    for front in FRONTS:
        own = {":" in ip: ip for ip in cluster.ips(front)}
        for ip in (one for spec in found.values() for one in spec["clusterIPs"]):
            cluster.rig.until(lambda front=front, ip=ip: cluster.ask(front, ip, 80))  # type: ignore[misc]
            assert {cluster.ask(front, ip, 80) for _ in range(4)} == {own[":" in ip]}, ip
        for one in families(cluster):
            assert bool(cluster.ask(front, one.kubernetes, 443)) == (one is families(cluster)[0]), (
                "the API is of the primary one"
            )
    port = next(one["nodePort"] for one in found["preferred"]["ports"] if one["name"] == "http")
    for node in cluster.rig.get("nodes")["items"]:
        ips = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
        assert [cluster.rig.ask(ip, port) for ip in ips] == [one.hub for one in families(cluster)], "and it sees who asks"
    cluster.kubectl("delete", "services", *wanted)


def test_policies_know_addresses_of_each_family(cluster: Installed) -> None:
    first, second = ({":" in ip: ip for ip in cluster.ips(front)} for front in FRONTS)
    servers = {":" in ip: ip for ip in cluster.ips(BACKS[0])}
    peers: list[dict[str, Any]] = [
        {"podSelector": {"matchLabels": {"app": FRONTS[0]}}},
        {"ipBlock": {"cidr": f"{second[True]}/128"}},
    ]
    spec = {"podSelector": {"matchLabels": {"app": BACKS[0]}}, "policyTypes": ["Ingress"], "ingress": [{"from": peers}]}
    cluster.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "one"}, "spec": spec})
    for is_6, server in servers.items():
        cluster.rig.until(lambda server=server: cluster.ask(BACKS[1], server, seconds=1) == "")  # type: ignore[misc]
        assert cluster.ask(FRONTS[0], server) == first[is_6]
        assert cluster.ask(FRONTS[1], server, seconds=1) == (second[True] if is_6 else ""), "its IPv6 address alone is allowed"
    cluster.kubectl("delete", "networkpolicy", "one")
    for is_6, server in servers.items():
        cluster.rig.until(lambda server=server, is_6=is_6: cluster.ask(FRONTS[1], server) == second[is_6])  # type: ignore[misc]


def test_agents_start_anew_and_nothing_is_lost(cluster: Installed) -> None:
    cluster.apply(service(ipFamilyPolicy="PreferDualStack"))
    ips = cluster.rig.get("service", "backs")["spec"]["clusterIPs"]
    cluster.rig.until(lambda: all(cluster.ask(front, ip, 80) for front in FRONTS for ip in ips))
    with under_load(cluster, NODES, *ips) as found:
        cluster.kubectl("--namespace=kube-system", "rollout", "restart", AGENTS)
        cluster.rolled_out()
    check_load(found)
    cluster.kubectl("delete", "service", "backs")


def test_all_promises_are_kept_in_tunnels_of_the_family_and_all_is_well(cluster: Installed) -> None:
    cluster.apply(VXLAN)
    device = "podplane-vxlan6" if families(cluster)[0].is_6 else "podplane-vxlan4"  # a peer is reached by its first address
    route = ("sh", "-c", "ip route; ip -6 route")
    for machine in cluster.rig.nodes.values():
        cluster.rig.until(lambda machine=machine: set(re.findall(BY_TUNNEL, machine(*route))) == {device})  # type: ignore[misc]
    cluster.rig.until(lambda: "all is well" in cluster.rig.podplane("cluster", "status", code=None))
    process = cluster.rig.podplane_started("check", "--json", "--deep")
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    found = {one["promise"]: one for one in json.loads(said)["promises"]}
    assert {name for name, one in found.items() if "not_tried" in one} == {OUTSIDE}
    assert not any(one["failures"] for one in found.values()) and sum(one["probes"] for one in found.values()) > 300


def test_nodes_are_afterwards_as_they_were_before(cluster: Installed) -> None:
    cluster.kubectl("delete", "pods", *FRONTS, *BACKS, "--wait")
    process = cluster.rig.podplane_started("cluster", "uninstall", "--prove")
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    changed = {node: differences(cluster.before[node], machine) for node, machine in cluster.rig.nodes.items()}
    assert not any(changed.values()), changed
    assert f"{len(NODES)} of {len(NODES)} nodes as before" in said
