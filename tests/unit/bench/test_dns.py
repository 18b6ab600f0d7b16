"""What is asked when the name server is measured, and what is read from dnsperf."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest

from bench import dns_objects, dns_servers, dns_tool, dnsperf
from bench.dns_objects import Named
from tests.unit.apiserver.live import access_to, served
from tests.unit.apiserver.test_server import Api

KUBERNETES = {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}
OUTPUT = """
> NOERROR a.default.svc.cluster.local A 0.001000
> NXDOMAIN b.default.svc.cluster.local A 0.003000
  Queries sent:         2
  Queries completed:    2 (100.00%)
  Queries lost:         {lost} (0.00%)
  Response codes:       {codes}
  Queries per second:   2000.5
"""


def test_the_questions_are_mixed_as_they_say_and_the_same_each_time() -> None:
    lines = dns_objects.questions(100)
    assert lines == dns_objects.questions(100)
    kinds = Counter("missing" if "www-" in line else line.split()[1] for line in lines)
    assert {kind: round(100 * kinds[kind] / len(lines)) for kind in kinds} == dns_objects.SHARES


def test_every_name_that_is_asked_for_is_one_of_unbound_too_but_for_those_that_are_missing() -> None:
    there = {line.split('"')[1].split()[0].removesuffix(".") for line in dns_objects.local_data(100)}
    for line in dns_objects.questions(100):
        assert (line.split()[0] in there) is not ("www-" in line), line


def test_services_are_of_one_family_or_of_both_and_some_are_headless() -> None:
    several = [Named(n) for n in range(1000)]
    specs = [one.service()["spec"] for one in several]
    assert [len(spec.get("clusterIPs", ())) for spec in specs[:11]] == [0, 2, 1, 2, 1, 2, 1, 2, 1, 2, 0]
    assert sum(spec["clusterIP"] == "None" for spec in specs) == 100
    assert len({one.name for one in several}) == 1000
    ips = [ip for one in several for ip in one.ips]
    assert len(set(ips)) == len(ips) == 100 * 10 + 500 * 2 + 400


def test_changed_endpoints_are_all_others() -> None:
    one = Named(10)
    before, after = ({endpoint["addresses"][0] for endpoint in one.endpoints(offset)} for offset in (0, 1 << 20))
    assert len(before) == len(after) == 10
    assert not before & after


async def test_the_server_that_is_measured_answers_from_the_api() -> None:
    def ask(port: int) -> str:
        with dns_servers.ours(access_to(port)) as server:
            dns_servers.wait(server.port)
            query = dns.message.make_query("kubernetes.default.svc.cluster.local", "A")
            found = dns.query.udp(query, dns_servers.LOCALHOST, port=server.port, timeout=5)
            return str(found.answer[0][0])

    api = Api()
    await api("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "kubernetes"}, "spec": KUBERNETES})
    async with served(api.server.handle) as port:
        assert await asyncio.to_thread(ask, port) == "10.96.0.1"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """dnsperf is not run; it loses as many questions as the test says."""
    found: dict[str, Any] = {"lost": 0, "codes": "NOERROR 1 (50.00%), NXDOMAIN 1 (50.00%)"}

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        found["command"] = command
        return subprocess.CompletedProcess(command, 0, OUTPUT.format(**found))

    monkeypatch.setattr(subprocess, "run", run)
    return found


def test_rates_and_latencies_are_read(said: dict[str, Any], tmp_path: Path) -> None:
    file = dnsperf.written(tmp_path, "questions", ["a A", "b A"])
    assert file.read_text() == "a A\nb A\n"
    assert dnsperf.rate(53, file, 1.0) == 2000.5
    assert said["command"][:2] == ["taskset", "--cpu-list"]
    found = dnsperf.latency(53, file, 1.0, 100.0)
    assert found.half == pytest.approx(2.0)
    assert found.slowest >= 3.0


@pytest.mark.parametrize(("what", "value"), [("lost", 100), ("codes", "NOERROR 1 (50.00%), SERVFAIL 1 (50.00%)")])
def test_a_run_that_loses_questions_or_fails_is_none(what: str, value: object, said: dict[str, Any], tmp_path: Path) -> None:
    said[what] = value
    with pytest.raises(RuntimeError, match="Queries lost"):
        dnsperf.rate(53, tmp_path, 1.0)


def test_a_question_is_seen_in_a_packet() -> None:
    ip = bytes((0x45, *bytes(8), 17, *bytes(10)))
    udp = struct.pack("!4H", 40000, dns_tool.PORT, 0, 0)
    message = dns_tool.question(7, "db.corp.example", dns_tool.AAAA)
    query = dns.message.from_wire(message)
    assert (query.id, str(query.question[0])) == (7, "db.corp.example. IN AAAA")
    assert dns_tool.asked(ip + udp + message) == "db.corp.example 28"
    assert dns_tool.asked(ip + struct.pack("!4H", 53, 40000, 0, 0) + message) == ""
    assert dns_tool.asked(bytes((0x60,)) + bytes(60)) == ""


@pytest.mark.parametrize(("deaf", "lost"), [(0, 0), (1, 0), (2, 1)])
def test_a_question_is_lost_when_no_try_is_answered(deaf: int, lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((dns_servers.LOCALHOST, 0))
        monkeypatch.setattr(dns_tool, "PORT", server.getsockname()[1])
        monkeypatch.setattr(dns_tool, "TIMEOUT_SECONDS", 0.5)

        def answer() -> None:
            for number in range(2):
                data, client = server.recvfrom(512)
                if number >= deaf:
                    server.sendto(data, client)
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        assert dns_tool.steady(dns_servers.LOCALHOST, "a", 1, 0.01) == lost
        thread.join()
