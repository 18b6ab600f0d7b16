"""The cluster's zone: each kind of name, and what is not there."""

from __future__ import annotations

import pytest

from podplane.dns import message as m
from podplane.dns.cluster import DISABLED, VERIFIED
from podplane.dns.message import Answer, Question
from tests.unit.dns.world import TYPES, World, endpoint

SOA = "cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. # 7200 1800 86400 5"
NODATA, NXDOMAIN = [f"-- {SOA}"], ["NXDOMAIN", f"-- {SOA}"]
HTTP, DNS = "http:80", "dns:53/UDP"
OTHERS = ("MX", "TXT", "HTTPS", "PTR", "NS", "SOA", "CNAME")
"""Types that names of Services have none of."""


@pytest.fixture
def world() -> World:
    """A cluster with namespaces `default` and `shop`."""
    one = World()
    for name in ("default", "shop"):
        one.put("namespace", name)
    return one


def srv(name: str, weight: int, port: int, target: str = "") -> str:
    return f"{name}.cluster.local. 5 SRV 0 {weight} {port} {target or name}.cluster.local."


# The zone.


def test_the_zone_names_its_version_and_its_server(world: World) -> None:
    assert world.ask("dns-version", "TXT") == ['dns-version.cluster.local. 28800 TXT "1.1.0"']
    assert world.ask("", "SOA") == [SOA]
    assert world.ask("", "NS") == ["cluster.local. 5 NS ns.dns.cluster.local."]
    assert world.ask("ns.dns", "A") == NODATA
    world.service("kube-system/kube-dns", "10.96.0.10", "fd00:10:96::a")
    a, aaaa = "ns.dns.cluster.local. 5 A 10.96.0.10", "ns.dns.cluster.local. 5 AAAA fd00:10:96::a"
    assert world.ask("", "NS") == ["cluster.local. 5 NS ns.dns.cluster.local.", f"++ {a}", f"++ {aaaa}"]
    assert (world.ask("ns.dns", "A"), world.ask("ns.dns", "AAAA"), world.ask("ns.dns", "TXT")) == ([a], [aaaa], NODATA)


@pytest.mark.parametrize("kind", sorted(set(TYPES) - {"OPT", "IXFR", "AXFR", "ANY"}))
@pytest.mark.parametrize("name", ["", "svc", "pod", "dns", "ns.dns", "dns-version", "default.svc", "shop.pod"])
def test_a_name_with_names_below_it_is_there(world: World, name: str, kind: str) -> None:
    found = world.answer(name, kind)
    assert found is not None and found.rcode == m.NOERROR and (found.records or found.authority)


@pytest.mark.parametrize("kind", ["A", "SOA", "TXT", "SRV"])
@pytest.mark.parametrize(
    "name",
    ["foo", "x.dns", "x.ns.dns", "x.dns-version", "gone.svc", "gone.pod", "web.gone.svc", "web.default.svc", "a.b.web.default.svc",
     "_http._tcp.web.default.svc", "*.default.svc", "web.default", "*"],
)  # fmt: skip
def test_all_else_is_denied(world: World, name: str, kind: str) -> None:
    assert world.ask(name, kind) == NXDOMAIN


def test_names_of_others_are_left_to_them(world: World) -> None:
    for name in (".", "local.", "example.com.", "xcluster.local.", "cluster.local.example.com."):
        assert world.answer(name) is None


@pytest.mark.parametrize("domain", ["k8s", "prod.eu.corp.example"])
def test_the_domain_is_any(domain: str) -> None:
    world = World(domain)
    world.service("default/web", "10.96.0.5", ports=[HTTP])
    assert world.ask("web.default.svc") == [f"web.default.svc.{domain}. 5 A 10.96.0.5"]
    assert world.ask("_http._tcp.web.default.svc", "SRV") == [
        f"_http._tcp.web.default.svc.{domain}. 5 SRV 0 100 80 web.default.svc.{domain}.",
        f"++ web.default.svc.{domain}. 5 A 10.96.0.5",
    ]
    assert world.ask("5.0.96.10.in-addr.arpa.", "PTR") == [f"5.0.96.10.in-addr.arpa. 5 PTR web.default.svc.{domain}."]
    assert world.ask("gone.default.svc")[1].startswith(f"-- {domain}. 5 SOA ns.dns.{domain}. hostmaster.{domain}. ")


