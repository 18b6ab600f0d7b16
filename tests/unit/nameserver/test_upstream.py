"""One server, which is good, bad, slow, or a liar: what is believed, what is asked again, and how."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dns.flags
import dns.message
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from podplane.dns import config, responses
from podplane.dns import message as m
from podplane.dns.asking import Ask
from podplane.dns.message import Question
from podplane.dns.responses import Reply
from podplane.nameserver import streams
from podplane.nameserver.datagrams import MOMENT_SECONDS, PORTS
from podplane.nameserver.failures import REFUSED_HERE
from podplane.nameserver.openers import HostOpener
from podplane.nameserver.randomness import Randomness
from podplane.nameserver.upstream import CASE_LOST, Means, Upstream
from tests.unit.virtual_time import virtual

from .fake_upstream import Behaviour, FakeUpstream, reply, says, silent, upstream

A = "a.example. 60 IN A 192.0.2.1"
FORGED = "a.example. 60 IN A 192.0.2.66"
NAME = m.name_of("a.example")


@contextlib.asynccontextmanager
async def asked(
    fake: FakeUpstream, *, tls_name: str | None = None, tls_context: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    server = fake.server if tls_name is None else config.Upstream("127.0.0.1", fake.port, True, tls_name)
    changes: list[Upstream] = []
    made = Upstream(server, Means(HostOpener(), Randomness(), tls_context=tls_context), HostOpener(), changes.append)
    try:
        yield made
    finally:
        made.close()


async def ask(made: Upstream, name: str = "a.example", dnssec: bool = False) -> Reply | str:
    future: asyncio.Future[Reply | str] = asyncio.get_running_loop().create_future()
    made.ask(Ask(m.asked_of(Question(m.name_of(name), m.A)), dnssec=dnssec), future.set_result)
    return await future


def addresses(said: Reply | str) -> list[str]:
    assert isinstance(said, Reply), said
    return [".".join(map(str, record.data)) for record in responses.records(said.message)[0]]


def wrongly(change: Callable[[dns.message.Message], object]) -> Behaviour:
    """A forged answer with something wrong in it, and then the true one."""

    def behaviour(query: dns.message.Message, tcp: bool) -> list[bytes]:
        forged = reply(query, FORGED)
        change(forged)
        return [forged.to_wire(), reply(query, A).to_wire()]

    return behaviour


def other_question(forged: dns.message.Message) -> None:
    forged.question = dns.message.make_query("b.example.", "A").question


def other_type(forged: dns.message.Message) -> None:
    forged.question = dns.message.make_query("a.example.", "AAAA").question


def other_id(forged: dns.message.Message) -> None:
    forged.id ^= 1


def a_query(forged: dns.message.Message) -> None:
    forged.flags &= ~dns.flags.QR


@virtual
@pytest.mark.parametrize("change", [other_question, other_type, other_id, a_query])
async def test_a_forged_answer_is_ignored(change: Callable[[dns.message.Message], object]) -> None:
    async with upstream(wrongly(change)) as fake, asked(fake) as made:
        assert addresses(await ask(made)) == ["192.0.2.1"]
        assert made.ignored == 1


@virtual
async def test_rubbish_is_ignored() -> None:
    def behaviour(query: dns.message.Message, tcp: bool) -> list[bytes]:
        good = reply(query, A).to_wire()
        return [b"", b"\0", good[:2], good[:11], good[:20], bytes(600), good]

    async with upstream(behaviour) as fake, asked(fake) as made:
        assert addresses(await ask(made)) == ["192.0.2.1"]


@virtual
async def test_another_socket_can_not_answer() -> None:
    """Who does not have the server's address and port is not heard, whatever he knows."""
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.bind(("127.0.0.1", 0))

    def behaviour(query: dns.message.Message, tcp: bool) -> list[bytes]:
        stranger.sendto(reply(query, FORGED).to_wire(), fake.clients[-1])
        return [reply(query, A).to_wire()]

    with stranger:
        async with upstream(behaviour) as fake, asked(fake) as made:
            assert addresses(await ask(made)) == ["192.0.2.1"]


@virtual
async def test_a_late_answer_is_no_answer_to_another_question() -> None:
    kept: list[dns.message.Message] = []

    def behaviour(query: dns.message.Message, tcp: bool) -> list[bytes]:
        kept.append(query)
        return [] if len(kept) == 1 else [reply(kept[0], FORGED).to_wire(), reply(query, A).to_wire()]

    async with upstream(behaviour) as fake, asked(fake) as made:
        assert await ask(made) == "no answer within 2 s"
        assert addresses(await ask(made)) == ["192.0.2.1"]
        assert made.health.failures == 0


@virtual
async def test_ids_ports_and_cases_are_by_chance() -> None:
    async with upstream(says(A)) as fake, asked(fake) as made:
        for _ in range(2 * PORTS):
            await ask(made)
            await asyncio.sleep(MOMENT_SECONDS)
        queries = [query for query, _ in fake.heard]
        assert len({query.id for query in queries}) > 80
        assert len(set(fake.clients)) == PORTS
        assert len({query.question[0].name.to_text() for query in queries}) > 40
        await asyncio.sleep(15)
        fake.clients.clear()
        before = set(fake.clients)
        await ask(made)
        assert not before & set(fake.clients), "idle ports are closed"


