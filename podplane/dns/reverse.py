"""Names of addresses: in-addr.arpa (RFC 1035, 3.5) and ip6.arpa (RFC 3596, 2.5).

An address that a Service or an endpoint has is answered with their names, wherever it lies. Of the cluster's own networks all is answered
here, what is missing with NXDOMAIN: no other server knows it, and questions about it stay inside (RFC 6303). All else is left to others, as
CoreDNS's `fallthrough in-addr.arpa ip6.arpa` has it.

A zone ends at a label: 10.96.0.0/12 are the sixteen zones 96.10.in-addr.arpa to 111.10.in-addr.arpa.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from podplane.dns import message as m
from podplane.dns import services
from podplane.dns.authority import TTL_SECONDS, Authority
from podplane.dns.directory import Directory, ip_key, service_key
from podplane.dns.message import Answer, Name, Question, Record

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SOURCE = "the cluster's reverse zones"
DECIMAL = {str(number).encode(): number for number in range(256)}
NIBBLE = {b"%x" % number: number for number in range(16)}


@dataclass(frozen=True, slots=True)
class Family:
    """How the names of a family's addresses are made: labels of so many bits each, from right to left below the apex."""

    apex: Name
    version: int
    bits: int
    labels: dict[bytes, int]

    @property
    def length(self) -> int:
        """The number of labels of a whole address."""
        return (32 if self.version == 4 else 128) // self.bits


FAMILIES = (Family((b"in-addr", b"arpa"), 4, 8, DECIMAL), Family((b"ip6", b"arpa"), 6, 4, NIBBLE))


@dataclass(frozen=True, slots=True)
class ReverseZones:
    """The names of addresses. `domain` is the cluster's, `networks` are the cluster's own: of pods and of Services."""

    domain: Name
    directory: Directory
    networks: Sequence[Network]
    ttl: int = TTL_SECONDS
    _prefixes: dict[int, list[tuple[int, int, int]]] = field(init=False)
    """By version, for each network: the labels of its zones' apexes below the family's, its bits, and how far to shift for them."""

    def __post_init__(self) -> None:
        prefixes: dict[int, list[tuple[int, int, int]]] = {4: [], 6: []}
        for network in self.networks:
            family = FAMILIES[network.version == 6]
            shift = network.max_prefixlen - network.prefixlen
            depth = -(-network.prefixlen // family.bits)
            prefixes[network.version].append((depth, int(network.network_address) >> shift, shift))
        object.__setattr__(self, "_prefixes", prefixes)

    @property
    def ends(self) -> Collection[Name]:
        """As `zone.Zone` has it."""
        return ((b"arpa",),)

    def answer(self, question: Question) -> Answer | None:
        """What is known of the address; None when it is none of the cluster's."""
        for family in FAMILIES:
            if m.is_under(question.name, family.apex):
                return self._answer(question, family)
        return None

    def _answer(self, question: Question, family: Family) -> Answer | None:
        labels = question.name[: -len(family.apex)][::-1]
        digits = list(_digits(labels, family))
        if len(digits) == len(labels) == family.length:
            return self._address(question, family, digits)
        authority = self._authority(question.name, family, digits)
        if authority is None:
            return None
        if question.name == authority.apex:
            return authority.at_apex(question)
        return authority.nodata() if len(digits) == len(labels) else authority.nxdomain()

    def _address(self, question: Question, family: Family, digits: Sequence[int]) -> Answer | None:
        ip = _ip(digits, family)
        names = list(services.names_of(self.directory, ip))
        depends = tuple(dict.fromkeys((ip_key(ip), *(service_key(path) for path in self._paths(ip)))))
        authority = self._authority(question.name, family, digits)
        targets = dict.fromkeys(self._target(service.metadata.path, label) for service, label in names)
        records = [Record(question.name, m.PTR, self.ttl, m.written(target)) for target in targets if target is not None]
        if records and question.type == m.PTR:
            source = ", ".join(dict.fromkeys(f"Service {service.metadata.path}" for service, _ in names))
            return Answer(records=tuple(records), source=source, depends=depends)
        if authority is None:
            return None
        if question.name != authority.apex:
            return authority.nodata(depends=depends) if records else authority.nxdomain(depends)
        return authority.at_apex(question) if question.type in (m.SOA, m.NS) else authority.nodata(depends=depends)

    def _paths(self, ip: str) -> Iterator[str]:
        """The Services that slices with this address are of, be they there or not."""
        yield from (one.service for one in (self.directory.slices_by_ip.get(ip) or {}).values() if one.service)

    def _target(self, path: str, label: str) -> Name | None:
        namespace, _, name = path.partition("/")
        return services.below(label, (name.encode(), namespace.encode(), b"svc", *self.domain))

    def _authority(self, name: Name, family: Family, digits: Sequence[int]) -> Authority | None:
        """That of the zone that the name is in; None when it is in none of ours."""
        value = _value(digits, family)
        for depth, prefix, shift in self._prefixes[family.version]:
            if len(digits) >= depth and value >> shift == prefix:
                apex = name[len(name) - depth - len(family.apex) :]
                return Authority(apex, self.domain, self.ttl, self.directory.serial, SOURCE)
        return None


def _digits(labels: Sequence[bytes], family: Family) -> Iterator[int]:
    """The parts of an address that the labels are, up to the first that is none, or to a whole address."""
    for label in labels[: family.length]:
        digit = family.labels.get(label)
        if digit is None:
            return
        yield digit


def _value(digits: Sequence[int], family: Family) -> int:
    """The first address that begins with these parts, as a number."""
    value = 0
    for digit in digits:
        value = value << family.bits | digit
    return value << family.bits * (family.length - len(digits))


def _ip(digits: Sequence[int], family: Family) -> str:
    """An address in its shortest form."""
    if family.version == 4:
        return ".".join(map(str, digits))
    return str(ipaddress.IPv6Address(_value(digits, family)))