@pytest.mark.parametrize(("ttl", "of_soa"), [(0, 0), (30, 30), (3600, 300)])
def test_the_ttl_is_that_of_answers_and_of_denials(ttl: int, of_soa: int) -> None:
    world = World(ttl=ttl)
    world.service("default/web", "10.96.0.5")
    assert world.ask("web.default.svc") == [f"web.default.svc.cluster.local. {ttl} A 10.96.0.5"]
    (line,) = world.ask("web.default.svc", "AAAA")
    assert line.startswith(f"-- cluster.local. {of_soa} SOA ") and line.endswith(f" {ttl}")


def test_the_serial_number_grows_with_each_change(world: World) -> None:
    def serial() -> int:
        found = world.answer("", "SOA")
        assert found is not None
        return int.from_bytes(found.records[0].data[-20:-16], "big")

    first = serial()
    world.service("default/web", "10.96.0.5")
    assert serial() == first + 1
    world.clock = 5000.0
    assert serial() == first + 1
    world.slice("default/web-a", "web", endpoint("10.244.1.2"))
    assert serial() == 5000
    world.slice("default/web-a", "web", endpoint("10.244.1.2"))
    world.put("namespace", "default", metadata={"labels": {"a": "b"}})
    assert serial() == 5000, "nothing changed that names are made of"


# Services with cluster IPs.


def test_a_service_has_its_cluster_ips(world: World) -> None:
    world.service("default/one", "10.96.0.5")
    world.service("default/two", "fd00:10:96:0::5", "10.96.0.6")
    assert world.ask("one.default.svc") == ["one.default.svc.cluster.local. 5 A 10.96.0.5"]
    assert world.ask("two.default.svc") == ["two.default.svc.cluster.local. 5 A 10.96.0.6"]
    assert world.ask("two.default.svc", "AAAA") == ["two.default.svc.cluster.local. 5 AAAA fd00:10:96::5"]


def test_a_name_of_one_family_is_there_for_every_type(world: World) -> None:
    """Not NXDOMAIN: a resolver would stop to look for the other address (kubernetes/dns#119)."""
    world.service("default/one", "10.96.0.5", ports=[HTTP])
    for kind in ("AAAA", *OTHERS):
        assert world.ask("one.default.svc", kind) == NODATA
        assert world.ask("_http._tcp.one.default.svc", kind) == NODATA


def test_upper_case_is_asked_and_answered(world: World) -> None:
    world.service("default/web", "10.96.0.5", ports=[HTTP])
    query = m.read_query(b"\0\1\1\0\0\1\0\0\0\0\0\0\3WeB\7DEFAULT\3svc\7Cluster\5LOCAL\0\0\1\0\1")
    found = world.zone.answer(query.question)
    assert found is not None and found.records[0].data == bytes((10, 96, 0, 5))
    assert m.respond(query, found)[12:40] == query.asked[:28]


def test_only_the_first_ip_is_needed(world: World) -> None:
    world.put("service", "default/old", spec={"clusterIP": "10.96.0.7"})
    world.put("service", "default/null", spec={"clusterIP": "10.96.0.8", "clusterIPs": None, "ports": None})
    assert world.ask("old.default.svc") == ["old.default.svc.cluster.local. 5 A 10.96.0.7"]
    assert world.ask("null.default.svc") == ["null.default.svc.cluster.local. 5 A 10.96.0.8"]


def test_a_service_without_an_address_yet_is_there(world: World) -> None:
    world.put("service", "default/new", spec={"ports": [{"name": "http", "port": 80}]})
    assert world.ask("new.default.svc") == NODATA
    assert world.ask("_http._tcp.new.default.svc", "SRV") == NODATA


