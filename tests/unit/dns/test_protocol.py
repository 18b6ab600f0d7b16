"""What a server answers by itself; `tests/unit/nameserver/test_answers.py` has the same from the outside."""

from __future__ import annotations

import pytest

from podplane.dns import message as m
from podplane.dns import protocol
from podplane.dns.message import Answer, Edns, Query, Question, Record, name_of


def query(name: str, type_: int = m.A, class_: int = m.INTERNET, edns: Edns | None = None) -> Query:
    question = Question(name_of(name), type_, class_)
    return Query(1, m.RD, m.written(question.name) + m.TAIL.pack(type_, class_), edns)


@pytest.mark.parametrize("type_", [m.A, m.AAAA, m.SRV, m.PTR, m.TXT, m.ANY, 0, 9999])
def test_questions_about_names_are_left_to_others(type_: int) -> None:
    assert protocol.answer(query("web.example", type_, edns=Edns(1232)), "v", "id") is None


@pytest.mark.parametrize("class_", [0, 2, 4, 254, 255])
def test_of_other_classes_there_is_nothing(class_: int) -> None:
    answer = protocol.answer(query("web.example", m.A, class_), "v", "id")
    assert answer is not None and answer.rcode == m.REFUSED


def test_a_version_of_edns_that_is_not_known_comes_first() -> None:
    answer = protocol.answer(query("version.bind", m.TXT, m.CHAOS, Edns(512, version=3)), "v", "id")
    assert answer is not None and answer.rcode == m.BADVERS


def test_any_keeps_what_was_found_about_keeping() -> None:
    found = Answer(records=(Record(name_of("a"), m.CNAME, 5, b"\0"),), depends=("k",), private=True, lifetime=3.0)
    answer = protocol.any_of(query("a", m.ANY), found, 5)
    assert (answer.depends, answer.private, answer.lifetime) == (("k",), True, 3.0)
    assert [one.data for one in answer.records] == [b"\x07RFC8482\0"]
    missing = Answer(m.NXDOMAIN, depends=("k",))
    assert protocol.any_of(query("a", m.ANY), missing, 5) is missing


def test_an_identity_that_has_no_room_is_left_out() -> None:
    asked = query("a", edns=Edns(512, options=((3, b""),)))
    response = m.respond(asked, Answer())
    assert protocol.with_identity(asked, response, "node1", len(response) + 8) == response
    assert protocol.with_identity(asked, response, "node1", len(response) + 9).endswith(b"node1")
