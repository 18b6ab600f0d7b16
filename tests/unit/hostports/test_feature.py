"""The plan of a pod's host ports: what it claims, what is said to be in vain, and which tracked connections are deleted."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.hostports.feature import HostPortMemory, HostPortPlan, plan
from podplane.hostports.model import HostPortClaim, resolve
from podplane.hostports.settings import HostPortSettings
from podplane.hostports.tables import TABLE, on_node
from podplane.model.objects import NodeAddress, NodeStatus
from podplane.model.view import HostPort, Sandbox
from podplane.state.conntrack import Frontend, Target
from podplane.state.effects import FlushConntrack, Warn
from podplane.state.network import Sysctl
from podplane.state.nft import Chain, Element, Set
from tests.plans import FAMILIES, config, node, sandbox

DUAL = (4, 6)
NODE, ON = node(1, DUAL), HostPortSettings()
CONFIG = msgspec.structs.replace(config(DUAL), service_cidrs=("10.96.0.0/16", "fd00:10:96::/112"))
ADDRESSES = ("192.168.1.10", "127.0.0.1")
"""The IPv4 addresses of node1 by which host ports are reached."""


def ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


def pod(number: int, *ports: HostPort, versions: tuple[int, ...] = DUAL) -> Sandbox:
    """Pod `number` of node1 with these host ports."""
    return msgspec.structs.replace(sandbox(number, versions), host_ports=ports)


def planned(memory: HostPortMemory, one: Sandbox, taken: frozenset[Hashable] = frozenset()) -> HostPortPlan:
    """The plan of a pod, accepted; the pod's name is the owner."""
    made = plan(one.name, one, NODE, CONFIG, ON, memory, taken)
    memory.accept(made)
    return made


def gone(memory: HostPortMemory, one: Sandbox) -> HostPortPlan:
    made = plan(one.name, None, NODE, CONFIG, ON, memory)
    memory.accept(made)
    return made


def flushed(made: HostPortPlan) -> dict[Frontend, frozenset[Target]]:
    return {
        key: found for effect in made.effects if isinstance(effect, FlushConntrack) for key, found in effect.allowed.items()
    }


def elements(made: HostPortPlan) -> dict[tuple[object, ...], object]:
    return {(v.set, *v.key): v.data for v in made.fragment.values() if isinstance(v, Element)}


def test_a_port_of_all_addresses_leads_to_the_pod_in_both_families() -> None:
    made = planned(HostPortMemory(), pod(1, HostPort(8080, 80)))
    four, six = ip("10.244.1.2"), ip("fd00:10:244:1::2")
    assert elements(made) == {
        ("ports4", "tcp", 8080): (four, 80),
        ("ports6", "tcp", 8080): (six, 80),
        ("hairpin4", four, four): None,
        ("hairpin6", six, six): None,
    }
    assert not made.effects and not made.contested


def test_every_element_and_rule_says_what_it_is_for() -> None:
    made = planned(HostPortMemory(), pod(1, HostPort(8080, 80), HostPort(53, 53, "UDP", "127.0.0.1")))
    assert {v.comment for v in made.fragment.values() if isinstance(v, Element)} == {"pod/default/pod1"}
    chains = [v for v in on_node(NODE, CONFIG, is_used=True).values() if isinstance(v, Chain)]
    assert all(rule.comment for chain in chains for rule in chain.rules)


@pytest.mark.parametrize(
    ("host_ip", "found"),
    [
        ("127.0.0.1", {("addressed4", ip("127.0.0.1"), "tcp", 8080)}),
        ("fd00:192:168:1::10", {("addressed6", ip("fd00:192:168:1::10"), "tcp", 8080)}),
        ("0.0.0.0", {("ports4", "tcp", 8080)}),
        ("::", {("ports6", "tcp", 8080)}),
    ],
)
def test_a_host_ip_counts_for_its_own_family_only(host_ip: str, found: set[object]) -> None:
    made = planned(HostPortMemory(), pod(1, HostPort(8080, 80, "TCP", host_ip)))
    assert {key for key in elements(made) if not str(key[0]).startswith("hairpin")} == found
    assert not made.effects


