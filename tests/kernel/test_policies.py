"""Policies on the real kernel: the same agents beside the fake one, generated policies, real packets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from podplane.agent.agent import Agent
from podplane.agent.pause import Pause
from podplane.cni.network import Attachment
from podplane.kernel import conntrack
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace
from podplane.kernel.opener import KernelOpener
from podplane.kernel.passed import Passed
from podplane.kernel.text import nft
from podplane.model.answers import DeniedFlows
from podplane.model.cluster_policy import Policy
from podplane.model.pod_info import Labels, SlimMetadata
from podplane.model.policy import EVERYTHING, LabelSelector, PodSelector, PolicyPort, PolicyRule, Requirement
from podplane.policy import compiling
from podplane.policy.match import Flow
from podplane.policy.settings import PolicySettings
from podplane.policy.tables import TABLE
from podplane.state.conntrack import Revoked
from podplane.state.network import Link
from podplane.state.nft import Chain, Table
from podplane.state.operations import Operation
from podplane.trace.evaluator import evaluate
from podplane.trace.memory import Memory
from podplane.trace.packet import Packet
from tests import policy_worlds
from tests.fake_cluster import pod_ip
from tests.kernel.cluster import RealCluster, Talk
from tests.kernel.packets import Sockets
from tests.kernel.test_passed import all_of, sealed
from tests.kernel.test_trace import agrees
from tests.policed import FakePoliced, Policed, cluster_policy, info, name_of, namespace, policy, select
from tests.unit.agent.rig import Object

pytestmark = pytest.mark.kernel
NOT_X = Requirement("app", "NotIn", ("x",))
TCP_CLOSE = 7


class RealPoliced(Policed, RealCluster):
    """On the real kernel."""

    def __init__(self) -> None:
        super().__init__((), ())
        self.begin()


def test_generated_policies_do_the_same_on_the_real_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = RealPoliced(), FakePoliced()
    sockets = Sockets({name: place for name, place in real.namespaces.items() if name != "network"})
    memory, ends = Memory(), Counter[str]()

    @settings(
        max_examples=10,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(st.one_of(policy_worlds.policies, policy_worlds.cluster_policies), min_size=2, max_size=4),
        st.lists(policy_worlds.changes, max_size=3),
        st.lists(policy_worlds.flows(("tcp", "udp")), min_size=6, max_size=6),
        st.sampled_from((0, compiling.TOGETHER)),
    )
    def check(policies: list[Policy], changes: list[Object], flows: list[tuple[str, Flow, Packet]], together: int) -> None:
        nonlocal memory
        monkeypatch.setattr(compiling, "TOGETHER", together)
        for cluster in (real, fake):
            cluster.reset()
            cluster.put(*policies, *changes)
        world = fake.opener.traffic.world()
        for sender, _, packet in flows:
            memory = agrees(sockets, world, sender, packet, memory)
            ends[type(evaluate(world, packet, sender).end).__name__] += 1

    check()
    assert ends["Delivered"] > 10 and ends["Dropped"] > 10, "both were tried"


class Traffic:
    """New UDP flows all the time, one packet each, from some pods to port 80 of another one; what arrived, by sender."""

    def __init__(self, cluster: RealPoliced, senders: Sequence[tuple[int, int]], receiver: tuple[int, int]) -> None:
        self._namespaces = {one: cluster.namespaces[name_of(*one)] for one in senders}
        self._target = (str(pod_ip(*receiver)), 80)
        self.sent = dict.fromkeys(senders, 0)
        self._received = Counter[str]()
        self._server = cluster.namespaces[name_of(*receiver)].run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self._server.bind(self._target)
        self._server.setblocking(False)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._receive()
        self._server.close()

    def goes_on(self, count: int, arrive: Sequence[tuple[int, int]]) -> None:
        """Until each has sent so many; then no more is sent, and what `arrive` have sent may take its time on a busy machine."""
        _until(lambda: min(self.sent.values()) >= count)
        self._over.set()
        self._thread.join()

        def has_arrived() -> bool:
            self._receive()
            return all(self.received(one) >= self.sent[one] for one in arrive)

        _until(has_arrived)

    def _send(self) -> None:
        while not self._over.wait(0.001):
            for one, place in self._namespaces.items():
                with place.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.sendto(b"x", self._target)
                    self.sent[one] += 1
            self._receive()

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._received[self._server.recvfrom(10)[1][0]] += 1

    def received(self, sender: tuple[int, int]) -> int:
        return self._received[str(pod_ip(*sender))]


def _until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.002)


def variants() -> Iterator[list[Object]]:
    """Policies and labels by which b's pods may always send to port 80 of a's pod on node 1, and a's others never."""
    b, nobody = PodSelector(select(team="b")), PodSelector("b", select(app="nobody"))
    for number in itertools.count():
        ports = tuple(PolicyPort("UDP", (port, port)) for port in range(80, 81 + number % 7))
        yield [policy("web", select(app="web"), [PolicyRule((b, nobody)[: 1 + number % 2], ports)])]
        yield [policy(f"more{number % 3}", EVERYTHING, [PolicyRule((nobody,))] if number % 4 else [])]
        yield [info(2, 1, {"app": f"x{number}"}), info(1, 2, {"app": "nobody"} if number % 2 else {})]
        yield [policy("web", EVERYTHING, [PolicyRule((b,))], [PolicyRule((b,))])]
        yield [namespace("a", {"team": "a", "n": str(number)})]


