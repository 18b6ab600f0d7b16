"""The end of a pod's search path as the answer to the first question of it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field

import dns.message
import pytest
from msgspec.structs import replace

from podplane.dns import message as m
from podplane.dns.cluster import ClusterZone
from podplane.dns.directory import Directory
from podplane.dns.message import Answer, Name, Question, Record, name_of
from podplane.dns.resolv_conf import ResolvConf
from podplane.dns.search_path import of_conf
from podplane.model.dns import Identity, NamedService, NamedServiceSpec
from podplane.nameserver.resolver import Client, Resolver
from podplane.nameserver.search import Searching
from podplane.nameserver.zones import Zones

DOMAINS = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")
SHOP = of_conf(ResolvConf((), DOMAINS, ("ndots:5",)))
POD = Client("10.244.1.2", "web", "shop", SHOP)


def service(path: str, ip: str) -> tuple[str, NamedService]:
    namespace, name = path.split("/")
    return path, NamedService(Identity(name=name, namespace=namespace), NamedServiceSpec(cluster_ip=ip))


@dataclass
class Outside:
    """A source of what is not the cluster's: addresses by name, or a response code. `asked` is what it was asked for."""

    names: Mapping[str, str | int]
    later: bool = False
    asked: list[str] = field(default_factory=list)
    lifetimes: Mapping[str, float] = field(default_factory=dict)

    def answer(self, question: Question, client: Client, query: m.Query) -> Answer | Awaitable[Answer]:
        name = m.text_of(question.name)
        assert query.question == question
        assert query.asked.startswith(m.written(question.name))
        self.asked.append(name)
        found = self.names.get(name, m.NXDOMAIN)
        answer = Answer(found) if isinstance(found, int) else self.of(question, found)
        answer = replace(answer, authoritative=False, source="outside", lifetime=self.lifetimes.get(name))
        return self.wait(answer) if self.later else answer

    @staticmethod
    async def wait(answer: Answer) -> Answer:
        return answer

    @staticmethod
    def of(question: Question, ip: str) -> Answer:
        data = bytes(map(int, ip.split(".")))
        return Answer(records=(Record(question.name, m.A, 300, data),) if question.type == m.A else ())


class Rig:
    """A cluster with Services `shop/api` and `db/sql`, in a world with some other names."""

    def __init__(self, outside: Mapping[str, str | int], later: bool = False) -> None:
        self.outside = Outside(outside, later)
        services = dict([service("shop/api", "10.96.0.7"), service("db/sql", "10.96.0.8")])
        domain = name_of("cluster.local")
        zone = ClusterZone(domain, Directory(namespaces={"shop", "db"}, services=services))
        self.searching = Searching(Resolver([Zones([zone]), self.outside]), domain, services)

    async def __call__(self, name: str, type_: int = m.A, client: Client = POD, flags: int = m.RD) -> Answer:
        question = Question(name_of(name), type_)
        asked = m.written(question.name) + m.TAIL.pack(type_, m.INTERNET)
        found = self.searching.answer(m.Query(1, flags, asked), client)
        return await found if inspect.isawaitable(found) else found


def records(answer: Answer) -> list[tuple[str, int, str]]:
    return [(m.text_of(r.name), r.ttl, target(r)) for r in answer.records]


def target(record: Record) -> str:
    if record.type != m.CNAME:
        return ".".join(map(str, record.data))
    labels: Name = ()
    at = 0
    while length := record.data[at]:
        labels += (record.data[at + 1 : at + 1 + length],)
        at += 1 + length
    return m.text_of(labels)


@pytest.mark.parametrize("later", [False, True])
async def test_the_first_question_is_answered_with_the_end_of_the_path(later: bool) -> None:
    rig = Rig({"example.com.": "192.0.2.7"}, later)
    found = await rig("example.com.shop.svc.cluster.local")
    assert found.rcode == m.NOERROR
    assert records(found) == [
        ("example.com.shop.svc.cluster.local.", 5, "example.com."),
        ("example.com.", 300, "192.0.2.7"),
    ]
    assert rig.outside.asked == ["example.com.corp.example.", "example.com."]
    assert (found.private, found.depends) == (True, ()), "it is another server's, so it is not kept here"


async def test_a_name_without_such_records_ends_the_path_too() -> None:
    """So that questions for A and AAAA end at one name."""
    rig = Rig({"example.com.": "192.0.2.7"})
    found = await rig("example.com.shop.svc.cluster.local", m.AAAA)
    assert found.rcode == m.NOERROR
    assert records(found) == [("example.com.shop.svc.cluster.local.", 5, "example.com.")]


async def test_domains_are_tried_in_their_order() -> None:
    rig = Rig({"example.com.": "192.0.2.7", "example.com.corp.example.": "192.0.2.8"})
    assert records(await rig("example.com.shop.svc.cluster.local"))[1] == ("example.com.corp.example.", 300, "192.0.2.8")
    found = await rig("sql.db.shop.svc.cluster.local")
    assert records(found) == [
        ("sql.db.shop.svc.cluster.local.", 5, "sql.db.svc.cluster.local."),
        ("sql.db.svc.cluster.local.", 5, "10.96.0.8"),
    ]
    assert found.private
    assert {"service/shop/db", "service/db/sql"} <= set(found.depends), (
        "a Service with the first name wins as soon as it is there"
    )
    full = await rig("sql.db.svc.cluster.local.shop.svc.cluster.local")
    assert records(full)[1][0] == "sql.db.svc.cluster.local."


