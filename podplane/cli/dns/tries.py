"""Which names a resolver asks for, one after the other, when a program looks for one; and when it stops. Pure.

Sources: resolv.conf(5); glibc, resolv/res_query.c; musl, src/network/lookup_name.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podplane.dns.message import MAX_NAME
from podplane.dns.resolv_conf import ResolvConf

Object = dict[str, Any]
GOES_ON = ("NOERROR", "NXDOMAIN", "SERVFAIL")
"""After these, without a record, glibc asks for the next name; after others, and after silence, it gives up."""


def names(name: str, conf: ResolvConf) -> list[str]:
    """The names, each with a dot at its end: with fewer dots than `ndots` the search domains come first."""
    if name.endswith("."):
        return [name]
    searched = [f"{name}.{domain}".rstrip(".") + "." for domain in conf.searches]
    wanted = [f"{name}.", *searched] if name.count(".") >= conf.ndots else [*searched, f"{name}."]
    return [one for one in dict.fromkeys(wanted) if len(one) < MAX_NAME]


def is_end(answers: Sequence[Object]) -> bool:
    """Does the resolver stop after these answers to one name?"""
    return bool(data(answers)) or any(one["rcode"] not in GOES_ON for one in answers)


def remarks(name: str, conf: ResolvConf, tried: Sequence[Sequence[Object]]) -> Iterator[str]:
    """Where musl's resolver (Alpine) does otherwise than glibc's, for these tries."""
    if len(tried) > 1 and not name.endswith(".") and name.count(".") >= conf.ndots:
        yield f"musl's resolver (Alpine) asks for {name}. alone: a name with {conf.ndots} dots or more is not searched for"
        return
    for answers in tried[:-1]:
        stops = next((one for one in answers if one["rcode"] != "NXDOMAIN"), None)
        if stops is not None:
            what = "exists, without such records" if stops["rcode"] == "NOERROR" else f"got {stops['rcode']}"
            yield f"musl's resolver (Alpine) ends at {stops['name']}, which {what}"
            return


def hosts_entry(name: str, hosts: str) -> list[str]:
    """The addresses that an /etc/hosts has for a name: programs look there before they ask."""
    wanted, found = name.removesuffix(".").lower(), []
    for line in hosts.splitlines():
        address, *own = line.split("#")[0].split() or [""]
        if wanted in map(str.lower, own):
            found.append(address)
    return found


def data(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was asked for, of all answers: the records of the type that each is about, without the aliases on the way."""
    return [
        record["data"] for one in answers for record in one["records"] if record["type"] == one["type"] or one["type"] == "ANY"
    ]
