"""The real kernel behind the door: what is applied is there, what is refused is named, and `ip` and `nft` agree on it."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.errors import Exists, NotFound
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.kernel.rtnl import reading
from podplane.kernel.text import ip, nft
from podplane.model.config import ROUTE_PROTOCOL
from podplane.model.view import Sandbox, View
from podplane.pods import plan as pods
from podplane.state.network import Address, Fdb, Link, Neighbour, Peer, Route, Sysctl, Vxlan
from podplane.state.network import Rule as PolicyRule
from podplane.state.nft import Chain, Element, NftValue, Set, Table
from podplane.state.nft_rules import counter, destination_not_in_set, family, rule
from podplane.state.operations import Operation, diff
from podplane.state.ownership import link_alias
from podplane.state.value import Value, fragment
from tests.plans import FAMILIES, OWNER, build, config, node, wanted

pytestmark = pytest.mark.kernel
ROUTE = {"protocol": ROUTE_PROTOCOL}


def door() -> Kernel:
    """The kernel of this test's own network namespace."""
    return Kernel(CurrentNamespace(), KernelOpener())


def built(name: str) -> tuple[Kernel, list[NetworkNamespace]]:
    """A node with two pods in this namespace."""
    workers = Workers(1)
    namespaces = [NetworkNamespace.create(workers), NetworkNamespace.create(workers)]
    kernel = door()
    places: list[Namespace] = list(namespaces)
    report = build(kernel, places, FAMILIES[name])
    assert not report.failed, [str(f) for f in report.failed]
    return kernel, namespaces


def tool(*words: str) -> str:
    """Output of a real tool."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def squeezed(text: str) -> set[str]:
    """Lines without double blanks."""
    return {" ".join(line.split()) for line in text.splitlines()}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_applied_is_read_back(name: str) -> None:
    kernel, _ = built(name)
    want = {i: v for i, v in wanted(FAMILIES[name]).items() if not v.netns}
    names = [v.name for v in want.values() if isinstance(v, Sysctl)]
    found = kernel.read(OWNER, names)
    assert set(found) == set(want)
    assert [str(v) for i, v in want.items() if not kernel.matches(v, found[i])] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_nft_lists_what_our_text_says(name: str) -> None:
    kernel, _ = built(name)
    values = [v for v in kernel.read(OWNER).values() if isinstance(v, NftValue)]
    for place in OWNER.tables:
        own = nft.tables(v for v in values if (v.family, v.table) == place)
        assert _blocks(own) == _blocks(_without_its_names(tool("nft", "list", "table", *place)))


NAMES = {
    "ether type != ip ether type != ip6": "ether type != 08:00 ether type != 86:dd",
    "meta protocol ip ether daddr": "ether type 08:00 ether daddr",
    "meta protocol ip6 ether daddr": "ether type 86:dd ether daddr",
    "icmpv6 type nd-router-solicit": "meta protocol ip6 meta l4proto ipv6-icmp @th,0,8 0x85",
    "icmpv6 type nd-neighbor-solicit": "meta protocol ip6 meta l4proto ipv6-icmp @th,0,8 0x87",
    "ip frag-off & 0x3fff != 0x0": "ip frag-off & 16383 != 0",
    "arp htype 1 arp ptype ip arp hlen 6 arp plen 4": "ether type 08:06 @nh,0,48 0x108000604",
    "arp saddr ether . arp saddr ip": "@nh,64,48 . @nh,112,32",
}
"""What nft calls fields that our text has no name for, and which of two matches it leaves out."""


def _without_its_names(text: str) -> str:
    for name, plain in NAMES.items():
        text = text.replace(name, plain)
    return re.sub(r"packets \d+ bytes \d+", "packets 0 bytes 0", text)


def _blocks(text: str) -> list[list[str]]:
    """Sets and chains of a table, and elements of a set, in an order that doesn't depend on hashes."""
    blocks = []
    for block in re.split(r"\n\n|\{\n(?=\t(?:set|map|chain))", text.strip().removesuffix("}")):
        found = re.search(r"elements = \{ (.*) \}", block, re.DOTALL)
        elements = sorted(re.split(r",\s+", found[1])) if found else []
        rest = block.replace(found[0], "") if found else block
        blocks.append([*(line.strip() for line in rest.splitlines() if line.strip()), *elements])
    return sorted(blocks)