def lower(query: dns.message.Message, tcp: bool) -> list[bytes]:
    """A server that does not keep the case of letters."""
    wire = reply(query, A).to_wire()
    return [wire if tcp else wire[:12] + wire[12:].lower()]


@virtual
async def test_a_server_that_loses_the_case_of_letters_is_asked_by_tcp_then_without() -> None:
    async with upstream(lower) as fake, asked(fake) as made:
        for _ in range(20):  # by chance there may be no letter in upper case
            assert addresses(await ask(made)) == ["192.0.2.1"]
        spelled = [(query.question[0].name.to_text(), tcp) for query, tcp in fake.heard]
        assert [tcp for _, tcp in spelled].count(True) == CASE_LOST
        assert all(name.islower() == (i + 1 == len(spelled) or not spelled[i + 1][1]) for i, (name, _) in enumerate(spelled))
        assert {name for name, _ in spelled[-8:]} == {"a.example."}


@virtual
@pytest.mark.parametrize("rcode", [1, 4])
async def test_a_server_without_edns_is_asked_without(rcode: int) -> None:
    def behaviour(query: dns.message.Message, tcp: bool) -> list[bytes]:
        if query.edns < 0:
            return [reply(query, A).to_wire()]
        response = dns.message.make_response(query)
        response.use_edns(-1)
        response.set_rcode(rcode)  # type: ignore[arg-type]
        return [response.to_wire()[:12].replace(b"\0\1", b"\0\0", 1) if rcode == 1 else response.to_wire()]

    async with upstream(behaviour) as fake, asked(fake) as made:
        for _ in range(2):
            assert addresses(await ask(made)) == ["192.0.2.1"]
        assert [query.edns for query, _ in fake.heard] == [0, -1, -1]
        await asyncio.sleep(1000)
        await ask(made)
        assert [query.edns for query, _ in fake.heard[3:]] == [0, -1], "it may have learned it"


@virtual
async def test_what_a_question_to_a_server_says() -> None:
    async with upstream(says(A)) as fake, asked(fake) as made:
        await ask(made, dnssec=True)
        query, _ = fake.heard[0]
        assert query.flags == dns.flags.RD | dns.flags.AD
        assert (query.edns, query.payload, query.ednsflags, query.options) == (0, 1232, dns.flags.DO, ())


