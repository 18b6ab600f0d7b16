"""Promises about names: which questions prove them, and what answers mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest

from podplane.cli.check import lookups, names
from podplane.cli.check.names import Asker, Lookup
from podplane.cli.check.promises import Party
from podplane.cli.check.services import Own, Vip
from podplane.dns.resolv_conf import ResolvConf

DNS = "10.96.0.10"
CONF = ResolvConf((DNS,), ("default.svc.cluster.local", "svc.cluster.local", "cluster.local"), ("ndots:5",))
WEB = Asker("default/web", CONF)
PODS = [Party(f"p{n}", "pod", f"n{n}", (f"10.244.{n}.2",)) for n in (1, 2)]
OWN = Own({name: [Vip(name, f"10.96.1.{n}", 80)] for n, name in enumerate(("spread", "sticky"))}, {}, {}, PODS, {})
SPREAD = "spread.podplane-check.svc.cluster.local."


def lookup(**fields: Any) -> Lookup:
    return replace(Lookup(names.RESOLVE, "web", DNS, "a.b.", "A", ("10.96.1.0",)), **fields)


def answered(one: Lookup, *data: str, rcode: str = "NOERROR", type_: str = "") -> dict[str, Any]:
    """What the prober says that it saw."""
    response = dns.message.make_response(dns.message.from_wire(one.wire()))
    response.set_rcode(dns.rcode.from_text(rcode))
    if data:
        response.answer.append(dns.rrset.from_text(one.name, 5, "IN", type_ or one.type, *data))
    return {"ok": True, "seen": {"message": response.to_wire().hex()}}


def test_whole_and_short_names_of_both_protocols_are_asked_for() -> None:
    planned = names.plan(OWN, [WEB], "podplane-check", "cluster.local")
    found = {(one.name, one.type, one.tcp): one for one in planned}
    assert found[SPREAD, "A", False].expected == ("10.96.1.0",)
    assert found[SPREAD, "AAAA", False].expected == ()
    assert found["sticky.podplane-check.svc.cluster.local.", "A", True].expected == ("10.96.1.1",)
    short = found["spread.podplane-check.default.svc.cluster.local.", "A", False]
    assert (short.rest, short.expected) == ((SPREAD,), ("10.96.1.0",))
    assert found["each.podplane-check.svc.cluster.local.", "A", False].expected == ("10.244.1.2", "10.244.2.2")
    assert found["pod-0.each.podplane-check.svc.cluster.local.", "A", False].expected == ("10.244.1.2",)
    assert found["nowhere.podplane-check.svc.cluster.local.", "A", False].rcode == "NXDOMAIN"
    assert found["0.1.96.10.in-addr.arpa.", "PTR", False].expected == (SPREAD,)
    assert {one.promise for one in planned} == names.PROMISES.keys() - {names.FORWARDED}


def test_a_zone_of_others_is_asked_for_where_there_is_one() -> None:
    planned = names.plan(OWN, [WEB], "podplane-check", "cluster.local", "example.test.")
    (one,) = (one for one in planned if one.promise == names.FORWARDED)
    assert (one.name, one.type) == ("example.test.", "SOA")
    assert names.judge(one, answered(one, "ns. hostmaster. 1 2 3 4 5")) == ""
    assert names.judge(one, answered(one)).endswith("expected any record, got no such record")


def test_a_party_without_the_cluster_s_search_path_asks_for_no_short_names() -> None:
    planned = names.plan(OWN, [Asker("web", ResolvConf((DNS,)))], "podplane-check", "cluster.local")
    assert not any(one.rest for one in planned)


def test_who_does_not_ask_the_cluster_s_dns_is_left_out() -> None:
    confs = {"p1": CONF, "p2": ResolvConf(("192.0.2.1", DNS))}
    found, left_out = names.askers(PODS, confs, [DNS])
    assert [one.name for one in found] == ["p1"]
    assert left_out == ["names from p2 (its resolv.conf does not name the cluster's DNS first)"]


def test_the_question_is_a_message_that_others_read() -> None:
    message = dns.message.from_wire(lookup(name="_http._tcp.Web.b.", type="SRV").wire())
    assert message.question[0].to_text() == "_http._tcp.web.b. IN SRV"
    assert message.flags == dns.flags.RD
    assert lookup(tcp=True).probe()["protocol"] == "tcp-message"


@pytest.mark.parametrize(
    ("fields", "data", "rcode", "got"),
    [
        ({}, ("10.96.1.0",), "NOERROR", ""),
        ({}, ("10.96.1.9",), "NOERROR", "expected 10.96.1.0, got 10.96.1.9"),
        ({}, ("10.96.1.0", "10.96.1.9"), "NOERROR", "expected 10.96.1.0, got 10.96.1.0, 10.96.1.9"),
        ({}, (), "NXDOMAIN", "expected 10.96.1.0, got NXDOMAIN"),
        ({}, (), "NOERROR", "expected 10.96.1.0, got no such record"),
        ({"expected": ()}, (), "NOERROR", ""),
        ({"expected": ()}, (), "NXDOMAIN", "expected no such record, got NXDOMAIN"),
        ({"expected": (), "rcode": "NXDOMAIN"}, (), "NXDOMAIN", ""),
        ({"expected": (), "rcode": "NXDOMAIN"}, (), "SERVFAIL", "expected NXDOMAIN, got SERVFAIL"),
    ],
)
def test_an_answer_is_right_or_the_failure_says_all(
    fields: dict[str, Any], data: tuple[str, ...], rcode: str, got: str
) -> None:
    one = lookup(**fields)
    failure = names.judge(one, answered(one, *data, rcode=rcode))
    assert failure == (f"web → a.b. A over UDP at {DNS}: {got}" if got else "")


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (None, "no result from its prober"),
        ({"ok": False, "error": "no answer"}, "no answer"),
        ({"ok": True, "seen": {"message": "00"}}, "what can't be read: shorter than a header"),
        ({"ok": True, "seen": {"message": "zz"}}, "what can't be read: "),
        ({"ok": True, "seen": {}}, "what can't be read: shorter than a header"),
    ],
)
def test_without_an_answer_it_says_so(answer: Mapping[str, Any] | None, got: str) -> None:
    assert f"expected 10.96.1.0, got {got}" in names.judge(lookup(), answer)


def test_what_is_denied_is_looked_for_along_the_path() -> None:
    asked: list[list[str]] = []
    known = {"c.": "10.96.1.0"}

    def ask(todo: Iterable[Lookup], again: bool) -> dict[Lookup, Mapping[str, Any]]:
        todo = list(todo)
        asked.append([one.name for one in todo])
        return {one: answered(one, known[one.name]) if one.name in known else answered(one, rcode="NXDOMAIN") for one in todo}

    found = lookups.resolved(ask, [lookup(name="a.", rest=("b.", "c.", "d.")), lookup(name="c.")])
    assert asked == [["a.", "c."], ["b."], ["c."]]
    assert {one.name: names.judge(one, answer) for one, answer in found.items()} == {"c.": ""} | {"c.": ""}
    last = lookup(name="a.", rest=())
    assert names.judge(last, lookups.resolved(ask, [last])[last])


def test_users_services_are_asked_for_in_turn() -> None:
    services = [
        {"metadata": {"name": f"s{n}", "namespace": "shop"}, "spec": {"clusterIPs": ips}}
        for n, ips in enumerate((["10.96.2.1", "fd00::1"], ["None"], ["10.96.2.2"]))
    ]
    others = Asker("other", CONF)
    found = names.of_users(services, [WEB, others], "cluster.local")
    assert [(one.source, one.name, one.type, one.expected) for one in found] == [
        ("default/web", "s0.shop.svc.cluster.local.", "A", ("10.96.2.1",)),
        ("other", "s0.shop.svc.cluster.local.", "AAAA", ("fd00::1",)),
        ("default/web", "s2.shop.svc.cluster.local.", "A", ("10.96.2.2",)),
    ]
    assert names.of_users(services, [], "cluster.local") == []
    assert len(names.of_users(services * names.USERS, [WEB], "cluster.local")) == names.USERS


def test_verdicts_count_what_was_proved() -> None:
    good, bad = lookup(), lookup(name="b.")
    found = {one.promise: one for one in names.verdicts([good, bad], {good: answered(good, "10.96.1.0")})}
    assert (found[names.RESOLVE].proved, len(found[names.RESOLVE].failures)) == (1, 1)
    assert names.FORWARDED not in found and not found[names.MISSING].ok


class Api:
    """One node, whose server has these upstreams."""

    def __init__(self, *upstreams: tuple[str, str]) -> None:
        known = {"is_up": True, "is_loop": False, "age": 1.0, "error": "", "round_trip": None, "asked": 0, "failed": 0}
        self.upstreams = [{"zone": zone, "server": server, **known} for zone, server in upstreams]

    def objects(self, resource: str) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "n1"}}]


@pytest.mark.parametrize(
    ("upstreams", "zone"),
    [
        ([(".", "192.0.2.1"), ("corp.example.", "192.0.2.1"), ("example.test.", "203.0.113.10")], "example.test."),
        ([(".", "203.0.113.10")], ""),
        ([], ""),
    ],
)
def test_the_zone_outside_is_that_of_the_configuration(
    upstreams: list[tuple[str, str]], zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(*upstreams)
    monkeypatch.setattr(lookups.statuses, "of_nodes", lambda client, chosen, undo: [{"node": "n1", "upstreams": api.upstreams}])
    nodes = [Party("n1", "node", "n1", ("192.168.1.10",))]
    assert lookups._outside(api, nodes, ("203.0.113.10",)) == zone
    monkeypatch.setattr(lookups.statuses, "of_nodes", lambda client, chosen, undo: [{"node": "n1", "error": "no answer"}])
    assert lookups._outside(api, nodes, ("203.0.113.10",)) == ""


@pytest.mark.parametrize(
    ("upstreams", "left_out"), [([(".", "203.0.113.10")], [lookups.NO_ZONE]), ([("example.test.", "203.0.113.10")], [])]
)
def test_a_promise_about_a_zone_that_nobody_is_asked_for_is_said_to_be_left_out(
    upstreams: list[tuple[str, str]], left_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(*upstreams)
    monkeypatch.setattr(lookups.statuses, "of_nodes", lambda client, chosen, undo: [{"node": "n1", "upstreams": api.upstreams}])
    monkeypatch.setattr(lookups.asking, "servers", lambda client: ("10.96.0.10",))
    monkeypatch.setattr(lookups, "_services", lambda client: {})
    nodes = [Party("n1", "node", "n1", ("192.168.1.10",))]
    site = lookups.NameSite("cluster.local", None, ("203.0.113.10",))
    verdicts, found = lookups.examine(api, OWN, [], nodes, site, lambda todo, again: {}, lambda one: "")
    assert found == left_out
    assert (names.FORWARDED in {one.promise for one in verdicts}) == (not left_out)


def test_who_may_not_ask_is_not_asked_and_others_ask_for_the_names_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    api, asked = Api(), set[str]()
    monkeypatch.setattr(lookups.statuses, "of_nodes", lambda client, chosen, undo: [])
    monkeypatch.setattr(lookups.asking, "servers", lambda client: ("10.96.0.10",))
    users = {"spec": {"clusterIPs": ["10.96.1.7"]}, "metadata": {"name": "web", "namespace": "default"}}
    monkeypatch.setattr(lookups, "_services", lambda client: {"default/web": users})

    def ask(todo: Iterable[Lookup], again: bool) -> dict[Lookup, dict[str, Any]]:
        asked.update(one.source for one in todo)
        return {one: answered(one, *one.expected, rcode=one.rcode) for one in todo}

    site = lookups.NameSite("cluster.local", None, ())
    verdicts, _ = lookups.examine(api, OWN, PODS, [], site, ask, lambda one: "default/none" if one.source == "p1" else "")
    assert asked == {"p2"} and all(one.ok and one.denied["default/none"] for one in verdicts)
    assert next(one.proved > one.denied.total() for one in verdicts if one.promise == names.RESOLVE)