@pytest.mark.parametrize(
    ("port", "why"),
    [
        (HostPort(8080, 80, "TCP", "fe80::1%eth0"), "8080/tcp is not served: hostIP is fe80::1%eth0"),
        (
            HostPort(8080, 80, "TCP", "fe80::1"),
            "8080/tcp is not served: hostIP is fe80::1, which is good on one interface only",
        ),
        (
            HostPort(53, 53, "UDP", "10.244.1.1"),
            "53/udp is not served: hostIP 10.244.1.1 is in 10.244.1.0/24, where addresses are",
        ),
        (
            HostPort(53, 53, "TCP", "10.96.0.10"),
            "53/tcp is not served: hostIP 10.96.0.10 is in 10.96.0.0/16, where addresses are",
        ),
        (HostPort(53, 53, "UDP", "fd00:10:244:1::1"), "53/udp is not served: hostIP fd00:10:244:1::1 is in fd00:10:244:1::/64"),
        (HostPort(53, 53, "UDP", "localhost"), "53/udp is not served: hostIP 'localhost' is no IP address"),
        (HostPort(53, 53, "DCCP"), "53/dccp is not served: DCCP is none of TCP, UDP, SCTP"),
        (HostPort(10256, 80), "10256/tcp is not served: the node's agent listens on it"),
        (HostPort(9153, 80), "9153/tcp is not served: the node's name server listens on it"),
        (HostPort(4789, 80, "UDP"), "4789/udp is not served: packets of pods come to it from other nodes (VXLAN)"),
    ],
)
def test_what_can_t_be_served_is_said_and_the_rest_is_served(port: HostPort, why: str) -> None:
    made = planned(HostPortMemory(), pod(1, port, HostPort(9090, 90)))
    assert [effect.reason for effect in made.effects if isinstance(effect, Warn)] == [
        next(e.reason for e in made.effects if isinstance(e, Warn) and why in e.reason)
    ]
    assert ("ports4", "tcp", 9090) in elements(made) and not any(8080 in key or 53 in key for key in elements(made))


def test_a_host_ip_that_the_node_does_not_name_is_doubted_and_served_if_the_machine_has_it() -> None:
    made = planned(HostPortMemory(), pod(1, HostPort(8080, 80, "TCP", "1.2.3.4"), HostPort(80, 80, "TCP", "127.0.0.2")))
    assert ("addressed4", ip("1.2.3.4"), "tcp", 8080) in elements(made)
    said = "host port 8080/tcp: hostIP 1.2.3.4 is no address of the Node (192.168.1.10, fd00:192:168:1::10)"
    assert made.effects == (Warn(f"{said}: it leads to the pod only if the machine has it", is_doubt=True),)
    public = NodeAddress("ExternalIP", "1.2.3.4")
    known = msgspec.structs.replace(NODE, status=NodeStatus(addresses=(*NODE.status.addresses, public)))
    assert not plan("a", pod(1, HostPort(8080, 80, "TCP", "1.2.3.4")), known, CONFIG, ON, HostPortMemory()).effects


def test_a_port_of_the_loopback_address_of_ipv6_is_served_and_doubted() -> None:
    """Kubernetes' own test of host ports, on a cluster with IPv6 first, has such a pod, and asks from another address."""
    made = planned(HostPortMemory(), pod(1, HostPort(53, 53, "UDP", "::1")))
    assert ("addressed6", ip("::1"), "udp", 53) in elements(made)
    said = "host port 53/udp: hostIP ::1 is reached only from another address of the node: the kernel has no route_localnet"
    assert [one.reason for one in made.effects if isinstance(one, Warn) and one.is_doubt] == [f"{said} for IPv6"]
    assert flushed(made) == {Frontend("udp", ip("::1"), 53): frozenset({Target(ip("fd00:10:244:1::2"), 53)})}


@pytest.mark.parametrize(
    ("port", "listeners", "said"),
    [
        (HostPort(22, 22), [("tcp", 22, "0.0.0.0"), ("tcp", 22, "::")], "22/tcp leads to the pod: … (0.0.0.0, ::)"),
        (HostPort(22, 22), [("tcp", 22, "127.0.0.1"), ("tcp", 23, "0.0.0.0")], "22/tcp leads to the pod: … (127.0.0.1)"),
        (
            HostPort(53, 53, "UDP"),
            [("udp", 53, "192.168.1.10"), ("tcp", 53, "::")],
            "53/udp leads to the pod: … (192.168.1.10)",
        ),
        (HostPort(22, 22, "TCP", "192.168.1.10"), [("tcp", 22, "::")], "22/tcp leads to the pod: … (::)"),
        (HostPort(22, 22, "TCP", "192.168.1.10"), [("tcp", 22, "127.0.0.1")], ""),
        (HostPort(53, 53, "UDP"), [("udp", 53, "10.244.1.1"), ("udp", 53, "fd00:10:244:1::1"), ("udp", 53, "::1")], ""),
        (HostPort(22, 22), [], ""),
    ],
)
def test_a_server_of_the_node_whose_clients_a_pod_gets_is_named(
    port: HostPort, listeners: list[tuple[str, int, str]], said: str
) -> None:
    found = [(protocol, number, ip(address)) for protocol, number, address in listeners]
    made = plan("a", pod(1, port), NODE, CONFIG, ON, HostPortMemory(), listeners=found)
    what = "what listens on it on the node"
    expected = f"host port {said.replace('…', what)} is not reached by it any more"
    assert [one for one in made.effects if isinstance(one, Warn)] == ([Warn(expected, is_doubt=True)] if said else [])
    assert any(key[0] in ("ports4", "addressed4") for key in elements(made)), "it is served all the same"