@pytest.mark.parametrize("name", FAMILIES)
def test_ip_shows_what_our_text_says(name: str) -> None:
    kernel, _ = built(name)
    found = [v for v in kernel.read(OWNER).values() if not str(v.identity[0]).startswith("nft")]
    shown = squeezed(tool("ip", "route", "show") + tool("ip", "-6", "route", "show"))
    shown = {line.replace(" linkdown", "") for line in shown}  # the bridge gets its carrier a moment after its first pod
    assert {line for line in shown if "proto 80" in line} == {ip.line(v) for v in found if isinstance(v, Route)}
    permanent = squeezed(
        tool("ip", "neigh", "show", "nud", "permanent") + tool("ip", "-6", "neigh", "show", "nud", "permanent")
    )
    assert permanent == {ip.line(v) for v in found if isinstance(v, Neighbour)}
    addresses = squeezed(tool("ip", "-o", "address", "show", "dev", "cbr0"))
    shown = {line.split(": ")[1].split("\\")[0].strip() for line in addresses if "scope link" not in line}
    assert shown == {ip.line(v) for v in found if isinstance(v, Address)}


def test_a_pod_of_the_longest_name_has_a_link_that_names_it() -> None:
    kernel, _ = built("dual")
    workers = Workers(1)
    kernel.attach("pod/long", NetworkNamespace.create(workers))
    longest = Sandbox("n" * 63, "p" * 253, "long", "long", "pod/long", ("10.244.1.9",))
    plan = pods.plan(longest, View("node1", {"node1": node(1, (4, 6))}), config((4, 6)))
    report = kernel.apply(diff({}, plan))
    assert not report.failed, [str(f) for f in report.failed]
    (link,) = (value for value in plan.values() if isinstance(value, Link) and not value.netns)
    assert kernel.matches(link, kernel.read(OWNER)[link.identity])
    assert link.alias.startswith(f"podplane pod/{'n' * 63}/pppp")


def test_ip_sees_links_with_alias_and_hairpin() -> None:
    kernel, _ = built("dual")
    links = {link["ifname"]: link for link in json.loads(tool("ip", "-j", "-d", "link", "show"))}
    for value in kernel.read(OWNER).values():
        if not isinstance(value, Link):
            continue
        shown = links[value.name]
        assert (shown["mtu"], shown["address"], shown["ifalias"]) == (value.mtu, value.mac, value.alias)
        assert shown["linkinfo"]["info_kind"] == value.kind
        assert shown.get("master", "") == value.master
        assert shown["linkinfo"].get("info_slave_data", {}).get("hairpin", False) is value.hairpin


@pytest.mark.parametrize("name", FAMILIES)
def test_deleting_all_leaves_nothing_and_the_sysctls_as_they_were(name: str) -> None:
    kernel = door()
    before = kernel.read(OWNER, ["net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables"])
    workers = Workers(1)
    places: list[Namespace] = [NetworkNamespace.create(workers), NetworkNamespace.create(workers)]
    build(kernel, places, FAMILIES[name])
    report = kernel.apply(diff(wanted(FAMILIES[name]), {}))
    assert not report.failed, [str(f) for f in report.failed]
    assert kernel.read(OWNER, ["net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables"]) == before


@pytest.mark.parametrize("name", FAMILIES)
def test_change_and_revert_restores_the_state(name: str) -> None:
    kernel, _ = built(name)
    before = kernel.read(OWNER)
    routes = {i: v for i, v in wanted(FAMILIES[name]).items() if isinstance(v, Route) and not v.netns}
    for old, new in ((routes, {}), ({}, routes)):
        assert not kernel.apply(diff(old, new)).failed
    assert kernel.read(OWNER) == before


def operations(*values: Value) -> list[Operation]:
    """Creations."""
    return [Operation(None, value) for value in values]