def test_ports_have_srv_records(world: World) -> None:
    world.service("default/web", "10.96.0.5", "fd00:10:96::5", ports=[HTTP, DNS, "9"])
    own = ["++ web.default.svc.cluster.local. 5 A 10.96.0.5", "++ web.default.svc.cluster.local. 5 AAAA fd00:10:96::5"]
    assert world.ask("_http._tcp.web.default.svc", "SRV") == [
        srv("_http._tcp.web.default.svc", 50, 80, "web.default.svc"), *own]  # fmt: skip
    assert world.ask("_DNS._UDP.web.default.svc", "SRV")[0] == srv("_dns._udp.web.default.svc", 50, 53, "web.default.svc")
    assert world.ask("web.default.svc", "SRV") == [*(srv("web.default.svc", 16, n) for n in (80, 53, 9)), *own]
    assert world.ask("_http._tcp.web.default.svc") == ["_http._tcp.web.default.svc.cluster.local. 5 A 10.96.0.5"]


def test_a_protocol_is_there_when_a_named_port_is(world: World) -> None:
    world.service("default/web", "10.96.0.5", ports=[HTTP, "9/UDP"])
    for kind in ("A", "SRV", "TXT"):
        assert world.ask("_tcp.web.default.svc", kind) == NODATA
        for name in (
            "_udp",
            "_sctp",
            "_",
            "_._tcp",
            "_._udp",
            "_http._udp",
            "_9._tcp",
            "http.tcp",
            "_http.tcp",
            "http._tcp",
            "_tcp._http",
        ):
            assert world.ask(f"{name}.web.default.svc", kind) == NXDOMAIN, name


def test_services_with_the_names_of_the_zones_parts(world: World) -> None:
    for name in ("svc", "pod", "dns", "ns"):
        world.put("namespace", name)
        world.service(f"{name}/{name}", "10.96.0.5")
        assert world.ask(f"{name}.{name}.svc") == [f"{name}.{name}.svc.cluster.local. 5 A 10.96.0.5"]
        assert world.ask(f"{name}.svc") == NODATA


def test_a_change_of_type_is_a_change_of_names(world: World) -> None:
    world.service("default/web", "10.96.0.5")
    world.slice("default/web-a", "web", endpoint("10.244.1.2"))
    world.service("default/web")
    assert world.ask("web.default.svc") == ["web.default.svc.cluster.local. 5 A 10.244.1.2"]
    world.put("service", "default/web", spec={"type": "ExternalName", "externalName": "db.default.svc.cluster.local"})
    assert world.ask("web.default.svc", "CNAME") == ["web.default.svc.cluster.local. 5 CNAME db.default.svc.cluster.local."]
    assert world.ask("10-244-1-2.web.default.svc") == NXDOMAIN
    world.remove("service", "default/web")
    assert world.ask("web.default.svc") == NXDOMAIN


# Endpoints.


def test_a_headless_service_has_its_endpoints(world: World) -> None:
    world.service("default/db", ports=[HTTP])
    world.slice("default/db-b", "db", endpoint("10.244.2.2"), endpoint("10.244.1.2", hostname="db-0"), ports=[HTTP])
    world.slice("default/db-a", "db", endpoint("10.244.1.2", hostname="db-0"), endpoint("10.244.3.2"), ports=[HTTP, DNS])
    world.slice("default/db-6", "db", endpoint("fd00:10:244:1::2", hostname="db-0"), endpoint("fd00:10:244:3::"), ports=[HTTP])
    assert world.ask("db.default.svc") == [f"db.default.svc.cluster.local. 5 A 10.244.{n}.2" for n in (1, 3, 2)]
    assert world.ask("db.default.svc", "AAAA") == [
        "db.default.svc.cluster.local. 5 AAAA fd00:10:244:1::2",
        "db.default.svc.cluster.local. 5 AAAA fd00:10:244:3::",
    ]
    assert world.ask("DB-0.db.default.svc") == ["db-0.db.default.svc.cluster.local. 5 A 10.244.1.2"]
    assert world.ask("db-0.db.default.svc", "AAAA") == ["db-0.db.default.svc.cluster.local. 5 AAAA fd00:10:244:1::2"]
    assert world.ask("10-244-3-2.db.default.svc") == ["10-244-3-2.db.default.svc.cluster.local. 5 A 10.244.3.2"]
    assert world.ask("fd00-10-244-3--0.db.default.svc", "AAAA") == [
        "fd00-10-244-3--0.db.default.svc.cluster.local. 5 AAAA fd00:10:244:3::"
    ]
    assert world.ask("10-244-3-2.db.default.svc", "AAAA") == NODATA
    for name in ("10-244-1-2", "db-1", "10-244-9-9", "fd00-10-244-3--", "10.244.3.2", "x.db-0"):
        assert world.ask(f"{name}.db.default.svc") == NXDOMAIN, name