def test_a_host_ip_of_a_family_that_the_pod_lacks_is_said() -> None:
    table = resolve(pod(1, HostPort(8080, 80, "TCP", "::"), versions=(4,)), (4,))
    assert not table.targets
    assert table.unserved == ("host port 8080/tcp is not served: hostIP is ::, and the pod has no IPv6 address",)


def test_of_two_equal_ports_of_one_pod_the_first_counts() -> None:
    made = planned(HostPortMemory(), pod(1, HostPort(8080, 80), HostPort(8080, 81)))
    assert elements(made)["ports4", "tcp", 8080] == (ip("10.244.1.2"), 80)


def test_a_pod_of_another_one_s_port_contests_it_and_does_without_when_told() -> None:
    memory = HostPortMemory()
    planned(memory, pod(1, HostPort(8080, 80)))
    second = pod(2, HostPort(8080, 80), HostPort(8081, 80))
    made = plan("pod2", second, NODE, CONFIG, ON, memory)
    assert made.contested == {HostPortClaim(v, "tcp", 8080): "pod1" for v in DUAL}
    assert str(next(iter(made.contested))) == "host port 8080/tcp of all IPv4 addresses"
    without = planned(memory, second, frozenset(made.contested))
    assert not without.contested
    assert {key for key in elements(without) if str(key[0]).startswith("ports")} == {(f"ports{v}", "tcp", 8081) for v in DUAL}


def test_ports_of_different_protocols_or_addresses_are_not_contested() -> None:
    memory = HostPortMemory()
    planned(memory, pod(1, HostPort(53, 53, "UDP"), HostPort(80, 80, "TCP", "127.0.0.1")))
    assert not plan("pod2", pod(2, HostPort(53, 53, "TCP"), HostPort(80, 80)), NODE, CONFIG, ON, memory).contested


def test_a_plan_that_is_given_up_claims_nothing() -> None:
    memory = HostPortMemory()
    plan("pod1", pod(1, HostPort(8080, 80)), NODE, CONFIG, ON, memory)
    assert not plan("pod2", pod(2, HostPort(8080, 80)), NODE, CONFIG, ON, memory).contested


def test_nothing_is_kept_of_a_pod_that_is_gone() -> None:
    memory, one = HostPortMemory(), pod(1, HostPort(8080, 80), HostPort(53, 53, "UDP"))
    planned(memory, one)
    assert not gone(memory, one).fragment
    assert memory.holder(HostPortClaim(4, "tcp", 8080)) is None
    assert not memory.after_repair()


# Tracked connections.


def test_connections_of_tcp_end_with_the_pod() -> None:
    memory, one = HostPortMemory(), pod(1, HostPort(8080, 80))
    assert not flushed(planned(memory, one)) and not flushed(gone(memory, one)) and not memory.after_repair()


@pytest.mark.parametrize("protocol", ["UDP", "SCTP"])
def test_connections_to_a_port_that_comes_or_goes_are_deleted(protocol: str) -> None:
    memory, one = HostPortMemory(), pod(1, HostPort(53, 5353, protocol), versions=(4,))
    frontends = {Frontend(protocol.lower(), ip(text), 53) for text in ADDRESSES}
    to_pod = frozenset({Target(ip("10.244.1.2"), 5353)})
    assert flushed(planned(memory, one)) == dict.fromkeys(frontends, to_pod)
    assert not flushed(planned(memory, one)), "nothing changed"
    assert dict(memory.after_repair()[0].allowed) == dict.fromkeys(frontends, to_pod)
    assert flushed(gone(memory, one)) == dict.fromkeys(frontends, frozenset())


