"""The zone of the cluster's domain: names of Services, of their endpoints, and of pods.

Source: the Kubernetes DNS specification, version 1.1.0 (kubernetes/dns, docs/specification.md).
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from podplane.dns import message as m
from podplane.dns.directory import Directory
from podplane.dns.message import Answer, Name, Question, Record
from podplane.model.dns import NamedEndpoint, NamedPort, NamedService, NamedSlice
from podplane.model.objects import Metadata

SPECIFICATION = "1.1.0"
TTL_SECONDS = 5
SOURCE = "the cluster's zone"
ADDRESS_TYPES = {m.A: ("IPv4", 4), m.AAAA: ("IPv6", 6)}


@dataclass(frozen=True, slots=True)
class ClusterZone:
    """The zone of a cluster's domain."""

    domain: Name
    directory: Directory
    ttl: int = TTL_SECONDS

    def answer(self, question: Question) -> Answer | None:
        """What the zone says; None when the name is none of its own."""
        name = question.name
        if not m.is_under(name, self.domain):
            return None
        labels = name[: len(name) - len(self.domain)][::-1]
        match labels:
            case ():
                return self._apex(question)
            case (b"dns-version",):
                return self._only(question, m.TXT, m.txt((SPECIFICATION,)))
            case (b"ns",):
                return self._nodata()
            case (b"svc", *rest):
                return self._service(question, rest)
        return self._nxdomain()

    # Names that every zone has.

    def _soa(self) -> Record:
        data = m.soa((b"ns", b"dns", *self.domain), (b"hostmaster", *self.domain), 1, 7200, 1800, 86400, self.ttl)
        return Record(self.domain, m.SOA, self.ttl, data)

    def _apex(self, question: Question) -> Answer:
        if question.type == m.SOA:
            return Answer(records=(self._soa(),), source=SOURCE)
        return self._only(question, m.NS, m.written((b"ns", b"dns", *self.domain)))

    def _only(self, question: Question, type_: int, data: bytes) -> Answer:
        """A name with one record of one type."""
        if question.type != type_:
            return self._nodata()
        return Answer(records=(Record(question.name, type_, self.ttl, data),), source=SOURCE)

    def _nodata(self, source: str = SOURCE, depends: tuple[str, ...] = ()) -> Answer:
        return Answer(authority=(self._soa(),), source=source, depends=depends)

    def _nxdomain(self, depends: tuple[str, ...] = ()) -> Answer:
        return Answer(rcode=m.NXDOMAIN, authority=(self._soa(),), source=SOURCE, depends=depends)

    # Names of Services.

    def _service(self, question: Question, labels: list[bytes]) -> Answer:
        if not labels:
            return self._nodata()
        namespace = labels[0].decode("latin-1")
        if len(labels) == 1:
            depends = (f"namespace/{namespace}",)
            return self._nodata(depends=depends) if namespace in self.directory.namespaces else self._nxdomain(depends)
        path = f"{namespace}/{labels[1].decode('latin-1')}"
        depends = (f"service/{path}",)
        service = self.directory.services.get(path)
        if service is None:
            return self._nxdomain(depends)
        records = self._records(question, service, labels[2:])
        if records is None:
            return self._nxdomain(depends)
        return self._of(question, records, f"Service {path}", depends)

    def _of(self, question: Question, records: Iterable[Record], source: str, depends: tuple[str, ...]) -> Answer:
        """Of all records that the name has, those that are asked for."""
        every = list(records)
        alias = next((r for r in every if r.type == m.CNAME), None)
        if alias is not None:
            target = self._target_of(alias)
            return Answer(records=(alias,), source=source, depends=depends, follow=target if question.type != m.CNAME else None)
        found = tuple(r for r in every if r.type == question.type)
        return Answer(records=found, source=source, depends=depends) if found else self._nodata(source, depends)

    @staticmethod
    def _target_of(alias: Record) -> Name:
        labels, at = [], 0
        while length := alias.data[at]:
            labels.append(alias.data[at + 1 : at + 1 + length])
            at += 1 + length
        return tuple(labels)

    def _records(self, question: Question, service: NamedService, below: list[bytes]) -> Iterator[Record] | None:
        """All records of a name at or below a Service's; None when there is no such name."""
        if service.is_external:
            if below:
                return None
            return iter((Record(question.name, m.CNAME, self.ttl, m.written(m.name_of(service.spec.external_name))),))
        slices = list((self.directory.slices_by_service.get(service.metadata.path) or {}).values())
        match below:
            case []:
                ips = service.ips or tuple(_ips(slices, service))
                return (self._address(question.name, ip) for ip in ips)
            case [protocol] if protocol in _protocols(service, slices):
                return iter(())
            case [protocol, port] if protocol[:1] == port[:1] == b"_":
                found = list(self._ports(question.name, service, slices, protocol[1:], port[1:]))
                return iter(found) or None
            case [hostname]:
                own = [ip for ip, host in _endpoints(slices, service) if host == hostname]
                return (self._address(question.name, ip) for ip in own) if own and service.is_headless else None
        return None

    def _address(self, name: Name, ip: str) -> Record:
        return _address(name, ip, self.ttl)

    def _ports(
        self, name: Name, service: NamedService, slices: list[NamedSlice], protocol: bytes, port: bytes
    ) -> Iterator[Record]:
        target = self._name_of(service.metadata)
        if not service.is_headless:
            for one in service.spec.ports:
                if (one.protocol.lower().encode(), one.name.encode()) == (protocol, port):
                    yield Record(name, m.SRV, self.ttl, m.srv(0, 100, one.port or 0, target))

    def _name_of(self, metadata: Metadata) -> Name:
        return (metadata.name.encode(), metadata.namespace.encode(), b"svc", *self.domain)


def _protocols(service: NamedService, slices: list[NamedSlice]) -> set[bytes]:
    ports: list[NamedPort] = [*service.spec.ports, *(port for one in slices for port in one.ports or ())]
    return {f"_{port.protocol.lower()}".encode() for port in ports if port.name}


def _endpoints(slices: Iterable[NamedSlice], service: NamedService) -> Iterator[tuple[str, bytes]]:
    """Address and host name of each endpoint that has names."""
    for one in slices:
        for endpoint in one.endpoints or ():
            if endpoint.conditions.ready is not False or service.spec.publish_not_ready_addresses:
                for ip in endpoint.addresses:
                    yield ip, _hostname(endpoint, ip)


def _ips(slices: Iterable[NamedSlice], service: NamedService) -> Iterator[str]:
    yield from dict.fromkeys(ip for ip, _ in _endpoints(slices, service))


def _hostname(endpoint: NamedEndpoint, ip: str) -> bytes:
    return (endpoint.hostname or ip.replace(".", "-").replace(":", "-")).lower().encode()


@functools.lru_cache(maxsize=4096)
def _packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def _address(name: Name, ip: str, ttl: int) -> Record:
    data = _packed(ip)
    return Record(name, m.A if len(data) == 4 else m.AAAA, ttl, data)