def test_ports_of_endpoints_are_those_of_their_slices(world: World) -> None:
    world.service("default/db", ports=[HTTP])
    world.slice("default/db-a", "db", endpoint("10.244.1.2", hostname="db-0"), ports=["http:8080"])
    world.slice("default/db-b", "db", endpoint("10.244.1.3"), endpoint("fd00::3"), ports=["http:8081", "8082", DNS])
    names = ("db-0.db.default.svc", "10-244-1-3.db.default.svc", "fd00--3.db.default.svc")
    addresses = ("A 10.244.1.2", "A 10.244.1.3", "AAAA fd00::3")
    extra = [f"++ {name}.cluster.local. 5 {one}" for name, one in zip(names, addresses, strict=True)]
    http = "_http._tcp.db.default.svc"
    ports = (8080, 8081, 8081)
    assert world.ask(http, "SRV") == [*(srv(http, 33, n, name) for n, name in zip(ports, names, strict=True)), *extra]
    assert world.ask("_dns._udp.db.default.svc", "SRV") == [
        *(srv("_dns._udp.db.default.svc", 50, 53, name) for name in names[1:]),
        *extra[1:],
    ]
    assert world.ask("_dns._udp.db.default.svc") == ["_dns._udp.db.default.svc.cluster.local. 5 A 10.244.1.3"]
    assert world.ask(names[0], "SRV") == [srv(names[0], 100, 8080), extra[0]]
    assert (world.ask("_udp.db.default.svc"), world.ask("_sctp.db.default.svc")) == (NODATA, NXDOMAIN)


def test_endpoints_that_share_a_name_are_one_target(world: World) -> None:
    world.service("default/db")
    world.slice(
        "default/db-a",
        "db",
        endpoint("10.244.1.2", "10.244.1.3", hostname="db"),
        endpoint("10.244.1.4", hostname="db"),
        ports=[HTTP],
    )
    name = "db.db.default.svc"
    assert world.ask(name) == [f"{name}.cluster.local. 5 A 10.244.1.{n}" for n in (2, 3, 4)]
    assert world.ask("_http._tcp.db.default.svc", "SRV") == [
        srv("_http._tcp.db.default.svc", 33, 80, name), *(f"++ {name}.cluster.local. 5 A 10.244.1.{n}" for n in (2, 3, 4))]  # fmt: skip


def test_endpoints_without_ports_have_no_srv_records(world: World) -> None:
    world.service("default/db")
    world.slice("default/db-a", "db", endpoint("10.244.1.2", hostname="db-0"), ports=[{"name": "any", "protocol": "TCP"}])
    world.slice("default/db-b", "db", endpoint("10.244.1.3"))
    assert (world.ask("db.default.svc", "SRV"), world.ask("db-0.db.default.svc", "SRV")) == (NODATA, NODATA)
    assert len(world.ask("db.default.svc")) == 2


def test_a_headless_service_without_ready_endpoints_is_denied(world: World) -> None:
    """The specification (2.4.1) says so; below it there is nothing either."""
    world.service("default/db", ports=[HTTP])
    assert world.ask("db.default.svc") == NXDOMAIN
    world.slice("default/db-a", "db", endpoint("10.244.1.2", hostname="db-0", ready=False), ports=[HTTP])
    for name in ("db", "db-0.db", "_tcp.db", "_http._tcp.db"):
        assert world.ask(f"{name}.default.svc", "SRV") == NXDOMAIN
    world.slice("default/db-a", "db", endpoint("10.244.1.2", hostname="db-0", ready=None), ports=[HTTP])
    assert world.ask("db-0.db.default.svc") == ["db-0.db.default.svc.cluster.local. 5 A 10.244.1.2"]


