"""Objects of a cluster, and its zones over them, as a name server has them; nothing is listed or watched."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import dns.flags
import dns.message
import dns.rcode
import msgspec

from podplane.dns import message as m
from podplane.dns.cluster import ClusterZone
from podplane.dns.message import Answer, Question
from podplane.dns.reverse import ReverseZones
from podplane.kubeapi.client import Client
from podplane.kubeapi.messages import Request
from podplane.model.dns import NamedPod, NamedService, NamedSlice
from podplane.model.objects import Namespace
from podplane.nameserver.objects import Objects
from podplane.nameserver.resolver import Client as Asking
from podplane.nameserver.resolver import Resolver
from podplane.nameserver.zones import Zones

Manifest = dict[str, Any]
SERIAL = re.compile(r"( SOA \S+ \S+) \d+")
NETWORKS = ("10.96.0.0/16", "fd00:10:96::/112", "10.244.0.0/16", "fd00:10:244::/48")


async def _nobody(request: Request) -> NoReturn:
    raise AssertionError(f"{request} is asked for")


class World:
    """`clock` is the time in seconds, `told` the keys of what changed."""

    def __init__(self, domain: str = "cluster.local", networks: tuple[str, ...] = NETWORKS, **settings: Any) -> None:
        self.clock = 1000.0
        self.objects = Objects(Client(_nobody, ""), lambda: self.clock)
        self.told: list[str] = []
        self.objects.subscribe(self.told.append)
        self.domain = m.name_of(domain)
        directory = self.objects.directory
        self.zone = ClusterZone(self.domain, directory, **settings)
        self.reverse = ReverseZones(self.domain, directory, [ipaddress.ip_network(one) for one in networks], self.zone.ttl)

    def put(self, kind: str, path: str, **fields: Any) -> None:
        """Add or replace a `service`, an `endpointslice`, a `namespace` or a `pod`."""
        namespace, _, name = path.rpartition("/")
        manifest = {"metadata": {"name": name, "namespace": namespace, **fields.pop("metadata", {})}, **fields}
        model = MODELS[KINDS.index(kind)]
        decode = getattr(model, "from_json", None) or msgspec.json.Decoder(model).decode
        self._informer(kind).cache.set(decode(msgspec.json.encode(manifest)))

    def remove(self, kind: str, path: str) -> None:
        """Remove one, if it is there."""
        self._informer(kind).cache.remove(path)

    def service(self, path: str, *ips: str, ports: Any = (), **spec: Any) -> None:
        """A Service with these cluster IPs, or without any headless."""
        own = {"clusterIP": ips[0], "clusterIPs": list(ips)} if ips else {"clusterIP": "None"}
        self.put("service", path, spec={**own, "ports": [port(one) for one in ports], **spec})

    def slice(self, path: str, service: str, *endpoints: Manifest, ports: Any = ()) -> None:
        """A slice of a Service in its namespace."""
        labels = {"kubernetes.io/service-name": service}
        self.put(
            "endpointslice", path, metadata={"labels": labels}, endpoints=list(endpoints), ports=[port(one) for one in ports]
        )

    def _informer(self, kind: str) -> Any:
        return self.objects.informers[KINDS.index(kind)]

    def answer(self, name: str, kind: str = "A") -> Answer | None:
        """What the zones say; `name` is below the cluster's domain, unless it ends with a dot."""
        question = Question(self._name(name), TYPES[kind])
        return self.zone.answer(question) or self.reverse.answer(question)

    def resolve(self, name: str, kind: str = "A") -> tuple[m.Query, Answer]:
        """The question, and what the zones say, with aliases followed."""
        query = query_of(self._name(name), kind)
        found = Resolver([Zones([self.zone, self.reverse])]).answer(query, Asking("10.244.0.9"))
        assert isinstance(found, Answer)
        return query, found

    def ask(self, name: str, kind: str = "A") -> list[str]:
        """The response as lines: the code of all but NOERROR, answers, authorities after `--`, additional records after `++`."""
        return list(lines(m.respond(*self.resolve(name, kind))))

    def _name(self, name: str) -> m.Name:
        return m.name_of(name) if name.endswith(".") else (*m.name_of(name), *self.domain)


KINDS = ("service", "endpointslice", "namespace", "pod")
TYPES = {name: number for number, name in m.TYPES.items()}


MODELS: tuple[Any, ...] = (NamedService, NamedSlice, Namespace, NamedPod)


@functools.cache
def query_of(name: m.Name, kind: str) -> m.Query:
    """A question as dnspython asks it."""
    return m.read_query(dns.message.make_query(m.text_of(name), kind).to_wire())


def port(text: str | Manifest) -> Manifest:
    """A port from `http:80/TCP`; the name and the protocol may be left out."""
    if isinstance(text, dict):
        return text
    name, _, rest = text.rpartition(":")
    number, _, protocol = rest.partition("/")
    return {"name": name, "port": int(number), "protocol": protocol or "TCP"}


def endpoint(*ips: str, hostname: str = "", **conditions: bool | None) -> Manifest:
    """An endpoint of a slice."""
    return {"addresses": list(ips), "conditions": conditions, **({"hostname": hostname} if hostname else {})}


def lines(response: bytes) -> Iterator[str]:
    """A response as text, without classes and serial numbers."""
    read = dns.message.from_wire(response, one_rr_per_rrset=True)
    if read.rcode():
        yield dns.rcode.to_text(read.rcode()) + ("" if read.flags & dns.flags.AA else " not authoritative")
    for mark, section in (("", read.answer), ("-- ", read.authority), ("++ ", read.additional)):
        for one in section:
            name, ttl, _, *rest = one.to_text().split(" ")
            yield mark + SERIAL.sub(r"\1 #", " ".join((name, ttl, *rest)))
