"""Names that mean the same everywhere, or nothing in any DNS, so that nobody else is to be asked for them.

| names | answered | source |
|---|---|---|
| localhost, all below | 127.0.0.1, ::1 | RFC 6761, 6.3 |
| 127.in-addr.arpa, 1.0.…0.ip6.arpa | localhost as the name of 127.0.0.1 and ::1 | RFC 6303, 4 |
| 0.in-addr.arpa, 255.255.255.255.in-addr.arpa, 0.0.…0.ip6.arpa | NXDOMAIN | RFC 6303, 4 |
| invalid, all below | NXDOMAIN | RFC 6761, 6.4 |
| onion, alt, all below | NXDOMAIN | RFC 7686, RFC 9476 |
| resolver.arpa, `_dns` of it | NODATA; all below else NXDOMAIN | RFC 9462 |
| printer.local, `_http._tcp.local` and the like | NXDOMAIN | RFC 6762, 22.1 |

Of `local`, which multicast DNS has for itself, only names of its own form are held back: one label, or labels of services. Longer ones
(`db.corp.local`) are asked for as others are, because such domains of Active Directory are many; so is `corp.local` itself, when it is a
zone of the configuration or one that the machine's resolv.conf searches. A zone of the configuration has precedence over all of this.

`test`, `home.arpa`, `internal` and reverse names of private networks go upstream: those who run the network have names there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from podplane.dns import message as m
from podplane.dns.message import Answer, Name, Question, Record, is_under, name_of
from podplane.dns.negative import CONFIG, negative

LOCALHOST, LOCAL = name_of("localhost"), name_of("local")
LOOPBACKS = {name_of("1.0.0.127.in-addr.arpa"), (b"1", *(b"0",) * 31, b"ip6", b"arpa")}
LOOPBACK_ADDRESSES = {m.A: bytes((127, 0, 0, 1)), m.AAAA: bytes((*(0,) * 15, 1))}
RESOLVER = name_of("resolver.arpa")
RESOLVER_NAMES = {RESOLVER, (b"_dns", *RESOLVER)}
ABSENT: Mapping[Name, str] = {
    name_of("invalid"): "RFC 6761",
    name_of("onion"): "RFC 7686",
    name_of("alt"): "RFC 9476",
    name_of("127.in-addr.arpa"): "RFC 6303",
    name_of("0.in-addr.arpa"): "RFC 6303",
    name_of("255.255.255.255.in-addr.arpa"): "RFC 6303",
    ((b"0",) * 32 + (b"ip6", b"arpa")): "RFC 6303",
}
"""Zones without any name, by the first labels of what is asked for: the longest have 34."""
ENDS = {b"localhost", b"local", b"invalid", b"onion", b"alt", b"arpa"}
HOME = name_of("home.arpa")
RESERVED: Mapping[Name, str] = {
    LOCALHOST: "it means every machine itself (RFC 6761)",
    name_of("invalid"): "it has no names (RFC 6761)",
    name_of("onion"): "its names are Tor's (RFC 7686)",
    name_of("alt"): "its names are none of DNS (RFC 9476)",
    name_of("arpa"): "it has the names of addresses (RFC 3172)",
}


def why_reserved(zone: Name) -> str:
    """Why nobody may have this zone; "" when somebody may, as what is below `local`, and `home.arpa` (RFC 8375)."""
    if zone == LOCAL:
        return "it is multicast DNS's (RFC 6762)"
    return "" if is_under(zone, HOME) else next((why for name, why in RESERVED.items() if is_under(zone, name)), "")


class SpecialNames:
    """Names for special use. `elsewhere` are zones that the configuration has servers for; `searches` are the machine's search domains."""

    def __init__(self, ttl: int, elsewhere: Collection[Name] = (), searches: Collection[Name] = ()) -> None:
        self._ttl = ttl
        self._elsewhere = frozenset(elsewhere)
        self._searches = frozenset(searches)

    @property
    def ends(self) -> Collection[Name]:
        """As `zone.Zone` has it."""
        return [(end,) for end in ENDS]

    def answer(self, question: Question) -> Answer | None:
        """What such a name means; None for all other names."""
        name = question.name
        if not name or name[-1] not in ENDS:
            return None
        if any(name[i:] in self._elsewhere for i in range(len(name))):
            return None
        if is_under(name, LOCALHOST):
            return self._localhost(question)
        if name in LOOPBACKS:
            return self._only(question, m.PTR, m.written(LOCALHOST))
        if is_under(name, LOCAL):
            return self._absent(LOCAL, "RFC 6762") if self._is_multicast(name) else None
        if is_under(name, RESOLVER):
            return self._negative(RESOLVER, "RFC 9462", m.NOERROR if name in RESOLVER_NAMES else m.NXDOMAIN)
        return next((self._absent(name[i:], ABSENT[name[i:]]) for i in range(len(name)) if name[i:] in ABSENT), None)

    def _localhost(self, question: Question) -> Answer:
        data = LOOPBACK_ADDRESSES.get(question.type)
        return self._negative(LOCALHOST, "RFC 6761") if data is None else self._only(question, question.type, data)

    def _is_multicast(self, name: Name) -> bool:
        if len(name) == 1:
            return True
        return name[-2].startswith(b"_") or (len(name) == 2 and name not in self._searches)

    def _only(self, question: Question, type_: int, data: bytes) -> Answer:
        if question.type != type_:
            return self._negative(question.name, "RFC 6303")
        return Answer(records=(Record(question.name, type_, self._ttl, data),), source="special name", depends=CONFIG)

    def _absent(self, zone: Name, why: str) -> Answer:
        return self._negative(zone, why, m.NXDOMAIN)

    def _negative(self, zone: Name, why: str, rcode: int = m.NOERROR) -> Answer:
        return negative(zone, self._ttl, f"special name ({why})", rcode)
