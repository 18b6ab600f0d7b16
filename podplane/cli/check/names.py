"""What is promised of names, which questions prove it, and what their answers mean. Pure.

Each party asks the first server of its own /etc/resolv.conf, by datagrams and by connections, for whole names, and for short ones along its
search path, as the C library does. The names are those of the check's own Services, one of which is headless, and of the users'.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

from podplane.cli.check.promises import Party, Verdict, family
from podplane.cli.check.services import Own
from podplane.cli.dns import tries
from podplane.dns import message as m
from podplane.dns import response_text
from podplane.dns.reasons import reverse_name
from podplane.dns.resolv_conf import ResolvConf
from podplane.dns.response_text import ResponseText

RESOLVE, HEADLESS, MISSING, REVERSE, FORWARDED = (
    "service-names",
    "headless-names",
    "missing-names",
    "names-of-addresses",
    "names-outside",
)
PROMISES: Mapping[str, str] = {
    RESOLVE: "names of Services resolve to their addresses, whole and short, over UDP and TCP",
    HEADLESS: "names of headless Services resolve to their endpoints",
    MISSING: "a name that there is not is denied at once",
    REVERSE: "the address of a Service resolves to its name",
    FORWARDED: "names outside of the cluster resolve",
}
PORT = 53
TYPES = {4: "A", 6: "AAAA"}
USERS = 200
"""So many names of the users' Services are looked up, each by one party in turn."""
ANYTHING = ("any record",)
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and what its resolver goes by."""

    name: str
    conf: ResolvConf


@dataclass(frozen=True, slots=True)
class Lookup:
    """One question of one party, and what it is to be answered: the data of its records (none: that there are none), and the code.

    `rest` are names that a resolver would ask for next, when this one is denied.
    """

    promise: str
    source: str
    server: str
    name: str
    type: str
    expected: tuple[str, ...]
    rcode: str = "NOERROR"
    tcp: bool = False
    rest: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.source} → {self.name} {self.type} over {'TCP' if self.tcp else 'UDP'} at {self.server}"

    def wire(self) -> bytes:
        """The message."""
        number = zlib.crc32(f"{self.source} {self.name} {self.type}".encode()) & 0xFFFF
        question = m.written(m.name_of(self.name)) + m.TAIL.pack(response_text.type_of(self.type), m.INTERNET)
        return m.HEADER.pack(number, m.RD, 1, 0, 0, 0) + question

    def probe(self) -> dict[str, Any]:
        """What its prober is told."""
        protocol = "tcp-message" if self.tcp else "udp-message"
        return {"protocol": protocol, "ip": self.server, "port": PORT, "payload": self.wire().hex()}


# Questions.


def askers(parties: Iterable[Party], texts: Mapping[str, ResolvConf], servers: Sequence[str]) -> tuple[list[Asker], list[str]]:
    """Those whose first server is the cluster's DNS; and the others, with why they are not asked."""
    found, left_out = [], []
    for party in parties:
        conf = texts.get(party.name, ResolvConf())
        if conf.nameservers and conf.nameservers[0] in servers:
            found.append(Asker(party.name, conf))
        else:
            left_out.append(f"names from {party.name} (its resolv.conf does not name the cluster's DNS first)")
    return found, left_out


def plan(own: Own, found: Sequence[Asker], namespace: str, domain: str, outside: str = "") -> list[Lookup]:
    """All questions about the check's own Services; `outside` is a name of another zone that has SOA records, if there is one."""
    end = f"{namespace}.svc.{domain}."
    ips = {name: [vip.ip for vip in own.vips[name]] for name in ("spread", "sticky")}
    endpoints = [ip for party in own.endpoints for ip in party.ips]
    versions = {family(ip) for ip in ips["spread"]}
    lookups: list[Lookup] = []
    for asker in found:
        for version, type_ in TYPES.items():
            wanted = _of(ips["spread"], version)
            lookups.append(_lookup(RESOLVE, asker, f"spread.{end}", type_, wanted))
            lookups.append(_lookup(RESOLVE, asker, f"sticky.{end}", type_, _of(ips["sticky"], version), tcp=True))
            lookups += _short(asker, f"spread.{namespace}", f"spread.{end}", type_, wanted)
        for version in sorted(versions):
            lookups.append(_lookup(HEADLESS, asker, f"each.{end}", TYPES[version], _of(endpoints, version)))
            one = _of(own.endpoints[0].ips, version)
            lookups.append(_lookup(HEADLESS, asker, f"pod-0.each.{end}", TYPES[version], one))
        lookups.append(_lookup(MISSING, asker, f"nowhere.{end}", "A", (), rcode="NXDOMAIN"))
        lookups += [_lookup(REVERSE, asker, reverse_name(ip), "PTR", (f"spread.{end}",)) for ip in ips["spread"]]
        if outside:
            lookups.append(_lookup(FORWARDED, asker, outside, "SOA", ANYTHING))
    return lookups


