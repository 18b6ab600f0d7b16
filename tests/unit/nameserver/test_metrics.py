"""Figures for Prometheus, with CoreDNS's names."""

from __future__ import annotations

from typing import Any

import dns.message
import pytest
from prometheus_client.parser import text_string_to_metric_families

from podplane.model.name_server import UpstreamStatus
from podplane.nameserver import control
from podplane.nameserver.rates import SAMPLES, Rates
from podplane.servers.dns_counts import Counts
from tests.unit.nameserver.rig import Clock, Rig

Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]
HERE = {"server": "dns://:53", "zone": ".", "view": ""}


async def rig_with_questions() -> Rig:
    """One that has answered some questions of node1, and one of node2."""
    rig = Rig(restarts=1)
    await rig.api(
        "POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    )
    await rig.start()
    for node, protocol, version, name, type_ in (
        ("node1", control.UDP, 4, "web.default.svc.cluster.local", "A"),
        ("node1", control.UDP, 4, "web.default.svc.cluster.local", "A"),
        ("node1", control.UDP, 6, "web.default.svc.cluster.local", "AAAA"),
        ("node1", control.TCP, 4, "none.default.svc.cluster.local", "A"),
        ("node2", control.UDP, 4, "none.default.svc.cluster.local", "A"),
    ):
        lane = rig.counts.lane(node, protocol, version)
        question = dns.message.make_query(name, type_).to_wire()
        response = rig.answers.respond(question, "10.244.1.2")
        assert isinstance(response, bytes)
        lane.by_kind[rig.counts.kind(len(question), response)] += 1
        lane.request_bytes += len(question)
        lane.response_bytes += len(response)
        lane.durations.add(0.001)
    return rig


async def scraped(rig: Rig) -> Found:
    reply = await rig.ask("/metrics")
    assert (reply.status, reply.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = (sample for family in text_string_to_metric_families(reply.body.decode()) for sample in family.samples)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def value(found: Found, name: str, **labels: Any) -> float:
    return found[name, tuple(sorted(labels.items()))]


async def test_questions_and_answers_are_counted_under_coredns_names() -> None:
    found = await scraped(await rig_with_questions())
    asked = "coredns_dns_requests_total"
    assert value(found, asked, **HERE, proto="udp", family="1", type="A") == 2
    assert value(found, asked, **HERE, proto="udp", family="2", type="AAAA") == 1
    assert value(found, asked, **HERE, proto="tcp", family="1", type="A") == 1
    assert value(found, "coredns_dns_responses_total", **HERE, rcode="NOERROR", plugin="") == 3
    assert value(found, "coredns_dns_responses_total", **HERE, rcode="NXDOMAIN", plugin="") == 1
    assert value(found, "coredns_dns_request_duration_seconds_count", **HERE) == 4
    assert value(found, "coredns_dns_request_duration_seconds_sum", **HERE) == pytest.approx(0.004)
    assert value(found, "coredns_dns_request_duration_seconds_bucket", **HERE, le="0.0005") == 0
    assert value(found, "coredns_dns_request_size_bytes_bucket", **HERE, proto="udp", le="100") == 3
    assert value(found, "coredns_dns_response_size_bytes_count", **HERE, proto="tcp") == 1


async def test_the_cache_and_the_servers_that_are_asked() -> None:
    rig = await rig_with_questions()
    rig.forwarder.cache.counts.hits["success"] = 7
    rig.forwarder.cache.counts.misses = 3
    rig.upstreams = [
        UpstreamStatus(".", "192.0.2.53", True, False, 1.0, "", 0.012, 5, 2),
        UpstreamStatus(".", "192.0.2.54", True, False, 1.0, "", 0.012, 4, 1),
        UpstreamStatus("corp.example.", "192.0.2.54", False, True, 1.0, "it leads back", None, 3, 2),
    ]
    found = await scraped(rig)
    cache = {"server": "dns://:53", "zones": ".", "view": ""}
    assert value(found, "coredns_cache_hits_total", **cache, type="success") == 7
    assert value(found, "coredns_cache_hits_total", **cache, type="denial") == 0
    assert value(found, "coredns_cache_requests_total", **cache) == 10
    assert value(found, "coredns_forward_requests_total", to="192.0.2.53") == 5
    assert value(found, "podplane_dns_upstream_failures_total", to="192.0.2.53") == 2
    assert value(found, "podplane_dns_upstream_up", to="192.0.2.53") == 1
    assert value(found, "coredns_forward_requests_total", to="192.0.2.54") == 7, "for both zones"
    assert value(found, "podplane_dns_upstream_failures_total", to="192.0.2.54") == 3
    assert value(found, "podplane_dns_upstream_up", to="192.0.2.54") == 0
    assert value(found, "podplane_dns_upstream_round_trip_seconds", to="192.0.2.54") == 0.012


async def test_the_server_itself() -> None:
    found = await scraped(await rig_with_questions())
    assert value(found, "podplane_dns_restarts_total") == 1
    assert value(found, "podplane_dns_objects", resource="services") >= 1
    assert value(found, "podplane_dns_config_valid") == 1
    assert value(found, "podplane_dns_kept_responses") >= 3
    assert value(found, "process_resident_memory_bytes") > 1e6
    assert any(name == "coredns_build_info" for name, _ in found)


async def test_what_the_kernel_dropped_counts() -> None:
    rig = Rig()
    for version, count in ((4, 3), (6, 4)):
        rig.counts.lane("node1", "udp", version).dropped.append(lambda count=count: count)
    rig.counts.lane("node2", "udp", 4).dropped.append(lambda: 100)
    assert value(await scraped(rig), "podplane_dns_dropped_requests_total") == 7


async def test_a_server_that_answered_nothing_has_figures_too() -> None:
    found = await scraped(Rig())
    assert not any(name.startswith("coredns_dns_request") for name, _ in found)
    assert value(found, "podplane_dns_unanswered_requests_total") == 0


async def test_rates_are_those_of_the_last_seconds() -> None:
    counts, clock = Counts(), Clock()
    rates = Rates(counts, clock)
    assert rates.rate("node1") == 0.0
    lane = counts.lane("node1", control.UDP, 4)
    for _ in range(SAMPLES):
        clock.now += 2.0
        lane.durations.add(0.001, 100)
        rates.sample()
    assert rates.answers("node1") == 600
    assert rates.rate("node1") == pytest.approx(50.0)
    clock.now += 10.0
    assert rates.rate("node1") == pytest.approx(25.0)
    counts.forget("node1")
    assert rates.rate("node1") == 0.0 == rates.rate("node2")
