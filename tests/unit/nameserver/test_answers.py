"""From a question's bytes to a response's: what is kept and for whom, who may ask, and what is answered without asking anybody."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from podplane.dns import message as m
from podplane.dns.message import Answer, Name, Query, Record, name_of
from podplane.dns.search_path import SearchPath
from podplane.nameserver import answers as module
from podplane.nameserver.answers import Answers
from podplane.nameserver.kept import SLICE
from podplane.nameserver.resolver import Client
from podplane.servers.dns_counts import Counts

POD, OTHER_POD, OUTSIDER = "10.244.1.2", "10.244.1.3", "192.0.2.1"
WEB, LATER = name_of("web.default.svc.cluster.local"), name_of("later.example")
PATHS = {
    POD: SearchPath((name_of("default.svc.cluster.local"),), 5),
    OTHER_POD: SearchPath((name_of("other.svc.cluster.local"),), 5),
}


def question(name: str, type_: int = m.A, *, id_: int = 7, edns: bytes = b"", flags: int = m.RD, class_: int = 1) -> bytes:
    asked = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".") if label) + b"\0"
    return m.HEADER.pack(id_, flags, 1, 0, 0, bool(edns)) + asked + m.TAIL.pack(type_, class_) + edns


def opt(size: int = 1232, *, version: int = 0, dnssec: bool = False, options: bytes = b"") -> bytes:
    return b"\0" + m.RECORD.pack(m.OPT, size, version << 16 | m.DO * dnssec, len(options)) + options


class Source:
    """A resolver with one Service, one name that others are asked about, and a name that pods look up by their search path."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.ips = [bytes((10, 96, 0, 1))]
        self.answer_to: dict[Name, Answer] = {}
        self.released = asyncio.Event()

    def answer(self, query: Query, client: Client) -> Answer | Awaitable[Answer]:
        self.asked.append(query)
        name = query.question.name
        if name == LATER:
            return self._later(query)
        if name in self.answer_to:
            return self.answer_to[name]
        if name == name_of("who.default.svc.cluster.local"):
            text = m.text_of(client.searches.domains[0]) if client.searches.domains else "nobody"
            return Answer(records=(Record(name, m.TXT, 5, m.txt((text,))),), depends=("pods",), private=True)
        if name != WEB:
            return Answer(m.NXDOMAIN, depends=(f"service/{m.text_of(name)}",))
        records = tuple(Record(name, m.A, 5, ip) for ip in self.ips) if query.question.type == m.A else ()
        return Answer(records=records, depends=("service/default/web",))

    async def _later(self, query: Query) -> Answer:
        await self.released.wait()
        return Answer(records=(Record(query.question.name, m.A, 5, b"\x01\x02\x03\x04"),), lifetime=5)


class Rig:
    def __init__(self) -> None:
        self.source = Source()
        self.paths = dict(PATHS)
        self.answers = Answers(
            self.source,
            ("10.244.0.0/16", "fd00:10:244::/48"),
            Counts(),
            version="podplane test",
            identify=lambda ip: Client(ip, searches=self.paths.get(ip, SearchPath())),
        )

    def ask(self, data: bytes, ip: str = POD, *, tcp: bool = False) -> bytes:
        response = self.answers.respond(data, ip, node="node1", tcp=tcp)
        assert isinstance(response, bytes)
        return response

    def quick(self, data: bytes, ip: str = POD) -> bool:
        """Is it answered without asking here?"""
        known = self.answers.senders.get(bytes(map(int, ip.split("."))))
        return known is not None and (data[2:] in self.answers.replies or known + data[2:] in self.answers.replies)


def code(response: bytes) -> int:
    return response[3] & 0xF


@pytest.fixture
async def rig() -> Rig:
    return Rig()


# Kept responses.