def of_users(services: Iterable[Object], found: Sequence[Asker], domain: str) -> list[Lookup]:
    """The names of the users' Services, each by one party in turn."""
    lookups: list[Lookup] = []
    turns = cycle(found)
    for service in services if found else ():
        ips = [ip for ip in service["spec"].get("clusterIPs", ()) if ip not in ("", "None")]
        name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.{domain}."
        for version in sorted({family(ip) for ip in ips}):
            lookups += [_lookup(RESOLVE, next(turns), name, TYPES[version], _of(ips, version))]
    return lookups[:USERS]


def _lookup(promise: str, asker: Asker, name: str, type_: str, expected: Iterable[str], **more: Any) -> Lookup:
    return Lookup(promise, asker.name, asker.conf.nameservers[0], name, type_, tuple(sorted(expected)), **more)


def _short(asker: Asker, name: str, whole: str, type_: str, expected: Iterable[str]) -> Iterator[Lookup]:
    """A short name, asked for along the search path; nothing when the path does not lead to the whole name."""
    names = tries.names(name, asker.conf)
    if whole in names:
        first, *rest = names[: names.index(whole) + 1]
        yield replace(_lookup(RESOLVE, asker, first, type_, expected), rest=tuple(rest))


def _of(ips: Iterable[str], version: int) -> list[str]:
    return [ip for ip in ips if family(ip) == version]


# Answers.


def following(lookup: Lookup, answer: Object | None) -> Lookup | None:
    """The next question of a resolver, after an answer without records; None when this was the last one."""
    response = _response(answer)
    if not lookup.rest or isinstance(response, str) or _data(lookup, response) or response.rcode not in tries.GOES_ON:
        return None
    return replace(lookup, name=lookup.rest[0], rest=lookup.rest[1:])


def judge(lookup: Lookup, answer: Object | None) -> str:
    """ "" when the answer keeps the promise; else what was asked, the expected and the seen."""
    response = _response(answer)
    if isinstance(response, str):
        return f"{lookup}: expected {_wanted(lookup)}, got {response}"
    data = _data(lookup, response)
    if response.rcode == lookup.rcode and (bool(data) if lookup.expected == ANYTHING else tuple(data) == lookup.expected):
        return ""
    return f"{lookup}: expected {_wanted(lookup)}, got {_in_words(response.rcode, data)}"


def _response(answer: Object | None) -> ResponseText | str:
    """The response, or why there is none."""
    if answer is None:
        return "no result from its prober"
    if not answer.get("ok"):
        return str(answer.get("error") or "no answer")
    try:
        return response_text.read(bytes.fromhex((answer.get("seen") or {}).get("message", "")))
    except ValueError as error:
        return f"what can't be read: {error}"


def _data(lookup: Lookup, response: ResponseText) -> list[str]:
    return sorted(record.data for record in response.records if record.type == lookup.type)


def _wanted(lookup: Lookup) -> str:
    return _in_words(lookup.rcode, lookup.expected)


def _in_words(rcode: str, data: Sequence[str]) -> str:
    if data:
        return ", ".join(data)
    return "no such record" if rcode == "NOERROR" else rcode


def verdicts(lookups: Iterable[Lookup], answers: Mapping[Lookup, Object]) -> list[Verdict]:
    """One for each promise of which anything was asked, in the order of the table; without a question from anybody, all of them."""
    made = {promise: Verdict(promise) for promise in PROMISES}
    asked = set()
    for lookup in lookups:
        asked.add(lookup.promise)
        verdict, failure = made[lookup.promise], judge(lookup, answers.get(lookup))
        if failure:
            verdict.failures.append(failure)
        else:
            verdict.proved += 1
    return [verdict for promise, verdict in made.items() if promise in asked or promise != FORWARDED]