def test_a_refused_operation_is_named_and_the_others_take_effect() -> None:
    kernel = door()
    good = Address(link="lo", ip=ipaddress.ip_address("10.9.9.9"), prefix_length=32)
    bad = Route(
        destination=ipaddress.ip_network("10.8.0.0/16"), gateway=ipaddress.ip_address("203.0.113.9"), link="lo", **ROUTE
    )
    report = kernel.apply(operations(Link(name="lo"), good, bad))
    assert [o.value for o in report.applied] == [Link(name="lo"), good]
    assert [f.operation.value for f in report.failed] == [bad]
    text = str(report.failed[0].error)
    assert text.startswith("route 10.8.0.0/16 via 203.0.113.9 dev lo: Nexthop has invalid gateway")


def test_thousands_of_routes_pass_the_socket_and_the_wrong_ones_among_them_are_named() -> None:
    kernel = door()
    kernel.apply(operations(Link(name="lo"), Link(name="br", kind="bridge")))
    good = [Route(destination=ipaddress.ip_network(f"10.{i >> 8}.{i & 255}.0/24"), link="br", **ROUTE) for i in range(3000)]
    values: list[Value] = list(good)
    gateway = ipaddress.ip_address("203.0.113.9")
    wrong = [Route(destination=ipaddress.ip_network(f"172.16.{i}.0/24"), gateway=gateway, link="br", **ROUTE) for i in range(5)]
    for position, value in enumerate(wrong):
        values.insert(position * 600, value)
    report = kernel.apply(operations(*values))
    assert [f.operation.value for f in report.failed] == wrong
    assert len([v for v in kernel.read(OWNER).values() if isinstance(v, Route)]) == 3000
    removal = kernel.apply([Operation(v, None) for v in good])
    assert not removal.failed
    assert not [v for v in kernel.read(OWNER).values() if isinstance(v, Route)]


def test_elements_beyond_one_transaction_and_a_wrong_one_among_them() -> None:
    kernel = door()
    place = {"family": "inet", "table": "podplane-nodes"}
    table, own = Table(**place), Set(**place, name="ports", key=("inet_service",))
    elements = [Element(**place, set="ports", key=(i,), comment=f"svc/default/s{i}:http") for i in range(1, 6001)]
    stray, no_port = Element(**place, set="nothing", key=(1,)), Element(**place, set="ports", key=(1 << 16,))
    report = kernel.apply(operations(table, own, *elements[:3000], no_port, *elements[3000:], stray))
    why = {f.operation.value: str(f.error) for f in report.failed}
    assert why.keys() == {stray, no_port}
    assert "there is no such set" in why[stray] and "65536 is no inet_service" in why[no_port]
    found = {v for v in kernel.read(OWNER).values() if isinstance(v, Element)}
    assert found == set(elements)
    assert not kernel.apply([Operation(e, None) for e in elements[:3000]]).failed
    assert len([v for v in kernel.read(OWNER).values() if isinstance(v, Element)]) == 3000


def test_a_chain_with_a_rule_that_needs_a_missing_set_fails_alone() -> None:
    kernel = door()
    place = {"family": "inet", "table": "podplane-nodes"}
    good = Chain(**place, name="good", rules=(rule(counter(), comment="counts"),))
    bad = Chain(**place, name="bad", rules=(rule(family(4), destination_not_in_set(4, "absent"), counter()),))
    report = kernel.apply(operations(Table(**place), good, bad))
    assert [f.operation.value for f in report.failed] == [bad]
    found = kernel.read(OWNER)
    assert found[good.identity] == good


def test_policy_rules_and_vxlan_are_read_back() -> None:
    kernel = door()
    values: list[Value] = [
        Link(name="eth0", kind="bridge"),
        Link(name="ppvx", kind="vxlan", alias="podplane", vxlan=Vxlan(vni=7, device="eth0"), mtu=1450, mac="0a:58:01:02:03:04"),
        PolicyRule(priority=100, family=4, table=77, source=ipaddress.ip_network("10.0.0.0/8"), protocol=ROUTE_PROTOCOL),
        PolicyRule(priority=101, family=6, table=77, mark=16, mark_mask=240, protocol=ROUTE_PROTOCOL),
    ]
    report = kernel.apply(operations(*values))
    assert not report.failed, [str(f) for f in report.failed]
    found = kernel.read(OWNER)
    assert found[values[2].identity] == values[2]
    assert found[values[3].identity] == values[3]
    assert kernel.matches(values[1], found[values[1].identity])
    shown = squeezed(tool("ip", "rule", "show") + tool("ip", "-6", "rule", "show"))
    assert {ip.line(values[2]), ip.line(values[3])} <= shown
    assert not kernel.apply(diff(fragment(values[1:]), {})).failed
    assert not [v for v in kernel.read(OWNER).values() if isinstance(v, PolicyRule)]