def test_the_same_question_is_answered_from_what_is_kept_until_its_object_changes(rig: Rig) -> None:
    first = rig.ask(question("web.default.svc.cluster.local"))
    assert first.endswith(bytes((10, 96, 0, 1))) and rig.quick(question("web.default.svc.cluster.local"))
    again = rig.ask(question("web.default.svc.cluster.local", id_=9))
    assert again == b"\0\x09" + first[2:] and len(rig.source.asked) == 1
    rig.source.ips = [bytes((10, 96, 0, 2))]
    rig.answers.changed("service/default/web")
    assert rig.ask(question("web.default.svc.cluster.local")).endswith(bytes((10, 96, 0, 2)))


@pytest.mark.parametrize("key", ["namespace/default", "ip/10.96.0.1"])
async def test_what_much_was_made_of_is_dropped_in_some_turns_of_the_loop(rig: Rig, key: str) -> None:
    for number in range(3 * SLICE):
        rig.answers.kept.put(b"%d" % number, b"", 0, (module.REVERSE if key.startswith("ip/") else key,))
    rig.answers.changed(key)
    for left in (1, 0):
        assert len(rig.answers.kept) == left * SLICE
        await asyncio.sleep(0)


@pytest.mark.parametrize("type_", [m.A, m.AAAA, m.PTR, m.SRV])
@pytest.mark.parametrize("name", ["web.default.svc.cluster.local", "absent.default.svc.cluster.local"])
def test_what_is_absent_is_kept_as_well(rig: Rig, name: str, type_: int) -> None:
    rig.ask(question(name, type_))
    assert rig.quick(question(name, type_))


def test_a_mixed_case_gets_its_own_spelling_and_no_room_of_its_own(rig: Rig) -> None:
    lower = rig.ask(question("web.default.svc.cluster.local"))
    for name in ("wEb.default.svc.cluster.local", "WEB.DEFAULT.SVC.CLUSTER.LOCAL"):
        response = rig.ask(question(name))
        assert response[12 : 12 + len(name) + 2] == question(name)[12 : 12 + len(name) + 2]
        assert response.lower() == lower.lower()
    assert len(rig.source.asked) == 1 and len(rig.answers.kept) == 1


def test_a_first_question_in_mixed_case_is_kept_in_lower_case(rig: Rig) -> None:
    rig.ask(question("Web.default.svc.cluster.local"))
    assert rig.ask(question("web.default.svc.cluster.local"))[12:].startswith(b"\x03web") and len(rig.source.asked) == 1


def test_types_are_not_mistaken_for_letters(rig: Rig) -> None:
    rig.ask(question("Web.default.svc.cluster.local", 65))
    rig.ask(question("Web.default.svc.cluster.local", 97))
    assert [one.question.type for one in rig.source.asked] == [65, 97]


def test_options_that_are_not_known_are_ignored_and_take_no_room(rig: Rig) -> None:
    plain = rig.ask(question("web.default.svc.cluster.local", edns=opt()))
    for n in range(5):
        cookie = m.TAIL.pack(10, 8) + random.Random(n).randbytes(8)
        assert rig.ask(question("web.default.svc.cluster.local", edns=opt(options=cookie))) == plain
    assert len(rig.source.asked) == 1 and len(rig.answers.kept) == 1


async def test_edns_and_its_size_decide_apart(rig: Rig) -> None:
    rig.source.ips = [bytes((10, 244, 1, n)) for n in range(100)]
    name = "web.default.svc.cluster.local"
    for _ in range(2):
        assert len(rig.ask(question(name))) <= 512
        assert len(rig.ask(question(name, edns=opt(100)))) <= 512
        assert 512 < len(rig.ask(question(name, edns=opt(700)))) <= 700
        assert 700 < len(rig.ask(question(name, edns=opt(4096)))) <= 1232
        whole = rig.ask(question(name), tcp=True)
        assert not whole[2] & 2 and int.from_bytes(whole[6:8], "big") == 100
        assert rig.ask(question(name))[2] & 2, "TC"


async def test_what_is_asked_by_connections_alone_is_kept_for_them(rig: Rig) -> None:
    rig.source.ips = [bytes((10, 96, 0, n)) for n in range(100)]
    first = rig.ask(question("web.default.svc.cluster.local"), tcp=True)
    assert rig.ask(question("web.default.svc.cluster.local"), tcp=True) == first
    assert len(rig.source.asked) == 1


