"""Rules of a pod's dnsPolicy and dnsConfig (Kubernetes' ValidatePodSpec)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from podplane.apiserver.kinds.addresses import check_ip
from podplane.apiserver.kinds.names import Object
from podplane.apiserver.problems import Cause
from podplane.dns.resolv_conf import MAX_NAMESERVERS, MAX_SEARCH, MAX_SEARCH_CHARACTERS, MAX_SEARCHES

LABEL = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
DOMAIN = re.compile(rf"{LABEL}(\.{LABEL})*\.?|\.")
"""A search domain: with underscores, as `_tcp.example`, with a dot at its end, or the root alone."""


def check_dns(spec: Object, path: str) -> Iterator[Cause]:
    """What is wrong with them."""
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
