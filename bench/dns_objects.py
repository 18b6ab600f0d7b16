"""Services and endpoints in the thousands for measurements of the name server, the questions about them, and the same names for Unbound."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from podplane.kubeapi.access import Access
from podplane.kubeapi.http import HttpClient

DOMAIN = "cluster.local"
NAMESPACES, ENDPOINTS, HEADLESS, CLIENTS = 20, 10, 10, 8
LINES, SEED = 50_000, 1
SHARES = {"A": 40, "AAAA": 20, "SRV": 10, "PTR": 10, "missing": 20}
"""How many of 100 questions are of each kind."""
MISSING = 1_000
"""Names that are asked for and are not there."""
FIRST_SERVICE4, FIRST_SERVICE6 = ipaddress.ip_address("10.96.16.0"), ipaddress.ip_address("fd00:10:96::2000")
FIRST_POD = ipaddress.ip_address("10.128.0.0")
SLICES = "endpointslices.discovery.k8s.io"
PORT = {"name": "http", "port": 80, "protocol": "TCP"}


@dataclass(frozen=True)
class Named:
    """A Service by its number: every other one is dual stack, every tenth is headless and has IPv4."""

    number: int

    @property
    def namespace(self) -> str:
        """Where it is."""
        return f"bench-{self.number % NAMESPACES}"

    @property
    def label(self) -> str:
        """Its name."""
        return f"service-{self.number}"

    @property
    def name(self) -> str:
        """Its name in the DNS."""
        return f"{self.label}.{self.namespace}.svc.{DOMAIN}"

    @property
    def is_headless(self) -> bool:
        """Are its names those of its endpoints?"""
        return self.number % HEADLESS == 0

    @property
    def ips(self) -> list[str]:
        """The addresses that its name has."""
        if self.is_headless:
            return [endpoint["addresses"][0] for endpoint in self.endpoints()]
        return [str(FIRST_SERVICE4 + self.number), *([str(FIRST_SERVICE6 + self.number)] if self.number % 2 else [])]

    def endpoints(self, offset: int = 0) -> list[dict[str, Any]]:
        """Its endpoints; another offset, others."""
        first = FIRST_POD + self.number * ENDPOINTS + offset
        return [{"addresses": [str(first + k)], "conditions": {"ready": True}} for k in range(ENDPOINTS)]

    def service(self) -> dict[str, Any]:
        """The object."""
        if self.is_headless:
            return {"metadata": {"name": self.label}, "spec": {"ports": [PORT], "clusterIP": "None"}}
        ips = self.ips
        families = {
            "ipFamilies": ["IPv4", "IPv6"][: len(ips)],
            "ipFamilyPolicy": "RequireDualStack" if ips[1:] else "SingleStack",
        }
        return {"metadata": {"name": self.label}, "spec": {"ports": [PORT], "clusterIP": ips[0], "clusterIPs": ips, **families}}

    def host(self, ip: str) -> str:
        """The name of one of its endpoints, or, unless it is headless, its own."""
        return f"{ip.replace('.', '-')}.{self.name}" if self.is_headless else self.name

    def slice(self) -> dict[str, Any]:
        """The object."""
        metadata = {"name": f"{self.label}-a", "labels": {"kubernetes.io/service-name": self.label}}
        return {"metadata": metadata, "addressType": "IPv4", "endpoints": self.endpoints(), "ports": [PORT]}


def fill(access: Access, count: int) -> None:
    """Create so many Services with their slices."""
    api = HttpClient(access)
    for number in range(NAMESPACES):
        api.create("namespaces", "", {"metadata": {"name": f"bench-{number}"}})
    api.close()

    def client(first: int) -> None:
        own = HttpClient(access)
        for one in map(Named, range(first, count, CLIENTS)):
            own.create("services", one.namespace, one.service())
            own.create(SLICES, one.namespace, one.slice())
        own.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))


def questions(count: int) -> list[str]:
    """Lines of dnsperf: names and types, mixed by chance, the same each time."""
    draw = random.Random(SEED)
    kinds = draw.choices([*SHARES], [*SHARES.values()], k=LINES)
    return [_question(kind, Named(draw.randrange(count)), draw) for kind in kinds]


def _question(kind: str, one: Named, draw: random.Random) -> str:
    match kind:
        case "SRV":
            return f"_http._tcp.{one.name} SRV"
        case "PTR":
            return f"{ipaddress.ip_address(draw.choice(one.ips)).reverse_pointer} PTR"
        case "missing":
            return f"www-{draw.randrange(MISSING)}.example.test.{one.namespace}.svc.{DOMAIN} A"
    return f"{one.name} {kind}"


def local_data(count: int) -> Iterator[str]:
    """The same names as lines of Unbound's configuration."""
    zones = (DOMAIN, "10.in-addr.arpa", "0.0.d.f.ip6.arpa")
    for zone in zones:
        yield f'local-zone: "{zone}." static'
        yield f'local-data: "{zone}. 5 SOA ns.{zone}. hostmaster.{zone}. 1 7200 1800 86400 5"'
    for one in map(Named, range(count)):
        for ip in one.ips:
            yield f'local-data: "{one.name}. 5 {"AAAA" if ":" in ip else "A"} {ip}"'
            yield f'local-data: "{ipaddress.ip_address(ip).reverse_pointer}. 5 PTR {one.host(ip)}."'
        targets = dict.fromkeys(one.host(ip) for ip in one.ips)
        yield from (f'local-data: "_http._tcp.{one.name}. 5 SRV 0 {100 // len(targets)} 80 {host}."' for host in targets)


def change(api: HttpClient, one: Named, offset: int) -> None:
    """Give a Service other endpoints."""
    api.patch(SLICES, one.namespace, f"{one.label}-a", {"endpoints": one.endpoints(offset)})


def written(lines: Sequence[str]) -> str:
    """Lines as the text of a file."""
    return "".join(f"{line}\n" for line in lines)