def test_changes_restarts_and_kills_lose_no_packet_that_is_allowed_and_let_none_pass_that_is_denied() -> None:
    """N9: cloudnativelabs/kube-router#461, cilium/cilium#17115: sets are not empty for a moment, not when an agent starts either."""
    real = RealPoliced()
    real.put(info(1, 1, {"app": "web"}), *next(variants()))
    allowed, denied = [(1, 2), (2, 2)], [(2, 1)]
    with Traffic(real, [*allowed, *denied], (1, 1)) as traffic:
        for number, objects in enumerate(itertools.islice(variants(), 40)):
            if number % 3 == 1:
                real.kill(1, *objects)
            else:
                real.put(*objects)
            if number % 8 == 7:
                assert [real.restart(node) for node in (1, 2)] == [0, 0]
        traffic.goes_on(21, allowed)
    assert min(traffic.sent.values()) > 20
    assert [traffic.received(one) for one in allowed] == [traffic.sent[one] for one in allowed]
    assert [traffic.received(one) for one in denied] == [0]


def talk(cluster: RealPoliced, client: tuple[int, int], server: tuple[int, int], version: int) -> Talk:
    at = (str(pod_ip(*server, version)), 80)
    return Talk(cluster.namespaces[name_of(*client)], at, cluster.namespaces[name_of(*server)], at)


FROM_Y = PodSelector("b", select(app="y"))
TAKEN_BACK: dict[str, tuple[PodSelector, Object]] = {
    "the policy": (
        PodSelector(select(team="b")),
        policy("web", EVERYTHING, [PolicyRule((PodSelector(select(team="b"), LabelSelector.of([NOT_X])),))]),
    ),
    "a label of the peer's namespace": (PodSelector(select(team="b")), namespace("b", {"team": "c"})),
    "a label of the peer": (PodSelector("b", select(app="x")), info(1, 2)),
    "the peer's end": (PodSelector("b", select(app="x")), info(1, 2, {"app": "x"}, phase="Succeeded")),
}
"""By what a peer of a rule is none any more: the peer, and what changes."""


