"""From a Corefile, CoreDNS's configuration, to one of podplane's DNS.

What podplane does without being told to needs nothing (health, ready, metrics, loop detection, …). All else that has no counterpart is
told, with its line. Source: the pages of CoreDNS's plugins (coredns/coredns, plugin/*/README.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from podplane.dns import config_text
from podplane.dns.config import MACHINE, domain_name, upstream_of
from podplane.dns.config_text import ConfigError
from podplane.dns.corefile_rewrites import rewrites, rule
from podplane.dns.corefile_syntax import CorefileError, Directive, Server, parse
from podplane.dns.corefile_words import Left, seconds, zone_of
from podplane.dns.message import Name, is_under, name_of, text_of

RESOLV_CONF = ("/etc/resolv.conf", "__PILLAR__UPSTREAM__SERVERS__")
"""The servers of the machine; the second is what NodeLocal DNSCache's manifest has in their place."""
CLUSTER_DNS = "__PILLAR__CLUSTER__DNS__"
HTTP_PORT = "9153"
REVERSE = (name_of("in-addr.arpa"), name_of("ip6.arpa"))
BUILT_IN = frozenset(("any", "autopath", "cancel", "errors", "loadbalance", "local", "loop", "reload"))
"""Plugins whose work is done anyway: RFC 8482, the search path, names for special use, logs, metrics and health over HTTP, …"""
FORWARD_BUILT_IN = frozenset(
    (
        "expire",
        "failfast_all_unhealthy_upstreams",
        "health_check",
        "max_concurrent",
        "max_connect_attempts",
        "max_fails",
        "max_idle_conns",
        "prefer_udp",
    )
)
KUBERNETES_BUILT_IN = frozenset(("endpoint", "kubeconfig", "tls", "upstream", "resyncperiod", "startup_timeout"))
CAPACITY = "9984"
"""Entries that CoreDNS keeps where nothing is said, and in many Corefiles where something is."""
POLICIES = {"random": "random", "round_robin": "random", "sequential": "sequential"}
DEFAULT_STALE_SECONDS, DEFAULT_DENIAL_SECONDS, DEFAULT_SUCCESS_SECONDS = 3600, 1800, 3600


class Note(NamedTuple):
    """Something of the Corefile that is not in the configuration."""

    line: int
    what: str


@dataclass(slots=True)
class Imported:
    """The configuration, as the ConfigMap has it, and what is not in it."""

    config: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def imported(text: str, domain: Name, environment: Mapping[str, str]) -> Imported:
    """What a Corefile is for a cluster of this domain. CorefileError when it is none."""
    importer = _Importer(domain)
    servers = parse(text, environment)
    if not servers:
        raise CorefileError(1, "there is no server block")
    for server in servers:
        importer.server(server)
    importer.finish()
    importer.found.notes.sort()
    return importer.found


@dataclass(slots=True)
class _Importer:
    """Collects what server blocks say."""

    domain: Name
    found: Imported = field(default_factory=Imported)
    served: set[Name] = field(default_factory=set)
    """Zones of blocks so far."""
    forwards: bool = False
    """Is there a forward of all other names, taken over or not?"""

    def note(self, line: int, what: str) -> None:
        """Something is left out."""
        self.found.notes.append(Note(line, what))

    def server(self, server: Server) -> None:
        """All directives of a block."""
        zones = [zone for key in server.keys if (zone := self._zone(key, server.line)) is not None]
        for zone in zones:
            if zone in self.served:
                self.note(server.line, f"{text_of(zone)} has two server blocks, with ports of their own: there is one")
                return
            self.served.add(zone)
        for directive in server.directives if zones else ():
            self._directive(directive, zones)

    def _zone(self, key: str, line: int) -> Name | None:
        try:
            return zone_of(key)
        except ValueError as error:
            self.note(line, str(error))
            return None

    def _directive(self, directive: Directive, zones: list[Name]) -> None:
        for name in directive.unset:
            self.note(directive.line, f"{directive.name} is left out: the environment has no {name}")
        if directive.unset or directive.name in BUILT_IN:
            return
        reader = PLUGINS.get(directive.name)
        if reader is None:
            what = f"import of {' '.join(directive.words)}" if directive.name == "import" else directive.name
            self.note(directive.line, f"{what} has no counterpart")
            return
        try:
            reader(self, directive, zones)
        except Left as left:
            self.note(directive.line, str(left))

    def add(self, line: int, key: str, value: Any) -> bool:
        """Take over the value of a key, if the configuration makes sense with it."""
        tree = {**self.found.config, key: value}
        try:
            config_text.of_tree(tree, self.domain)
        except ConfigError as error:
            self.note(line, f"it is left out, because it would be refused: {error}")
            return False
        self.found.config = tree
        return True

    def finish(self) -> None:
        """What is so because nothing is said: names that no block is about are refused by CoreDNS."""
        if "upstreams" not in self.found.config:
            if not self.forwards:
                self.found.config["upstreams"] = []
        elif self.found.config["upstreams"] == [MACHINE]:
            del self.found.config["upstreams"]

    def once(self, line: int, what: str, key: str, value: Any) -> None:
        """Take over a value that is the same for all zones here. Left when another block says something else."""
        before = self.found.config.get(key)
        if before is not None and before != value:
            raise Left(f"{what} is one for all zones: that of an earlier line counts")
        self.add(line, key, value)

    def policy(self, line: int, order: str) -> None:
        """Take over how servers are chosen."""
        try:
            self.once(line, "the policy of forward", "order", order)
        except Left as left:
            self.note(line, str(left))


