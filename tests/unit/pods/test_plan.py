"""What a pod adds to its node: a few values, however many pods there are; and what keeps others from being resolved."""

from __future__ import annotations

import ipaddress
from collections import Counter

import msgspec
import pytest

from podplane.model.view import View
from podplane.nodes import plan as nodes
from podplane.nodes.settings import NodeSettings
from podplane.pods import bridge, plan
from podplane.state.network import Address, Fdb, Link, Neighbour, Route, Sysctl
from podplane.state.nft import Chain, Element
from podplane.state.value import Fragment
from tests.plans import FAMILIES, config, node, sandbox


def pod(number: int, versions: tuple[int, ...], **settings: object) -> Fragment:
    """The plan of one pod of node1."""
    view = View("node1", {"node1": node(1, versions)})
    return plan.plan(sandbox(number, versions), view, msgspec.structs.replace(config(versions), **settings))


@pytest.mark.parametrize("name", FAMILIES)
def test_one_more_pod_costs_a_route_and_an_element_for_each_address(name: str) -> None:
    versions = FAMILIES[name]
    for number in (1, 60):
        on_node = [v for v in pod(number, versions).values() if not v.netns]
        counts = Counter(type(v) for v in on_node)
        each = len(versions)
        assert counts == {
            Link: 1,
            Sysctl: 1,
            Fdb: 1,
            Neighbour: each + (6 in versions),
            Route: each,
            Element: 2 * each + (4 in versions),
        }


def test_comments_say_whether_it_is_a_pod_or_another_container() -> None:
    for namespace, name in (("default", "pod/default/pod1"), ("", "container/pod1")):
        one = msgspec.structs.replace(sandbox(1, (4, 6)), namespace=namespace)
        values = plan.plan(one, View("node1", {"node1": node(1, (4, 6))}), config((4, 6))).values()
        assert {v.alias for v in values if isinstance(v, Link) and not v.netns} == {f"podplane {name}"}
        assert {v.comment for v in values if isinstance(v, Element)} == {name}


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_but_the_gateway_is_a_pods_neighbour(name: str) -> None:
    in_pod = [v for v in pod(1, FAMILIES[name]).values() if v.netns]
    addresses = [v for v in in_pod if isinstance(v, Address)]
    assert addresses and all(v.prefix_length == v.ip.max_prefixlen for v in addresses)
    routes = [v for v in in_pod if isinstance(v, Route)]
    assert len(routes) == len(addresses) and all(v.destination.prefixlen == 0 and v.onlink for v in routes)
    assert {v.ip for v in in_pod if isinstance(v, Neighbour) and not v.ip.is_multicast} == {v.gateway for v in routes}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_block_of_a_node_is_unreachable_but_for_its_pods(name: str) -> None:
    versions = FAMILIES[name]
    own = node(1, versions)
    values = nodes.plan(own, config(versions), NodeSettings()).values()
    blocks = [v for v in values if isinstance(v, Route)]
    assert [(str(v.destination), v.kind) for v in blocks] == [(block, "unreachable") for block in own.spec.pod_cidrs]
    on_bridge = [v for v in values if isinstance(v, Address)]
    assert on_bridge and all(v.prefix_length == v.ip.max_prefixlen for v in on_bridge)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gateway_is_not_in_the_map_and_each_pod_is(name: str) -> None:
    """A packet to the gateway itself must go to the node."""
    versions = FAMILIES[name]
    values = [*bridge.plan(node(1, versions), config(versions)).values(), *pod(1, versions).values()]
    elements = [v for v in values if isinstance(v, Element) and v.set.startswith("macs")]
    assert {v.key[0] for v in elements} == set(map(ipaddress.ip_address, sandbox(1, versions).ips))
    (link,) = (v for v in values if isinstance(v, Link) and v.peer)
    assert link.peer and {v.data for v in elements} == {(link.peer.mac,)}


def test_without_the_bridge_family_there_is_no_table() -> None:
    both = (4, 6)
    settings = msgspec.structs.replace(config(both), bridge_family=False)
    assert bridge.plan(node(1, both), settings) == {}
    assert not [v for v in pod(1, both, bridge_family=False).values() if isinstance(v, Element)]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_sees_packets_by_their_translated_destination(name: str) -> None:
    """That is behind br_netfilter (NF_BR_PRI_BRNF, 0), whatever leads to a pod."""
    versions = FAMILIES[name]
    values = bridge.plan(node(1, versions), config(versions)).values()
    early, chain = sorted((v for v in values if isinstance(v, Chain) and v.hook), key=lambda one: one.hook.priority)  # type: ignore[union-attr]
    assert chain.hook and chain.hook.hook == "prerouting" and chain.hook.priority > 0
    assert len(chain.rules) == 8 + len(versions)
    assert early.hook and (early.name, early.hook.hook) == ("fragments", "prerouting") and early.hook.priority < 0


def test_the_mtu_of_pods_may_be_smaller_than_that_of_the_uplink() -> None:
    view = View("node1", {"node1": node(1, (4,))})
    values = [*nodes.plan(node(1, (4,)), config((4,)), NodeSettings(), 1450).values()]
    values += plan.plan(sandbox(1, (4,)), view, config((4,)), 1450).values()
    links = [v for v in values if isinstance(v, Link) and v.kind]
    assert [v.mtu for v in links] == [1450, 1450] and [v.peer.mtu for v in links if v.peer] == [1450]
