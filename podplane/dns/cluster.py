"""The zone of the cluster's domain: names of Services, of their endpoints, and of pods.

Source: the Kubernetes DNS specification, version 1.1.0 (kubernetes/dns, docs/specification.md). What it leaves open is as CoreDNS's plugin
kubernetes has it, but for what `docs/dns.md` lists.

    <zone>                     SOA, NS
    dns-version.<zone>         TXT
    ns.dns.<zone>              addresses of the cluster's DNS, its Service
    <service>.<ns>.svc.<zone>, and below: `services`
    10-244-1-2.<ns>.pod.<zone>

A name without records of its own is there when there are names below it: then it has no data (NODATA), but is not denied (NXDOMAIN).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from podplane.dns import message as m
from podplane.dns import services
from podplane.dns.authority import TTL_SECONDS, Authority
from podplane.dns.directory import ALWAYS, Directory, namespace_key, pod_ip_key, service_key
from podplane.dns.message import Answer, Name, Question, Record
from podplane.model.dns import NamedService, canonical

SPECIFICATION = "1.1.0"
SPECIFICATION_TTL = 28800
"""What the specification's example has: it changes with releases alone."""
SOURCE = "the cluster's zone"
DNS_SERVICE = "kube-system/kube-dns"
"""The Service of the cluster's DNS."""
INSECURE, VERIFIED, DISABLED = "insecure", "verified", "disabled"
"""Names of pods: every address is one, in a namespace that is there; those that a pod of the namespace has; none."""
ADDRESS_TYPES = (m.A, m.AAAA)


@dataclass(frozen=True, slots=True)
class ClusterZone:
    """The zone of a cluster's domain; `ttl` of its records in seconds, `pods` one of INSECURE, VERIFIED, DISABLED."""

    domain: Name
    directory: Directory
    ttl: int = TTL_SECONDS
    pods: str = INSECURE
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        authority = Authority(self.domain, self.domain, self.ttl, self.directory.serial, SOURCE)
        object.__setattr__(self, "authority", authority)

    @property
    def ends(self) -> Collection[Name]:
        """As `zone.Zone` has it."""
        return (self.domain,)

    def answer(self, question: Question) -> Answer | None:
        """What the zone says; None when the name is none of its own."""
        name = question.name
        if not m.is_under(name, self.domain):
            return None
        match name[: len(name) - len(self.domain)][::-1]:
            case ():
                return self.authority.at_apex(question, self._server_addresses(), (service_key(DNS_SERVICE),))
            case (b"svc", *rest):
                return self._service(question, rest)
            case (b"pod", *rest):
                return self._pod(question, rest)
            case (b"dns",):
                return self.authority.nodata()
            case (b"dns", b"ns"):
                own = [record for record in self._server_addresses() if record.type == question.type]
                return self.authority.of(own, f"Service {DNS_SERVICE}", (service_key(DNS_SERVICE),))
            case (b"dns-version",):
                record = Record(name, m.TXT, SPECIFICATION_TTL, m.txt((SPECIFICATION,)))
                return self.authority.of([record] if question.type == m.TXT else (), SOURCE, (ALWAYS,))
        return self.authority.nxdomain()

    def _server_addresses(self) -> list[Record]:
        service = self.directory.services.get(DNS_SERVICE)
        return [services.address(self.authority.server, ip, self.ttl) for ip in service.ips] if service else []

    # Names of Services.

    def _service(self, question: Question, labels: Sequence[bytes]) -> Answer:
        """`labels` from right to left, from the namespace on."""
        if len(labels) < 2:
            return self._namespace(labels)
        namespace, name, *below = labels
        path = f"{namespace.decode('latin-1')}/{name.decode('latin-1')}"
        source, depends = f"Service {path}", (service_key(path),)
        service = self.directory.services.get(path)
        if service is None:
            return self.authority.nxdomain(depends)
        if service.is_external:
            return self._external(question, service, source, depends) if not below else self.authority.nxdomain(depends, source)
        groups = services.groups_of(self.directory, service, below)
        if groups is None:
            return self.authority.nxdomain(depends, source)
        return self._of_groups(question, (name, namespace, b"svc", *self.domain), groups, source, depends)

    def _namespace(self, labels: Sequence[bytes]) -> Answer:
        """The name that those of a namespace end with, or, without labels, those of all."""
        if not labels:
            return self.authority.nodata()
        name = labels[0].decode("latin-1")
        depends = (namespace_key(name),)
        return self.authority.nodata(depends=depends) if name in self.directory.namespaces else self.authority.nxdomain(depends)

    def _of_groups(
        self, question: Question, own: Name, groups: list[services.Group], source: str, depends: tuple[str, ...]
    ) -> Answer:
        if question.type in ADDRESS_TYPES:
            return self.authority.of(services.addresses(question.name, groups, question.type, self.ttl), source, depends)
        if question.type == m.SRV:
            records, extra = services.srv_records(question.name, own, groups, self.ttl)
            return self.authority.of(records, source, depends, extra)
        return self.authority.nodata(source, depends)

    def _external(self, question: Question, service: NamedService, source: str, depends: tuple[str, ...]) -> Answer:
        """An alias (RFC 1034, 3.6.2), whatever is asked for. An address is none (as the documentation of Services has it)."""
        text = service.spec.external_name
        if canonical(text):
            return self.authority.nxdomain(depends, f"{source}, whose externalName is an address")
        try:
            target = m.name_of(text)
        except ValueError:
            target = ()
        if not target:
            return Answer(m.SERVFAIL, source=f"{source}, whose externalName {text!r} is no name", depends=depends)
        record = Record(question.name, m.CNAME, self.ttl, m.written(target))
        return Answer(records=(record,), source=source, depends=depends, follow=None if question.type == m.CNAME else target)

    # Names of pods.

    def _pod(self, question: Question, labels: Sequence[bytes]) -> Answer:
        """`labels` from right to left, from the namespace on."""
        if labels and self.pods == DISABLED:
            return self.authority.nxdomain()
        if len(labels) < 2:
            return self._namespace(labels)
        namespace, label = labels[0].decode("latin-1"), labels[1].decode("latin-1")
        ip = services.undashed(label) if len(labels) == 2 else ""
        if not ip:
            return self.authority.nxdomain()
        source, depends = self._pod_with(namespace, ip)
        if not source:
            return self.authority.nxdomain(depends)
        record = services.address(question.name, ip, self.ttl)
        return self.authority.of([record] if record.type == question.type else (), source, depends)

    def _pod_with(self, namespace: str, ip: str) -> tuple[str, tuple[str, ...]]:
        """What says that there is this name, for people, "" when nothing does; and what that depends on."""
        if self.pods == INSECURE:
            is_there = namespace in self.directory.namespaces
            return f"the address in the name, and namespace {namespace}" if is_there else "", (namespace_key(namespace),)
        pods = self.directory.pods_by_ip.get(ip) or {}
        paths = [path for path, pod in pods.items() if pod.metadata.namespace == namespace and not pod.is_ending]
        return f"Pod {min(paths)}" if paths else "", (pod_ip_key(ip),)
