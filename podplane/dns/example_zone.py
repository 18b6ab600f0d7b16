"""The zone of the host outside of a lab, so that names of others can be asked for without an internet.

example.test         itself, its name server `ns`, `www`; `alias` of www, `mail` (MX), `txt`, _http._tcp (SRV)
many                 twenty addresses behind seven aliases: more than fits into 512 bytes
away, dangling, loop aliases of a name elsewhere, of a name that is not there, and of itself
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Sequence

from podplane.dns import message as m
from podplane.dns.message import Name, Record
from podplane.dns.static_zone import StaticZone, addresses

APEX: Name = (b"example", b"test")
TTL, NEGATIVE_TTL = 30, 10
ALIASES, ADDRESSES = 7, 20
FIRST = 101
"""The last byte of the first of the many addresses."""
MAIL_PREFERENCE, HTTP_PORT = 10, 8080


def zone(ips: Sequence[str]) -> StaticZone:
    """The zone, served at these addresses."""
    return StaticZone(APEX, tuple(_records([ipaddress.ip_address(ip) for ip in ips])))


def _named(*labels: str) -> Name:
    return (*(label.encode() for label in labels), *APEX)


def _alias(name: Name, target: Name) -> Record:
    return Record(name, m.CNAME, TTL, m.written(target))


def _records(ips: Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> Iterator[Record]:
    soa = m.soa(_named("ns"), _named("hostmaster"), 1, 7200, 1800, 86400, NEGATIVE_TTL)
    yield Record(APEX, m.SOA, TTL, soa)
    yield Record(APEX, m.NS, TTL, m.written(_named("ns")))
    for name in (APEX, _named("ns"), _named("www"), _named("mail")):
        yield from addresses(name, TTL, *(ip.packed for ip in ips))
    yield Record(APEX, m.MX, TTL, MAIL_PREFERENCE.to_bytes(2, "big") + m.written(_named("mail")))
    yield Record(_named("txt"), m.TXT, TTL, m.txt(["outside of the cluster"]))
    yield Record(_named("_http", "_tcp"), m.SRV, TTL, m.srv(0, 1, HTTP_PORT, _named("www")))
    yield _alias(_named("alias"), _named("www"))
    yield _alias(_named("away"), (b"www", b"elsewhere", b"test"))
    yield _alias(_named("dangling"), _named("nowhere"))
    yield _alias(_named("loop"), _named("loop"))
    yield from _many(ips)


def _many(ips: Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> Iterator[Record]:
    chain = [
        _named("many"),
        *(_named(f"step{n}-of-the-way-to-all-the-addresses", "many") for n in range(1, ALIASES)),
        _named("pool", "many"),
    ]
    for name, target in itertools.pairwise(chain):
        yield _alias(name, target)
    for ip in ips:
        yield from addresses(chain[-1], TTL, *(ip.packed[:-1] + bytes([FIRST + n]) for n in range(ADDRESSES)))
