"""The configuration of the cluster's DNS: what a user writes into the ConfigMap `kube-system/podplane-dns`, as values.

`config_text` reads it. All of it is compared by value: "did anything that I read change?" is `==`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from podplane.dns.message import Name, name_of

NAMESPACE, NAME, KEY = "kube-system", "podplane-dns", "config.yaml"
"""The ConfigMap, and its one key."""
PodNames = Literal["insecure", "verified", "disabled"]
Order = Literal["parallel", "sequential", "random"]
DNS_PORT, TLS_PORT = 53, 853
LABEL = re.compile(rb"[a-z0-9_/-]{1,63}")
"""What labels of configured names are made of: of host names, of Services (`_tcp`), of networks' parts (RFC 2317: `0/25`)."""


class Upstream(msgspec.Struct, frozen=True):
    """A server that questions are passed on to; over TLS its certificate is to be that of `tls_name`, or, without one, of the address."""

    ip: str
    port: int = DNS_PORT
    tls: bool = False
    tls_name: str = ""

    def __str__(self) -> str:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        name = f"#{self.tls_name}" if self.tls_name else ""
        if self.tls:
            return f"tls://{self.ip if self.port == TLS_PORT else f'{host}:{self.port}'}{name}"
        return self.ip if self.port == DNS_PORT else f"{host}:{self.port}"


MACHINE: Literal["machine"] = "machine"
"""In place of an Upstream: all servers that the machine's resolv.conf names."""
Upstreams = tuple[Upstream | Literal["machine"], ...]


class Rewrite(msgspec.Struct, frozen=True):
    """A name (or, as a `suffix`, each name below it, too) that stands for another: `name` → `to`, `x.name` → `x.to`."""

    name: Name
    to: Name
    suffix: bool = False

    def of(self, name: Name) -> Name | None:
        """What a name stands for; None when the rule is not about it."""
        if not self.suffix:
            return self.to if name == self.name else None
        kept = len(name) - len(self.name)
        return name[:kept] + self.to if kept >= 0 and name[kept:] == self.name else None


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """What is kept of the answers of upstreams, and for how long: positive ones, negative ones, and those that are too old, while no
    upstream answers (RFC 8767; 0: never). `prefetch`: what is asked for often is asked again before its time is over."""

    max_seconds: int = 3600
    negative_max_seconds: int = 300
    stale_seconds: int = 86400
    bytes: int = 32 * 1024 * 1024
    prefetch: bool = True


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which questions are logged: those of these pods (`namespace/name`, a `*` at the end for all that begin so), and those for these
    names and what is below them; `.` for all. None by default."""

    pods: tuple[str, ...] = ()
    names: tuple[Name, ...] = ()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration; each field has its default.

    `ttl` is that of the cluster's records, in seconds; `zones` are those that others answer for, each by its own servers: of the zones that
    a name belongs to the longest counts; `hosts` are names by address; of `rewrites` the first that fits a name counts.
    """

    pods: PodNames = "insecure"
    ttl: int = 5
    search_path: bool = True
    upstreams: Upstreams = (MACHINE,)
    order: Order = "parallel"
    zones: Mapping[Name, Upstreams] = {}
    hosts: Mapping[str, tuple[Name, ...]] = {}
    rewrites: tuple[Rewrite, ...] = ()
    cache: Cache = Cache()
    log: Log = Log()


def upstream_of(text: str) -> Upstream:
    """`192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:5353`, `tls://192.0.2.1#dns.example`. ValueError, with a sentence, when it is none."""
    address, is_tls = text.removeprefix("tls://"), text.startswith("tls://")
    address, has_name, tls_name = address.partition("#")
    if has_name and not is_tls:
        raise ValueError(f"{text!r} has a name, which only servers over TLS have: tls://{text}")
    host, port = _host_and_port(address)
    if has_name:
        domain_name(tls_name)
    ip = server_ip(host)
    return Upstream(ip, port or (TLS_PORT if is_tls else DNS_PORT), is_tls, tls_name.lower())


def _host_and_port(text: str) -> tuple[str, int]:
    """An address and its port, 0 if it has none."""
    found = re.fullmatch(r"\[([^\]]*)\](?::(\w*))?|([^:]*)(?::(\w*))?|(.*)", text)
    assert found is not None, "the last alternative takes everything"
    host = found[1] or found[3] or found[5] or ""
    port = found[2] if found[2] is not None else found[4]
    if port is None:
        return host, 0
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return host, int(port)


def server_ip(text: str) -> str:
    """An address that a server can have, as it is usually written. ValueError, with a sentence, when it is none."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None
    if ip.is_unspecified or ip.is_multicast or getattr(ip, "scope_id", None) is not None or text == "255.255.255.255":
        raise ValueError(f"{text} is no address of one machine")
    return str(ip)


def domain_name(text: str) -> Name:
    """A name as configurations have it, with or without the dot at its end. ValueError, with a sentence, when it is none."""
    if not text.isascii():
        raise ValueError(f"{text!r} has letters that DNS does not have: write it in its ASCII form (xn--…)")
    name = name_of(text)
    if not name or not all(map(LABEL.fullmatch, name)):
        raise ValueError(f"{text!r} is no name")
    return name
