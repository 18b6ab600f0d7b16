"""What a zone says about itself, and how it denies: SOA and NS records, NODATA and NXDOMAIN with the SOA (RFC 2308)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from podplane.dns import message as m
from podplane.dns.directory import ALWAYS, SERIAL
from podplane.dns.message import Answer, Name, Question, Record

TTL_SECONDS = 5
REFRESH, RETRY, EXPIRE = 7200, 1800, 86400
"""Seconds that a secondary server would wait; there are none."""
MAX_SOA_TTL = 300
CONTACT, SERVER = b"hostmaster", (b"ns", b"dns")


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority of the zone with this apex. `domain` is the cluster's: its name server is `ns.dns` there. `serial` is asked for each
    SOA record; `ttl`, in seconds, is that of all records, of negative answers, too."""

    apex: Name
    domain: Name
    ttl: int
    serial: Callable[[], int]
    source: str

    @property
    def server(self) -> Name:
        """The name of the zone's name server."""
        return (*SERVER, *self.domain)

    def soa(self) -> Record:
        """The SOA record, with the serial number of now."""
        data = m.soa(self.server, (CONTACT, *self.domain), self.serial(), REFRESH, RETRY, EXPIRE, self.ttl)
        return Record(self.apex, m.SOA, min(self.ttl, MAX_SOA_TTL), data)

    def at_apex(self, question: Question, addresses: Iterable[Record] = (), depends: tuple[str, ...] = (ALWAYS,)) -> Answer:
        """The answer at the apex; `addresses` are those of the name server, made of what `depends` names."""
        if question.type == m.SOA:
            return Answer(records=(self.soa(),), source=self.source, depends=(SERIAL,))
        if question.type == m.NS:
            record = Record(question.name, m.NS, self.ttl, m.written(self.server))
            return Answer(records=(record,), additional=tuple(addresses), source=self.source, depends=depends)
        return self.nodata()

    def nodata(self, source: str = "", depends: tuple[str, ...] = (ALWAYS,)) -> Answer:
        """There is the name, but nothing of the type that is asked for."""
        return Answer(authority=(self.soa(),), source=source or self.source, depends=depends)

    def nxdomain(self, depends: tuple[str, ...] = (ALWAYS,), source: str = "") -> Answer:
        """There is no such name, and nothing below it (RFC 8020)."""
        return Answer(m.NXDOMAIN, authority=(self.soa(),), source=source or self.source, depends=depends)

    def of(self, records: Iterable[Record], source: str, depends: tuple[str, ...], additional: Iterable[Record] = ()) -> Answer:
        """These records; NODATA without any."""
        found = tuple(records)
        if not found:
            return self.nodata(source, depends)
        return Answer(records=found, additional=tuple(additional), source=source, depends=depends)
