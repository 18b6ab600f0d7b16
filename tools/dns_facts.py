"""A made-up cluster, and questions about its names: what `tests/unit/dns/test_beside_coredns.py` asks this name server and CoreDNS.

There is one object of every kind that matters to names, in each mix of address families; of every name that these objects have, the
questions ask for all types, and for names that are nearly right. Nothing is drawn by chance: the same code makes the same questions.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

Object = dict[str, Any]
Question = tuple[str, str]
"""Name and type, as text."""
DOMAIN = "cluster.local"
NAMESPACES = (
    "default",
    "shop",
    "kube-system",
    "empty",
    "svc",
    "pod",
    "dns",
    "a-namespace-with-a-name-of-the-full-length-of-63-characters-abc",
)
FAMILIES = {"4": ("IPv4",), "6": ("IPv6",), "46": ("IPv4", "IPv6"), "64": ("IPv6", "IPv4")}
NETWORKS = {"IPv4": ("10.96.1.0/24", "10.244.9.0/24"), "IPv6": ("fd00:10:96::1:0/120", "fd00:10:244:9::/120")}
"""Of each family: where cluster IPs and addresses of endpoints are taken from."""
HTTP, METRICS = {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "metrics", "port": 9090, "protocol": "TCP"}
DNS, STREAM = {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "stream", "port": 9, "protocol": "SCTP"}
PLAIN = {"port": 80, "protocol": "TCP"}
PORTS = (HTTP, METRICS, DNS, STREAM)
READY, NOT_READY = (
    {"ready": True, "serving": True, "terminating": False},
    {"ready": False, "serving": False, "terminating": False},
)
ENDING = {"ready": False, "serving": True, "terminating": True}
EXTERNAL = {
    "outside": "www.example.test",
    "outside-dot": "www.example.test.",
    "outside-alias": "alias.example.test",
    "outside-missing": "missing.example.test",
    "outside-upper": "WWW.Example.TEST",
    "inside": f"cluster-46.shop.svc.{DOMAIN}",
    "inside-headless": f"headless-46.shop.svc.{DOMAIN}",
    "inside-missing": f"nothing.shop.svc.{DOMAIN}",
    "inside-twice": f"inside.shop.svc.{DOMAIN}",
    "loop": f"loop.shop.svc.{DOMAIN}",
    "loop-a": f"loop-b.shop.svc.{DOMAIN}",
    "loop-b": f"loop-a.shop.svc.{DOMAIN}",
}
OUTSIDE = {
    ("www.example.test", "A"): ("203.0.113.10",),
    ("www.example.test", "AAAA"): ("2001:db8::10",),
    ("www.example.test", "TXT"): ('"a text"',),
    ("alias.example.test", "CNAME"): ("www.example.test.",),
}
"""Records of a zone outside of the cluster, `example.test`."""
TYPES = ("A", "AAAA", "SRV", "PTR", "TXT", "CNAME", "NS", "SOA", "MX", "ANY")
FEW = ("A", "SRV")


class Cluster:
    """The objects, in the order in which they have to be created. Addresses are handed out one after the other."""

    def __init__(self) -> None:
        self._free = {family: [ipaddress.ip_network(cidr).hosts() for cidr in cidrs] for family, cidrs in NETWORKS.items()}
        self.namespaces = [{"metadata": {"name": name}} for name in NAMESPACES]
        self.services: list[Object] = []
        self.slices: list[Object] = []
        self.pods: list[Object] = []
        for name, families in FAMILIES.items():
            self._of_families(name, families)
        self._special()
        for name, target in EXTERNAL.items():
            self._service(name, (), type="ExternalName", externalName=target)
        self._pods()

    def address(self, family: str, *, of_service: bool = False) -> str:
        """An address that nothing has yet."""
        return str(next(self._free[family][0 if of_service else 1]))

    def _service(self, name: str, families: tuple[str, ...], namespace: str = "shop", **spec: Any) -> None:
        if families and spec.get("clusterIP") != "None":
            ips = [self.address(family, of_service=True) for family in families]
            spec |= {"clusterIP": ips[0], "clusterIPs": ips}
        if families:
            spec |= {"ipFamilies": list(families), "ipFamilyPolicy": "RequireDualStack" if families[1:] else "SingleStack"}
        self.services.append({"metadata": {"name": name, "namespace": namespace}, "spec": spec})

    def _headless(self, name: str, families: tuple[str, ...] = ("IPv4",), namespace: str = "shop", **spec: Any) -> None:
        self._service(name, families, namespace, clusterIP="None", **{"ports": list(PORTS), **spec})

    def _slice(
        self,
        service: str,
        endpoints: Iterable[Object],
        family: str = "IPv4",
        ports: Iterable[Object] = PORTS,
        namespace: str = "shop",
    ) -> None:
        metadata = {
            "name": f"{service}-{len(self.slices)}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        }
        self.slices.append({"metadata": metadata, "addressType": family, "endpoints": list(endpoints), "ports": list(ports)})

    def _endpoint(self, family: str, hostname: str = "", conditions: Object | None = None) -> Object:
        found: Object = {"addresses": [self.address(family)], "conditions": READY if conditions is None else conditions}
        return {**found, "hostname": hostname} if hostname else found

    def _of_families(self, mix: str, families: tuple[str, ...]) -> None:
        """What there is in each mix of families."""
        self._service(f"cluster-{mix}", families, ports=list(PORTS))
        self._service(f"plain-{mix}", families, ports=[PLAIN])
        self._headless(f"headless-{mix}", families)
        self._headless(f"hosts-{mix}", families)
        for family in families:
            self._slice(f"cluster-{mix}", [self._endpoint(family), self._endpoint(family, "named")], family)
            self._slice(f"plain-{mix}", [self._endpoint(family)], family, [{**PLAIN, "name": ""}])
            self._slice(f"headless-{mix}", [self._endpoint(family), self._endpoint(family)], family)
            self._slice(f"headless-{mix}", [self._endpoint(family)], family, [HTTP])
            self._slice(f"hosts-{mix}", [self._endpoint(family, f"hosts-{n}") for n in range(3)], family)

    def _special(self) -> None:
        """What there is once."""
        self._service("balanced", ("IPv4",), type="LoadBalancer", ports=[HTTP])
        self._service("node-port", ("IPv4",), type="NodePort", ports=[HTTP])
        self._service("no-endpoints", ("IPv4",), ports=[HTTP])
        self._service("kube-dns", ("IPv4", "IPv6"), "kube-system", ports=[DNS, {**DNS, "name": "dns-tcp", "protocol": "TCP"}])
        for namespace in ("svc", "pod", "dns", NAMESPACES[-1]):
            self._service("svc", ("IPv4",), namespace, ports=[HTTP])
        self._service(
            "a-service-with-a-name-of-the-full-length-of-63-characters-abcdx", ("IPv4",), NAMESPACES[-1], ports=[HTTP]
        )
        self._headless("empty")
        self._headless("no-slices")
        self._slice("empty", [])
        self._headless("no-ports", ports=[])
        self._slice("no-ports", [self._endpoint("IPv4", "zero"), self._endpoint("IPv4")], ports=())
        self._headless("unnamed", ports=[PLAIN])
        self._slice("unnamed", [self._endpoint("IPv4", "zero")], ports=[{**PLAIN, "name": ""}])
        for name, publish in (("hidden", False), ("published", True)):
            self._headless(name, publishNotReadyAddresses=publish)
            conditions: tuple[tuple[Object, str], ...] = (
                (READY, "ready"),
                (NOT_READY, "not-ready"),
                (ENDING, "ending"),
                ({}, "unknown"),
            )
            self._slice(name, [self._endpoint("IPv4", host, one) for one, host in conditions])
            self._slice(name, [self._endpoint("IPv4", "", NOT_READY)])
        self._headless("shared-hostname")
        self._slice("shared-hostname", [self._endpoint("IPv4", "same"), self._endpoint("IPv4", "same")])
        self._slice("shared-hostname", [self._endpoint("IPv4", "other")])
        self._headless("twice")
        twice = self._endpoint("IPv4", "zero")
        self._slice("twice", [twice])
        self._slice("twice", [twice], ports=[HTTP])
        self._headless("other-ports", ports=[HTTP])
        self._slice("other-ports", [self._endpoint("IPv4", "zero")], ports=[{**HTTP, "port": 8080}])
        self._slice("other-ports", [self._endpoint("IPv4", "one")], ports=[{**HTTP, "port": 8081}, METRICS])
        self._headless("also-twice")
        self._slice("also-twice", [twice])
        self._headless("many")
        self._slice("many", [self._endpoint("IPv4") for _ in range(40)], ports=[HTTP])
        self._slice("no-service", [self._endpoint("IPv4", "zero")])
        self._service("nowhere", ("IPv4",), ports=[HTTP])
        self._slice("nowhere", [self._endpoint("IPv4", "", NOT_READY)])

    def _pods(self) -> None:
        container = {"name": "main", "image": "podplane/echo"}
        rows = (
            ("dual", "Running", ("IPv4", "IPv6"), False),
            ("single", "Running", ("IPv4",), False),
            ("six", "Running", ("IPv6",), False),
            ("pending", "Pending", (), False),
            ("done", "Succeeded", ("IPv4",), False),
            ("failed", "Failed", ("IPv4",), False),
            ("host", "Running", ("IPv4",), True),
        )
        for name, phase, families, on_host in rows:
            ips = [self.address(family) for family in families]
            status = {"phase": phase, "podIPs": [{"ip": ip} for ip in ips]} | ({"podIP": ips[0]} if ips else {})
            spec = {"containers": [container], "nodeName": "ghost", "hostNetwork": on_host}
            self.pods.append({"metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": status})


def questions(cluster: Cluster) -> list[Question]:
    """All questions about names of Services, of the zone, and reverse names; each once."""
    parts = (_of_zone(), _of_services(cluster), _of_endpoints(cluster), _reverse(cluster))
    return list(dict.fromkeys(itertools.chain(*parts)))


def pod_questions(cluster: Cluster) -> list[Question]:
    """All questions about names of pods, which are answered as the server is told to."""
    ips = [ip["ip"] for pod in cluster.pods for ip in pod["status"]["podIPs"]]
    ips += [cluster.slices[0]["endpoints"][0]["addresses"][0], "192.0.2.1", "2001:db8::1", "::1", "fd00::", "0.0.0.0"]
    names = [dashed(ip) for ip in ips]
    names += [
        "1-2-3",
        "1-2-3-4-5",
        "256-1-1-1",
        "a-b-c-d",
        "pod",
        "01-2-3-4",
        "fd00-1",
        "fd00--1--2",
        "10.1.2.3",
        "-",
        "--",
        "x.192-0-2-1",
    ]
    found = [
        (f"{name}.{ns}.pod.{DOMAIN}", type_) for name in names for ns in ("shop", "missing") for type_ in ("A", "AAAA", "TXT")
    ]
    found += [(f"{names[0]}.shop.pod.{DOMAIN}", type_) for type_ in TYPES]
    found += [(f"{names[0].upper()}.SHOP.Pod.{DOMAIN}", type_) for type_ in ("A", "AAAA")]
    found += [(f"{name}pod.{DOMAIN}", type_) for name in ("", "shop.", "missing.", "pod.", "empty.") for type_ in TYPES]
    return list(dict.fromkeys(found))


def dashed(ip: str) -> str:
    """An address as the label of a name."""
    return ip.replace(".", "-").replace(":", "-")


def _of_zone() -> Iterator[Question]:
    names: tuple[str, ...] = (
        "",
        "dns-version.",
        "x.dns-version.",
        "ns.dns.",
        "dns.",
        "x.ns.dns.",
        "svc.",
        "foo.",
        "foo.bar.",
        "a.b.c.d.e.",
        "*.",
        "any.",
    )
    names += (
        "shop.svc.",
        "SHOP.Svc.",
        "empty.svc.",
        "missing.svc.",
        "svc.svc.",
        "pod.svc.",
        "*.svc.",
        "web.missing.svc.",
        "x.y.missing.svc.",
    )
    names += (
        "missing.shop.svc.",
        "_http._tcp.missing.shop.svc.",
        "zero.missing.shop.svc.",
        "zero.no-service.shop.svc.",
        "no-service.shop.svc.",
    )
    names += (
        "cluster-46.shop.",
        "cluster-46.shop.foo.",
        "cluster-46.default.svc.",
        "*.shop.svc.",
        "*.*.svc.",
        "any.shop.svc.",
        "shop.cluster-46.svc.",
    )
    yield from ((f"{name}{DOMAIN}", type_) for name in names for type_ in TYPES)
    yield from ((name.format(DOMAIN.upper()), type_) for name in ("{}", "dns-version.{}") for type_ in ("SOA", "NS", "TXT"))
    yield from (
        (name, type_) for name in ("local", "example.test", "www.example.test", "alias.example.test") for type_ in ("A", "TXT")
    )


def _of_services(cluster: Cluster) -> Iterator[Question]:
    for service in cluster.services:
        metadata = service["metadata"]
        own = f"{metadata['name']}.{metadata['namespace']}.svc.{DOMAIN}"
        yield from ((own, type_) for type_ in TYPES)
        yield own.title(), "A"
        below = ["*", "any", "x", "_tcp", "_udp", "_sctp", "_icmp", "*._tcp", "_http._any", "_http._tcp._x", "x.y.z"]
        for port in (*service["spec"].get("ports", ()), {"name": "wrong", "protocol": "TCP"}):
            name, protocol = port.get("name", ""), port["protocol"].lower()
            below += (
                [f"_{name}._{protocol}", f"_{name}._{'udp' if protocol == 'tcp' else 'tcp'}", f"{name}.{protocol}"]
                if name
                else []
            )
            below += (
                [f"_{name.upper()}._{protocol.upper()}", f"_{protocol}._{name}", f"_{port.get('port', 1)}._{protocol}"]
                if name
                else []
            )
        yield from ((f"{label}.{own}", type_) for label in below for type_ in FEW)


def _of_endpoints(cluster: Cluster) -> Iterator[Question]:
    for slice_ in cluster.slices:
        metadata = slice_["metadata"]
        own = f"{metadata['labels']['kubernetes.io/service-name']}.{metadata['namespace']}.svc.{DOMAIN}"
        for endpoint in slice_["endpoints"][:4]:
            names = [dashed(endpoint["addresses"][0]), *filter(None, [endpoint.get("hostname")])]
            yield from ((f"{name}.{own}", type_) for name in names for type_ in ("A", "AAAA", "SRV", "TXT", "ANY"))
            yield from ((f"{below}.{names[-1]}.{own}", type_) for below in ("x", "_http._tcp") for type_ in ("A", "SRV"))
            yield f"{names[-1].upper()}.{own}", "A"


def _reverse(cluster: Cluster) -> Iterator[Question]:
    ips = [ip for service in cluster.services for ip in service["spec"].get("clusterIPs", ()) if ip != "None"]
    ips += [endpoint["addresses"][0] for slice_ in cluster.slices for endpoint in slice_["endpoints"][:4]]
    ips += [ip["ip"] for pod in cluster.pods for ip in pod["status"]["podIPs"]]
    ips += ["10.96.1.254", "10.244.9.254", "fd00:10:96::1:ff", "fd00:10:244:9::fe"]
    names = [ipaddress.ip_address(ip).reverse_pointer for ip in dict.fromkeys(ips)]
    yield from ((name, "PTR") for name in names)
    for name in (names[0], next(name for name in names if "ip6" in name), names[-1], names[-4]):
        yield from ((name, type_) for type_ in TYPES)
        yield from ((f"x.{name}", type_) for type_ in FEW)
        yield name.upper(), "PTR"
        parents = name.split(".")
        yield from ((".".join(parents[n:]), type_) for n in (1, 2) for type_ in ("PTR", "A", "SOA"))
