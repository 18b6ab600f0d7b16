"""The query log: what is logged, what a line says, and that all else goes on as without it."""

from __future__ import annotations

import inspect
import json
import logging
import struct

import msgspec
import pytest

from podplane.dns import message as m
from podplane.dns.config import Log
from podplane.dns.message import Answer, Name, Question, name_of
from podplane.model.name_server import QueryLines
from podplane.nameserver.answers import Answers
from podplane.nameserver.query_log import QueryLog, text
from podplane.nameserver.resolver import Client
from podplane.servers.dns_counts import Counts
from tests.unit.nameserver.rig import Rig

WEB, API = "10.244.1.2", "10.244.1.3"
PODS = {WEB: Client(WEB, "web-1", "default"), API: Client(API, "api", "shop")}


class Steps:
    """A clock that goes on by a thousandth of a second whenever it is read."""

    now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Resolving:
    """Answers everything, and counts."""

    def __init__(self, later: bool = False) -> None:
        self.asked: list[Name] = []
        self.later = later

    def answer(self, query: m.Query, client: Client) -> Answer:
        self.asked.append(query.question.name)
        found = Answer(m.NXDOMAIN, source="Service default/web", depends=("service/default/web",))
        return self._later(found) if self.later else found  # type: ignore[return-value]

    async def _later(self, answer: Answer) -> Answer:
        return answer


class Logged:
    """Answers that are logged by this."""

    def __init__(self, wanted: Log, later: bool = False) -> None:
        self.resolving = Resolving(later)
        clock = Steps()
        self.log = QueryLog(clock, clock)
        self.answers = Answers(self.resolving, ("10.244.0.0/16",), Counts(), identify=lambda ip: PODS.get(ip, Client(ip)))
        self.configure(wanted)

    def configure(self, wanted: Log) -> None:
        self.log.configure(wanted)
        self.answers.log_to(self.log if self.log.is_on else None)

    def ask(self, ip: str, name: str, type_: int = m.A) -> bytes:
        asked = m.written(name_of(name)) + m.TAIL.pack(type_, m.INTERNET)
        response = self.answers.respond(struct.pack("!6H", 7, m.RD, 1, 0, 0, 0) + asked, ip, node="node1")
        assert isinstance(response, bytes)
        return response

    def lines(self, after: int = 0) -> list[tuple[str, str]]:
        return [(line.client, line.name) for line in self.log.after(after, "node1").lines]


def test_without_a_log_answers_are_kept() -> None:
    logged = Logged(Log())
    logged.ask(WEB, "a.example")
    logged.ask(WEB, "a.example")
    assert (len(logged.resolving.asked), logged.lines()) == (1, [])


def test_all_questions_of_a_pod_are_logged_and_of_others_none() -> None:
    logged = Logged(Log(pods=("default/web-1",)))
    for ip in (API, WEB, WEB, API):
        logged.ask(ip, "a.example")
    assert logged.lines() == [(WEB, "a.example."), (WEB, "a.example.")]
    assert set(logged.answers.senders) == {bytes((10, 244, 1, 3))}


@pytest.mark.parametrize(("pods", "count"), [(("default/*",), 1), (("shop/ap*", "default/web-*"), 2), (("default/web",), 0)])
def test_pods_may_be_named_by_how_they_begin(pods: tuple[str, ...], count: int) -> None:
    logged = Logged(Log(pods=pods))
    logged.ask(WEB, "a.example")
    logged.ask(API, "a.example")
    logged.ask("10.244.9.9", "a.example")
    assert len(logged.lines()) == count


def test_questions_for_names_and_what_is_below_them_are_logged_each_time() -> None:
    logged = Logged(Log(names=(name_of("a.example"),)))
    for name in ("x.a.example", "A.example", "a.example", "b.example", "example", "xa.example", "b.example"):
        logged.ask(WEB, name)
    assert [name for _, name in logged.lines()] == ["x.a.example.", "a.example.", "a.example."]
    assert logged.resolving.asked.count(name_of("b.example")) == 1