def test_terminating_endpoints_have_no_names_though_they_serve(world: World) -> None:
    world.service("default/db")
    world.slice(
        "default/db-a", "db", endpoint("10.244.1.2", ready=False, serving=True, terminating=True), endpoint("10.244.1.3")
    )
    assert world.ask("db.default.svc") == ["db.default.svc.cluster.local. 5 A 10.244.1.3"]
    assert world.ask("10-244-1-2.db.default.svc") == NXDOMAIN
    assert world.ask("2.1.244.10.in-addr.arpa.", "PTR")[0] == "NXDOMAIN"


def test_peers_have_names_before_they_are_ready_where_the_service_says_so(world: World) -> None:
    """kubernetes/kubernetes#92559: peers look for each other at once; each has a name as soon as a slice has it."""
    world.service("default/db", publishNotReadyAddresses=True)
    for n in range(3):
        assert world.ask(f"db-{n}.db.default.svc") == NXDOMAIN
    world.slice("default/db-a", "db", *(endpoint(f"10.244.1.{n}", hostname=f"db-{n}", ready=False) for n in range(3)))
    for n in range(3):
        assert world.ask(f"db-{n}.db.default.svc") == [f"db-{n}.db.default.svc.cluster.local. 5 A 10.244.1.{n}"]
        assert world.ask(f"{n}.1.244.10.in-addr.arpa.", "PTR") == [
            f"{n}.1.244.10.in-addr.arpa. 5 PTR db-{n}.db.default.svc.cluster.local."
        ]


def test_endpoints_of_a_service_with_cluster_ips_have_names_of_their_own(world: World) -> None:
    world.service("default/web", "10.96.0.5", ports=[HTTP])
    world.slice("default/web-a", "web", endpoint("10.244.1.2"), endpoint("10.244.1.3", hostname="first"), ports=["http:8080"])
    assert world.ask("10-244-1-2.web.default.svc") == ["10-244-1-2.web.default.svc.cluster.local. 5 A 10.244.1.2"]
    assert world.ask("first.web.default.svc", "SRV")[0] == srv("first.web.default.svc", 100, 8080)


def test_slices_of_others_do_not_matter(world: World) -> None:
    world.put("namespace", "shop")
    world.service("default/db")
    world.slice("shop/db-a", "db", endpoint("10.244.1.2", hostname="db-0"))
    world.slice("default/web-a", "web", endpoint("10.244.1.3", hostname="db-0"), endpoint("10.244.1.5"))
    world.put("endpointslice", "default/none", endpoints=[endpoint("10.244.1.4", hostname="db-0")])
    world.put(
        "endpointslice", "default/null", endpoints=None, ports=None, metadata={"labels": {"kubernetes.io/service-name": "db"}}
    )
    for name in ("db", "db-0.db", "10-244-1-3.db", "10-244-1-5.db", "db-0.web"):
        assert world.ask(f"{name}.default.svc") == NXDOMAIN


def test_names_of_hosts_are_no_addresses(world: World) -> None:
    """Slices of the type FQDN; and what nobody could have written."""
    world.service("default/db")
    world.slice(
        "default/db-a", "db", endpoint("www.example.com", hostname="db-0"), endpoint("10.0.0.256"), endpoint("fe80::1%eth0")
    )
    assert world.ask("db.default.svc") == NXDOMAIN