@pytest.mark.parametrize(
    ("version", "walk", "by"), [*zip((4, 6, 6, 4), (10_000, 10_000, 0, 0), TAKEN_BACK, strict=True)], ids=TAKEN_BACK
)
def test_connections_that_policies_take_back_end_for_both_and_others_go_on(
    version: int, walk: int, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N3: TCP is reset, UDP passes no more; network-policy-api#305, calico#6399. Where connections are many, those of the pods concerned
    are asked for by their addresses."""
    monkeypatch.setattr(conntrack, "WALK", walk)
    real, (peer, change) = RealPoliced(), TAKEN_BACK[by]
    real.put(info(1, 2, {"app": "x"}), info(2, 2, {"app": "y"}), policy("web", EVERYTHING, [PolicyRule((peer, FROM_Y))]))
    cut, other, beside = (talk(real, *ends, version) for ends in (((1, 2), (1, 1)), ((2, 2), (1, 1)), ((1, 2), (2, 2))))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    datagrams = [real.namespaces[name_of(*one)].run(socket.socket, family, socket.SOCK_DGRAM) for one in ((1, 2), (1, 1))]
    client, server = datagrams
    server.bind((str(pod_ip(1, 1, version)), 53))
    client.connect(server.getsockname()[:2])
    for one in datagrams:
        one.settimeout(3)
    client.send(b"x")
    _, source = server.recvfrom(10)
    server.sendto(b"y", source)
    assert client.recv(10) == b"y"
    real.put(change)
    with pytest.raises((ConnectionError, TimeoutError, AssertionError)):
        cut.exchange()
    ends = []
    for one in (cut.client, cut.server):
        with contextlib.suppress(OSError):
            one.send(b"x")
            one.settimeout(1)
            one.recv(10)
        ends.append(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or _is_over(one))
    assert all(ends), "both ends were told"
    other.exchange()
    beside.exchange()
    for one in datagrams:
        one.settimeout(0.3)
    client.send(b"x")
    with pytest.raises(TimeoutError):
        server.recvfrom(10)
    server.sendto(b"y", source)
    with pytest.raises(TimeoutError):
        client.recv(10)


def seal(agent: Agent, *, is_passed: bool) -> None:
    """Have an agent enter no pod's namespace any more; whether or not it has what somebody opened there."""
    kernel = agent._kernel
    assert isinstance(kernel, Kernel)
    for name, one in tuple(kernel._namespaces.items()):
        if name and isinstance(one, NetworkNamespace):
            kernel.attach(name, sealed(one, Passed.take(one.fd, all_of(one)) if is_passed else None))


@pytest.mark.parametrize(
    ("version", "is_sealed", "is_passed"), [(4, False, False), (6, True, True), (4, True, False), (6, True, False)]
)
def test_a_server_that_only_reads_is_told_that_its_connection_was_taken_back(
    version: int, is_sealed: bool, is_passed: bool
) -> None:
    """Its client's next packet is answered with a reset; connections of others, and those that are allowed, go on. A server that can't be
    reached in its namespace is asked for its connection."""
    real = RealPoliced()
    only_b = PodSelector(select(team="b"), LabelSelector.of([NOT_X]))
    real.put(policy("web", EVERYTHING, [PolicyRule((PodSelector(select(team="b")),))]))
    cut, kept = talk(real, (1, 2), (1, 1), version), talk(real, (2, 2), (1, 1), version)
    for one in (cut, kept):
        one.settle()
    real.put(info(1, 2, {"app": "x"}), policy("web", EVERYTHING, [PolicyRule((only_b,))]))
    agent = real.agents[1]
    if is_sealed:
        seal(agent, is_passed=is_passed)
    cut.client.send(b"x")

    async def told() -> None:
        await agent.denied.has_told(await asyncio.to_thread(agent.denied.dropped))
        await agent.idle()

    asyncio.run(told())
    cut.server.settimeout(3)
    with pytest.raises(ConnectionResetError if is_sealed and not is_passed else ConnectionAbortedError):
        cut.server.recv(10)
    with pytest.raises(ConnectionResetError):
        cut.client.recv(10)
    kept.exchange()


@pytest.mark.parametrize("version", [4, 6])
def test_a_server_on_another_node_that_only_reads_is_told_that_its_client_may_not_reach_it_any_more(version: int) -> None:
    """It is asked whether the connection stands, in the name of its client; what it answers is denied with a reset."""
    real = RealPoliced()
    out, others = policy("out", select(app="x"), egress=[PolicyRule((PodSelector("b"),))]), PolicyRule((PodSelector("c"),))
    real.put(info(1, 1, {"app": "x"}), out)
    cut, kept = talk(real, (1, 1), (2, 2), version), talk(real, (1, 2), (2, 2), version)
    for one in (cut, kept):
        one.settle()
    real.put(policy("out", select(app="x"), egress=[others]))
    agent = real.agents[1]
    cut.client.send(b"x")

    async def told() -> None:
        await agent.denied.has_told(await asyncio.to_thread(agent.denied.dropped))
        await agent.idle()

    asyncio.run(told())
    cut.server.settimeout(3)
    for end in (cut.server, cut.client):
        with pytest.raises(ConnectionResetError):
            end.recv(10)
    kept.exchange()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_dual", [False, True])
def test_who_listens_goes_on_listening_when_a_connection_to_it_is_ended_twice(version: int, is_dual: bool) -> None:
    """The kernel takes the one that listens for the socket of a connection that has none."""
    place, door = CurrentNamespace(), Kernel(CurrentNamespace(), KernelOpener())
    ip = "127.0.0.1" if version == 4 else "::1"
    door.apply([Operation(None, Link(name="lo"))])
    ends = ("::", 0) if is_dual else (ip, 0)
    family = socket.AF_INET6 if ":" in ends[0] else socket.AF_INET
    with socket.create_server(ends, family=family, dualstack_ipv6=is_dual) as listener:
        at = (ip, listener.getsockname()[1])
        client = socket.create_connection(at)
        server = listener.accept()[0]
        one = Revoked(ip_address(ip), at[1], ip_address(ip), client.getsockname()[1])
        sockets = KernelOpener().sockets(place)
        assert [sockets.end_at_server([one]) for _ in range(3)] == [1, 0, 0]
        with pytest.raises(ConnectionAbortedError):
            server.recv(10)
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        with socket.create_connection(at):
            listener.settimeout(3)
            listener.accept()[0].close()
        sockets.close()


def test_where_connections_are_kept_those_that_were_let_pass_go_on_and_new_ones_are_denied() -> None:
    real = RealPoliced()
    real.settings = msgspec.structs.replace(real.settings, policies=PolicySettings(takes_back=False))
    for node in (1, 2):
        real.restart(node)
    real.put(policy("web", EVERYTHING, [PolicyRule((PodSelector(select(team="b")),))]))
    kept = talk(real, (2, 2), (1, 1), 4)
    real.put(policy("web", EVERYTHING, []))
    kept.exchange()
    with pytest.raises(TimeoutError):
        talk(real, (2, 2), (1, 1), 4)
    kept.exchange()
    kept.close()


def test_a_connection_ends_though_the_agent_was_killed_when_it_had_changed_its_tables() -> None:
    real = RealPoliced()
    only_b = [PolicyRule((PodSelector(select(team="b")),))]
    real.put(policy("web", EVERYTHING, only_b))
    cut, other = (talk(real, ends, (1, 1), 4) for ends in ((1, 2), (2, 2)))
    agent = real.agents[1]

    async def change_and_die() -> None:
        await agent.planner.replan(Pause())
        agent.writer.wake()
        await agent.writer.idle()

    real.caches[1].policies.set(
        policy("web", EVERYTHING, [PolicyRule((PodSelector(select(team="b"), LabelSelector.of([NOT_X])),))])
    )
    real.caches[1].pods.set(info(1, 2, {"app": "x"}))
    asyncio.run(change_and_die())
    cut.exchange()
    agent._effects.judge._planned.clear()
    real.restart(1)
    real.settle()
    with pytest.raises((ConnectionError, TimeoutError, AssertionError)):
        cut.exchange()
    other.exchange()
    other.close()


class Datagrams:
    """UDP from one pod to another, each end at a port of its own; the other one has answered, so the connection is known."""

    def __init__(self, real: RealPoliced, client: tuple[int, int], server: tuple[int, int], to: int = 53) -> None:
        ends = ((client, 5000), (server, to))
        self.client, self.server = (bound(real.namespaces[name_of(*one)], str(pod_ip(*one)), port) for one, port in ends)
        for _ in range(2):
            assert arrives(self.client, self.server) and arrives(self.server, self.client)


def bound(place: Namespace, ip: str, port: int) -> socket.socket:
    one = place.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((ip, port))
    one.settimeout(0.1)
    return one


def arrives(sender: socket.socket, receiver: socket.socket) -> bool:
    """Does a datagram?"""
    with contextlib.suppress(PermissionError):
        sender.sendto(b"x", receiver.getsockname())
    try:
        return receiver.recvfrom(10)[1] == sender.getsockname()
    except TimeoutError:
        return False


def test_a_connection_that_is_denied_and_allowed_again_passes_again_each_time_and_not_between() -> None:
    """Of UDP, whose client goes on sending from the same port: its entry never ends by itself."""
    real = RealPoliced()
    allowing = policy("web", EVERYTHING, [PolicyRule((PodSelector(select(team="b")),))])
    real.put(allowing)
    known = [Datagrams(real, client, (1, 1), port) for client, port in (((1, 2), 53), ((2, 2), 54))]
    for _ in range(3):
        real.put(policy("web", EVERYTHING, []))
        for one in known:
            assert not arrives(one.client, one.server) and not arrives(one.server, one.client)
            assert not arrives(one.client, one.server)
        real.put(allowing)
        for one in known:
            assert arrives(one.client, one.server) and arrives(one.server, one.client)


def test_pods_find_their_gateway_and_their_peers_under_policies_in_both_families() -> None:
    """N11 (cilium/cilium#16285): what denies everything but TCP 80 from one pod does not deny what IPv6 needs of its link, nor ARP."""
    real = RealPoliced()
    port_80 = (PolicyPort("TCP", (80, 80)),)
    real.put(
        info(1, 1, {"app": "web"}),
        info(2, 2, {"app": "client"}),
        policy("none", EVERYTHING, [], []),
        policy("none", EVERYTHING, [], [], namespace="b"),
        policy("web", select(app="web"), [PolicyRule((PodSelector("b", select(app="client")),), port_80)]),
        policy(
            "client", select(app="client"), egress=[PolicyRule((PodSelector("a", select(app="web")),), port_80)], namespace="b"
        ),
    )
    for place in (real.namespaces[name_of(*one)] for one in ((1, 1), (1, 2), (2, 2))):
        assert place.run(subprocess.run, ["ip", "neigh", "flush", "dev", "eth0", "nud", "all"]).returncode == 0
    for version in (4, 6):
        talk(real, (2, 2), (1, 1), version).exchange()
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        for client, server, port in (((1, 2), (1, 1), 80), ((2, 1), (1, 1), 80), ((2, 2), (1, 1), 81), ((1, 1), (2, 2), 80)):
            with real.namespaces[name_of(*client)].run(socket.socket, family, socket.SOCK_STREAM) as one:
                one.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    one.connect((str(pod_ip(*server, version)), port))


def replace_pod(real: RealPoliced) -> Namespace:
    """The pod a/node1-pod1 goes, and a/late has its addresses."""
    network = real.agents[1].network
    (request, ips), *_ = (one for one in network.attached if one[0].name == name_of(1, 1))
    asyncio.run(network.delete(request))
    real.remove(info(1, 1))
    late = SlimMetadata("late", "a", "late", Labels({"app": "late"}))
    real.put(msgspec.structs.replace(info(1, 1), metadata=late))
    place = real.namespace("late")
    attached = asyncio.run(network.add(Attachment("late", "late", "a", "late", place, requested_ips=ips)))
    assert attached.ips == ips
    return place


def test_a_pod_with_the_address_of_a_former_one_inherits_none_of_its_connections_whichever_way() -> None:
    """kubernetes/kubernetes#100698 and its kind: of those that the former one had begun, or taken; here, and on other nodes."""
    real = RealPoliced()
    old = PolicyRule((PodSelector("a", select(app="old")),))
    real.put(info(1, 1, {"app": "old"}), policy("ask", EVERYTHING, egress=[old], namespace="b"))
    taken, begun = Datagrams(real, (2, 2), (1, 1)), Datagrams(real, (1, 1), (1, 2))
    real.put(policy("late", select(app="late"), egress=[]))
    own = begun.client.getsockname()
    taken.server.close()
    begun.client.close()
    late = replace_pod(real)
    server, client = bound(late, own[0], 53), bound(late, *own)
    assert not arrives(server, taken.client), "as if it answered"
    assert not arrives(taken.client, server), "its sender may send to the former one only"
    assert not arrives(client, begun.server)
    assert not arrives(begun.server, client), "no answer to it"
    real.remove(policy("ask", EVERYTHING, namespace="b"), policy("late", EVERYTHING))
    assert arrives(client, begun.server), "they were policies that kept it from that"


def _is_over(one: socket.socket) -> bool:
    """Is a connection in no state in which it could send?"""
    return one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE


def test_the_longest_way_through_all_tiers_of_both_directions_is_one_that_the_kernel_takes() -> None:
    """It refuses ways of more than 15 jumps, and every pod on them: rules with many ports and peers have chains of their own."""
    ports = tuple(PolicyPort("TCP", (1000 * n, 1000 * n + 5)) for n in range(1, 8))
    peers = tuple(PodSelector("a", select(app=f"a{n}")) for n in range(8))
    assert len(ports) * len(peers) > compiling.INLINE_RULES
    rules = [PolicyRule(peers, ports, action) for action in ("Deny", "Accept", "Pass")]
    for cluster in (RealPoliced(), FakePoliced()):
        admin = cluster_policy("admin", "Admin", 5, PodSelector(select(team="a")), rules, rules)
        base = cluster_policy("base", "Baseline", 5, PodSelector(select(team="b")), rules, rules)
        below = policy("below", EVERYTHING, [PolicyRule(peers, ports)], [PolicyRule(peers, ports)])
        cluster.put(admin, base, below)
        cluster.remove(below)


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not there")
def test_nft_reads_the_base_chains_as_they_are_written_here() -> None:
    real = RealPoliced()
    family, table = TABLE
    listed = subprocess.run(["nft", "list", "table", family, table], check=True, capture_output=True, text=True).stdout
    own = [v for v in real.agents[1].ledger.desired.values() if isinstance(v, Table | Chain) and (v.family, v.table) == TABLE]
    written = nft.tables(own)
    for name in ("forward", "input", "egress", "to-node", "own-node", "ingress", "pass", "revoke"):
        assert _as_nft_has_it(_chain(name, written)) == _chain(name, listed) != ""


def _as_nft_has_it(text: str) -> str:
    """Ports in nft's short form; a MAC in an inet table, where nft has no name for it, by its place."""
    by_name = re.sub(r"meta l4proto udp th sport (0x\w+) th dport (0x\w+)", _ports, text)
    return by_name.replace("ether saddr . ", "@ll,48,48 . ")


def _ports(found: re.Match[str]) -> str:
    source, destination = (int(one, 16) for one in found.groups())
    return f"udp sport {source} udp dport {destination}"


def _chain(name: str, text: str) -> str:
    """One chain of a table's text."""
    return text.partition(f"\tchain {name} {{\n")[2].partition("\n\t}\n")[0]


@pytest.mark.parametrize(("version", "group"), [(4, "255.255.255.255"), (4, "224.0.0.251"), (6, "ff05::fb")])
def test_multicasts_and_broadcasts_of_a_pod_reach_no_other_of_its_node(version: int, group: str) -> None:
    """No policy knows who gets them, so one that denies all ingress could not keep them from its pods."""
    real, family = RealPoliced(), socket.AF_INET if version == 4 else socket.AF_INET6
    ends = [real.namespaces[name_of(1, pod)].run(socket.socket, family, socket.SOCK_DGRAM) for pod in (1, 2)]
    sender, receiver = ends
    for one in ends:
        one.bind(("", 5353))
        one.settimeout(0.3)
        if version == 6:
            index = real.namespaces[name_of(1, 1)].run(socket.if_nametoindex, "eth0")
            one.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(family, group) + struct.pack("=I", index)
            )
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        elif group.startswith("224"):
            one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4sII", socket.inet_aton(group), 0, 0))
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sender.sendto(b"x", (group, 5353))
    sender.sendto(b"y", (str(pod_ip(1, 2, version)), 5353))
    assert receiver.recvfrom(10)[0] == b"y", "only what was sent to itself"
    for one in ends:
        one.close()


