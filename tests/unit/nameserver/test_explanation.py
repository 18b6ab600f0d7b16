"""What a name is answered, and why, over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podplane.dns import message as m
from podplane.dns.message import Answer, Question
from podplane.model.name_server import Explanation, RecordText
from podplane.nameserver.explanation import Explainer
from podplane.nameserver.resolver import Client, Resolver, joined
from tests.unit.nameserver.rig import Rig

POD = "10.244.1.2"


async def rig_with_a_service() -> Rig:
    rig = Rig()
    spec: dict[str, Any] = {"clusterIP": "10.96.0.20", "ports": [{"name": "http", "port": 80}]}
    await rig.api("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "web"}, "spec": spec})
    await rig.start()
    return rig


async def explained(rig: Rig, path: str) -> Explanation:
    reply = await rig.ask(f"/query/{path}", "reader")
    assert reply.status == 200, reply.body
    return msgspec.json.decode(reply.body, type=Explanation)


async def test_records_and_the_object_that_they_are_of() -> None:
    rig = await rig_with_a_service()
    found = await explained(rig, f"WEB.default.svc.cluster.local/a/{POD}")
    assert found.records == [RecordText("web.default.svc.cluster.local.", "A", 5, "10.96.0.20")]
    assert (found.rcode, found.source, found.client, found.why) == ("NOERROR", "Service default/web", POD, "")


async def test_what_is_missing_is_said() -> None:
    rig = await rig_with_a_service()
    missing = await explained(rig, f"api.default.svc.cluster.local/A/{POD}")
    assert (missing.rcode, missing.why) == ("NXDOMAIN", "there is no Service api in namespace default")
    assert [one.type for one in missing.authority] == ["SOA"]
    other = await explained(rig, f"web.default.svc.cluster.local/AAAA/{POD}")
    assert (other.rcode, other.records, other.why) == ("NOERROR", [], "Service default/web has no IPv6 address")


async def test_a_stranger_is_refused() -> None:
    rig = await rig_with_a_service()
    found = await explained(rig, "web.default.svc.cluster.local/A/192.0.2.9")
    assert (found.rcode, found.records, found.why) == ("REFUSED", [], "192.0.2.9 is outside of the cluster")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (f"web/B/{POD}", "'B' is no type of records: write A, AAAA, SRV, PTR, TXT, or TYPE and a number"),
        (f"a..b/A/{POD}", "'a..b' is no name"),
        (f"{'x' * 64}/A/{POD}", f"'{'x' * 64}' is no name"),
        (f"m%C3%BCller.test/A/{POD}", "'müller.test' has letters that DNS does not have: write it in its ASCII form (xn--…)"),
        ("web/A/pod", "'pod' is no address of who asks"),
    ],
)
async def test_what_is_no_question_is_refused(path: str, why: str) -> None:
    reply = await (await rig_with_a_service()).ask(f"/query/{path}", "reader")
    assert (reply.status, reply.body.decode()) == (400, f"{why}\n")


async def test_who_may_not_read_reports_gets_no_explanation() -> None:
    assert (await (await rig_with_a_service()).ask(f"/query/web/A/{POD}")).status == 401


async def test_an_answer_that_others_give_is_shown_as_it_came() -> None:
    """It comes later, and is a whole message."""
    record = m.Record(m.name_of("www.example.test"), m.A, 7, bytes((192, 0, 2, 1)))

    class Elsewhere:
        async def answer(self, question: Question, client: Client, query: m.Query) -> Answer:
            message = m.respond(query, Answer(records=(record,), authoritative=False))
            return Answer(message=message, authoritative=False, source=f"192.0.2.53, for {client.namespace}/{client.pod}")

    rig = Rig()
    who = Client("10.244.1.2", "web-1", "shop")
    explainer = Explainer(Resolver([Elsewhere()]), lambda _: who, rig.objects.directory, m.name_of("cluster.local"))  # type: ignore[list-item]  # a coroutine is an awaitable
    found = await explainer.explain("www.example.test", "A", who.ip)
    assert (found.pod, found.source) == ("shop/web-1", "192.0.2.53, for shop/web-1")
    assert found.records == [RecordText("www.example.test.", "A", 7, "192.0.2.1")]


def test_what_an_alias_leads_to_is_no_answer_when_it_can_not_be_read() -> None:
    """The data of other servers' records is not read before; the pointer in this one leads nowhere."""
    query = m.Query(0, m.RD, m.asked_of(Question(m.name_of("b.test"), m.NS)))
    message = m.respond(query, Answer(records=(m.Record(query.question.name, m.TXT, 7, b"\xff\xff"),)))
    message = message.replace(m.RECORD.pack(m.TXT, m.INTERNET, 7, 2), m.RECORD.pack(m.NS, m.INTERNET, 7, 2))
    alias = Answer(
        records=(m.Record(m.name_of("a.test"), m.CNAME, 5, m.written(query.question.name)),), source="rewrite", private=True
    )
    found = joined(alias, Answer(message=message, source="upstream 192.0.2.53"))
    assert (found.rcode, found.records, found.private) == (m.SERVFAIL, (), True)
    assert found.source.startswith("rewrite, upstream 192.0.2.53: its records can't be read: a pointer that does not lead back")


async def test_any_and_transfers_are_answered_as_to_clients() -> None:
    rig = await rig_with_a_service()
    any_ = await explained(rig, f"web.default.svc.cluster.local/ANY/{POD}")
    assert [(one.type, one.data) for one in any_.records] == [("HINFO", '"RFC8482" ""')]
    assert any_.source == "Service default/web"
    transfer = await explained(rig, f"cluster.local/AXFR/{POD}")
    assert (transfer.rcode, transfer.records, transfer.why) == ("REFUSED", [], "it asks for what is not answered here")


async def test_a_name_may_have_a_slash() -> None:
    """As names of parts of networks have it (RFC 2317); the API passes it on unescaped."""
    rig = await rig_with_a_service()
    assert (await explained(rig, f"0/25.2.0.192.in-addr.arpa/PTR/{POD}")).name == "0/25.2.0.192.in-addr.arpa."
    assert (await rig.ask("/query/PTR/10.244.1.2", "reader")).status == 404