def test_the_root_is_all_names() -> None:
    logged = Logged(Log(names=((),)))
    logged.ask(WEB, "a.example")
    logged.ask(API, "")
    logged.ask("10.244.9.9", "b")
    assert len(logged.lines()) == 3


def test_what_is_logged_changes_at_once() -> None:
    logged = Logged(Log())
    logged.ask(WEB, "a.example")
    logged.configure(Log(pods=("default/web-1",)))
    logged.ask(WEB, "a.example")
    logged.configure(Log(names=(name_of("a.example"),)))
    logged.ask(API, "a.example")
    logged.configure(Log())
    logged.ask(WEB, "a.example")
    assert [client for client, _ in logged.lines()] == [WEB, API]


def test_a_line_says_all_of_a_question(caplog: pytest.LogCaptureFixture) -> None:
    logged = Logged(Log(pods=("default/web-1",)))
    with caplog.at_level(logging.INFO):
        logged.ask(WEB, "a.example", m.AAAA)
    (line,) = logged.log.after(0, "node1").lines
    assert text(line) == (
        "time=1970-01-01T00:16:40.002Z node=node1 client=10.244.1.2 pod=default/web-1 name=a.example. type=AAAA"
        ' rcode=NXDOMAIN us=2000 source="Service default/web"'
    )
    assert caplog.messages == [text(line)]


async def test_an_answer_that_comes_later_is_logged_when_it_is_there() -> None:
    logged = Logged(Log(names=((),)), later=True)
    response = logged.answers.respond(
        struct.pack("!6H", 7, m.RD, 1, 0, 0, 0) + m.written((b"a",)) + b"\0\1\0\1", WEB, node="node1"
    )
    assert inspect.isawaitable(response)
    assert logged.lines() == []
    await response
    assert logged.lines() == [(WEB, "a.")]


def test_what_a_server_says_of_itself_is_logged_too() -> None:
    logged = Logged(Log(names=((),)))
    asked = m.written(name_of("version.bind")) + m.TAIL.pack(m.TXT, m.CHAOS)
    logged.answers.respond(struct.pack("!6H", 7, 0, 1, 0, 0, 0) + asked, WEB, node="node1")
    assert logged.lines() == [(WEB, "version.bind.")]


def test_lines_are_those_of_a_node_and_bounded() -> None:
    log = QueryLog(Steps(), Steps())
    log.configure(Log(names=((),)))
    for number in range(6000):
        asked = log.begin(Question((b"a",), m.A), PODS[WEB], "node2" if number % 2 else "node1")
        assert asked is not None
        asked.done(Answer())
    found = log.after(0, "node1")
    assert (found.number, len(found.lines), found.lines[-1].number) == (6000, 1000, 5999)
    assert [line.number for line in log.after(5996, "node2").lines] == [5998, 6000]
    assert log.after(6000, "node1").lines == []


async def test_lines_are_told_over_http() -> None:
    rig = Rig()
    await rig.start()
    rig.query_log.configure(Log(pods=("default/web-1",), names=(name_of("a.example"),)))
    asked = rig.query_log.begin(Question(name_of("a.example"), m.A), PODS[WEB], "node1")
    assert asked is not None
    asked.done(Answer(source="x"))
    reply = await rig.ask("/log/0", "reader")
    found = msgspec.json.decode(reply.body, type=QueryLines)
    assert (found.number, found.pods, found.names, len(found.lines)) == (1, ["default/web-1"], ["a.example."], 1)
    assert json.loads((await rig.ask("/log/1", "reader")).body)["lines"] == []
    assert [(await rig.ask(path, "reader")).status for path in ("/log", "/log/x", "/log/-1", "/log/1/2")] == [404] * 4
    assert (await rig.ask("/log/0")).status == 401