def test_names_that_are_too_long_are_left_out() -> None:
    """There are 30 bytes left before the name of the Service: one endpoint has a name, one has none."""
    world = World(".".join(["a" * 49] * 4 + ["bb"]))
    service = "s" * 13
    world.service(f"n/{service}", ports=[HTTP])
    short, long = "h" * 30, "h" * 31
    assert m.fits((short.encode(), *world._name(f"{service}.n.svc"))) and not m.fits(
        (long.encode(), *world._name(f"{service}.n.svc"))
    )
    world.slice("n/a", service, endpoint("10.244.1.2", hostname=short), endpoint("10.244.1.3", hostname=long), ports=[HTTP])
    found = world.answer(f"_http._tcp.{service}.n.svc", "SRV")
    assert found is not None and len(found.records) == len(found.additional) == 1
    assert [m.name_in(one.data, 6)[0] for one in found.records] == [short.encode()]
    assert len(world.ask(f"{service}.n.svc")) == 2
    assert world.ask("2.1.244.10.in-addr.arpa.", "PTR")[0].split(" ")[-1].startswith(short)
    assert world.ask("3.1.244.10.in-addr.arpa.", "PTR")[0] == "NXDOMAIN"


def test_more_endpoints_than_a_message_holds(world: World) -> None:
    """The response says so, and no more records are made than it could hold."""
    world.service("default/db")
    for part in range(5):
        ends = [endpoint(f"10.{part}.{n // 250}.{n % 250}") for n in range(1000)]
        world.slice(f"default/db-{part}", "db", *ends, ports=[HTTP, "metrics:9090"])
    for name, kind in (("db", "A"), ("db", "SRV"), ("_http._tcp.db", "SRV")):
        query, found = world.resolve(f"{name}.default.svc", kind)
        assert 2000 < len(found.records) <= 4096
        assert not found.additional and {one.data[:4] for one in found.records if kind == "SRV"} <= {b"\0\0\0\1"}
        response = m.respond(query, found)
        assert 65535 - 60 < len(response) <= 65535 and response[2] & m.TC >> 8


# Aliases.


def external(world: World, path: str, target: str) -> None:
    world.put("service", path, spec={"type": "ExternalName", "externalName": target})


@pytest.mark.parametrize("target", ["www.example.com", "www.example.com.", "WWW.Example.com"])
def test_an_external_service_is_an_alias(world: World, target: str) -> None:
    external(world, "default/out", target)
    assert world.ask("out.default.svc", "CNAME") == ["out.default.svc.cluster.local. 5 CNAME www.example.com."]
    for kind in ("A", "AAAA", "TXT", "SRV", "MX"):
        found = world.answer("out.default.svc", kind)
        assert found is not None and found.follow == m.name_of("www.example.com")
        assert [one.type for one in found.records] == [m.CNAME]
    for name in ("x.out", "_tcp.out", "_http._tcp.out"):
        assert world.ask(f"{name}.default.svc") == NXDOMAIN


def test_an_alias_within_the_cluster_is_followed(world: World) -> None:
    external(world, "default/a", "b.default.svc.cluster.local")
    external(world, "default/b", "web.shop.svc.cluster.local")
    aliases = [
        "a.default.svc.cluster.local. 5 CNAME b.default.svc.cluster.local.",
        "b.default.svc.cluster.local. 5 CNAME web.shop.svc.cluster.local.",
    ]
    assert world.ask("a.default.svc") == ["NXDOMAIN", *aliases, f"-- {SOA}"]
    world.service("shop/web", "10.96.0.5")
    assert world.ask("a.default.svc") == [*aliases, "web.shop.svc.cluster.local. 5 A 10.96.0.5"]
    assert world.ask("a.default.svc", "AAAA") == [*aliases, f"-- {SOA}"]


@pytest.mark.parametrize("targets", [["a"], ["b", "a"], ["b", "c", "d", "b"]])
def test_a_circle_of_aliases_is_a_failure(world: World, targets: list[str]) -> None:
    for name, target in zip("abcd", targets, strict=False):
        external(world, f"default/{name}", f"{target}.default.svc.cluster.local")
    assert world.ask("a.default.svc") == ["SERVFAIL not authoritative"]


@pytest.mark.parametrize("target", ["", ".", "a..b", f"{'a' * 64}.example", "bücher.example"])
def test_an_alias_for_what_is_no_name_is_a_failure_that_is_said(world: World, target: str) -> None:
    external(world, "default/out", target)
    found = world.answer("out.default.svc")
    assert found is not None
    assert (found.rcode, found.source) == (m.SERVFAIL, f"Service default/out, whose externalName {target!r} is no name")


