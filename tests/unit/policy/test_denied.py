"""What an agent tells of packets that policies deny, on the fake kernel: names of the moment, counts, what is not read."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from ipaddress import ip_address

import msgspec
import pytest

from podplane.model.answers import DeniedFlow, DeniedFlows, Party, SeenFlow
from podplane.model.config import CHECK_NAMESPACE
from podplane.model.objects import Metadata
from podplane.model.pod_info import Labels, NamespaceInfo, PodInfo, SlimMetadata
from podplane.model.policy import NetworkPolicy, PodSelector, PolicyRule
from podplane.model.service import Service, ServicePort, ServiceSpec
from podplane.policy.tables import LOG_GROUP, TOLD_A_SECOND
from podplane.state.conntrack import Revoked
from podplane.state.nft import Chain
from podplane.state.packet_log import LoggedPacket
from tests.policed import policy, select
from tests.unit.agent.rig import Rig, cluster

CLIENTS = PolicyRule((PodSelector("a", select(app="client")),))
WEB, QUIET = policy("web", select(app="web"), [CLIENTS]), policy("quiet", select(app="web"), egress=[])
DNS = "10.96.0.10"


def pod(name: str, ip: str, app: str = "", **fields: object) -> PodInfo:
    labels = Labels({"app": app} if app else {})
    return PodInfo(SlimMetadata(name, "a", name, labels), "node2", (ip,), **fields)  # type: ignore[arg-type]


class Watched(Rig):
    """A node with one pod, that policies select, and one that none does."""

    web = free = ""

    async def begin(self, *policies: NetworkPolicy) -> None:
        await self.start(*cluster(1, 2))
        self.put(NamespaceInfo(SlimMetadata("a")), *policies, pod("web", "10.244.1.2", "web"), pod("free", "10.244.1.3"))
        for name in ("web", "free"):
            request = dataclasses.replace(self.attachment(name), namespace="a")
            setattr(self, name, (await self.agent.network.add(request)).ips[0].partition("/")[0])
        await self.settle()

    def log(self, prefix: str, source: str, destination: str, port: int = 80, protocol: str = "tcp") -> None:
        self.host.objects.logged.append(LoggedPacket(prefix, source, destination, protocol, port))
        self.host.objects.counts[f"denied-{prefix}"] = self.host.objects.counts.get(f"denied-{prefix}", 0) + 1

    def told(self, after: int = 0) -> DeniedFlows:
        self.agent.denied.take()
        return self.agent.denied.flows(after, self.agent.denied.dropped())

    def last(self) -> DeniedFlow:
        return self.told().flows[0]


async def test_a_packet_has_the_names_of_its_ends_and_the_policies_that_deny_it() -> None:
    rig = Watched()
    await rig.begin(WEB, QUIET)
    rig.put(pod("far", "10.244.2.9"))
    rig.log("in", "10.244.2.9", rig.web, 8080)
    found = rig.last()
    assert (found.source, found.destination) == (Party("10.244.2.9", "pod", "a/far"), Party(rig.web, "pod", "a/web"))
    assert (found.reason, found.protocol, found.port, found.policies) == ("in", "tcp", 8080, ("a/web",))
    rig.log("out", rig.web, "203.0.113.7", 443)
    found = rig.last()
    assert (found.destination, found.policies) == (Party("203.0.113.7"), ("a/quiet",))


async def test_what_policies_denied_is_told_beside_what_was_seen() -> None:
    rig = Watched()
    await rig.begin(WEB, QUIET)
    rig.put(pod("far", "10.244.2.9"))
    rig.log("in", "10.244.2.9", rig.web, 8080)
    rig.log("gate", "10.244.2.9", rig.web, 8081)
    rig.log("out", rig.web, "203.0.113.7", 0, "icmp")
    rig.agent.denied.take()
    rig.now = 9.0
    ends = Party(rig.web, "pod", "a/web"), Party("203.0.113.7"), Party("10.244.2.9", "pod", "a/far")
    assert rig.agent.denied.by_policies() == [
        SeenFlow(ends[0], ends[1], "ICMP", 0, 9.0),
        SeenFlow(ends[2], ends[0], "TCP", 8080, 9.0),
    ]


async def test_all_kinds_of_ends() -> None:
    rig = Watched(("10.96.0.0/16",))
    await rig.begin(WEB)
    rig.caches.add_name_servers((DNS,))
    service = Service(
        metadata=Metadata(name="shop", namespace="a"),
        spec=ServiceSpec(cluster_ip="10.96.7.7", cluster_ips=("10.96.7.7",), ports=(ServicePort(80),)),
    )
    rig.put(service, pod("ended", "10.244.2.5", phase="Succeeded"), pod("host", "10.0.0.77", host_network=True))
    await rig.settle()
    node2 = rig.caches.nodes.objects["node2"].internal_ips[0]
    for ip, kind, name in (
        (DNS, "dns", "the cluster's DNS"),
        ("10.96.7.7", "service", "a/shop"),
        (node2, "node", "node2"),
        ("10.244.2.1", "node", "node2"),
        ("10.244.2.5", "", ""),
        ("10.0.0.77", "", ""),
        ("fd00::1:2", "", ""),
        (rig.free, "pod", "a/free"),
    ):
        rig.log("out", rig.web, ip)
        assert rig.last().destination == Party(ip, kind, name)


async def test_what_is_sent_between_pods_and_nodes_while_a_check_runs_is_told_apart() -> None:
    rig = Watched()
    await rig.begin(WEB)
    rig.put(pod("far", "10.244.2.9"))
    check = NamespaceInfo(SlimMetadata(CHECK_NAMESPACE))
    rig.log("in", "10.244.2.9", rig.web)
    assert not rig.last().in_check
    rig.put(check)
    for source in ("10.244.2.9", "203.0.113.7"):
        rig.log("in", source, rig.web)
    rig.told()
    rig.remove(check)
    rig.log("in", "10.244.2.9", rig.web)
    found = [(one.source.address, one.in_check, one.packets) for one in rig.told().flows]
    assert sorted(found) == [("10.244.2.9", False, 2), ("10.244.2.9", True, 1), ("203.0.113.7", False, 1)]


@pytest.mark.parametrize(
    ("protocol", "has_judged", "resets", "ends"),
    [("tcp", True, 1, True), ("tcp", True, 0, False), ("udp", True, 1, False), ("tcp", False, 1, False)],
)
async def test_a_denied_packet_of_tcp_ends_connections_that_were_taken_back_at_their_servers(
    protocol: str, has_judged: bool, resets: int, ends: bool
) -> None:
    rig = Watched()
    await rig.begin(WEB)
    rig.agent._effects.judge.has_judged = has_judged
    rig.agent._resets._looks_at = math.inf  # it is not time to read the counter yet
    one = Revoked(ip_address(rig.web), 8080, ip_address("10.244.2.9"), 4000)
    rig.opener.revoked.append(one)
    rig.host.objects.counts["resets"] = resets
    rig.log("in", "10.244.2.9", rig.web, 8080, protocol)
    rig.told()
    await rig.agent.idle()
    assert rig.opener.ended == [one] * ends


async def test_servers_are_told_of_connections_that_were_taken_back_though_nothing_is_logged() -> None:
    rig = Watched()
    network = msgspec.structs.replace(rig.settings.network, log_denied=False)
    rig.settings = msgspec.structs.replace(rig.settings, network=network)
    rig.new_agent()
    await rig.begin(WEB)
    rig.agent._effects.judge.has_judged = True
    one = Revoked(ip_address(rig.web), 8080, ip_address("10.244.2.9"), 4000)
    rig.opener.revoked.append(one)
    rig.host.objects.counts["resets"] = 1
    rig.agent._look()
    await rig.agent.idle()
    assert rig.opener.ended == [one]


async def test_names_are_those_of_the_moment() -> None:
    rig = Watched()
    await rig.begin(WEB)
    first, later = pod("first", "10.244.2.9"), pod("later", "10.244.2.9")
    for one in (first, later):
        rig.put(one)
        rig.log("in", "10.244.2.9", rig.web)
        rig.told()
        rig.remove(one)
    assert [one.source.name for one in rig.told().flows] == ["a/later", "a/first"]


async def test_equal_packets_are_one_line_and_what_is_not_told_is_counted() -> None:
    rig = Watched()
    rig.host.objects.counts["denied-in"] = 1000  # before anybody read
    await rig.begin(WEB)
    for _ in range(3):
        rig.log("in", "10.244.2.9", rig.web)
    rig.host.objects.counts["denied-in"] += 1234
    rig.now += 5
    found = rig.told()
    (flow,) = found.flows
    assert (flow.packets, found.told, found.dropped, found.since) == (3, 3, 1237, 5.0)
    assert not rig.told(found.change).flows
    rig.log("in", "10.244.2.9", rig.web)
    assert [one.packets for one in rig.told(found.change).flows] == [4]
    assert len(rig.told(10**9).flows) == 1, "that is a change of another agent"


async def test_it_is_read_only_while_a_policy_selects_a_pod_of_the_node() -> None:
    rig = Watched()
    await rig.begin()
    assert not rig.host.objects.log_readers and rig.told().since is None and not rig.told().error
    rig.put(WEB)
    await rig.settle()
    assert rig.host.objects.log_readers and rig.told().since == 0.0
    rig.log("in", "10.244.2.9", rig.web)
    assert rig.told().flows
    rig.remove(WEB)
    await rig.settle()
    assert not rig.host.objects.log_readers and rig.told().since is None
    assert rig.told().flows, "what was read is kept for some minutes"
    await rig.agent.stop()


async def test_an_agent_that_ends_reads_no_more_and_the_next_one_writes_nothing() -> None:
    rig = Watched()
    await rig.begin(WEB)
    former = rig.agent
    attached = former.network.attached
    await former.stop()
    assert not rig.host.objects.log_readers
    await rig.new_agent().start(attached)
    assert rig.written == 0 and rig.told().since == 0.0


async def test_a_group_that_somebody_else_reads_is_tried_again() -> None:
    rig = Watched()
    rig.host.objects.log_readers.add(1)
    rig.agent = rig.new_agent()
    await rig.begin(WEB)
    assert rig.told().since is None and f"NFLOG group {LOG_GROUP}" in rig.told().error
    rig.host.objects.log_readers.clear()
    await rig.poll(1.0)
    assert rig.told().since is None
    rig.now = 6.0
    rig.agent._look()
    assert rig.told().since == 0.0 and not rig.told().error


@pytest.mark.parametrize("is_able", [True, False])
async def test_a_kernel_that_cannot_log_gets_no_rules_that_do(is_able: bool) -> None:
    rig = Watched()
    rig.host.objects.can_log = is_able
    rig.agent = rig.new_agent()
    await rig.begin(WEB)
    chains = [one for one in rig.host.objects.nft.values() if isinstance(one, Chain)]
    assert any("Log(" in str(one) for one in chains) == is_able
    assert (rig.told().since is not None) == is_able and ("log" in rig.told().error) == (not is_able)


async def test_a_flood_is_bounded() -> None:
    rig = Watched()
    await rig.begin(WEB)
    for number in range(10 * TOLD_A_SECOND):
        rig.log("in", f"198.51.{number >> 8}.{number & 255}", rig.web)
    found = rig.told()
    assert len(found.flows) == 256 and found.told == found.dropped == 1000


async def test_what_the_kernel_has_not_handed_out_yet_is_waited_for() -> None:
    rig = Watched()
    await rig.begin(WEB)
    rig.host.objects.counts["denied-in"] = 1
    waiting = asyncio.create_task(rig.agent.denied.has_told(rig.agent.denied.dropped()))
    await asyncio.sleep(0)
    rig.host.objects.logged.append(LoggedPacket("in", "10.244.2.9", rig.web, "tcp", 80))
    await waiting
    assert rig.agent.denied.told == 1
