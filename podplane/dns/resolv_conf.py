"""resolv.conf: what resolver libraries go by, read, written, and made for a pod by its spec. Pure.

Sources: kubelet's pkg/kubelet/network/dns; resolv.conf(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from podplane.model.config import CLUSTER_DOMAIN
from podplane.model.pod import DnsConfig

MAX_NAMESERVERS, MAX_SEARCHES, MAX_SEARCH_CHARACTERS, MAX_SEARCH = 3, 32, 2048, 253
CLUSTER_OPTIONS = ("ndots:5",)
DEFAULT_NDOTS, MAX_NDOTS = 1, 15
"""Of a resolv.conf that says nothing, and what libraries take at most (resolv.conf(5))."""


class ResolvConf(msgspec.Struct, frozen=True):
    """What a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def ndots(self) -> int:
        """A name with fewer dots is looked for in the search domains first."""
        found = DEFAULT_NDOTS
        for option in self.options:
            name, _, value = option.partition(":")
            if name == "ndots" and value.isascii() and value.isdecimal():
                found = min(int(value[:4]), MAX_NDOTS)
        return found

    def text(self) -> str:
        """The file."""
        lines = [f"nameserver {ip}" for ip in self.nameservers]
        if self.searches:
            lines.append("search " + " ".join(self.searches))
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "\n".join(lines) + "\n"


def read(text: str) -> ResolvConf:
    """What a resolv.conf says; the last `search` or `domain` counts."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", ip, *_]:
                nameservers.append(ip)
            case ["search" | "domain", *names]:
                searches = tuple(name.removesuffix(".") or name for name in names)
            case ["options", *more]:
                options += more
    return ResolvConf(tuple(nameservers), searches, tuple(options))


class NodeDns(msgspec.Struct, frozen=True):
    """What the kubelet of a node knows of names: addresses of the cluster's DNS, the cluster's domain, and the node's own resolv.conf."""

    servers: tuple[str, ...] = ()
    domain: str = CLUSTER_DOMAIN
    machine: ResolvConf = ResolvConf()

    def of_pod(self, namespace: str, policy: str, config: DnsConfig, *, on_host: bool) -> ResolvConf:
        """The resolv.conf of a pod, by its dnsPolicy and dnsConfig; `on_host`: it has the host's network."""
        if policy == "None":
            base = ResolvConf()
        elif policy == "Default" or (policy == "ClusterFirst" and on_host):
            base = self.machine
        else:
            domains = (f"{namespace}.svc.{self.domain}", f"svc.{self.domain}", self.domain)
            base = ResolvConf(self.servers, (*domains, *self.machine.searches), CLUSTER_OPTIONS)
        added = tuple(o.name if o.value is None else f"{o.name}:{o.value}" for o in config.options)
        named = {option.partition(":")[0] for option in added}
        kept = tuple(option for option in base.options if option.partition(":")[0] not in named)
        return ResolvConf(
            _unique((*base.nameservers, *config.nameservers)), _unique((*base.searches, *config.searches)), (*kept, *added)
        )


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def within_limits(conf: ResolvConf) -> ResolvConf:
    """What libraries read of it: glibc takes three servers, and aborts on a domain that is too long for a name."""
    searches = [one for one in conf.searches[:MAX_SEARCHES] if len(one) <= MAX_SEARCH]
    while len(" ".join(searches)) > MAX_SEARCH_CHARACTERS:
        searches.pop()
    return msgspec.structs.replace(conf, nameservers=conf.nameservers[:MAX_NAMESERVERS], searches=tuple(searches))


def omitted(conf: ResolvConf) -> Iterator[str]:
    """What `within_limits` leaves out, a sentence each, for the user."""
    taken = within_limits(conf)
    if taken.nameservers != conf.nameservers:
        yield f"Nameserver limits were exceeded, the applied nameservers are: {' '.join(taken.nameservers)}"
    if taken.searches != conf.searches:
        yield f"Search line limits were exceeded, the applied search line is: {' '.join(taken.searches)}"
