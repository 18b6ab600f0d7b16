"""`podplane services`: what is shown of a Service."""

from __future__ import annotations

import pytest

from podplane.cli.services.facts import Facts
from podplane.cli.services.show import detail, document, overview
from tests.unit.cli.services import balanced, does, endpoint, flow, leads, service, slices


def line(text: str, *parts: str) -> str:
    """The one line with all of these."""
    (found,) = [one for one in text.splitlines() if all(part in one for part in parts)]
    return " ".join(found.split())


def test_traffic_is_the_sum_over_nodes_of_the_services_own() -> None:
    facts = Facts(
        service(),
        slices(endpoint("10.0.0.1"), endpoint("10.0.0.2", "node2")),
        {"node1": does("10.0.0.1", "10.0.0.2"), "node2": does("10.0.0.1", "10.0.0.2")},
        [flow("10.0.0.1", 2, 1500), flow("10.0.0.2", 1, 10), flow("10.0.0.1", 1, 500_000)],
    )
    text = detail(facts)
    assert "10.0.0.1   web-1   node1   ready   3 connections, 501.5 KB" in text
    assert "10.0.0.2   web-2   node2   ready   1 connection, 10 B" in text
    assert "cluster IP   10.96.0.5:80/tcp   4 connections, 501.5 KB   to all endpoints" in text
    assert "node1, node2   80 → 2 endpoints: 10.0.0.1:8080, 10.0.0.2:8080" in text
    assert "What is wrong" not in text
    assert overview([facts]).splitlines()[1].split() == ["default", "web", "ClusterIP", "10.96.0.5", "80/TCP", "2/2", "4"]


def test_each_protocol_of_a_port_is_counted_by_itself() -> None:
    one = service(ports=[{"port": 80}, {"name": "u", "port": 80, "protocol": "UDP"}])
    own = slices(endpoint("10.0.0.1"), ports=({"port": 8080}, {"name": "u", "port": 8080, "protocol": "UDP"}))
    text = detail(Facts(one, own, rows=[flow("10.0.0.1", 3, 30), flow("10.0.0.1", 1, 10, protocol="udp")]))
    assert "3 connections, 30 B" in line(text, "10.96.0.5:80/tcp")
    assert "1 connection, 10 B" in line(text, "10.96.0.5:80/udp")


@pytest.mark.parametrize(
    "other",
    [
        {"service": "default/another"},
        {"service": ""},
        {"endpoint": "10.0.0.9"},
        {"endpoint_port": 9090},
        {"protocol": "udp"},
    ],
)
def test_connections_of_others_and_of_who_had_the_address_before_do_not_count(other: dict[str, object]) -> None:
    rows = [flow("10.0.0.1", 2, 20), {**flow("10.0.0.1", 7, 70), **other}]
    facts = Facts(service(), slices(endpoint("10.0.0.1")), rows=rows)
    assert "2 connections, 20 B" in line(detail(facts), "cluster IP")
    assert overview([facts]).split()[-1] == "2"


def test_connections_to_endpoints_that_end_count() -> None:
    ending = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
    facts = Facts(service(), slices(ending), rows=[flow("10.0.0.1", 2, 20)])
    assert "terminating, serves still 2 connections, 20 B" in line(detail(facts), "web-1")


def test_an_address_of_ipv6_is_one_however_it_is_written() -> None:
    one = service(clusterIPs=["fd00::5"], externalIPs=["2001:DB8:0::7"])
    own = slices(endpoint("FD00:0:0::1"), kind="IPv6")
    rows = [flow("fd00::1", 2, 20, "2001:db8::7"), flow("fd00::1", 1, 10, "fd00::5")]
    text = detail(Facts(one, own, rows=rows))
    assert "2 connections" in line(text, "external IP") and "3 connections" in line(text, "web-1")


def test_a_pod_of_both_families_is_one_endpoint() -> None:
    own = [*slices(endpoint("10.0.0.1")), *slices(endpoint("fd00::1"), kind="IPv6")]
    facts = Facts(service(), own, {"node1": does("10.0.0.1", "fd00::1")})
    assert overview([facts]).split()[-2] == "1/1"
    assert "80 → 1 endpoint: 10.0.0.1:8080\n" in detail(facts)
    assert "80 → 1 endpoint: [fd00::1]:8080" in detail(facts)


def test_an_endpoint_in_two_slices_is_one_and_endpoints_are_in_the_order_of_numbers() -> None:
    own = [*slices(endpoint("10.0.0.10"), endpoint("10.0.0.9")), *slices(endpoint("10.0.0.9"))]
    assert [one.address for one in Facts(service(), own).endpoints()] == ["10.0.0.9", "10.0.0.10"]


def test_of_many_endpoints_the_first_are_shown() -> None:
    own = slices(*(endpoint(f"10.0.{n >> 8}.{n & 255}") for n in range(5000)))
    text = detail(Facts(service(), own))
    assert "10.0.0.19 " in text and "10.0.0.20 " not in text and "\n  … and 4,980 more\n\nNodes" in text


def test_an_external_name_has_no_endpoints() -> None:
    facts = Facts(service(type="ExternalName", externalName="example.com", clusterIPs=[], ports=[], selector=None), [])
    assert overview([facts]).splitlines()[1].split() == [
        "default", "web", "ExternalName", "example.com", "<none>", "-", "0",
    ]  # fmt: skip