@pytest.mark.parametrize("target", ["192.0.2.1", "2001:db8::1"])
def test_an_address_is_no_alias(world: World, target: str) -> None:
    external(world, "default/out", target)
    assert world.ask("out.default.svc") == NXDOMAIN


# Pods.


def test_every_address_is_a_name_in_a_namespace_that_is_there(world: World) -> None:
    assert world.ask("10-244-1-2.shop.pod") == ["10-244-1-2.shop.pod.cluster.local. 5 A 10.244.1.2"]
    assert world.ask("fd00-10--2.shop.pod", "AAAA") == ["fd00-10--2.shop.pod.cluster.local. 5 AAAA fd00:10::2"]
    assert world.ask("--1.shop.pod", "AAAA") == ["--1.shop.pod.cluster.local. 5 AAAA ::1"]
    assert world.ask("2001-DB8-0-0-0-0-0-1.shop.pod", "AAAA") == [
        "2001-db8-0-0-0-0-0-1.shop.pod.cluster.local. 5 AAAA 2001:db8::1"
    ]
    for kind in ("AAAA", *OTHERS):
        assert world.ask("10-244-1-2.shop.pod", kind) == NODATA
    for name in (
        "10-244-1-2.gone",
        "10-244-1.shop",
        "10-244-1-256.shop",
        "10.244.1.2.shop",
        "01-2-3-4.shop",
        "web-0.shop",
        "x.10-244-1-2.shop",
    ):
        assert world.ask(f"{name}.pod") == NXDOMAIN, name


@pytest.mark.parametrize("label", [b"10.244.1.2", b"fd00::1", b"fd00:-1", b"10-244-1.2", b"\xff", b"", b"%"])
def test_a_label_spells_an_address_with_dashes_alone(world: World, label: bytes) -> None:
    found = world.zone.answer(Question((label, b"shop", b"pod", *world.domain), m.A))
    assert found is not None and found.rcode == m.NXDOMAIN


def test_pods_have_names_when_they_are_verified() -> None:
    world = World(pods=VERIFIED)
    world.put("namespace", "shop")
    assert world.ask("10-244-1-2.shop.pod") == NXDOMAIN
    world.put("pod", "shop/web", status={"podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00:10:244:0::2"}]})
    world.put("pod", "shop/host", spec={"hostNetwork": True}, status={"podIP": "172.18.0.2"})
    assert world.ask("10-244-1-2.shop.pod") == ["10-244-1-2.shop.pod.cluster.local. 5 A 10.244.1.2"]
    assert world.ask("fd00-10-244--2.shop.pod", "AAAA") == ["fd00-10-244--2.shop.pod.cluster.local. 5 AAAA fd00:10:244::2"]
    assert world.ask("172-18-0-2.shop.pod") == ["172-18-0-2.shop.pod.cluster.local. 5 A 172.18.0.2"]
    assert world.ask("10-244-1-2.default.pod") == NXDOMAIN
    world.put("pod", "shop/web", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}, status={"podIP": "10.244.1.2"})
    world.put("pod", "shop/host", status={"podIP": "172.18.0.2", "phase": "Failed"})
    assert (world.ask("10-244-1-2.shop.pod"), world.ask("172-18-0-2.shop.pod")) == (NXDOMAIN, NXDOMAIN)
    assert (world.ask("shop.pod"), world.ask("gone.pod")) == (NODATA, NXDOMAIN)


def test_pods_have_no_names_when_these_are_disabled() -> None:
    world = World(pods=DISABLED)
    world.put("namespace", "shop")
    for name in ("10-244-1-2.shop.pod", "shop.pod"):
        assert world.ask(name) == NXDOMAIN
    assert world.ask("pod") == NODATA


def test_an_answer_names_what_it_was_made_of(world: World) -> None:
    world.service("default/web", "10.96.0.5")
    found = world.answer("web.default.svc")
    assert isinstance(found, Answer) and (found.source, found.depends) == ("Service default/web", ("service/default/web",))