def test_nothing_is_kept_when_everything_may_have_changed(rig: Rig) -> None:
    rig.ask(question("web.default.svc.cluster.local"))
    rig.answers.forget()
    assert not rig.quick(question("web.default.svc.cluster.local"))


def test_what_one_search_path_leads_to_is_given_to_that_path_alone(rig: Rig) -> None:
    data = question("who.default.svc.cluster.local", m.TXT)
    for ip in (POD, OTHER_POD, "10.244.1.9") * 2:
        whose = m.text_of(PATHS[ip].domains[0]).encode() if ip in PATHS else b"nobody"
        assert rig.ask(data, ip).endswith(whose) and rig.quick(data, ip)
    assert len(rig.source.asked) == 3 and data[2:] not in rig.answers.replies


@pytest.mark.parametrize("beginning", [b"\xfe", b"\xff", b"\xff\x05other\x03svc\x07cluster\x05local\x00\x05"])
async def test_no_datagram_is_answered_with_what_is_kept_for_connections_or_for_others(rig: Rig, beginning: bytes) -> None:
    rig.source.ips = [bytes((10, 96, i >> 8, i & 255)) for i in range(1000)]
    rig.ask(question("web.default.svc.cluster.local"))
    assert len(rig.ask(question("web.default.svc.cluster.local"), tcp=True)) > 16000
    rig.ask(question("who.default.svc.cluster.local", m.TXT), OTHER_POD)
    for asked in (question("web.default.svc.cluster.local"), question("who.default.svc.cluster.local", m.TXT)):
        forged = asked[:2] + beginning + asked[2:]
        assert not rig.quick(forged) and rig.answers.respond(forged, POD) is None


def test_an_address_that_somebody_else_gets_has_that_ones_answers(rig: Rig) -> None:
    data = question("who.default.svc.cluster.local", m.TXT)
    rig.ask(data)
    rig.paths[POD] = PATHS[OTHER_POD]
    rig.answers.forget_client(POD)
    assert not rig.quick(data) and rig.ask(data).endswith(b"other.svc.cluster.local.")


async def test_a_reverse_name_of_others_may_become_one_of_the_clusters(rig: Rig) -> None:
    reverse, other = "9.2.0.192.in-addr.arpa", "a.b"
    rig.source.answer_to = {name_of(reverse): Answer(m.NXDOMAIN, lifetime=9), name_of(other): Answer(lifetime=9)}
    for name in (reverse, other):
        rig.ask(question(name))
    assert rig.quick(question(reverse)) and rig.quick(question(other))
    rig.answers.changed("service/default/web")
    assert rig.quick(question(reverse))
    rig.answers.changed("ip/192.0.2.9")
    assert not rig.quick(question(reverse)) and rig.quick(question(other))


def test_sizes_and_flags_that_change_nothing_take_no_room(rig: Rig) -> None:
    name = "web.default.svc.cluster.local"
    for size in range(600, 65_000, 997):
        response = rig.ask(question(name, edns=opt(size)))
        assert len(response) <= max(512, min(size, 1232))
    for flags in range(1 << 4):
        rig.ask(question(name, edns=opt(1232), flags=m.RD | m.RA | m.AA | flags))
    assert len(rig.answers.kept) <= 3


async def test_what_others_said_can_be_forgotten_alone(rig: Rig) -> None:
    rig.source.answer_to = {name_of("a.example"): Answer(lifetime=9), name_of("b.example"): Answer(lifetime=2)}
    own, others = question("web.default.svc.cluster.local"), [question("a.example"), question("b.example")]
    waiting = rig.answers.respond(question("later.example"), POD)
    assert inspect.isawaitable(waiting)
    for one in (own, *others):
        rig.ask(one)
        assert rig.quick(one)
    rig.answers.forget_others()
    assert rig.quick(own) and not any(map(rig.quick, others))
    rig.source.released.set()
    assert await waiting is not None and not rig.quick(question("later.example")), "it was asked before"