def test_sysctls_are_read_back_and_refusals_are_named() -> None:
    kernel = door()
    values = [
        Sysctl(name="net.ipv4.ip_forward", value="1"),
        Sysctl(name="net.ipv4.no_such_thing", value="1"),
        Sysctl(name="net.ipv4.ip_default_ttl", value="0"),
    ]
    report = kernel.apply(operations(*values))
    assert [o.value for o in report.applied] == [values[0]]
    errors = {failure.operation.value: failure.error for failure in report.failed}
    assert isinstance(errors[values[1]], NotFound)
    assert "sysctl net.ipv4.ip_default_ttl = 0" in str(errors[values[2]])


def same_kinds(kernel: Kernel, far: Namespace) -> list[tuple[str, str]]:
    """What a list of wrong and right operations ends in: (identity's kind and name, the error's class)."""
    kernel.attach("far", far)
    network, gateway = ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_address("10.2.0.1")
    first = [Link(name="lo"), Link(name="br", kind="bridge"), Link(name="v", kind="veth", peer=Peer(netns="far", name="eth0"))]
    kernel.apply(operations(*first))
    attempts: list[Value] = [
        Link(name="absent"),
        Address(link="absent", ip=gateway, prefix_length=24),
        Link(name="p", kind="veth", master="absent", peer=Peer(name="q")),
        Route(destination=network, gateway=gateway, link="br", **ROUTE),
        Route(destination=network, link="br", **ROUTE),
        Neighbour(link="absent", ip=gateway, mac="0a:58:00:00:00:01"),
        Route(netns="nowhere", destination=network, link="br", **ROUTE),
        Sysctl(name="net.ipv4.no_such_thing", value="1"),
        Element(table="podplane-nodes", set="absent", key=(1,)),
    ]
    outcome = []
    for value in attempts:
        report = kernel.apply(operations(value))
        outcome.append((value.identity[0], type(report.failed[0].error).__name__ if report.failed else "applied"))
    again = kernel.apply(operations(Route(destination=network, link="lo", **ROUTE)))
    outcome.append(("again", type(again.failed[0].error).__name__ if again.failed else "applied"))
    return outcome


def test_the_fake_kernel_refuses_what_the_real_one_refuses() -> None:
    opener = FakeOpener()
    ours = same_kinds(Kernel(opener.namespace(), opener), opener.namespace())
    theirs = same_kinds(door(), NetworkNamespace.create(Workers(1)))
    assert ours == theirs
    assert ("again", Exists.__name__) in theirs
    assert ("Address", NotFound.__name__) in theirs
    assert ("nft element", NotFound.__name__) in theirs


@pytest.mark.parametrize("name", FAMILIES)
def test_the_fake_kernel_holds_what_the_real_one_holds(name: str) -> None:
    kernel, _ = built(name)
    opener = FakeOpener()
    fake = Kernel(opener.namespace(), opener)
    build(fake, [opener.namespace(), opener.namespace()], FAMILIES[name])
    real, ours = kernel.read(OWNER), fake.read(OWNER)
    assert set(real) == set(ours)
    assert [i for i in real if not kernel.matches(ours[i], real[i])] == []


def test_a_set_tells_its_rank_to_a_new_process_and_nft_lists_it_as_ever() -> None:
    place = {"family": "inet", "table": "podplane-nodes"}
    ranked = Set(**place, name="ports", key=("inet_service",), comment="open", rank=513)
    assert not door().apply(operations(Table(**place), ranked)).failed
    assert door().read(OWNER)[ranked.identity] == ranked
    assert _blocks(nft.tables([Table(**place), ranked])) == _blocks(tool("nft", "list", "table", "inet", "podplane-nodes"))


