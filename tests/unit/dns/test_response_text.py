"""Responses as text: the same records as dnspython reads."""

from __future__ import annotations

import dns.message
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns import message as m
from podplane.dns import response_text
from podplane.dns.message import Malformed
from podplane.model.name_server import RecordText

ZONE = """id 1
opcode QUERY
rcode NOERROR
flags QR AA RD RA
;QUESTION
www.example.test. IN A
;ANSWER
www.example.test. 300 IN CNAME web.example.test.
web.example.test. 60 IN A 192.0.2.1
web.example.test. 60 IN AAAA 2001:db8::1
example.test. 5 IN MX 10 mail.example.test.
_http._tcp.example.test. 5 IN SRV 0 100 8080 web.example.test.
example.test. 5 IN TXT "a \\"quoted\\" word" "second"
1.2.0.192.in-addr.arpa. 5 IN PTR web.example.test.
example.test. 5 IN HINFO "RFC8482" ""
;AUTHORITY
example.test. 86400 IN SOA ns.example.test. hostmaster.example.test. 1 7200 1800 86400 5
example.test. 86400 IN NS ns.example.test.
;ADDITIONAL
ns.example.test. 86400 IN A 192.0.2.53
"""


def test_records_are_what_dnspython_reads() -> None:
    message = dns.message.from_text(ZONE)
    found = response_text.read(message.to_wire())
    assert found.rcode == "NOERROR" and not found.is_cut
    for mine, theirs in zip(
        (found.records, found.authority, found.additional), (message.answer, message.authority, message.additional), strict=True
    ):
        rows = [(str(r.name), dns.rdatatype.to_text(r.rdtype), r.ttl, data.to_text()) for r in theirs for data in r]
        assert mine == [RecordText(*row) for row in rows]


@given(st.lists(st.sampled_from(["a.", "A.", "b.", "a.b.", "."]), max_size=12), st.booleans())
def test_names_that_follow_each_other_are_told_apart(owners: list[str], compress: bool) -> None:
    message = m.HEADER.pack(1, m.QR, 0, len(owners), 0, 0)
    places: dict[str, int] = {}
    for owner in owners:
        place = places.setdefault(owner, len(message))
        is_pointer = compress and place < len(message)
        labels = b"".join(bytes((len(label),)) + label.encode() for label in owner.split(".") if label)
        message += m.LENGTH.pack(m.POINTER | place) if is_pointer else labels + b"\0"
        message += m.RECORD.pack(m.A, m.INTERNET, 5, 4) + bytes((192, 0, 2, 1))
    expected = [RecordText(owner, "A", 5, "192.0.2.1") for owner in owners]
    assert response_text.read(message).records == expected


def test_a_first_name_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(Malformed):
        response_text.read(m.HEADER.pack(1, m.QR, 0, 1, 0, 0) + b"\xff\xff" + m.RECORD.pack(m.A, 1, 5, 0))


def test_what_has_no_words_is_written_as_rfc_3597_has_it() -> None:
    text = "id 1\nflags QR\n;QUESTION\na. IN TYPE65280\n;ANSWER\na. 1 IN TYPE65280 \\# 3 010203\n"
    (record,) = response_text.read(dns.message.from_text(text).to_wire()).records
    assert (record.type, record.data) == ("TYPE65280", "\\# 3 010203")


def test_data_that_is_not_of_its_type_is_written_as_bytes() -> None:
    wire = bytearray(
        dns.message.from_text("id 1\nflags QR\n;QUESTION\na. IN A\n;ANSWER\na. 1 IN TYPE65280 \\# 3 010203\n").to_wire()
    )
    at = wire.index(b"\xff\x00", 20)
    wire[at : at + 2] = b"\0\x01"
    (record,) = response_text.read(bytes(wire)).records
    assert (record.type, record.data) == ("A", "\\# 3 010203")


def test_the_code_of_edns_counts() -> None:
    query = dns.message.make_query("a.", "A", use_edns=0)
    response = dns.message.make_response(query)
    response.set_rcode(16)  # type: ignore[arg-type]  # BADVERS
    assert response_text.read(response.to_wire()).rcode == "BADVERS"
    response.set_rcode(23)  # type: ignore[arg-type]  # BADCOOKIE
    assert response_text.read(response.to_wire()).rcode == "RCODE23"


@pytest.mark.parametrize("pointer", [b"\xc0\x0c", b"\xc0\x20", b"\xc0", b"\x40"])
def test_pointers_in_circles_and_to_nowhere_are_refused(pointer: bytes) -> None:
    with pytest.raises(Malformed):
        response_text.read(bytes.fromhex("000180000000000100000000") + pointer)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        response_text.read(data)
    except Malformed:
        return
    assert len(data) >= 12


@pytest.mark.parametrize(("text", "number"), [("a", 1), ("AAAA", 28), ("srv", 33), ("TYPE257", 257), ("type65535", 65535)])
def test_types_have_names_and_numbers(text: str, number: int) -> None:
    assert response_text.type_of(text) == number
    assert response_text.type_of(response_text.type_text(number)) == number


@pytest.mark.parametrize("text", ["", "B", "TYPE", "TYPE0", "TYPE65536", "TYPE٣", "TYPE-1", "1"])
def test_what_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no type of records"):
        response_text.type_of(text)
