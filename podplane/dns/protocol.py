"""What every server answers by itself, whatever names it has: questions that it does not take, and those about the server.

| question | answer | source |
|---|---|---|
| EDNS of another version than 0 | BADVERS | RFC 6891, 6.1.3 |
| AXFR, IXFR | REFUSED: nobody may copy zones | RFC 5936, 2.2.1 |
| types that are no data (OPT, TSIG, MAILA, …) | FORMERR; MAILA, MAILB: NOTIMP | RFC 6895, 3.1 |
| CH TXT version.bind, version.server | the program's name and version | RFC 4892 |
| CH TXT id.server, hostname.bind | the node's name | RFC 4892 |
| other classes than IN | REFUSED | |
| ANY | HINFO "RFC8482", where the name exists | RFC 8482, 4.2 |
| the option NSID, empty | the node's name in the response | RFC 5001 |
"""

from __future__ import annotations

from podplane.dns import message as m
from podplane.dns.message import Answer, Query, Record, name_of

TRANSFERS = frozenset((m.AXFR, m.IXFR))
MAILB, MAILA = 253, 254
META = frozenset((m.OPT, 249, 250))
"""Types that stand in messages, and are nobody's data: OPT, TKEY, TSIG."""
VERSION_NAMES = frozenset(map(name_of, ("version.bind", "version.server")))
ID_NAMES = frozenset(map(name_of, ("id.server", "hostname.bind")))
HINFO_DATA = m.txt(("RFC8482", ""))
NSID = 3
SOURCE = "the name server itself"


def answer(query: Query, version: str, identity: str) -> Answer | None:
    """The answer to a question that is not about names of zones; None for all others. `identity` names this server."""
    name, type_, class_ = query.question
    if query.edns is not None and query.edns.version:
        return _refused(m.BADVERS)
    if class_ == m.CHAOS and name in VERSION_NAMES | ID_NAMES:
        return _about_server(query, version if name in VERSION_NAMES else identity)
    if type_ in META:
        return _refused(m.FORMERR)
    if type_ in (MAILA, MAILB):
        return _refused(m.NOTIMP)
    return _refused(m.REFUSED) if type_ in TRANSFERS or class_ != m.INTERNET else None


def _refused(rcode: int) -> Answer:
    return Answer(rcode, authoritative=False, source=SOURCE)


def _about_server(query: Query, text: str) -> Answer:
    """A name of class CHAOS. Its only type is TXT."""
    name, type_, _ = query.question
    records = (Record(name, m.TXT, 0, m.txt((text,))),) if type_ in (m.TXT, m.ANY) else ()
    return Answer(records=records, source=SOURCE)


def any_of(query: Query, found: Answer, ttl: int) -> Answer:
    """The answer to ANY, made of that for HINFO: if the name exists, one record that says so, instead of all."""
    if found.rcode != m.NOERROR:
        return found
    record = Record(query.question.name, m.HINFO, ttl, HINFO_DATA)
    return Answer(
        records=(record,),
        authoritative=found.authoritative,
        source=found.source,
        depends=found.depends,
        private=found.private,
        lifetime=found.lifetime,
    )


def with_identity(query: Query, response: bytes, identity: str, limit: int) -> bytes:
    """The response with the server's identity, if the query asks for it, and there is room."""
    wants = query.edns is not None and any(code == NSID for code, _ in query.edns.options)
    option = m.TAIL.pack(NSID, len(identity.encode())) + identity.encode()
    if not wants or len(response) + len(option) > limit:
        return response
    # The OPT record is the last, and has no options of its own.
    return response[: -m.LENGTH.size] + m.LENGTH.pack(len(option)) + option
