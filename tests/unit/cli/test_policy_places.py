"""What users write for the ends of a flow."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from podplane.cli.policy.places import Wanted, arrivals, pod_path, port_of, service_of, sources, wanted
from podplane.lab.errors import LabError
from tests.unit.cli.policies import Object, known, pod, service, slice_of


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web", Wanted("web", "", "default", "web")),
        ("shop/web", Wanted("shop/web", "", "shop", "web")),
        ("pod/web", Wanted("pod/web", "pod", "default", "web")),
        ("svc/shop/web:80", Wanted("svc/shop/web:80", "svc", "shop", "web", "", 80, "TCP")),
        ("service/web:http/udp", Wanted("service/web:http/udp", "svc", "default", "web", "", "http", "UDP")),
        ("node/node1", Wanted("node/node1", "node", "default", "node1")),
        ("10.0.0.1", Wanted("10.0.0.1", ip="10.0.0.1")),
        ("10.0.0.1:53/UDP", Wanted("10.0.0.1:53/UDP", ip="10.0.0.1", port=53, protocol="UDP")),
        ("FD00::0:1", Wanted("FD00::0:1", ip="fd00::1")),
        ("[fd00::1]:80/sctp", Wanted("[fd00::1]:80/sctp", ip="fd00::1", port=80, protocol="SCTP")),
    ],
)
def test_places(text: str, place: Wanted) -> None:
    assert wanted(text, "default") == place


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no place"),
        ("/web", "is no place"),
        ("shop/", "is no place"),
        ("a/b/c", "is no place"),
        ("pod/a/b/c", "is no place"),
        ("node/shop/node1", "nodes are in no namespace"),
        ("web:", "is no port"),
        ("web:0", "'0' is no port"),
        ("web:65536", "'65536' is no port"),
        ("web:80/icmp", "'ICMP' has no ports"),
        ("web:8_0", "'8_0' is no port"),
        ("[web]:80", "is no place"),
        ("[fd00::1]80", "is no place"),
        ("fe80::1%eth0", "is no place"),
        ("Web", "is no place"),
    ],
)
def test_what_is_no_place_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(LabError, match=said):
        sources(wanted(text, "default"), known())


@pytest.mark.parametrize(
    ("ip", "kind"),
    [
        ("fe80::1", "a link-local"),
        ("127.0.0.1", "a loopback"),
        ("::1", "a loopback"),
        ("0.0.0.0", "the unspecified"),
        ("224.0.0.251", "a multicast"),
        ("ff02::1", "a multicast"),
        ("255.255.255.255", "a broadcast"),
    ],
)
def test_an_address_that_no_pod_reaches_has_no_verdict(ip: str, kind: str) -> None:
    with pytest.raises(LabError, match=f"'{ip}' is {kind} address: no pod reaches it"):
        arrivals(wanted(ip, "default"), known(), ())
    with pytest.raises(LabError, match="whatever policies say"):
        sources(wanted(ip, "default"), known())


def test_an_address_that_a_node_may_route_has_one() -> None:
    assert ips("169.254.169.254:80") == [("169.254.169.254", 80, "TCP")]


def ips(text: str, *more: Object, slices: Sequence[Object] = ()) -> list[tuple[str, int | None, str]]:
    return [(one.end.ip, one.port, one.protocol) for one in arrivals(wanted(text, "default"), known(*more), slices)]


def test_a_pod_is_found_before_a_service_of_the_same_name() -> None:
    web = service("default/web-1")
    assert ips("web-1:80", web) == [("10.244.2.2", 80, "TCP"), ("fd00:2::2", 80, "TCP")]
    assert ips("svc/web-1", web, slices=[slice_of("10.244.2.3")]) == [("10.244.2.3", 8080, "TCP")]


def test_ports_of_pods_have_names() -> None:
    assert ips("web-1:http") == [("10.244.2.2", 8080, "TCP"), ("fd00:2::2", 8080, "TCP")]
    with pytest.raises(LabError, match="no container of pod default/web-1 has a UDP port 'http'"):
        ips("web-1:http/udp")
    with pytest.raises(LabError, match="only ports of pods and Services have names"):
        ips("node1:http")


def test_a_flow_to_a_service_comes_to_its_endpoints() -> None:
    web, slices = service("default/web"), [slice_of("10.244.2.2", "10.244.2.3", not_ready=["10.244.2.3"])]
    for text in ("web", "web:80", "svc/web:http", "10.96.0.1", "10.96.0.1:80"):
        assert ips(text, web, slices=slices) == [("10.244.2.2", 8080, "TCP")]
        assert service_of(wanted(text, "default"), known(web)) == "default/web"
    assert service_of(wanted("web-1", "default"), known(web)) == ""


@pytest.mark.parametrize(
    ("text", "spec", "slices", "said"),
    [
        ("web:81", {}, [], "Service default/web has no TCP port 81; it has 80/TCP"),
        ("web", {}, [], "Service default/web has no endpoint for port 80: whoever asks for it is refused, by no policy"),
        ("web", {}, [slice_of("fd00:2::2")], "has no endpoint"),
        (
            "web",
            {"ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]},
            [],
            "say which port of Service default/web: 1/TCP, 2/UDP",
        ),
        (
            "web",
            {"type": "ExternalName", "externalName": "example.com", "clusterIPs": []},
            [],
            "is another name for example.com",
        ),
    ],
)
def test_what_no_service_leads_to_is_said(text: str, spec: Object, slices: list[Object], said: str) -> None:
    with pytest.raises(LabError, match=said):
        ips(text, service("default/web", **spec), slices=slices)


def test_a_headless_service_leads_to_endpoints_of_all_families() -> None:
    assert ips("web", service("default/web", ("None",)), slices=[slice_of("10.244.2.2", "fd00:2::2")]) == [
        ("10.244.2.2", 8080, "TCP"),
        ("fd00:2::2", 8080, "TCP"),
    ]


def test_the_clusters_dns_is_asked_by_its_own_addresses() -> None:
    assert ips("kube-system/kube-dns:53/udp") == [("10.96.0.10", 53, "UDP"), ("fd00:96::a", 53, "UDP")]
    assert ips("10.96.0.10:53") == [("10.96.0.10", 53, "TCP")]


def test_who_opens_a_flow() -> None:
    assert [one.ip for one in sources(wanted("client", "default"), known())] == ["10.244.1.2", "fd00:1::2"]
    assert {one.node for one in sources(wanted("node2", "default"), known())} == {"node2"}
    (agent,) = sources(wanted("agent", "default"), known())
    assert (agent.pod, agent.node) == (None, "node1")
    (client,) = sources(wanted("10.244.1.2", "default"), known())
    assert client.path == "default/client"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("client:80", "the port of who opens a flow is by chance"),
        ("svc/web", "a Service opens no flows"),
        ("nobody", "there is no pod and no Service default/nobody, and no node nobody"),
        ("node/nobody", "there is no node nobody"),
        ("job", r"pod default/job has ended \(Succeeded\)"),
        ("new", r"pod default/new has no address yet \(Pending\)"),
    ],
)
def test_who_can_open_none_is_refused(text: str, said: str) -> None:
    job, new = pod("default/job"), pod("default/new")
    job["status"] = {"phase": "Succeeded", "podIPs": [{"ip": "10.244.1.9"}]}
    new["status"] = {"phase": "Pending"}
    with pytest.raises(LabError, match=said):
        sources(wanted(text, "default"), known(service("default/web"), job, new))


def test_ports_and_pods_of_options() -> None:
    assert (port_of("80"), port_of("53/udp")) == (("TCP", 80), ("UDP", 53))
    for text in ("http", "", "80/icmp", "0"):
        with pytest.raises(LabError):
            port_of(text)
    assert (pod_path("web", "a"), pod_path("b/web", "a"), pod_path("pod/web", "a")) == ("a/web", "b/web", "a/web")
    for text in ("svc/web", "web:80", "10.0.0.1"):
        with pytest.raises(LabError, match="is no pod"):
            pod_path(text, "a")
