"""The search path at once changes how often resolvers ask, and nothing of what they find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from podplane.dns import message as m
from podplane.dns.cluster import ClusterZone
from podplane.dns.directory import Directory
from podplane.dns.message import Answer, Name, Query, Question, Record, name_of
from podplane.dns.resolv_conf import ResolvConf
from podplane.dns.search_path import of_conf
from podplane.model.dns import Identity, NamedService, NamedServiceSpec
from podplane.nameserver.resolver import Client, Resolver
from podplane.nameserver.search import Searching
from podplane.nameserver.zones import Zones

DOMAINS = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "lab.example")
NDOTS = 5
POD = Client("10.244.1.2", "web", "shop", of_conf(ResolvConf((), DOMAINS, (f"ndots:{NDOTS}",))))
SERVICES = {
    path: NamedService(Identity(*path.split("/")[::-1]), NamedServiceSpec(cluster_ip="10.96.0.7"))
    for path in ("shop/api", "db/sql")
}
Kind = tuple[int, frozenset[int]]
"""What a name has: the response code, and types with records."""
ABSENT: Kind = (m.NXDOMAIN, frozenset())


@dataclass
class World:
    """Names outside the cluster."""

    names: Mapping[Name, Kind]

    def answer(self, question: Question, client: Client, query: Query) -> Answer:
        """What they have."""
        rcode, types = self.names.get(question.name, ABSENT)
        data = {m.A: bytes(4), m.AAAA: bytes(16)}[question.type]
        has = (Record(question.name, question.type, 60, data),) if question.type in types else ()
        return Answer(rcode, has, authoritative=False)


def candidates(name: str) -> list[Name]:
    """The names that a resolver tries in turn."""
    searched = [name_of(f"{name}.{domain}") for domain in DOMAINS]
    return [*searched, name_of(name)] if name.count(".") < NDOTS else [name_of(name), *searched]


def asked(resolver: Resolver | Searching, name: Name, type_: int) -> Answer:
    found = resolver.answer(Query(1, m.RD, m.asked_of(Question(name, type_))), POD)
    assert isinstance(found, Answer)
    return found


def ends(answer: Answer, type_: int) -> list[Name]:
    """The names that have the records."""
    return [record.name for record in answer.records if record.type == type_]


def resolved(resolver: Resolver | Searching, names: Iterable[Name], stop: set[int]) -> tuple[list[Name], list[Name]] | str:
    """The names whose addresses a stub resolver finds, of each family, or how its search ends. `stop` are response codes after which it
    looks no further; -1 is no record of a name that exists."""
    ended = "absent"
    for name in names:
        v4, v6 = (asked(resolver, name, type_) for type_ in (m.A, m.AAAA))
        found = ends(v4, m.A), ends(v6, m.AAAA)
        if any(found):
            return found
        codes = {-1 if answer.rcode == m.NOERROR else answer.rcode for answer in (v4, v6)}
        if codes & stop:
            return "stopped"
        ended = "failed" if m.SERVFAIL in codes else ended
    return ended


GLIBC: set[int] = {m.REFUSED}
MUSL: set[int] = {-1, m.SERVFAIL, m.REFUSED}
GO: set[int] = set()
NAMES = (
    "example.com",
    "a.example.com",
    "sql.db",
    "sql.db.svc",
    "api.shop",
    "x.api",
    "api",
    "db",
    "com",
    "svc.cluster.local",
    "a.b.c.d.e",
    "a.b.c.d.e.f",
)
kinds = st.one_of(
    st.just(ABSENT),
    st.frozensets(st.sampled_from((m.A, m.AAAA))).map(lambda types: (m.NOERROR, types)),
    st.just((m.SERVFAIL, frozenset[int]())),
)


@given(st.sampled_from(NAMES), st.lists(kinds, min_size=3, max_size=3))
def test_resolvers_find_the_same_with_it_and_without(name: str, outside: list[Kind]) -> None:
    world = World(
        dict(zip((name_of(f"{name}.corp.example"), name_of(f"{name}.lab.example"), name_of(name)), outside, strict=True))
    )
    domain = name_of("cluster.local")
    zone = ClusterZone(domain, Directory(namespaces={"shop", "db"}, services=SERVICES))
    plain = Resolver([Zones([zone]), world])
    searching = Searching(plain, domain, SERVICES)
    for stop in (GLIBC, MUSL, GO):
        assert resolved(searching, candidates(name), stop) == resolved(plain, candidates(name), stop)
