"""The addresses and ports that the names of Services lead to.

A name leads to groups of addresses, each with the ports that they have in common: those of the Service for its cluster IPs, those of a
slice for its endpoints.

    web.default.svc              the cluster IPs, or all endpoints of a headless Service
    db-0.db.default.svc          the endpoints with this host name
    10-244-1-2.db.default.svc    the endpoint with this address, when it has no host name
    _http._tcp.web.default.svc   of the first, those with such a port
    _tcp.web.default.svc         nothing, but the name is there, because there are names below it (RFC 8020)

As CoreDNS has it, endpoints of Services with cluster IPs have names of their own, too; the specification asks for those of headless ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from podplane.dns import message as m
from podplane.dns.directory import Directory, hostname_key
from podplane.dns.message import Name, Record
from podplane.model.dns import NamedEndpoint, NamedPort, NamedService, NamedSlice, canonical

MAX_ADDRESSES, MAX_SRV = 4096, 2200
"""More records than any message holds: an A record takes 16 bytes at least, a SRV record 31."""
WEIGHTS = 100
"""What the weights of SRV records of one name come to, as CoreDNS has it; each has at least 1 (RFC 2782)."""


class Group(NamedTuple):
    """Addresses that have the same ports; `is_own`: their name is that of the Service, and not one below it."""

    ports: Sequence[NamedPort]
    endpoints: Sequence[NamedEndpoint]
    is_own: bool = False


def groups_of(directory: Directory, service: NamedService, below: Sequence[bytes]) -> list[Group] | None:
    """Where a Service's name leads, or one below it; `below` are its labels from right to left. None when there is no such name."""
    match [label.decode("latin-1") for label in below]:
        case []:
            return _own(directory, service)
        case [protocol] if protocol.startswith("_"):
            ports = [port for group in _own(directory, service) or () for port in group.ports]
            return [] if any(port.name and port.protocol.lower() == protocol[1:] for port in ports) else None
        case [label]:
            return _with_label(directory, service, label) or None
        case [protocol, port] if protocol.startswith("_") and len(port) > 1 and port.startswith("_"):
            return list(_with_port(_own(directory, service) or (), protocol[1:], port[1:])) or None
    return None


def _own(directory: Directory, service: NamedService) -> list[Group] | None:
    """None for a headless Service without endpoints: the specification (2.4.1) wants NXDOMAIN."""
    if not service.is_headless:
        return [Group(service.ports, list(map(NamedEndpoint, service.ips)), is_own=True)]
    slices = _in_order(directory.slices_by_service.get(service.metadata.path))
    return [Group(one.ports, endpoints) for one in slices if (endpoints := _published(one, service))] or None


def _with_label(directory: Directory, service: NamedService, label: str) -> list[Group]:
    """The endpoints whose name has this label."""
    path, ip = service.metadata.path, undashed(label)
    slices = dict(directory.slices_by_hostname.get(hostname_key(path, label)) or {})
    if ip:
        slices |= {key: one for key, one in (directory.slices_by_ip.get(ip) or {}).items() if one.service == path}
    found = (Group(one.ports, [end for end in _published(one, service) if label_of(end) == label]) for one in _in_order(slices))
    return [group for group in found if group.endpoints]


def _with_port(groups: Iterable[Group], protocol: str, name: str) -> Iterator[Group]:
    for group in groups:
        ports = [port for port in group.ports if (port.protocol.lower(), port.name.lower()) == (protocol, name)]
        if ports:
            yield group._replace(ports=ports)


def _in_order(slices: Mapping[str, NamedSlice] | None) -> list[NamedSlice]:
    """By path, so that the same objects make the same answer however they came."""
    return [] if not slices else list(slices.values()) if len(slices) == 1 else [slices[path] for path in sorted(slices)]


def _published(slice_: NamedSlice, service: NamedService) -> Sequence[NamedEndpoint]:
    """The endpoints that have names. `publishNotReadyAddresses` is meant for whoever reads slices, and for those who write them (core/v1
    ServiceSpec)."""
    if service.spec.publish_not_ready_addresses:
        return slice_.endpoints
    return [endpoint for endpoint in slice_.endpoints if endpoint.is_ready]


def names_of(directory: Directory, ip: str) -> Iterator[tuple[NamedService, str]]:
    """The Services that an address belongs to, each with the label below its name: the one with this cluster IP, or those of endpoints."""
    own = directory.services_by_ip.get(ip)
    if own:
        yield from ((own[path], "") for path in sorted(own))
        return
    for one in _in_order(directory.slices_by_ip.get(ip)):
        service = directory.services.get(one.service)
        if service is not None and not service.is_external:
            yield from ((service, label_of(endpoint)) for endpoint in _published(one, service) if endpoint.ip == ip)


# Labels.


def label_of(endpoint: NamedEndpoint) -> str:
    """The label of an endpoint's name: its host name, or its address with dashes."""
    return endpoint.hostname or dashed(endpoint.ip)


def dashed(ip: str) -> str:
    """`10-244-1-2` or `fd00--2`; an address does not end with a dash (RFC 1123), so `fd00::` is `fd00--0`, as CoreDNS has it."""
    label = ip.replace(".", "-").replace(":", "-")
    return f"{label}0" if label.endswith("-") else label


def undashed(label: str) -> str:
    """The address that a label spells, in its shortest form; "" when it spells none."""
    is_ipv4 = label.count("-") == 3 and "--" not in label
    return canonical(label.replace("-", "." if is_ipv4 else ":")) if "." not in label and ":" not in label else ""


# Records.


def packed(ip: str) -> bytes:
    """An address as a record has it."""
    return ipaddress.IPv6Address(ip).packed if ":" in ip else bytes(map(int, ip.split(".")))


def address(name: Name, ip: str, ttl: int) -> Record:
    """The A or AAAA record of an address."""
    return Record(name, m.AAAA if ":" in ip else m.A, ttl, packed(ip))


def addresses(name: Name, groups: Iterable[Group], type_: int, ttl: int) -> list[Record]:
    """The records of an address type; each address once."""
    is_ipv6 = type_ == m.AAAA
    ips = dict.fromkeys(end.ip for group in groups for end in group.endpoints if (":" in end.ip) is is_ipv6)
    return [Record(name, type_, ttl, packed(ip)) for ip in islice(ips, MAX_ADDRESSES)]


def srv_records(name: Name, own: Name, groups: Sequence[Group], ttl: int) -> tuple[list[Record], list[Record]]:
    """The SRV records of a name, and the address records of their targets, each once; `own` is the Service's name. An endpoint whose name
    would be too long for a name has none."""
    number = sum(len(group.ports) * len(group.endpoints) for group in groups)
    weight = max(1, WEIGHTS // max(1, number))
    found: dict[bytes, None] = {}
    extra: dict[tuple[Name, str], None] = {}
    for group in groups:
        heads = [m.srv_head(0, weight, port.port) for port in group.ports if port.port]
        for endpoint in group.endpoints if heads and len(found) <= MAX_SRV else ():
            target = own if group.is_own else below(label_of(endpoint), own)
            if target is not None:
                data = m.written(target)
                found |= {head + data: None for head in heads}
                extra[target, endpoint.ip] = None
            if len(found) > MAX_SRV:
                break
    records = [Record(name, m.SRV, ttl, data) for data in islice(found, MAX_SRV)]
    is_whole = len(records) == len(found)
    return records, [address(target, ip, ttl) for target, ip in extra] if is_whole else []


def below(label: str, own: Name) -> Name | None:
    """A name below another, or that itself without a label; None when it is too long."""
    name = (label.encode(), *own) if label else own
    return name if m.fits(name) else None
