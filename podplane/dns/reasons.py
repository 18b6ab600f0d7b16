"""Why a name of the cluster has no records, in a sentence for people. Pure.

Looking for Services of the same name elsewhere goes through the paths of all of them: for people who ask, not for each question.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import islice

from podplane.dns import message as m
from podplane.dns import services
from podplane.dns.directory import Directory
from podplane.dns.message import Name, Question
from podplane.model.dns import NamedEndpoint, NamedService, canonical

NAMED = 3
"""So many namespaces with a Service of the same name are named."""
FAMILIES = {m.A: "IPv4", m.AAAA: "IPv6"}
ONLY_BELOW = "no object has this name: it only has names below it"
REVERSE: dict[Name, int] = {(b"in-addr", b"arpa"): 4, (b"ip6", b"arpa"): 32}


def reason(question: Question, directory: Directory, domain: Name) -> str:
    """Why there is no record of this type at this name; "" when the cluster's objects do not say."""
    if m.is_under(question.name, domain):
        labels = [label.decode("latin-1") for label in question.name[: len(question.name) - len(domain)][::-1]]
        return (
            _of_name(labels, question.type, directory)
            or f"names below {m.text_of(domain)} are those of Services (svc) and pods (pod)"
        )
    address = address_of(question.name)
    if not address:
        return ""
    if next(services.names_of(directory, address), None):
        return "an address has PTR records only"
    return f"no Service and no ready endpoint has the address {address}"


def _of_name(labels: Sequence[str], type_: int, directory: Directory) -> str:
    """`labels` from right to left, below the cluster's domain."""
    match labels:
        case ["svc" | "pod", namespace, *_] if namespace not in directory.namespaces:
            return f"there is no namespace {namespace}"
        case ["svc", namespace, service, *below]:
            return _of_service(type_, f"{namespace}/{service}", below, directory)
        case ["pod", namespace, label]:
            return _of_pod(type_, namespace, label)
        case ["svc", *_] | ["pod"] | ["pod", _] | ["dns"] | []:
            return ONLY_BELOW
        case ["pod", *_]:
            return "there are no names below that of a pod"
        case ["dns", "ns"]:
            return "it has the addresses of Service kube-system/kube-dns only"
        case ["dns-version"]:
            return "it has a TXT record only"
    return ""


def _of_pod(type_: int, namespace: str, label: str) -> str:
    ip = services.undashed(label)
    if not ip:
        return "the name of a pod is its address with dashes (10-244-1-2): this is none"
    if type_ != (m.AAAA if ":" in ip else m.A):
        return f"the name of an {'IPv6' if ':' in ip else 'IPv4'} address has an {'AAAA' if ':' in ip else 'A'} record only"
    return f"no pod in namespace {namespace} has the address {ip}"


def _of_service(type_: int, path: str, below: Sequence[str], directory: Directory) -> str:
    service = directory.services.get(path)
    if service is None:
        namespace, _, name = path.partition("/")
        others = _elsewhere(name, directory)
        return f"there is no Service {name} in namespace {namespace}" + (f"; there is one in {others}" if others else "")
    if service.is_external:
        return _of_alias(service, bool(below))
    groups = services.groups_of(directory, service, [label.encode("latin-1") for label in below])
    return _absent(service, below[::-1], directory) if groups is None else _without(service, below, groups, type_)


def _of_alias(service: NamedService, is_below: bool) -> str:
    target = service.spec.external_name
    is_address = bool(canonical(target))
    what = "nothing is below it" if is_below else "addresses are no names" if is_address else "that is no name"
    return f"Service {service.metadata.path} is another name for {target}: {what}"


def _absent(service: NamedService, below: Sequence[str], directory: Directory) -> str:
    """Why there is no such name; `below` are its labels from left to right."""
    path = service.metadata.path
    match below:
        case []:
            return f"Service {path} is headless{_readiness(service, directory)}"
        case [protocol] if protocol.startswith("_"):
            return f"Service {path} has no port with a name and the protocol {protocol[1:]}"
        case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
            return _of_port(service, port[1:], protocol[1:])
        case [hostname]:
            return (
                f"no ready endpoint of Service {path} has the host name or address {hostname}{_readiness(service, directory)}"
            )
    return f"Service {path} has no names so far below it"


def _without(service: NamedService, below: Sequence[str], groups: Sequence[services.Group], type_: int) -> str:
    """Why a name that is there has no such record."""
    if len(below) == 1 and below[0].startswith("_"):
        return ONLY_BELOW
    whose = f"Service {service.metadata.path}" if not below else f"{'.'.join(below[::-1])} of Service {service.metadata.path}"
    if type_ in FAMILIES:
        has = any(group.endpoints for group in groups)
        return f"{whose} has no {FAMILIES[type_]} address" if has else f"{whose} has no address yet"
    return f"{whose} has no ports" if type_ == m.SRV else f"{whose} has addresses (A, AAAA) and ports (SRV) only"


def _of_port(service: NamedService, port: str, protocol: str) -> str:
    names = [f"{one.name}/{one.protocol.lower()}" for one in service.ports if one.name]
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
