"""Rules of a pod's names: of its host name, and of its dnsPolicy and dnsConfig (Kubernetes' ValidatePodSpec)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.addresses import check_ip
from podplane.apiserver.kinds.names import Object
from podplane.apiserver.problems import Cause
from podplane.dns.resolv_conf import MAX_NAMESERVERS, MAX_SEARCH, MAX_SEARCH_CHARACTERS, MAX_SEARCHES

LABEL = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
MAX_OVERRIDE = 64
"""Of a host name of Linux."""
DOMAIN = re.compile(rf"{LABEL}(\.{LABEL})*\.?|\.")
"""A search domain: with underscores, as `_tcp.example`, with a dot at its end, or the root alone."""


def check_names(spec: Object, path: str) -> Iterator[Cause]:
    """What is wrong with them."""
    for field in ("hostname", "subdomain"):
        if spec.get(field) and (why := names.LABEL(spec[field])):
            yield Cause.invalid(f"{path}.{field}", spec[field], why)
    override = spec.get("hostnameOverride")
    if override is not None:
        yield from _check_override(spec, override, f"{path}.hostnameOverride")
    yield from _check_dns(spec, path)


def _check_override(spec: Object, override: str, path: str) -> Iterator[Cause]:
    for field in ("setHostnameAsFQDN", "hostNetwork"):
        if spec.get(field):
            yield Cause.forbidden(path, f"may not be specified when {field} is true")
    if len(override) > MAX_OVERRIDE:
        yield Cause.invalid(path, override, f"may not be more than {MAX_OVERRIDE} characters")
    if why := names.SUBDOMAIN(override):
        yield Cause.invalid(path, override, why)


def _check_dns(spec: Object, path: str) -> Iterator[Cause]:
    config = spec.get("dnsConfig", {})
    servers, searches = config.get("nameservers", []), config.get("searches", [])
    if spec.get("dnsPolicy") == "None" and not servers:
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield Cause.required(f"{path}.dnsConfig.nameservers", why)
    if len(servers) > MAX_NAMESERVERS:
        why = f"must not have more than {MAX_NAMESERVERS} nameservers"
        yield Cause.invalid(f"{path}.dnsConfig.nameservers", servers, why)
    for i, server in enumerate(servers):
        yield from check_ip(server, f"{path}.dnsConfig.nameservers[{i}]")
    yield from _check_searches(searches, f"{path}.dnsConfig.searches")
    for i, option in enumerate(config.get("options", [])):
        if not option.get("name"):
            yield Cause.required(f"{path}.dnsConfig.options[{i}]", "must not be empty")


def _check_searches(searches: list[str], path: str) -> Iterator[Cause]:
    if len(searches) > MAX_SEARCHES:
        yield Cause.invalid(path, searches, f"must not have more than {MAX_SEARCHES} search paths")
    if len(" ".join(searches)) > MAX_SEARCH_CHARACTERS:
        why = f"must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        yield Cause.invalid(path, searches, why)
    for i, search in enumerate(searches):
        if len(search.removesuffix(".")) > MAX_SEARCH or not DOMAIN.fullmatch(search):
            why = "must be a domain of lower-case letters, digits, dashes, underscores and dots, of 253 at most"
            yield Cause.invalid(f"{path}[{i}]", search, why)
