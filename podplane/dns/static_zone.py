"""A zone of records that never change, and that delegates nothing: the algorithm of RFC 1034, 4.3.2, and negative answers of RFC 2308."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from podplane.dns import message as m
from podplane.dns.message import Answer, Name, Question, Record

MAX_ALIASES = 16


@dataclass(slots=True)
class StaticZone:
    """The zone with this apex; the records of the apex have its SOA record among them."""

    apex: Name
    records: Iterable[Record]
    _by_name: dict[Name, list[Record]] = field(init=False)

    def __post_init__(self) -> None:
        self._by_name = {}
        for record in self.records:
            self._by_name.setdefault(record.name, []).append(record)
            for start in range(1, len(record.name) - len(self.apex)):
                self._by_name.setdefault(record.name[start:], [])  # an empty non-terminal (RFC 8020)

    def answer(self, question: Question) -> Answer:
        """The answer to a question; REFUSED for a name that is none of this zone."""
        if not m.is_under(question.name, self.apex) or question.class_ != m.INTERNET:
            return Answer(m.REFUSED, authoritative=False)
        aliases: list[Record] = []
        name = question.name
        while len(aliases) <= MAX_ALIASES:
            here = self._by_name.get(name)
            if here is None:
                return Answer(m.NXDOMAIN, tuple(aliases), self._soa())
            found = [record for record in here if question.type in (record.type, m.ANY)]
            alias = next((record for record in here if record.type == m.CNAME), None)
            if found or alias is None:
                return Answer(records=(*aliases, *found), authority=() if found else self._soa())
            aliases.append(alias)
            name = m.name_in(alias.data)
            if not m.is_under(name, self.apex):
                return Answer(records=tuple(aliases))
        return Answer(m.SERVFAIL, authoritative=False)

    def _soa(self) -> tuple[Record, ...]:
        return tuple(record for record in self._by_name.get(self.apex, ()) if record.type == m.SOA)


def respond(zone: StaticZone, data: bytes, *, tcp: bool = False) -> bytes | None:
    """The response to a message; None when it gets none."""
    try:
        query = m.read_query(data)
    except m.Malformed as error:
        return None if error.rcode is None else m.refusal(data, error.rcode)
    limit = m.TCP_BYTES if tcp else min(max(query.edns.size, m.PLAIN_BYTES), m.EDNS_BYTES) if query.edns else m.PLAIN_BYTES
    if query.opcode:
        return m.respond(query, Answer(m.NOTIMP, authoritative=False), limit)
    if query.edns is not None and query.edns.version:
        return m.respond(query, Answer(m.BADVERS, authoritative=False), limit)
    return m.respond(query, zone.answer(query.question), limit)


def addresses(name: Name, ttl: int, *ips: bytes) -> Iterator[Record]:
    """A and AAAA records, of addresses of four or sixteen bytes."""
    for ip in ips:
        yield Record(name, m.A if len(ip) == 4 else m.AAAA, ttl, ip)
