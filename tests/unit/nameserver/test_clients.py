"""Who asks, by address."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podplane.dns.directory import Directory
from podplane.dns.message import text_of
from podplane.dns.resolv_conf import NodeDns, ResolvConf
from podplane.dns.search_path import NOWHERE
from podplane.model.dns import NamedPod
from podplane.nameserver.clients import Clients
from podplane.nameserver.resolver import Client

NODE = NodeDns(("10.96.0.10",), machine=ResolvConf((), ("corp.example",), ("timeout:1",)))


def pod(path: str, *ips: str, spec: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> NamedPod:
    namespace, name = path.split("/")
    own = {"name": name, "namespace": namespace, **(metadata or {})}
    status = {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips]}
    return NamedPod.from_json(msgspec.json.encode({"metadata": own, "spec": spec or {}, "status": status}))


def clients(*pods: NamedPod) -> Clients:
    by_ip: dict[str, dict[str, NamedPod]] = {}
    for one in pods:
        for ip in one.ips:
            by_ip.setdefault(ip, {})[one.metadata.path] = one
    return Clients(Directory(pods_by_ip=by_ip), NODE)


@pytest.mark.parametrize("ip", ["10.244.1.2", "fd00:10:244:1::2", "fd00:10:244:1:0::2"])
def test_a_pod_is_known_by_each_of_its_addresses(ip: str) -> None:
    found = clients(pod("shop/web", "10.244.1.2", "fd00:10:244:1::2"), pod("shop/api", "10.244.1.3")).identify(ip)
    assert (found.ip, found.namespace, found.pod, found.searches.ndots) == (ip, "shop", "web", 5)
    assert list(map(text_of, found.searches.domains)) == [
        "shop.svc.cluster.local.",
        "svc.cluster.local.",
        "cluster.local.",
        "corp.example.",
    ]


def test_its_path_is_that_of_its_own_resolv_conf() -> None:
    config = {"searches": ["x.example"], "options": [{"name": "ndots", "value": "2"}]}
    found = clients(pod("shop/web", "10.244.1.2", spec={"dnsPolicy": "None", "dnsConfig": config})).identify("10.244.1.2")
    assert (list(map(text_of, found.searches.domains)), found.searches.ndots) == (["x.example."], 2)
    found = clients(pod("shop/web", "10.244.1.2", spec={"dnsPolicy": "Default"})).identify("10.244.1.2")
    assert (list(map(text_of, found.searches.domains)), found.searches.ndots) == (["corp.example."], 1)


@pytest.mark.parametrize(
    "pods",
    [
        [],
        [pod("shop/web", "192.168.1.10", spec={"hostNetwork": True})],
        [pod("shop/web", "192.168.1.10", spec={"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"})],
        [pod("shop/web", "192.168.1.10"), pod("other/web", "192.168.1.10")],
    ],
)
def test_of_an_address_that_several_have_nothing_is_known(pods: list[NamedPod]) -> None:
    assert clients(*pods).identify("192.168.1.10") == Client("192.168.1.10")


def test_a_pod_that_ends_has_no_path_because_its_address_may_be_anothers_soon() -> None:
    found = clients(pod("shop/web", "10.244.1.2", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})).identify(
        "10.244.1.2"
    )
    assert (found.pod, found.searches) == ("web", NOWHERE)
