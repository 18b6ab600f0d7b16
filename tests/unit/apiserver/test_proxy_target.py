"""What a path of a `proxy` subresource means, and where that is."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.apiserver.problems import Problem
from podplane.apiserver.proxy_target import Destination, Wish, locate, parse

PORTS = [{"port": 80}, {"name": "b", "port": 81}]


def pod(ip: str = "10.0.0.1", *containers: list[int]) -> dict[str, Any]:
    """A pod with an address, and containers with these ports."""
    found: list[dict[str, Any]] = [
        {"ports": [{"containerPort": port} for port in ports]} if ports else {} for ports in containers
    ]
    return {"spec": {"containers": found or [{}]}, "status": {"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {}}


def endpoint(ip: str, name: str, namespace: str = "ns") -> dict[str, Any]:
    """An address of Endpoints."""
    return {"ip": ip, "targetRef": {"kind": "Pod", "name": name, "namespace": namespace}}


class Cluster(dict[tuple[str, str, str], dict[str, Any]]):
    """Objects by resource, namespace and name."""

    def get_object(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        if (resource, namespace, name) not in self:
            raise Problem("NotFound", f'{resource} "{name}" not found')
        return self[resource, namespace, name]

    def where(self, id_: str, resource: str = "pods") -> Destination:
        return locate(Wish(resource, "" if resource == "nodes" else "ns", id_, "", "/"), self.get_object)

    def refused(self, id_: str, resource: str = "pods") -> tuple[str, str]:
        with pytest.raises(Problem) as caught:
            self.where(id_, resource)
        return caught.value.reason, str(caught.value)


@pytest.mark.parametrize(
    ("path", "wish"),
    [
        ("/api/v1/namespaces/a/pods/p/proxy", Wish("pods", "a", "p", "/api/v1/namespaces/a/pods/p/proxy", "")),
        ("/api/v1/namespaces/a/pods/p/proxy/", Wish("pods", "a", "p", "/api/v1/namespaces/a/pods/p/proxy", "/")),
        (
            "/api/v1/namespaces/a/services/https:p:x/proxy/proxy/y/",
            Wish("services", "a", "https:p:x", "/api/v1/namespaces/a/services/https:p:x/proxy", "/proxy/y/"),
        ),
        ("/api/v1/nodes/n:10/proxy/x", Wish("nodes", "", "n:10", "/api/v1/nodes/n:10/proxy", "/x")),
    ],
)
def test_a_path_says_what_is_meant(path: str, wish: Wish) -> None:
    assert parse(path) == wish


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/a/pods/p",
        "/api/v1/namespaces/a/pods/p/proxyx",
        "/api/v1/namespaces/a/secrets/p/proxy",
        "/api/v1/namespaces/a/nodes/p/proxy",
        "/api/v1/pods/p/proxy",
        "/apis/v1/nodes/n/proxy",
    ],
)
def test_other_paths_are_none(path: str) -> None:
    assert parse(path) is None


def test_a_pods_port_is_the_one_that_is_said_or_its_first_or_the_schemes() -> None:
    cluster = Cluster()
    cluster["pods", "ns", "p"] = pod("10.0.0.1", [], [8080, 1])
    cluster["pods", "ns", "q"] = pod("fd00::1")
    assert cluster.where("p") == Destination("10.0.0.1", 8080, False, "ns", "p")
    assert (
        cluster.where("p:9")
        == cluster.where("http:p:9")
        == cluster.where(":p:9")
        == Destination("10.0.0.1", 9, False, "ns", "p")
    )
    assert cluster.where("https:p:") == Destination("10.0.0.1", 8080, True, "ns", "p")
    assert [cluster.where(id_).port for id_ in ("q", "https:q:")] == [80, 443]
    assert cluster.where("q:1").authority == "[fd00::1]:1" and cluster.where("p:1").authority == "10.0.0.1:1"


@pytest.mark.parametrize("resource", ["pods", "services", "nodes"])
@pytest.mark.parametrize("id_", ["a:b:c:d", "ftp:p:1", "http::1", ":1"])
def test_what_names_nothing_is_a_bad_request(resource: str, id_: str) -> None:
    assert Cluster().refused(id_, resource) == ("BadRequest", f'invalid {resource[:-1]} request "{id_}"')


OF_A_MACHINE = (
    *(
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.1",
        "ff0e::1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
    ),
    *(
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:169.254.1.1",
        "::ffff:0.0.0.0",
        "::ffff:224.0.0.1",
        "localhost",
        "127.1",
        "",
    ),
)


@pytest.mark.parametrize("ip", OF_A_MACHINE)
def test_nothing_leads_but_to_an_address_of_the_network(ip: str) -> None:
    cluster = service({"addresses": [endpoint(ip, "p")], "ports": [{"port": 1}]})
    cluster["pods", "ns", "p"] = pod(ip) | {"status": {"podIP": ip, "podIPs": [{"ip": ip}]}}
    cluster["nodes", "", "n"] = {"status": {"addresses": [{"type": "InternalIP", "address": ip}]}}
    for id_, resource in (("p", "pods"), ("s", "services"), ("n:10250", "nodes"), ("https:n:1", "nodes")):
        assert cluster.refused(id_, resource) == ("BadRequest", "address not allowed"), resource


def test_a_pod_without_an_address_is_nowhere() -> None:
    cluster = Cluster()
    cluster["pods", "ns", "p"] = pod("")
    assert cluster.refused("p") == ("BadRequest", "address not allowed")


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "\u0663", "1" * 5000])
def test_a_pods_port_is_a_number(port: str) -> None:
    cluster = Cluster()
    cluster["pods", "ns", "p"] = pod()
    assert cluster.refused(f"p:{port}")[0] == "ServiceUnavailable"


def test_what_is_not_there_is_not_found() -> None:
    assert [Cluster().refused("x:1", resource)[0] for resource in ("pods", "services", "nodes")] == ["NotFound"] * 3


def service(*subsets: dict[str, Any]) -> Cluster:
    """A Service with these Endpoints, and two pods."""
    cluster = Cluster()
    cluster["services", "ns", "s"] = {"spec": {"ports": PORTS}}
    cluster["endpoints", "ns", "s"] = {"subsets": list(subsets)} if subsets else {}
    cluster["pods", "ns", "p"], cluster["pods", "ns", "q"] = pod("10.0.0.1"), pod("10.0.0.2")
    return cluster


def test_a_services_port_is_a_name_or_the_number_of_one() -> None:
    ports = [{"port": 8080}, {"name": "b", "port": 9090}]
    cluster = service({"addresses": [endpoint("10.0.0.1", "p")], "ports": ports})
    first, second = Destination("10.0.0.1", 8080, False, "ns", "p"), Destination("10.0.0.1", 9090, False, "ns", "p")
    assert [cluster.where(id_, "services") for id_ in ("s", "s:80", "s:b", "s:81")] == [first, first, second, second]
    assert cluster.where("https:s:b", "services").tls
    assert cluster.refused("s:82", "services") == ("ServiceUnavailable", 'no service port 82 found for service "s"')
    assert cluster.refused(f"s:{'1' * 5000}", "services")[0] == "ServiceUnavailable"
    assert cluster.refused("s:c", "services") == ("ServiceUnavailable", 'no endpoints available for service "s:c"')


def test_a_service_leads_to_each_of_its_ready_pods_and_to_no_other_place() -> None:
    ports = [{"port": 1}]
    foreign = [{"ip": "10.0.0.9"}, endpoint("10.0.0.9", "p"), endpoint("10.0.0.1", "gone"), endpoint("10.0.0.1", "p", "other")]
    cluster = service(
        {"notReadyAddresses": [endpoint("10.0.0.3", "p")], "ports": ports},
        {"addresses": [*foreign, endpoint("10.0.0.1", "p"), endpoint("10.0.0.2", "q")], "ports": ports},
        {"addresses": [endpoint("10.0.0.1", "p")], "ports": [{"name": "b", "port": 2}]},
    )
    found = {cluster.where("s", "services") for _ in range(100)}
    assert found == {Destination("10.0.0.1", 1, False, "ns", "p"), Destination("10.0.0.2", 1, False, "ns", "q")}


def test_a_service_without_a_pod_leads_nowhere() -> None:
    assert service().refused("s", "services") == ("ServiceUnavailable", 'no endpoints available for service "s"')
    foreign = service({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]})
    assert foreign.refused("s", "services") == ("ServiceUnavailable", 'no endpoints available for service "s"')


def test_a_node_is_reached_by_its_address_at_a_port_that_is_said() -> None:
    cluster = Cluster()
    addresses = [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.168.1.10"}]
    cluster["nodes", "", "n"], cluster["nodes", "", "m"] = {"status": {"addresses": addresses}}, {}
    assert cluster.where("n:10256", "nodes") == Destination("192.168.1.10", 10256)
    assert cluster.where("https:n:1", "nodes") == Destination("192.168.1.10", 1, True)
    assert cluster.refused("n", "nodes")[0] == cluster.refused("m:1", "nodes")[0] == "ServiceUnavailable"