def test_a_port_of_one_address_keeps_its_connections_when_the_port_of_all_comes_and_goes() -> None:
    memory = HostPortMemory()
    planned(memory, pod(1, HostPort(53, 53, "UDP", ADDRESSES[0])))
    second = pod(2, HostPort(53, 53, "UDP"), versions=(4,))
    first_target, second_target = (frozenset({Target(ip(f"10.244.1.{n}"), 53)}) for n in (2, 3))
    frontends = [Frontend("udp", ip(text), 53) for text in ADDRESSES]
    assert flushed(planned(memory, second)) == dict(zip(frontends, (first_target, second_target), strict=True))
    assert flushed(gone(memory, second)) == dict(zip(frontends, (first_target, frozenset()), strict=True))


def test_what_one_address_loses_goes_to_the_port_of_all() -> None:
    memory, one = HostPortMemory(), pod(1, HostPort(53, 53, "UDP", ADDRESSES[0]))
    planned(memory, one)
    planned(memory, pod(2, HostPort(53, 53, "UDP")))
    assert flushed(gone(memory, one)) == {Frontend("udp", ip(ADDRESSES[0]), 53): frozenset({Target(ip("10.244.1.3"), 53)})}


# What is on the node.


@pytest.mark.parametrize("versions", FAMILIES.values(), ids=FAMILIES)
def test_the_table_is_there_while_a_port_is_used(versions: tuple[int, ...]) -> None:
    unused, used = (on_node(node(1, versions), config(versions), is_used=one) for one in (False, True))
    assert {type(value) for value in unused.values()} == {Sysctl}
    route_localnet = next(value for value in used.values() if isinstance(value, Sysctl))
    assert route_localnet == Sysctl(name="net.ipv4.conf.cbr0.route_localnet", value="1" if 4 in versions else "0", link="cbr0")
    guards = [value for value in used.values() if isinstance(value, Chain) and value.name == "localnet"]
    assert len(guards) == (route_localnet.value == "1"), "the sysctl never comes without the rules that guard it"
    assert {(v.family, v.table) for v in used.values() if isinstance(v, Chain)} == {TABLE}


def test_a_node_without_blocks_has_nothing() -> None:
    own = msgspec.structs.replace(NODE, spec=msgspec.structs.replace(NODE.spec, pod_cidrs=()))
    assert not on_node(own, CONFIG, is_used=True)
    assert not plan("pod1", pod(1, HostPort(8080, 80)), own, CONFIG, ON, HostPortMemory()).fragment


PORTS = st.builds(
    HostPort,
    st.sampled_from((53, 80)),
    st.sampled_from((53, 80)),
    st.sampled_from(("TCP", "UDP", "SCTP")),
    st.sampled_from(("", "0.0.0.0", "::", *ADDRESSES, "fd00:192:168:1::10", "::1")),
)


@given(st.lists(st.tuples(st.integers(1, 3), st.lists(PORTS, max_size=3), st.booleans()), max_size=12))
def test_nobody_shares_a_port_and_every_element_fits_its_set(steps: list[tuple[int, list[HostPort], bool]]) -> None:
    """Whatever comes and goes: the holders are those who have the elements, and what is allowed is where elements lead."""
    memory, wanted = HostPortMemory(), {}
    shapes = {v.name: v for v in on_node(NODE, CONFIG, is_used=True).values() if isinstance(v, Set)}
    for number, ports, stays in steps:
        one = pod(number, *ports)
        made = plan(one.name, one if stays else None, NODE, CONFIG, ON, memory)
        made = planned(memory, one, frozenset(made.contested)) if stays else gone(memory, one)
        wanted[number] = made
        for element in (v for v in made.fragment.values() if isinstance(v, Element)):
            assert len(element.key) == len(shapes[element.set].key) and bool(element.data) == bool(shapes[element.set].data)
        held = [key for other in wanted.values() for key in elements(other) if not str(key[0]).startswith("hairpin")]
        assert len(held) == len(set(held)) == len(memory._holders)  # what is held is not asked for otherwise
        assert all(flushed(made)[key] == _leads(wanted, key) for key in flushed(made))


def _leads(wanted: dict[int, HostPortPlan], frontend: Frontend) -> frozenset[object]:
    """Where elements lead packets to a frontend: the map of addresses first."""
    found: dict[tuple[object, ...], object] = {}
    for made in wanted.values():
        found |= elements(made)
    version = frontend.ip.version
    key = (frontend.protocol, frontend.port)
    target = found.get((f"addressed{version}", frontend.ip, *key)) or found.get((f"ports{version}", *key))
    return frozenset((target,)) if target else frozenset()
