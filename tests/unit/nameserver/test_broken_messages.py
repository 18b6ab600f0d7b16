"""Messages that are broken in every way: each gets the right code or silence, never a fault, and others are served.

Bounded and seeded. dnspython is the judge: what it reads as one plain question must be answered, and it must be able to read each response.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import dns.edns
import dns.exception
import dns.message
import dns.rcode
import pytest

from podplane.dns import message as m
from podplane.dns.message import Answer, Query, Record, name_of
from podplane.nameserver.answers import Answers
from podplane.nameserver.resolver import Client
from podplane.servers.dns_counts import Counts

POD, OUTSIDER = "10.244.1.2", "192.0.2.1"
WEB = name_of("web.default.svc.cluster.local")
TAILS = (b"\0\x01\0\x01", b"\0\x1c\0\x01", b"\0\x0c\0\x01", b"\0\x21\0\x01", b"\0\xff\0\x01", b"\0\x10\0\x03", b"\0\x29\0\x01")
ROUNDS = 800


class Web:
    """One name, with many addresses."""

    def answer(self, query: Query, client: Client) -> Answer:
        if query.question.name != WEB:
            soa = Record(WEB[3:], m.SOA, 5, m.soa(WEB[3:], WEB[3:], 1, 2, 3, 4, 5))
            return Answer(m.NXDOMAIN, authority=(soa,), depends=("service/default/web",))
        records = tuple(Record(WEB, m.A, 5, bytes((10, 244, 0, n))) for n in range(90)) if query.question.type == m.A else ()
        return Answer(records=records, depends=("service/default/web",))


def good(name: bytes = m.written(WEB), tail: bytes = b"\0\x01\0\x01", edns: bytes = b"", flags: int = m.RD) -> bytes:
    return m.HEADER.pack(7, flags, 1, 0, 0, bool(edns)) + name + tail + edns


def _name(chance: random.Random) -> bytes:
    """A name: a usual one, or one that breaks a rule."""
    labels = [bytes(chance.choices(b"abcXYZ-_09\0.", k=chance.randint(1, 12))) for _ in range(chance.randint(0, 5))]
    if chance.random() < 0.1:
        labels.append(bytes(chance.choices(b"ab", k=chance.choice((62, 63, 64, 100, 191)))))
    written = b"".join(bytes((len(one),)) + one for one in labels)
    ends = (*[b"\0"] * 20, b"", b"\xc0\x0c", b"\xc0", b"\xc0\xff", b"\x40\0", b"\x80\0", b"\xff\xff\0")
    if chance.random() < 0.1:
        written += b"\x3f" + b"x" * 63 + b"\x3f" + b"y" * 63 + b"\x3f" + b"z" * 63 + b"\x3f" + b"u" * 63
    return written + chance.choice(ends)


def _opt(chance: random.Random) -> bytes:
    """An OPT record: a usual one, or one that breaks a rule."""
    options = b"".join(
        struct.pack("!2H", chance.choice((3, 8, 10, 12, 65001)), n + chance.choice((0, 0, 0, 1, 500))) + bytes(n)
        for n in chance.choices(range(20), k=chance.randint(0, 3))
    )
    name = chance.choice((b"\0", b"\0", b"\0", b"\x01a\0", b"\xc0\x0c"))
    length = len(options) + chance.choice((0, 0, 0, 0, 1, -1, 3000))
    version = chance.choice((0, 0, 0, 0, 1, 255))
    head = m.RECORD.pack(m.OPT, chance.choice((0, 511, 512, 1232, 4096, 65535)), version << 16 | m.DO, max(0, length))
    return name + head + options


def of_parts(chance: random.Random) -> bytes:
    """Parts that may each be wrong, with counts that may be wrong."""
    count = chance.choices((0, 1, 2), (1, 8, 1))[0]
    extra = [_opt(chance) for _ in range(chance.choices((0, 1, 2), (5, 5, 1))[0])]
    flags = chance.choice((*[m.RD] * 6, 0, m.RD | m.CD, m.AD, m.TC, 0x0800, 0x2000, 0x2800, m.QR, chance.randrange(65536)))
    counts = [count, chance.choices((0, 1, 65535), (20, 1, 1))[0], 0, len(extra) + chance.choices((0, 1, -1), (20, 1, 1))[0]]
    head = m.HEADER.pack(chance.randrange(65536), flags, *(max(0, one) for one in counts))
    return head + b"".join(_name(chance) + chance.choice(TAILS) for _ in range(count)) + b"".join(extra)


def of_a_good_one(chance: random.Random) -> bytes:
    """A good question with some bytes changed, cut off, or added."""
    data = bytearray(good(tail=chance.choice(TAILS), edns=_opt(chance) if chance.random() < 0.5 else b""))
    for _ in range(chance.randint(0, 4)):
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x3F, 0x40, 0xC0, 0xFF, chance.randrange(256)))
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    return bytes(data) + (chance.randbytes(chance.randint(1, 30)) if chance.random() < 0.2 else b"")


def of_chance(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 11, 12, 13, 17, 40, 300, 4096)))


def made() -> Answers:
    return Answers(Web(), ("10.244.0.0/16",), Counts(), version="v", arrange=lambda answer: answer)


def is_plain(data: bytes) -> bool:
    """Does dnspython read it as one standard question of class IN, for data, with EDNS 0 or without?"""
    try:
        read = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, struct.error):
        return False
    questions, answers = data[4:6], data[6:8]
    pointers = b"\xc0" in data[12:]  # a name of the question that points somewhere is read by it, and refused here
    question = read.question[0] if read.question else None
    return (
        question is not None
        and (questions, answers) == (b"\0\x01", b"\0\0")
        and read.opcode() == 0
        and not read.flags & m.QR
        and read.edns <= 0
        and question.rdclass == 1
        and question.rdtype not in (41, 249, 250, 251, 252, 253, 254)
        and not pointers
    )


def check(data: bytes, response: bytes | None, *, tcp: bool, ip: str) -> None:
    """What holds of each response."""
    if len(data) < m.HEADER.size or data[2] & 0x80:
        assert response is None
        return
    assert response is not None and response[:2] == data[:2]
    read = dns.message.from_wire(response)
    assert read.flags & m.QR and read.opcode() == data[2] >> 3 & 0xF
    if ip == OUTSIDER:
        assert read.rcode() == dns.rcode.REFUSED and len(response) <= len(data)
    elif is_plain(data):
        assert read.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN), data
        query = m.read_query(data, tcp=tcp)
        assert response[12:].startswith(query.asked) and len(response) <= query.limit


@pytest.mark.parametrize("make", [of_parts, of_a_good_one, of_chance])
@pytest.mark.parametrize("tcp", [False, True])
def test_each_gets_a_response_that_can_be_read_or_none(make: Callable[[random.Random], bytes], tcp: bool) -> None:
    chance, answers, plain = random.Random(f"{make.__name__} {tcp}"), made(), 0
    for _ in range(ROUNDS):
        data = make(chance)
        plain += is_plain(data)
        ip = OUTSIDER if chance.random() < 0.05 else POD
        for _ in range(2):  # the second time what is kept may answer
            response = answers.respond(data, ip, node="node1", tcp=tcp)
            assert response is None or isinstance(response, bytes)
            check(data, response, tcp=tcp, ip=ip)
    assert make is of_chance or ROUNDS // 20 < plain < ROUNDS, "there are both"
    first = made().respond(good(), POD, tcp=tcp)
    assert answers.respond(good(), POD, tcp=tcp) == first, "what is kept is not changed by others"


def test_kept_answers_are_those_of_a_server_that_keeps_nothing() -> None:
    chance, answers = random.Random("beside each other"), made()
    for _ in range(ROUNDS):
        data = chance.choice((of_parts, of_a_good_one))(chance)
        if chance.random() < 0.3:
            data = data[:12] + data[12:].swapcase()
        tcp = chance.random() < 0.3
        assert answers.respond(data, POD, tcp=tcp) == made().respond(data, POD, tcp=tcp), data


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # to itself
        b"\x03web\xc0\x0c",
        b"\xc0\x0e\xc0\x0c",
        b"\x40" + b"x" * 64 + b"\0",
        b"\x3f" + b"x" * 63 + (b"\x3f" + b"x" * 63) * 3 + b"\0",  # 257 bytes
        b"\x03web",
        b"",
    ],
)
def test_names_that_are_none_are_formerr(name: bytes) -> None:
    response = made().respond(good(name), POD)
    assert isinstance(response, bytes) and response[3] & 0xF == m.FORMERR


def test_the_longest_name_and_the_shortest_are_names() -> None:
    longest = b"\x3f" + b"x" * 63 + (b"\x3f" + b"x" * 63) * 2 + b"\x3d" + b"x" * 61 + b"\0"
    for name in (longest, b"\0"):
        response = made().respond(good(name), POD)
        assert isinstance(response, bytes) and response[3] & 0xF == m.NXDOMAIN
    assert len(longest) == 255
