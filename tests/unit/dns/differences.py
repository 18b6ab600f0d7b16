"""Where this name server answers something else than CoreDNS, and why. `docs/dns.md` has the same sentences for people."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.unit.dns.coredns import Fact
from tools.dns_facts import DOMAIN, EXTERNAL


@dataclass(frozen=True)
class Case:
    """A question and its two answers. `exists`: CoreDNS has records of another type at this name, or of some type below it."""

    mode: str
    name: str
    type: str
    theirs: Fact
    ours: Fact
    exists: bool

    def __str__(self) -> str:
        return f"{self.name} {self.type} ({self.mode})\n  CoreDNS: {self.theirs}\n  here:    {self.ours}"

    @property
    def rcodes(self) -> tuple[str, str]:
        """CoreDNS's and ours."""
        return self.theirs[0], self.ours[0]

    @property
    def is_empty(self) -> bool:
        """Are there no records of what is asked for, by either?"""
        return not self.theirs[2] and not self.ours[2]

    def is_named(self, pattern: str) -> bool:
        """Is it about a name of this kind, in whatever case?"""
        return re.fullmatch(pattern, self.name.lower()) is not None


@dataclass(frozen=True)
class Difference:
    """A kind of question that is answered differently: what is answered here, why, and which cases those are."""

    reason: str
    covers: Callable[[Case], bool]


SVC = rf"\.svc\.{re.escape(DOMAIN)}"
SERVICE = rf"[a-z0-9-]+\.[a-z0-9-]+{SVC}"
POD = rf"[^.]+\.shop\.pod\.{re.escape(DOMAIN)}"
ALIAS = rf"({'|'.join(EXTERNAL)})\.shop{SVC}"
PART_OF_NETWORK = r"(\d+\.){1,3}in-addr\.arpa|([0-9a-f]\.){1,31}ip6\.arpa"
ARPA_SOA = re.compile(r"^(\S+\.arpa\. 5 in soa) \S+ \S+ ")


def _of_arpa(fact: Fact) -> Fact:
    """The same, without the names in the SOA records of reverse zones."""
    return [*fact[:2], *([ARPA_SOA.sub(r"\1 ", line) for line in section] for section in fact[2:])]


def _is_superset(case: Case) -> bool:
    """Does what is answered here have all that CoreDNS answers, by name and address, and more?"""
    strip = re.compile(r" srv 0 \d+ ")
    theirs, ours = ({strip.sub(" srv ", line) for line in fact[2]} for fact in (case.theirs, case.ours))
    return theirs < ours


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "ANY gets an HINFO record as in RFC 8482, with the TTL of the zone, if the name exists, and NXDOMAIN if it does not."
        " CoreDNS's plugin gives one to every name, for 8,482 seconds.",
        lambda case: (
            case.type == "ANY" and "8482" in str(case.theirs) and ("rfc8482" in str(case.ours) or case.ours[0] == "NXDOMAIN")
        ),
    ),
    Difference(
        "A name that exists, or that has names below it, is there for all types (RFC 8020, RFC 2308): the domain, `dns-version`, `ns.dns`,"
        " a namespace, `_tcp.web.default.svc…`, and reverse names of addresses and of their networks. CoreDNS answers NXDOMAIN.",
        lambda case: case.rcodes == ("NXDOMAIN", "NOERROR") and case.is_empty and case.exists,
    ),
    Difference(
        "A name that does not exist is NXDOMAIN for SOA, too. CoreDNS says that it is there.",
        lambda case: case.type == "SOA" and case.rcodes == ("NOERROR", "NXDOMAIN") and case.is_empty,
    ),
    Difference(
        "The name of a port has underscores, as the specification has it (`_http._tcp.web…`). CoreDNS takes `http.tcp.web…`, too.",
        lambda case: case.rcodes == ("NOERROR", "NXDOMAIN") and case.is_named(rf"[a-z0-9-]+\.(tcp|udp|sctp)\.{SERVICE}"),
    ),
    Difference(
        "`publishNotReadyAddresses` of a Service counts for slices that others than the cluster's controller write, too, whatever they say"
        " about being ready. CoreDNS goes by the slices.",
        lambda case: "published.shop" in str(case.ours[2]) + case.name and (_is_superset(case) or case.is_empty),
    ),
    Difference(
        "An ExternalName that leads in a circle gets SERVFAIL, since it has no end. CoreDNS answers that there are no records.",
        lambda case: case.rcodes == ("NOERROR", "SERVFAIL") and case.is_named(rf"loop.*\.shop{SVC}"),
    ),
    Difference(
        "An ExternalName is an alias for all types (RFC 1034, 3.6.2): TXT, SRV or MX of its target are found by it. CoreDNS follows it"
        " for A and AAAA only.",
        lambda case: case.type not in ("A", "AAAA", "CNAME") and case.is_named(ALIAS) and not case.theirs[2],
    ),
    Difference(
        "An ExternalName whose target does not exist gets the alias, NXDOMAIN, and the SOA of the target's zone (RFC 6604)."
        " CoreDNS leaves out one or the other.",
        lambda case: case.rcodes == ("NOERROR", "NXDOMAIN") and case.is_named(ALIAS) and "-missing" in case.name.lower(),
    ),
    Difference(
        "The name of the name server that SOA and NS tell has an address, that of the Service `kube-dns`.",
        lambda case: case.is_named(rf"(ns\.dns\.)?{re.escape(DOMAIN)}") and case.rcodes == ("NOERROR", "NOERROR"),
    ),
    Difference(
        "SOA and NS of reverse zones name the same name server as those of the cluster's domain. CoreDNS names `ns.dns` of each zone.",
        lambda case: _of_arpa(case.theirs) == _of_arpa(case.ours),
    ),
    Difference(
        "The reverse names of networks inside of the cluster's are there, whether or not an address in them has a name: so the names of"
        " addresses are not searched. CoreDNS answers NXDOMAIN.",
        lambda case: case.rcodes == ("NXDOMAIN", "NOERROR") and case.is_empty and case.is_named(PART_OF_NETWORK),
    ),
    Difference(
        "An address has the name of an endpoint only if the Service is there. CoreDNS names one of a slice without a Service.",
        lambda case: case.type == "PTR" and ".no-service." in str(case.theirs) and case.ours[0] == "NXDOMAIN",
    ),
    Difference(
        "With `pods: verified` each address of a pod has its name. CoreDNS knows the first only.",
        lambda case: case.mode == "verified" and case.rcodes == ("NXDOMAIN", "NOERROR") and case.is_named(POD),
    ),
    Difference(
        "There are no names below that of a pod. CoreDNS answers `x.10-244-1-2.default.pod…` like the pod's own name.",
        lambda case: case.rcodes == ("NOERROR", "NXDOMAIN") and case.is_named(rf"x\.{POD}"),
    ),
    Difference(
        "The name of a pod has addresses only. CoreDNS answers SRV with port 0.",
        lambda case: case.type == "SRV" and " srv 0 100 0 " in str(case.theirs) and case.is_named(POD) and not case.ours[2],
    ),
    Difference(
        "Names for special use, as those below `local` (RFC 6762), do not exist, and no other server is asked. CoreDNS passes them on.",
        lambda case: case.is_named("local") and case.ours[0] == "NXDOMAIN",
    ),
)