def fake_door() -> Kernel:
    """The fake kernel."""
    opener = FakeOpener()
    return Kernel(opener.namespace(), opener)


@pytest.mark.parametrize("opened", [door, fake_door])
def test_a_sysctl_of_a_link_is_set_once_the_link_is_there_and_is_removed_with_it(opened: Callable[[], Kernel]) -> None:
    kernel = opened()
    veth = Link(name="pp1", kind="veth", alias=link_alias(), peer=Peer(name="pp2"))
    own = Sysctl(name="net.ipv6.conf.pp1.disable_ipv6", value="1", link="pp1")
    for _ in range(2):
        report = kernel.apply(operations(own, veth))
        assert not report.failed and len(report.applied) == 2
        assert kernel.matches(own, kernel.read(OWNER, [own.name])[own.identity])
        assert not kernel.apply([Operation(own, None), Operation(veth, None)]).failed
        assert kernel.read(OWNER, [own.name]) == {}
    kernel.apply(operations(veth))
    assert not kernel.matches(own, kernel.read(OWNER, [own.name])[own.identity]), "a new link has the default"
    refused = kernel.apply(operations(Sysctl(name="net.ipv6.conf.absent.disable_ipv6", value="1", link="absent")))
    assert [type(failure.error) for failure in refused.failed] == [NotFound]
    assert opened is not door or "its link is not there" in str(refused.failed[0].error)


@pytest.mark.parametrize("is_real", [True, False])
def test_the_peer_of_a_veth_gets_its_new_mtu_in_place(is_real: bool) -> None:
    opener = FakeOpener()
    kernel = door() if is_real else Kernel(opener.namespace(), opener)
    kernel.attach("pod/a", NetworkNamespace.create(Workers(1)) if is_real else opener.namespace())
    links = [
        Link(name="pp1", kind="veth", mtu=mtu, alias=link_alias(), peer=Peer(netns="pod/a", name="eth0", mtu=mtu))
        for mtu in (1500, 1450, 1500)
    ]
    assert not kernel.apply([Operation(None, links[0])]).failed
    for old, new in pairwise(links):
        report = kernel.apply([Operation(old, new)])
        assert not report.failed and not report.recreated
        peer = kernel.read_namespace("pod/a")["Link", "pod/a", "eth0"]
        assert isinstance(peer, Link) and peer.mtu == new.mtu


def test_a_route_changes_between_a_link_and_unreachable() -> None:
    kernel = door()
    kernel.apply(operations(Link(name="br", kind="bridge")))
    for network in map(ipaddress.ip_network, ("10.1.0.0/24", "fd00:1::/64")):
        to_link = Route(destination=network, link="br", **ROUTE)
        nowhere = Route(destination=network, kind="unreachable", **ROUTE)
        for old, new in ((None, nowhere), (nowhere, to_link), (to_link, nowhere)):
            assert not kernel.apply([Operation(old, new)]).failed
            found = [v for v in kernel.read(OWNER).values() if isinstance(v, Route)]
            assert found == [new]
        assert not kernel.apply([Operation(nowhere, None)]).failed
        assert not [v for v in kernel.read(OWNER).values() if isinstance(v, Route)]


def test_to_ask_for_a_family_of_nf_tables_changes_nothing() -> None:
    kernel = door()
    kernel.foreign_commit()
    assert kernel.has_bridge_family()
    assert not kernel.foreign_commit(), "it is no change of somebody else's"
    assert "probe" not in tool("nft", "list", "tables")
    tool("nft", "add", "table", "bridge", "podplane-probe")
    assert kernel.has_bridge_family()
    assert "table bridge podplane-probe" in tool("nft", "list", "tables"), "it is somebody else's"


def test_a_bridge_that_goes_while_all_is_read_has_no_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = built("dual")
    links = reading._links

    def then_it_goes(*words: Any) -> Any:
        found = links(*words)
        subprocess.run(["ip", "link", "del", "cbr0"], check=True)
        return found

    monkeypatch.setattr(reading, "_links", then_it_goes)
    assert not any(isinstance(one, Fdb) and one.link == "cbr0" for one in kernel.read(OWNER).values())