def test_broadcasts_to_the_pods_of_a_node_are_not_what_reaches_the_node() -> None:
    real = RealPoliced()
    node = real.namespaces["node1"].run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    pod = real.namespaces[name_of(1, 1)].run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    node.bind(("", 5353))
    node.settimeout(5)
    pod.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    pod.sendto(b"x", ("10.244.1.255", 5353))
    pod.sendto(b"y", (str(pod_ip(1, 0, 4)), 5353))
    assert node.recvfrom(10)[0] == b"y"
    for one in (node, pod):
        one.close()


def send(real: RealPoliced, sender: tuple[int, int], to: str, port: int, count: int = 1) -> None:
    """Datagrams, each the first of a flow of its own."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    for _ in range(count):
        with real.namespaces[name_of(*sender)].run(socket.socket, family, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (to, port))


def denied(real: RealPoliced, node: int = 1) -> DeniedFlows:
    """What a node says that it denied; what it has just denied, too."""
    log = real.agents[node].denied
    dropped = log.dropped()
    asyncio.run(log.has_told(dropped))
    return log.flows(0, dropped)


def test_what_policies_deny_is_told_by_name_and_counted_through_changes_and_restarts() -> None:
    """cilium/cilium#16285: not so neighbour discovery, which is never denied; kubernetes/kubernetes#79512."""
    real = RealPoliced()
    (v4, v6), of_b = (str(pod_ip(1, 1, version)) for version in (4, 6)), PodSelector(select(team="b"))
    only_b = PolicyRule((of_b,), (PolicyPort("UDP", (80, 80)),))
    real.put(policy("web", EVERYTHING, [only_b], []), info(1, 1, {"app": "web"}))
    send(real, (1, 2), v4, 80, 2)
    send(real, (1, 2), v4, 81, 3)
    send(real, (2, 1), v6, 80)
    send(real, (1, 1), "203.0.113.7", 53)
    found = {(one.source.name, one.destination.address, one.port): one for one in denied(real).flows}
    assert {key: one.packets for key, one in found.items()} == {
        ("b/node1-pod2", v4, 81): 3,
        ("a/node1-pod1", "203.0.113.7", 53): 1,
    }, "node2's own policy keeps its pod from sending"
    assert {(one.reason, one.policies) for one in found.values()} == {("in", ("a/web",)), ("out", ("a/web",))}
    (far,) = denied(real, 2).flows
    assert (far.reason, far.source.name, far.destination.name) == ("out", "a/node2-pod1", "a/node1-pod1")
    other = PolicyRule((PodSelector("b", select(app="nobody")),))
    real.put(policy("web", EVERYTHING, [other, only_b], []))
    send(real, (1, 2), v4, 80)
    send(real, (1, 2), v4, 81, 2)
    real.restart(1)
    send(real, (1, 2), v4, 80)
    send(real, (1, 2), v4, 81)
    counts = real.agents[1].policy_counts()()
    assert [(one.rule, one.connections) for one in counts.rules if one.direction == "ingress"] == [(1, 0), (2, 4)]
    assert {(one.direction, one.policies, one.packets) for one in counts.denials} == {
        ("ingress", ("a/web",), 6),
        ("egress", ("a/web",), 1),
    }
    (again,) = denied(real).flows
    assert (again.port, again.packets) == (81, 1), "a new agent begins a new list"


def test_of_a_flood_some_packets_are_told_and_all_are_counted() -> None:
    real = RealPoliced()
    real.put(policy("web", EVERYTHING, []), info(1, 1, {"app": "web"}))
    with real.namespaces[name_of(1, 2)].run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(20_000):
            client.sendto(b"x", (str(pod_ip(1, 1)), 9))
    found = denied(real)
    (flow,) = found.flows
    assert found.dropped == 20_000 and 100 <= flow.packets == found.told < 20_000


def test_a_connection_that_is_taken_back_is_told() -> None:
    real = RealPoliced()
    real.put(policy("web", EVERYTHING, [PolicyRule((PodSelector(select(team="b")),))]))
    one = talk(real, (2, 2), (1, 1), 4)
    real.put(policy("web", EVERYTHING, []))
    with pytest.raises((ConnectionError, TimeoutError, AssertionError)):
        one.exchange()
    (flow,) = denied(real).flows
    assert (flow.source.name, flow.destination.name, flow.protocol, flow.port) == ("b/node2-pod2", "a/node1-pod1", "tcp", 80)