@virtual
async def test_without_tcp_a_cut_answer_is_a_failure() -> None:
    def behaviour(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = reply(query, A)
        response.flags |= dns.flags.TC
        return [] if tcp else [response.to_wire()]

    async with upstream(behaviour) as fake, asked(fake) as made:
        assert await ask(made) == "no answer within 3 s"


@virtual
async def test_a_connection_is_used_again_and_many_questions_go_at_once() -> None:
    waiting: list[dns.message.Message] = []

    def behaviour(query: dns.message.Message, tcp: bool) -> list[bytes]:
        if not tcp:
            response = reply(query)
            response.flags |= dns.flags.TC
            return [response.to_wire()]
        waiting.append(query)
        if len(waiting) % 3:
            return []
        return [reply(one, A.replace("a.e", one.question[0].name.to_text()[:3])).to_wire() for one in waiting[:-4:-1]]

    async with upstream(behaviour) as fake, asked(fake) as made:
        for _ in range(2):
            found = await asyncio.gather(*(ask(made, f"{label}.example") for label in "abc"))
            assert [addresses(one) for one in found] == [["192.0.2.1"]] * 3
        assert fake.connections == 1
        await asyncio.sleep(11)
        await asyncio.gather(*(ask(made, f"{label}.example") for label in "abc"))
        assert fake.connections == 2, "an idle one is closed"


@virtual
async def test_questions_by_a_connection_that_the_server_closes_are_asked_once_more() -> None:
    """It answers two questions by each connection, and closes it while a third one is on its way (RFC 7766, 6.2.4)."""

    def cut(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = reply(query)
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for left in (2, 1, 0):
            with contextlib.suppress(asyncio.IncompleteReadError):
                query = dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
                wire = reply(query, A).to_wire()
                writer.write((len(wire).to_bytes(2, "big") + wire) * (left > 0))
        writer.close()

    connections = 0
    async with upstream(cut) as fake:
        fake.serve = serve
        async with asked(fake) as made:
            for _ in range(6):
                assert addresses(await ask(made)) == ["192.0.2.1"]
            assert connections == 3
            assert made.health.failed == 0


@virtual
async def test_a_server_that_closes_every_connection_fails() -> None:
    def cut(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = reply(query)
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with upstream(cut) as fake:
        fake.serve = serve
        async with asked(fake) as made:
            assert await ask(made) in ("it closed the connection", "Connection reset by peer")


@virtual
async def test_a_fault_at_one_answer_spares_those_that_came_with_it(caplog: pytest.LogCaptureFixture) -> None:
    kept: list[dns.message.Message] = []

    def both_at_once(query: dns.message.Message, tcp: bool) -> list[bytes]:
        kept.append(query)
        return [reply(one, A).to_wire() for one in kept] if len(kept) == 2 else []

    async with upstream(both_at_once) as fake, asked(fake) as made:
        one = Ask(m.asked_of(Question(NAME, m.A)))
        heard: asyncio.Future[Reply | str] = asyncio.get_running_loop().create_future()
        made.ask(one, [].remove)  # there is nothing to remove
        made.ask(one, heard.set_result)
        async with asyncio.timeout(1):
            assert addresses(await heard) == ["192.0.2.1"]
        assert "ValueError" in caplog.text


@virtual
async def test_a_fault_at_one_silence_spares_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async with upstream(silent) as fake, asked(fake) as made:
        one = Ask(m.asked_of(Question(NAME, m.A)))
        heard: asyncio.Future[Reply | str] = asyncio.get_running_loop().create_future()
        made.ask(one, [].remove)  # there is nothing to remove
        made.ask(one, heard.set_result)
        assert await asyncio.wait_for(heard, 5) == "no answer within 2 s"
        assert "ValueError" in caplog.text


@virtual
async def test_what_this_machine_is_short_of_says_nothing_about_a_server() -> None:
    class Exhausted(HostOpener):
        def open(self, ip: str, kind: socket.SocketKind) -> socket.socket:
            raise OSError(errno.EMFILE, "Too many open files")

    async with upstream(says(A)) as fake:
        made = Upstream(fake.server, Means(HostOpener(), Randomness()), Exhausted(), lambda _: None)
        assert [await ask(made) for _ in range(3)] == ["Too many open files"] * 3
        assert (made.health.is_up, made.health.failed) == (True, 0)
        made.close()


@virtual
@pytest.mark.parametrize("tls", [False, True])
async def test_a_rule_of_the_node_that_refuses_is_told_as_one(tls: bool) -> None:
    class Refused(HostOpener):
        def open(self, ip: str, kind: socket.SocketKind) -> socket.socket:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    server = config.Upstream("127.0.0.1", 53, tls, "")
    made = Upstream(server, Means(HostOpener(), Randomness()), Refused(), lambda _: None)
    assert await ask(made) == REFUSED_HERE and "a Service without endpoints" in made.health.last_error
    made.close()


@virtual
async def test_too_many_questions_by_one_connection_say_nothing_about_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_PENDING", 5)

    def cut(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = reply(query)
        response.flags |= dns.flags.TC
        return [] if tcp else [response.to_wire()]

    async with upstream(cut) as fake, asked(fake) as made:
        found = await asyncio.gather(*(ask(made) for _ in range(8)))
        assert found.count("too many questions are on their way to it") == 3
        assert made.health.failed == 5


class Authority:
    """A certificate authority that nobody else knows."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "made up")])
        self.folder = folder
        own = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.client = ssl.create_default_context(
            cadata=own.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        )

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)

    def server(self, *names: x509.GeneralName) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([]), key).add_extension(x509.SubjectAlternativeName(names), critical=True)
        pem = serialization.Encoding.PEM
        file = self.folder / "server.pem"
        file.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + builder.sign(self.key, hashes.SHA256()).public_bytes(pem)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_tls_by_name_and_by_address(authority: Authority) -> None:
    context = authority.server(x509.DNSName("dns.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    async with upstream(says(A), context) as fake:
        for name in ("dns.example", ""):
            async with asked(fake, tls_name=name, tls_context=authority.client) as made:
                assert [addresses(await ask(made)) for _ in range(3)] == [["192.0.2.1"]] * 3
        assert fake.connections == 2
        assert all(tcp for _, tcp in fake.heard)
        assert {len(query.to_wire()) for query, _ in fake.heard} == {128}, "questions are padded"


async def test_tls_with_the_wrong_name_is_not_asked(authority: Authority) -> None:
    async with upstream(says(A), authority.server(x509.DNSName("dns.example"))) as fake:
        for name, why in (("other.example", "Hostname mismatch"), ("", "IP address mismatch")):
            async with asked(fake, tls_name=name, tls_context=authority.client) as made:
                said = await ask(made)
                assert isinstance(said, str) and said.startswith(f"its certificate is not trusted: {why}")
        async with asked(fake, tls_name="dns.example", tls_context=ssl.create_default_context()) as made:
            assert await ask(made) == "its certificate is not trusted: unable to get local issuer certificate"
        assert fake.heard == []


@virtual
async def test_tls_to_a_server_without_it_fails(authority: Authority) -> None:
    async with upstream(says(A)) as fake, asked(fake, tls_name="dns.example", tls_context=authority.client) as made:
        made_up = await ask(made)
        assert isinstance(made_up, str)
        assert made.health.failed == 1