async def test_what_counts_down_is_kept_for_whole_seconds(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[tuple[float, object]] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, call, *_: later.append((seconds, call)))
    short = replace(Answer(depends=("service/x/y",)), lifetime=0.5)
    rig.source.answer_to = {name_of("a.b"): Answer(lifetime=3), name_of("c.d"): short}
    for name in ("a.b", "c.d"):
        rig.ask(question(name))
    assert rig.quick(question("a.b")) and not rig.quick(question("c.d"))
    for passed in (1, 2, 3):
        assert rig.quick(question("a.b"))
        assert len(later) == passed
        seconds, tick = later[-1]
        assert seconds == 1.0 and callable(tick)
        tick()
    assert not rig.quick(question("a.b"))
    assert len(later) == 3, "nothing is left that would be over"


async def test_what_changed_while_others_were_asked_is_not_kept(rig: Rig) -> None:
    for is_changed in (True, False):
        response = rig.answers.respond(question("later.example"), POD)
        assert inspect.isawaitable(response)
        if is_changed:
            rig.answers.changed("service/default/web")
        rig.source.released.set()
        assert isinstance(await response, bytes)
        assert rig.quick(question("later.example")) is not is_changed


# Who may ask.


def test_outsiders_are_refused_with_no_more_bytes_than_they_sent(rig: Rig) -> None:
    for data in (question("web.default.svc.cluster.local"), question("x", edns=opt(4096)), question("x") + b"junk", b"\0" * 12):
        response = rig.ask(data, OUTSIDER)
        assert code(response) == m.REFUSED and len(response) <= len(data)
    assert not rig.source.asked and not rig.answers.senders


@pytest.mark.parametrize(("host", "as_named"), [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:DB8:0::7")])
def test_hosts_of_nodes_are_answered_while_there_is_the_node(rig: Rig, host: str, as_named: str) -> None:
    data = question("web.default.svc.cluster.local")
    assert code(rig.ask(data, host)) == m.REFUSED
    rig.answers.hosts_changed([as_named], [])
    assert code(rig.ask(data, host)) == m.NOERROR and rig.answers.senders
    assert code(rig.ask(data, OUTSIDER)) == m.REFUSED
    rig.answers.hosts_changed([], [as_named])
    assert code(rig.ask(data, host)) == m.REFUSED and not rig.answers.senders


def test_refusals_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.5)
    data = question("web.default.svc.cluster.local")
    given = [rig.answers.respond(data, OUTSIDER) for _ in range(module.REFUSALS + 5)]
    assert given.count(None) == 5
    monkeypatch.setattr(module.time, "monotonic", lambda: 101.5)
    assert rig.answers.respond(data, OUTSIDER) is not None


@pytest.mark.parametrize(
    ("ip", "may"), [("fd00:10:244:1::2", True), ("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", False)]
)
def test_both_families_may_ask(rig: Rig, ip: str, may: bool) -> None:
    assert (code(rig.ask(question("web.default.svc.cluster.local"), ip)) == m.NOERROR) is may


def test_clients_that_are_known_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 10)
    for n in range(50):
        rig.ask(question("web.default.svc.cluster.local"), f"10.244.3.{n}")
    assert len(rig.answers.senders) <= 10


def test_outsiders_take_no_clients_place(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 10)
    data = question("web.default.svc.cluster.local")
    rig.ask(data)
    for n in range(50):
        assert code(rig.ask(data, f"192.0.2.{n}")) == m.REFUSED
    assert rig.quick(data)


# The protocol.