# Plugins.


def _forward(importer: _Importer, directive: Directive, zones: list[Name]) -> None:
    if len(directive.words) < 2:
        raise Left("forward has no servers")
    from_, *to = directive.words
    name = _options(importer, directive)
    base = zone_of(from_)
    wanted = [base] if base else zones
    importer.forwards |= () in wanted
    servers = _servers(to, name)
    for zone in wanted:
        if not zone:
            importer.once(directive.line, "the list of servers for all other names", "upstreams", servers)
        elif is_under(zone, importer.domain):
            raise Left(f"forward of {text_of(zone)}: names of the cluster's domain are answered on each node itself")
        else:
            others = importer.found.config.get("zones", {})
            importer.add(directive.line, "zones", {**others, text_of(zone).removesuffix("."): list(servers)})


def _servers(words: list[str], tls_name: str) -> list[str]:
    servers: list[str] = []
    for word in words:
        if word in RESOLV_CONF:
            servers.append(MACHINE)
            continue
        if word.startswith("/"):
            raise Left(f"forward to the servers in {word} has no counterpart, as {RESOLV_CONF[0]} has: {MACHINE}")
        if word == CLUSTER_DNS:
            raise Left("forward to the cluster's DNS: its names are answered on each node itself")
        text = word.removeprefix("dns://")
        text = f"{text}#{tls_name}" if tls_name and text.startswith("tls://") else text
        try:
            servers.append(str(upstream_of(text)))
        except ValueError as error:
            raise Left(f"forward to {word}: {error}") from None
    return list(dict.fromkeys(servers))


def _options(importer: _Importer, directive: Directive) -> str:
    """Take over the options of a forward; the name in certificates of its servers."""
    name = ""
    for one in directive.block:
        match one.name, one.words:
            case "policy", (policy,) if policy in POLICIES:
                importer.policy(one.line, POLICIES[policy])
            case "tls_servername", (name,):
                pass
            case "tls", ():
                pass
            case option, _ if option in FORWARD_BUILT_IN:
                pass
            case option, words:
                importer.note(one.line, f"{' '.join((option, *words))} of forward has no counterpart")
    return name


def _kubernetes(importer: _Importer, directive: Directive, zones: list[Name]) -> None:
    own = [zone_of(word) for word in directive.words] or zones
    for zone in own:
        if zone != importer.domain and zone not in REVERSE and not any(is_under(zone, one) for one in REVERSE):
            importer.note(directive.line, f"kubernetes for {text_of(zone)}: the cluster's domain is {text_of(importer.domain)}")
    pods = "disabled"  # where nothing is said
    for one in directive.block:
        match one.name, one.words:
            case "pods", (pods,):
                pass
            case "ttl", (text,):
                importer.add(one.line, "ttl", int(text) if text.isdecimal() else text)
            case "fallthrough", words if words and all(zone_of(word) in REVERSE for word in words):
                pass
            case "fallthrough", _:
                importer.note(
                    one.line, "fallthrough of the cluster's domain has no counterpart: names that it lacks do not exist"
                )
            case option, _ if option in KUBERNETES_BUILT_IN:
                pass
            case option, words:
                importer.note(one.line, f"{' '.join((option, *words))} of kubernetes has no counterpart")
    if pods != "insecure":
        importer.add(directive.line, "pods", pods)


def _cache(importer: _Importer, directive: Directive, zones: list[Name]) -> None:
    words = list(directive.words)
    ttl = seconds(words.pop(0)) if words and words[0][:1].isdecimal() else None
    if words and any(zone_of(word) not in zones for word in words):
        raise Left(f"cache for {' '.join(words)} alone has no counterpart: there is one for all zones")
    cache: dict[str, Any] = {
        "maxSeconds": ttl or DEFAULT_SUCCESS_SECONDS,
        "negativeMaxSeconds": ttl or DEFAULT_DENIAL_SECONDS,
    }
    for one in directive.block:
        _cache_option(importer, one, cache)
    importer.once(directive.line, "the cache", "cache", cache)