async def test_it_may_be_given_again_as_long_as_all_steps_may_be() -> None:
    rig = Rig({"example.com.": "192.0.2.7"})
    rig.outside.lifetimes = {"example.com.corp.example.": 7.0, "example.com.": 30.0}
    client = Client("10.244.1.2", "web", "shop", of_conf(ResolvConf((), (DOMAINS[0], DOMAINS[3]), ("ndots:5",))))
    found = await rig("example.com.shop.svc.cluster.local", client=client)
    assert (found.lifetime, found.private) == (7.0, True)
    assert "service/shop/com" in found.depends, "a Service there would change the answer"
    assert (await rig("example.org.shop.svc.cluster.local")).depends == ()


async def test_the_first_answer_stays_where_there_is_no_other() -> None:
    rig = Rig({})
    found = await rig("example.com.shop.svc.cluster.local")
    assert (found.rcode, found.records, len(found.authority)) == (m.NXDOMAIN, (), 1)
    assert (found.private, found.depends) == (True, ()), "outside may have it a moment later"
    assert rig.outside.asked[-1] == "example.com."


@pytest.mark.parametrize("rcode", [m.SERVFAIL, m.REFUSED])
async def test_after_a_name_that_nobody_can_say_anything_of_nothing_is_said(rcode: int) -> None:
    rig = Rig({"example.com.corp.example.": rcode, "example.com.": "192.0.2.7"})
    found = await rig("example.com.shop.svc.cluster.local")
    assert (found.rcode, found.records, found.depends, found.private) == (m.SERVFAIL, (), (), True)
    assert rig.outside.asked == ["example.com.corp.example."]


OTHER = Client("10.244.1.3", "x", "db", of_conf(ResolvConf((), ("db.svc.cluster.local", *DOMAINS[1:]), ("ndots:5",))))
PLAIN = Client("10.244.1.4", "y", "shop", of_conf(ResolvConf((), DOMAINS, ("ndots:1",))))


@pytest.mark.parametrize(
    ("name", "type_", "client", "flags"),
    [
        ("example.com.shop.svc.cluster.local", m.A, Client("192.168.1.10"), m.RD),  # who is that?
        ("example.com.shop.svc.cluster.local", m.A, OTHER, m.RD),
        ("example.com.shop.svc.cluster.local", m.A, PLAIN, m.RD),
        ("example.com.shop.svc.cluster.local", m.A, POD, 0),  # nothing is to be looked for
        ("example.com.shop.svc.cluster.local", m.CNAME, POD, m.RD),
        ("example.com.svc.cluster.local", m.A, POD, m.RD),
        ("missing.shop.svc.cluster.local", m.A, POD, m.RD),
        ("example.api.shop.svc.cluster.local", m.A, POD, m.RD),  # a name of an endpoint that is not there
        ("a.example.api.shop.svc.cluster.local", m.A, POD, m.RD),
    ],
)
async def test_other_questions_are_answered_as_they_are(name: str, type_: int, client: Client, flags: int) -> None:
    world = ("example.com.", "example.com.corp.example.", "missing.", "missing.corp.example.", "example.api.", "a.example.api.")
    rig = Rig(dict.fromkeys(world, "192.0.2.7"))
    found = await rig(name, type_, client, flags)
    assert (found.rcode, found.records, rig.outside.asked) == (m.NXDOMAIN, (), [])
    assert found.private, "it is not for those who have another path"
    assert found.depends


async def test_what_exists_is_answered_to_everybody_alike() -> None:
    rig = Rig({})
    found = await rig("api.shop.svc.cluster.local")
    assert (found.private, records(found)) == (False, [("api.shop.svc.cluster.local.", 5, "10.96.0.7")])
    nothing = await rig("api.shop.svc.cluster.local", m.AAAA)
    assert (nothing.rcode, nothing.private) == (m.NOERROR, False)
    outside = await rig("absent.example")
    assert (outside.rcode, outside.private) == (m.NXDOMAIN, False)


async def test_it_can_be_switched_off() -> None:
    rig = Rig({"example.com.": "192.0.2.7"})
    rig.searching.is_on = False
    assert (await rig("example.com.shop.svc.cluster.local")).rcode == m.NXDOMAIN
    assert rig.outside.asked == []


async def test_the_response_is_one_that_others_follow() -> None:
    rig = Rig({"example.com.": "192.0.2.7"})
    query = dns.message.make_query("Example.COM.shop.svc.cluster.local", "A", flags=dns.flags.RD)
    asked = m.read_query(query.to_wire())
    found = rig.searching.answer(asked, POD)
    assert isinstance(found, Answer)
    response = dns.message.from_wire(m.respond(asked, found))
    chain = response.resolve_chaining() if isinstance(response, dns.message.QueryMessage) else None
    assert chain is not None
    assert chain.canonical_name.to_text() == "example.com."
    assert chain.answer is not None
    assert [one.to_text() for one in chain.answer] == ["192.0.2.7"]