def test_no_answer_to_what_is_no_question(rig: Rig) -> None:
    for data in (b"", b"\0" * 11, question("x", flags=m.QR)):
        assert rig.answers.respond(data, POD) is None
        assert rig.answers.respond(data, OUTSIDER) is None


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (question("web.default.svc.cluster.local", edns=opt(version=1)), m.BADVERS),
        (question("x", edns=opt() + opt())[:10] + b"\0\x02" + question("x", edns=opt() + opt())[12:], m.FORMERR),
        (m.HEADER.pack(7, 0, 2, 0, 0, 0) + question("x")[12:] * 2, m.FORMERR),
        (m.HEADER.pack(7, 0, 0, 0, 0, 0), m.FORMERR),
        (question("x", flags=4 << 11), m.NOTIMP),
        (question("x", flags=5 << 11), m.NOTIMP),
        (question("cluster.local", m.AXFR), m.REFUSED),
        (question("cluster.local", m.OPT), m.FORMERR),
        (question("cluster.local", 253), m.NOTIMP),
        (question("web.default.svc.cluster.local", class_=m.ANY_CLASS), m.REFUSED),
        (question("web.default.svc.cluster.local", class_=4), m.REFUSED),
        (question("other.bind", m.TXT, class_=m.CHAOS), m.REFUSED),
    ],
)
def test_what_is_not_answered_is_told_why(rig: Rig, data: bytes, rcode: int) -> None:
    response = rig.ask(data)
    assert response[:2] == data[:2] and code(response) == rcode & 0xF
    if rcode == m.BADVERS:
        assert response[-11:] == b"\0" + m.RECORD.pack(m.OPT, 1232, 1 << 24, 0)
    assert not rig.source.asked


def test_a_zone_transfer_with_a_serial_is_refused(rig: Rig) -> None:
    soa = b"\0" + m.RECORD.pack(m.SOA, 1, 0, 22) + b"\0\0" + bytes(20)
    data = question("cluster.local", m.IXFR) + soa
    assert code(rig.ask(data[:8] + b"\0\x01" + data[10:])) == m.REFUSED


@pytest.mark.parametrize(
    ("name", "text"), [("version.bind", b"podplane test"), ("VERSION.server", b"podplane test"), ("id.server", b"node1")]
)
def test_the_server_says_what_it_is(rig: Rig, name: str, text: bytes) -> None:
    assert text in rig.ask(question(name, m.TXT, class_=m.CHAOS))
    assert rig.ask(question(name, m.A, class_=m.CHAOS))[6:8] == b"\0\0"


def test_any_is_answered_with_one_record_where_the_name_exists(rig: Rig) -> None:
    response = rig.ask(question("web.default.svc.cluster.local", m.ANY))
    assert response.endswith(b"\x07RFC8482\0") and response[6:8] == b"\0\x01"
    assert rig.source.asked[0].question.type == m.HINFO
    assert code(rig.ask(question("absent.default.svc.cluster.local", m.ANY))) == m.NXDOMAIN
    assert rig.quick(question("web.default.svc.cluster.local", m.ANY))


def test_who_asks_for_the_servers_identity_gets_it_from_kept_responses_too(rig: Rig) -> None:
    data = question("web.default.svc.cluster.local", edns=opt(options=m.TAIL.pack(3, 0)))
    for _ in range(2):
        response = rig.ask(data)
        assert response.endswith(m.LENGTH.pack(9) + m.TAIL.pack(3, 5) + b"node1")
    assert not rig.ask(question("web.default.svc.cluster.local", edns=opt())).endswith(b"node1")


def test_the_root_is_a_name(rig: Rig) -> None:
    assert code(rig.ask(question("", m.NS))) == m.NXDOMAIN and rig.source.asked[0].question.name == ()


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_fault_of_a_source_is_a_servfail(rig: Rig, monkeypatch: pytest.MonkeyPatch, is_late: bool) -> None:
    async def late() -> Answer:
        raise RuntimeError("of a test")

    def fail(query: Query, client: Client) -> Awaitable[Answer]:
        if is_late:
            return late()
        raise RuntimeError("of a test")

    monkeypatch.setattr(rig.source, "answer", fail)
    response = rig.answers.respond(question("x.example"), POD)
    got = response if isinstance(response, bytes) or response is None else await response
    assert got is not None and code(got) == m.SERVFAIL


