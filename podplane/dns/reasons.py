"""Why a name of the cluster has no records, in a sentence for people. Pure.

Looking for Services of the same name elsewhere goes through the paths of all of them: for people who ask, not for each question.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import islice

from podplane.dns import message as m
from podplane.dns.directory import Directory
from podplane.dns.message import Name, Question
from podplane.model.dns import NamedEndpoint, NamedService

NAMED = 3
"""So many namespaces with a Service of the same name are named."""
FAMILIES = {m.A: (4, "IPv4"), m.AAAA: (6, "IPv6")}
REVERSE: dict[Name, int] = {(b"in-addr", b"arpa"): 4, (b"ip6", b"arpa"): 32}


def reason(question: Question, directory: Directory, domain: Name) -> str:
    """Why there is no record of this type at this name; "" when the cluster's objects do not say."""
    if m.is_under(question.name, domain):
        labels = [label.decode("latin-1") for label in question.name[: len(question.name) - len(domain)][::-1]]
        match labels:
            case ["svc", namespace, service, *below]:
                return _of_service(question.type, namespace, service, below[::-1], directory)
            case ["svc", namespace] if namespace not in directory.namespaces:
                return f"there is no namespace {namespace}"
            case ["svc", *_] | ["pod"] | []:
                return "no object has this name: it only has names below it"
            case ["pod", *_]:
                return "no pod has this name"
        return f"names below {m.text_of(domain)} are those of Services (svc) and pods (pod)"
    address = address_of(question.name)
    return f"no Service and no ready endpoint has the address {address}" if address else ""


def _of_service(type_: int, namespace: str, name: str, below: Sequence[str], directory: Directory) -> str:
    if namespace not in directory.namespaces:
        return f"there is no namespace {namespace}"
    service = directory.services.get(f"{namespace}/{name}")
    if service is None:
        others = _elsewhere(name, directory)
        return f"there is no Service {name} in namespace {namespace}" + (f"; there is one in {others}" if others else "")
    path = service.metadata.path
    if service.is_external:
        return f"Service {path} is another name for {service.spec.external_name}: there is nothing below it"
    match below:
        case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
            return _of_port(service, port[1:], protocol[1:], type_)
        case [hostname]:
            return f"no ready endpoint of Service {path} has the host name {hostname}{_readiness(service, directory)}"
        case []:
            return _of_type(service, type_, directory)
    return f"Service {path} has no names so far below it"


def _of_type(service: NamedService, type_: int, directory: Directory) -> str:
    path = service.metadata.path
    if type_ not in FAMILIES:
        return f"Service {path} has addresses (A, AAAA) and the names of its ports (SRV) only"
    version, family = FAMILIES[type_]
    ips = service.ips or tuple(one.ip for one in _endpoints(service, directory))
    if ips and not any(ipaddress.ip_address(ip).version == version for ip in ips):
        return f"Service {path} has no {family} address"
    return f"Service {path} is headless{_readiness(service, directory)}"


def _of_port(service: NamedService, port: str, protocol: str, type_: int) -> str:
    names = [f"{one.name}/{one.protocol.lower()}" for one in service.ports if one.name]
    if f"{port}/{protocol}" in names and type_ not in (m.SRV, *FAMILIES):
        return "the name of a port has SRV and address records only"
    if f"{port}/{protocol}" in names:
        return f"Service {service.metadata.path} has this port, but no such address"
    has = f"its ports are {', '.join(names)}" if names else "its ports have no names"
    return f"Service {service.metadata.path} has no port {port}/{protocol}: {has}"


def _endpoints(service: NamedService, directory: Directory) -> list[NamedEndpoint]:
    slices = directory.slices_by_service.get(service.metadata.path) or {}
    return [endpoint for one in slices.values() for endpoint in one.endpoints]


def _readiness(service: NamedService, directory: Directory) -> str:
    """What is to be said of its endpoints when none of them is ready."""
    found = _endpoints(service, directory)
    if not found:
        return ", and it has no endpoints"
    ready = sum(one.is_ready for one in found)
    if ready or service.spec.publish_not_ready_addresses:
        return ""
    return ", and its only endpoint is not ready" if len(found) == 1 else f", and none of its {len(found):,} endpoints is ready"


def _elsewhere(name: str, directory: Directory) -> str:
    """The namespaces that have a Service of this name, the first of them."""
    end = f"/{name}"
    found = list(islice((path for path in directory.services if path.endswith(end)), NAMED + 1))
    names = [path.removesuffix(end) for path in found[:NAMED]]
    if not names:
        return ""
    more = " and others" if len(found) > NAMED else ""
    return ("namespace " if len(names) == 1 and not more else "namespaces ") + ", ".join(names) + more


def address_of(name: Name) -> str:
    """The address that a name of a reverse zone stands for (RFC 1035, 3.5; RFC 3596, 2.5); "" when it is none."""
    count = REVERSE.get(name[-2:], 0)
    labels = [label.decode("latin-1") for label in name[-3::-1]] if len(name) > 2 else []
    if len(labels) != count or not count:
        return ""
    text = ".".join(labels) if count == 4 else ":".join("".join(labels[i : i + 4]) for i in range(0, 32, 4))
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def reverse_name(ip: str) -> str:
    """The name that the name of an address is looked for at."""
    return f"{ipaddress.ip_address(ip).reverse_pointer}."