def test_a_node_has_a_line_for_each_port_and_nodes_that_do_the_same_are_said_once() -> None:
    node = does("10.0.0.1", frontends=(leads("10.96.0.5", 53, "udp", ""), leads("192.0.2.1", group="")))
    node["groups"]["svc/default/web:80/local"] = [["10.0.0.1", 8080]]
    one = balanced("192.0.2.1", healthCheckNodePort=30123)
    text = detail(Facts(one, slices(endpoint("10.0.0.1")), {"node1": node, "node2": node}, healthy={"node1": True}))
    assert [row.split("   ")[-1].strip() for row in text.split("Nodes\n")[1].splitlines()] == [
        "80 → 1 endpoint: 10.0.0.1:8080",
        "80 on this node → 1 endpoint: 10.0.0.1:8080",
        "53/udp → refused",
        "from outside, 80/tcp → refused",
        "health check at port 30123 → passes",
        "80 → 1 endpoint: 10.0.0.1:8080",
        "80 on this node → 1 endpoint: 10.0.0.1:8080",
        "53/udp → refused",
        "from outside, 80/tcp → refused",
    ]


def test_a_load_balancer_shows_who_announces_it_and_for_whom_it_is() -> None:
    one = balanced("192.0.2.1", "2001:db8::1", loadBalancerSourceRanges=["10.0.0.0/8", "192.168.0.0/16"])
    text = detail(Facts(one, slices(endpoint("10.0.0.1")), announced_by="node2"))
    assert "to all endpoints, announced by node2, only from 10.0.0.0/8, 192.168.0.0/16" in line(text, "192.0.2.1:80")
    assert "nobody gets in: loadBalancerSourceRanges names none of this family" in line(text, "[2001:db8::1]:80")


def test_a_load_balancer_that_is_a_proxy_is_not_served_by_nodes() -> None:
    text = detail(Facts(balanced("192.0.2.1", mode="Proxy"), slices(endpoint("10.0.0.1"))))
    assert "not served by nodes: its ipMode is Proxy" in line(text, "192.0.2.1:80")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose"}, "to endpoints of the same node"),
        ({"trafficDistribution": "PreferClose"}, "to endpoints of the same zone first"),
        ({"trafficDistribution": "PreferSameNode"}, "to endpoints of the same node first"),
        ({"sessionAffinity": "ClientIP"}, "to all endpoints, keeps a client's endpoint for 10800 s"),
    ],
)
def test_a_frontend_says_to_which_endpoints_it_leads(spec: dict[str, str], words: str) -> None:
    text = detail(Facts(service(**spec), slices(endpoint("10.0.0.1"))))
    assert line(text, "cluster IP") == f"cluster IP 10.96.0.5:80/tcp no connections {words}"


def test_a_service_that_is_left_to_others_leads_to_no_endpoints() -> None:
    one = service()
    one["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "mine"}
    text = detail(Facts(one, slices(endpoint("10.0.0.1")), {"node1": {"frontends": [], "groups": {}}}))
    assert "left to others" in line(text, "cluster IP") and "to all endpoints" not in text
    assert line(text, "nothing to do") == "node1 nothing to do"


NODE_IPS = {"node1": ["192.168.1.10", "fd00::a"], "node2": ["192.168.1.11", "fd00::b"]}


def node_port(*ips: str) -> dict[str, object]:
    return does("10.0.0.1", frontends=tuple(leads(ip, 30080) for ip in ips))


@pytest.mark.parametrize(
    ("families", "first", "second", "where"),
    [
        (["IPv4"], ["192.168.1.10", "fd00::a"], ["192.168.1.11", "fd00::b"], "every node:30080/tcp"),
        (["IPv4", "IPv6"], ["192.168.1.10", "fd00::a"], ["192.168.1.11", "fd00::b"], "every node:30080/tcp"),
        (["IPv4", "IPv6"], ["192.168.1.10"], ["192.168.1.11"], "192.168.1.10, 192.168.1.11:30080/tcp"),
        (["IPv4", "IPv6"], [], [], "no node:30080/tcp"),
    ],
)
def test_a_node_port_says_on_which_addresses_it_is(
    families: list[str], first: list[str], second: list[str], where: str
) -> None:
    one = service(type="NodePort", ipFamilies=families, ports=[{"port": 80, "nodePort": 30080}])
    nodes = {"node1": node_port(*first), "node2": node_port(*second)}
    text = detail(Facts(one, slices(endpoint("10.0.0.1")), nodes, node_ips=NODE_IPS))
    assert line(text, "node port", "30080/tcp", "connections").startswith(f"node port {where} ")


def test_connections_to_a_node_port_are_those_of_all_nodes_and_not_those_of_a_cluster_ip_with_its_number() -> None:
    one = service(type="NodePort", ports=[{"port": 30080, "nodePort": 30080}])
    rows = [flow("10.0.0.1", n, n, ip, 30080) for n, ip in ((1, "192.168.1.10"), (2, "192.168.1.11"), (4, "10.96.0.5"))]
    text = detail(Facts(one, slices(endpoint("10.0.0.1")), rows=rows))
    assert "3 connections" in line(text, "node port") and "4 connections" in line(text, "cluster IP")


def test_programs_get_the_same_facts() -> None:
    facts = Facts(
        service(),
        slices(endpoint("10.0.0.1")),
        {"node1": does("10.0.0.1"), "node2": None},
        [flow("10.0.0.1", 2, 20)],
        silent={"node2": "connection refused"},
    )
    found = document(facts)
    assert (found["ready"], found["total"], found["connections"]) == (1, 1, 2)
    assert found["frontends"] == [
        {
            "kind": "cluster IP",
            "addresses": ["10.96.0.5"],
            "port": 80,
            "protocol": "tcp",
            "connections": 2,
            "bytes": 20,
            "notes": ["to all endpoints"],
        }
    ]
    assert [(one["address"], one["state"], one["bytes"]) for one in found["endpoints"]] == [("10.0.0.1", "ready", 20)]
    assert found["problems"] == ["node2 does not answer: connection refused"]