async def test_what_can_not_be_written_is_a_servfail(rig: Rig) -> None:
    rig.source.answer_to[WEB] = Answer(records=(Record(WEB, m.A, 1 << 40, bytes(4)),), depends=("x",))
    assert code(rig.ask(question("web.default.svc.cluster.local"))) == m.SERVFAIL
    rig.source.answer_to.clear()
    assert code(rig.ask(question("web.default.svc.cluster.local"))) == m.NOERROR


@pytest.mark.parametrize("is_told", [False, True])
async def test_a_fault_in_what_others_say_is_a_servfail(is_told: bool) -> None:
    """They raise, or their message can't be cut to the size of a datagram."""
    told: list[str] = []

    def pass_on(query: Query, client: Client, tell: Callable[[Answer], object]) -> bool:
        told.append(client.ip)
        if not is_told:
            raise RuntimeError("of a test")
        tell(Answer(message=m.HEADER.pack(0, m.QR, 1, 1, 0, 0) + query.asked + b"\x40" * 600))
        return True

    answers = Answers(Source(), ("10.244.0.0/16",), Counts(), pass_on=pass_on)
    response = answers.respond(question("x.example"), POD)
    assert inspect.isawaitable(response)
    got = await response
    assert got is not None and code(got) == m.SERVFAIL and got[12:] == question("x.example")[12:]
    assert told == [POD]


def with_addresses(count: int) -> tuple[Source, Answers]:
    """Names with so many addresses."""
    source = Source()
    source.ips = [bytes((10, 244, 1, n)) for n in range(count)]
    return source, Answers(source, ["10.244.0.0/16"], Counts())


async def test_addresses_begin_with_another_one_each_second() -> None:
    source, answers = with_addresses(4)
    firsts = set()
    for _ in range(60):
        response = answers.respond(question("web.default.svc.cluster.local"), POD)
        again = answers.respond(question("web.default.svc.cluster.local"), POD)
        assert isinstance(response, bytes) and again == response, "it is kept meanwhile"
        firsts.add(response[-4 * 16 :][12:16])
        answers._tick()
    assert firsts == set(source.ips)
    assert len(source.asked) == 1, "it is not made anew for that"
    source.ips = [bytes((10, 244, 9, n)) for n in range(4)]
    answers.changed("service/default/web")
    response = answers.respond(question("web.default.svc.cluster.local"), POD)
    assert isinstance(response, bytes) and response[-4:-1] == bytes((10, 244, 9))


async def test_of_addresses_that_do_not_fit_others_are_given_each_second() -> None:
    source, answers = with_addresses(60)
    given = set()
    for _ in range(40):
        response = answers.respond(question("web.default.svc.cluster.local"), POD)
        assert isinstance(response, bytes)
        given |= {
            response[at + 12 : at + 16] for at in range(len(question("web.default.svc.cluster.local")), len(response), 16)
        }
        answers._tick()
    assert given == set(source.ips)


async def test_what_is_laid_aside_costs_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[object] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, call: later.append(call))
    _, answers = with_addresses(2)
    for ticks in (1, 2):
        answers.respond(question("web.default.svc.cluster.local"), POD)
        answers.respond(question("web.default.svc.cluster.local"), POD)
        assert len(later) == ticks
        answers._tick()
        assert len(later) == ticks and not answers.replies


async def test_much_that_ends_with_a_second_takes_several_turns_and_not_longer_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.nameserver.kept.SLICE", 1)
    later: list[float] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, call: later.append(seconds))
    _, answers = with_addresses(2)
    questions = [question("web.default.svc.cluster.local", edns=edns) for edns in (b"", opt(1232), opt(4096))]
    for one in questions:
        answers.respond(one, POD)
    answers._tick()
    assert len(answers.replies) == 2
    (first,) = [one for one in questions if one[2:] not in answers.replies]
    assert isinstance(answers.respond(first, POD), bytes)  # it is asked for again, and turns again with the next second
    for left in (3, 2):
        assert len(answers.replies) == left and len(later) == 1, "the next second is not counted yet"
        await asyncio.sleep(0)
    assert set(answers.replies) == {first[2:]}
    assert len(later) == 2 and later[0] == 1.0 and 0 <= later[1] < 1.0