def _cache_option(importer: _Importer, one: Directive, cache: dict[str, Any]) -> None:
    key = {"success": "maxSeconds", "denial": "negativeMaxSeconds"}
    match one.name, one.words:
        case "success" | "denial", (capacity, *times):
            if capacity != CAPACITY:
                importer.note(one.line, f"{one.name} {capacity}: the size of the cache is in `bytes`, for all of it")
            if times:
                cache[key[one.name]] = seconds(times[0])
            if times[1:]:
                importer.note(one.line, f"{one.name}: the least time {times[1]} has no counterpart")
        case "disable", ("success" | "denial" as kind, *only):
            if not only:
                cache[key[kind]] = 0
            elif any(zone_of(word) != importer.domain for word in only):  # the cluster's names are not in it anyway
                importer.note(one.line, f"{' '.join((one.name, *one.words))} of cache has no counterpart")
        case "prefetch", _:
            cache["prefetch"] = one.words[:1] != ("0",)
        case "serve_stale", times:
            cache["staleSeconds"] = seconds(times[0]) if times else DEFAULT_STALE_SECONDS
            if "immediate" in times:
                importer.note(one.line, "serve_stale immediate has no counterpart: servers are asked first, as with verify")
        case option, words:
            importer.note(one.line, f"{' '.join((option, *words))} of cache has no counterpart")


def _hosts(importer: _Importer, directive: Directive, zones: list[Name]) -> None:
    if directive.words:
        importer.note(
            directive.line, f"hosts of the file {directive.words[0]} has no counterpart: write its lines into `hosts`"
        )
    hosts: dict[str, list[str]] = {ip: list(names) for ip, names in importer.found.config.get("hosts", {}).items()}
    goes_on = False
    for one in directive.block:
        if one.name == "fallthrough":
            goes_on = True
        elif one.name in ("ttl", "no_reverse"):
            importer.note(one.line, f"{' '.join((one.name, *one.words))} of hosts has no counterpart")
        elif one.name != "reload":
            _entry(importer, one, hosts)
    if not goes_on:
        importer.note(
            directive.line, "hosts without fallthrough has no counterpart: names without an entry are asked for elsewhere"
        )
    if hosts:
        importer.add(directive.line, "hosts", hosts)


def _entry(importer: _Importer, one: Directive, hosts: dict[str, list[str]]) -> None:
    try:
        ip = str(ipaddress.ip_address(one.name))
        names = [text_of(domain_name(word)).removesuffix(".") for word in one.words]
    except ValueError as error:
        importer.note(one.line, f"hosts: {error}")
        return
    hosts[ip] = list(dict.fromkeys([*hosts.get(ip, ()), *names]))


def _rewrite(importer: _Importer, directive: Directive, zones: list[Name]) -> None:
    for line, words in rewrites(directive):
        try:
            importer.add(line, "rewrites", [*importer.found.config.get("rewrites", ()), rule(words)])
        except Left as left:
            importer.note(line, str(left))


def _log(importer: _Importer, directive: Directive, zones: list[Name]) -> None:
    names = [word for word in directive.words if not word.startswith("{") and " " not in word]
    if len(names) != len(directive.words):
        importer.note(directive.line, "the format of log has no counterpart")
    for one in directive.block:
        if one.words != ("all",):
            raise Left(f"log of {' '.join((one.name, *one.words))} alone has no counterpart")
    wanted = [zone_of(name) for name in names] or zones
    before = importer.found.config.get("log", {}).get("names", [])
    texts = [text_of(zone).removesuffix(".") or "." for zone in wanted]
    importer.add(directive.line, "log", {"names": list(dict.fromkeys([*before, *texts]))})


def _bufsize(importer: _Importer, directive: Directive, zones: list[Name]) -> None:
    if directive.words not in ((), ("1232",)):
        raise Left(f"bufsize {' '.join(directive.words)} has no counterpart: responses over UDP have 1232 bytes at most")


def _port(importer: _Importer, directive: Directive, zones: list[Name]) -> None:
    if directive.words and not directive.words[0].endswith(f":{HTTP_PORT}"):
        raise Left(f"{directive.name} {directive.words[0]}: it is on port {HTTP_PORT} of each node's addresses")


PLUGINS: Mapping[str, Callable[[_Importer, Directive, list[Name]], None]] = {
    "bufsize": _bufsize,
    "cache": _cache,
    "forward": _forward,
    "health": _port,
    "hosts": _hosts,
    "kubernetes": _kubernetes,
    "log": _log,
    "prometheus": _port,
    "proxy": _forward,
    "ready": _port,
    "rewrite": _rewrite,
}
