"""Policies of an agent: pods that come, what is not known, repairs, restarts, and other caches."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from ipaddress import ip_address

import msgspec
import pytest

from podplane.agent import policy_plans
from podplane.agent.pause import Pause
from podplane.agent.planner import REPAIRED
from podplane.cni.network import Attachment, NetworkError
from podplane.dns.settings import DnsSettings
from podplane.kernel.door import Kernel
from podplane.lab.api_connection import copy_of, objects_of
from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.pod_info import Labels, NamespaceInfo, PodInfo, SlimMetadata
from podplane.model.policy import EVERYTHING, PodSelector, PolicyMetadata, PolicyRule
from podplane.model.view import View
from podplane.policy.index import Change, Move
from podplane.policy.peers import digest_of
from podplane.policy.settings import PolicySettings
from podplane.policy.tables import TABLE
from podplane.state.nft import Chain, Element, Immediate, Lookup, NftValue, Verdict
from podplane.state.value import IPAddress
from tests.policed import ALL_PODS, cluster_policy, policy, select
from tests.unit.agent.rig import Choosy, Rig, cluster, slice_of

WEB = policy("web", select(app="web"), [PolicyRule((PodSelector("a", select(app="client")),))])


def pod(name: str, app: str = "", ip: str = "", uid: str = "") -> PodInfo:
    labels = Labels({"app": app} if app else {})
    return PodInfo(SlimMetadata(name, "a", uid or name, labels), "node1", (ip,) if ip else ())


def own_values(rig: Rig) -> set[str]:
    """What is in the table of policies."""
    values = rig.host.objects.nft.values()
    return {str(v) for v in values if isinstance(v, NftValue) and (v.family, v.table) == TABLE}


def verdicts(rig: Rig, name: str) -> dict[str, str]:
    """What becomes of packets in one of the maps: the pod's or node's name → the beginning of the chain's name."""
    found = (v for v in rig.host.objects.nft.values() if isinstance(v, Element) and v.set == name)
    return {v.comment: v.data.chain.partition("-")[0] or "pass" for v in found if isinstance(v.data, Verdict)}


def peers(rig: Rig) -> list[str]:
    """The pods in sets of peers, IPv4."""
    found = (v for v in rig.host.objects.nft.values() if isinstance(v, Element))
    return sorted(v.comment for v in found if v.set.startswith("pods4"))


async def attach(rig: Rig, name: str) -> Attachment:
    request = dataclasses.replace(rig.attachment(name), namespace="a")
    await rig.agent.network.add(request)
    return request


async def test_a_pod_is_under_its_policies_when_its_attachment_returns_and_their_peers_are_in() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(NamespaceInfo(SlimMetadata("a")), WEB, pod("client", "client", "10.244.2.9"), pod("web", "web"), pod("other"))
    await attach(rig, "web")
    assert verdicts(rig, "ingress4") == {"node/node1": "pass", "pod/a/web": "in"}
    assert verdicts(rig, "egress4") == {"pod/a/web": "ingress"}
    assert peers(rig) == ["pod/a/client"]
    await attach(rig, "other")
    assert verdicts(rig, "ingress4")["pod/a/other"] == "pass"


async def test_what_is_not_known_passes_nothing_where_a_policy_might_select_it() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    await attach(rig, "web")
    assert verdicts(rig, "ingress4")["pod/a/web"] == "pass", "there is no policy in its namespace"
    rig.put(WEB)
    await rig.settle()
    assert "pod/a/web" not in verdicts(rig, "ingress4") and "pod/a/web" not in verdicts(rig, "egress4")
    rig.put(pod("web", "web", uid="another"))
    await rig.settle()
    assert "pod/a/web" not in verdicts(rig, "ingress4"), "that is a later pod of this name"
    rig.put(pod("web"))
    await rig.settle()
    assert verdicts(rig, "ingress4")["pod/a/web"] == "pass"
    rig.put(pod("web", "web"))
    await rig.settle()
    assert verdicts(rig, "ingress4")["pod/a/web"] == "in"
    rig.remove(WEB)
    await rig.settle()
    assert verdicts(rig, "ingress4")["pod/a/web"] == "pass"


async def test_no_policy_selects_a_container_that_is_no_pod() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(NamespaceInfo(SlimMetadata("a")), cluster_policy("deny", ingress=[PolicyRule((ALL_PODS,), action="Deny")]))
    await rig.settle()
    container = dataclasses.replace(rig.attachment("c1"), namespace="", pod_uid="")
    await rig.agent.network.add(container)
    assert verdicts(rig, "ingress4")["container/c1"] == "pass"
    rig.put(cluster_policy("deny more", egress=[PolicyRule((ALL_PODS,), action="Deny")]))
    await rig.settle()
    assert (verdicts(rig, "ingress4")["container/c1"], verdicts(rig, "egress4")["container/c1"]) == ("pass", "ingress")


def led_to_from(rig: Rig, chain: str) -> set[str]:
    """The chains that one leads to, by its rules and by the maps that these look into."""
    values = rig.host.objects.nft.values()
    own = [v for v in values if isinstance(v, NftValue) and (v.family, v.table) == TABLE]
    chains = {v.name: v for v in own if isinstance(v, Chain)}
    maps: dict[str, set[str]] = {}
    for one in own:
        if isinstance(one, Element) and isinstance(one.data, Verdict):
            maps.setdefault(one.set, set()).add(one.data.chain)
    found, left = {chain}, [chain]
    while left:
        expressions = [e for row in chains[left.pop()].rules for e in row.expressions]
        after = {e.data.chain for e in expressions if isinstance(e, Immediate) and isinstance(e.data, Verdict)}
        after = after.union(*(maps.get(e.set, set()) for e in expressions if isinstance(e, Lookup))) - {""}
        left += after - found
        found |= after
    return found


async def test_what_pods_send_to_their_node_meets_policies_only_where_one_for_egress_selects_a_pod_of_it() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    out = policy("out", select(app="web"), egress=[PolicyRule((PodSelector("a", select(app="client")),))])
    rig.put(NamespaceInfo(SlimMetadata("a")), WEB, pod("client", "client", "10.244.2.9"), pod("web", "web"), pod("other"))
    await attach(rig, "web")
    await attach(rig, "other")
    assert verdicts(rig, "to-node4") == {"pod/a/web": "own", "pod/a/other": "own"}
    assert any(name.startswith("np-web-in") for name in led_to_from(rig, "forward"))
    assert not any(name.startswith(("np-", "in-", "ingress", "egress")) for name in led_to_from(rig, "input"))
    rig.put(out)
    await rig.settle()
    assert verdicts(rig, "to-node4") == {"pod/a/web": "out", "pod/a/other": "own"}
    assert any(name.startswith("np-out-out") for name in led_to_from(rig, "input"))
    rig.remove(out)
    await rig.settle()
    assert verdicts(rig, "to-node4") == {"pod/a/web": "own", "pod/a/other": "own"}


async def test_a_pod_that_goes_takes_its_sets_with_it() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("client", "client", "10.244.2.9"), pod("web", "web"))
    before = own_values(rig)
    request = await attach(rig, "web")
    assert own_values(rig) > before
    await rig.agent.network.delete(request)
    await rig.settle()
    assert own_values(rig) == before and not rig.events


async def test_one_peer_costs_one_element_of_each_set_and_version() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("web", "web"), *(pod(f"c{n}", "client", f"10.244.2.{n}") for n in range(2, 50)))
    await attach(rig, "web")
    before = rig.written
    rig.put(pod("c50", "client", "10.244.2.50"))
    await rig.settle()
    assert rig.written == before + 1 and "pod/a/c50" in peers(rig)
    rig.put(pod("c50"))
    await rig.settle()
    assert rig.written == before + 2 and "pod/a/c50" not in peers(rig)
    rig.put(pod("far", "none", "10.244.2.51"))
    await rig.settle()
    assert rig.written == before + 2


async def test_two_agents_of_one_process_share_what_is_known_of_the_cluster() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("web", "web"), pod("client", "client", "10.244.2.9"))
    await attach(rig, "web")
    index, other = rig.caches.policy_index, PodSelector("a", select(app="other"))
    index.use(other)
    assert index.set_pod("a/more", pod("more", "client", "10.244.2.10")).moves
    assert index.set_pod("a/more", pod("more", "other", "10.244.2.10")).moves
    await rig.agent.stop()
    assert {move.selector for move in index.set_pod("a/more", pod("more", "client", "10.244.2.10")).moves} == {other}


async def test_an_agent_that_starts_again_writes_nothing() -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    both = policy("both", EVERYTHING, [PolicyRule((PodSelector("a"),))], [PolicyRule((PodSelector("a", select(app="web")),))])
    rig.put(WEB, both, pod("client", "client", "10.244.2.9"), pod("web", "web", "10.244.1.2"), pod("other"))
    for name in ("web", "other"):
        await attach(rig, name)
    await rig.settle()
    before, attached = own_values(rig), rig.agent.network.attached
    await rig.agent.stop()
    rig.new_agent()
    await rig.start(attached=attached)
    await rig.settle()
    assert rig.written == 0 and own_values(rig) == before


async def test_a_table_that_somebody_flushes_is_repaired() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("client", "client", "10.244.2.9"), pod("web", "web"))
    await attach(rig, "web")
    before = own_values(rig)
    rig.host.objects.nft.clear()
    rig.host.objects.foreign_commits += 1
    for second in (1.0, 2.0):
        await rig.poll(second)
    await rig.agent.idle()
    assert own_values(rig) == before
    assert rig.opener.judged.pop() == {ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2")}, (
        "connections that began meanwhile"
    )
    (said,) = (message for _, reason, message in rig.events if reason == REPAIRED)
    elements = sum(isinstance(one, Element) for one in rig.host.objects.nft.values())
    assert re.search(r"repaired: .* (\d+) nft elements, \d+ nft objects", said)[1] == str(elements), "one by one"


@pytest.mark.parametrize("is_back", [False, True])
async def test_an_agent_that_reads_other_caches_follows_those(is_back: bool) -> None:
    """As one whose node is cut from the API does: it keeps what was in force then, and finds what differs when it is back."""
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("client", "client", "10.244.2.9"), pod("web", "web"))
    await attach(rig, "web")
    copy = await copy_of(objects_of(rig.caches), Pause())
    rig.subscribed = None
    rig.agent.read_from(copy)
    before = own_values(rig)
    rig.put(pod("late", "client", "10.244.2.10"), policy("more", EVERYTHING, egress=[]))
    await rig.settle()
    assert own_values(rig) == before
    if is_back:
        rig.agent.read_from(rig.caches)
        rig.subscribed = rig.agent
        await rig.settle()
        assert peers(rig) == ["pod/a/client", "pod/a/late"]
        assert verdicts(rig, "egress4") == {"pod/a/web": "out"}
        rig.put(pod("later", "client", "10.244.2.11"))
        await rig.settle()
        assert "pod/a/later" in peers(rig)


async def test_blocks_of_another_family_bring_the_peers_of_that_family() -> None:
    rig = Rig()
    (own,) = cluster(1)
    await rig.start(msgspec.structs.replace(own, spec=msgspec.structs.replace(own.spec, pod_cidrs=own.spec.pod_cidrs[:1])))
    both = PodInfo(
        SlimMetadata("client", "a", "client", Labels({"app": "client"})), "node2", ("10.244.2.9", "fd00:10:244:2::9")
    )
    rig.put(WEB, pod("web", "web"), both)
    await attach(rig, "web")
    found = {v.set[:5] for v in rig.host.objects.nft.values() if isinstance(v, Element) and v.comment == "pod/a/client"}
    assert found == {"pods4"}
    rig.put(own)
    await rig.settle()
    found = {v.set[:5] for v in rig.host.objects.nft.values() if isinstance(v, Element) and v.comment == "pod/a/client"}
    assert found == {"pods4", "pods6"}


async def test_while_the_own_name_server_is_away_those_of_other_nodes_are_peers_of_the_usual_rule() -> None:
    rig = Rig()
    rig.settings = msgspec.structs.replace(rig.settings, dns=DnsSettings(ips=("10.96.0.53",)))
    rig.new_agent()
    slice_ = slice_of("kube-dns", "10.244.2.1")
    metadata = msgspec.structs.replace(slice_.metadata, namespace="kube-system")
    endpoints = tuple(msgspec.structs.replace(one, node_name="node2") for one in slice_.endpoints or ())
    await rig.start(*cluster(1, 2), msgspec.structs.replace(slice_, metadata=metadata, endpoints=endpoints))
    names = PolicyRule((PodSelector("kube-system", select(**{"k8s-app": "kube-dns"})),))
    rig.put(pod("web"), policy("names", EVERYTHING, egress=[names]))
    await attach(rig, "web")

    def servers() -> list[str]:
        found = (v for v in rig.host.objects.nft.values() if isinstance(v, Element) and v.set.startswith("pods4"))
        return sorted(str(v.key[0]) for v in found)

    assert servers() == ["10.96.0.53"]
    rig.agent.name_server_changed(is_here=False)
    await rig.settle()
    assert servers() == ["10.244.2.1", "10.96.0.53"]
    rig.remove(msgspec.structs.replace(slice_, metadata=metadata))
    await rig.settle()
    assert servers() == ["10.96.0.53"]
    rig.agent.name_server_changed(is_here=True)
    await rig.settle()
    assert servers() == ["10.96.0.53"]


async def test_what_of_a_policy_is_not_known_allows_nothing_and_an_event_says_so() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    later = msgspec.structs.replace(
        WEB, ingress=(PolicyRule((), None),), unread=("ingress rule 1: the protocol 'QUIC' is not known",)
    )
    rig.put(NamespaceInfo(SlimMetadata("a")), later, pod("web", "web"))
    await attach(rig, "web")
    assert verdicts(rig, "ingress4") == {"node/node1": "pass", "pod/a/web": "in"}
    why = "on node1: ingress rule 1: the protocol 'QUIC' is not known: it allows nothing"
    assert rig.events == [("networkpolicy/a/web", "NotApplied", why)]


OWN = {ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2")}


@pytest.mark.parametrize(
    ("missed", "judged"),
    [
        ("nothing", OWN),
        ("a label of a peer", {ip_address("10.244.2.9"), *OWN}),
        ("a policy", OWN),
        ("a rule", OWN),
        ("a flush of the tables", OWN),
        ("a peer more", OWN),
        ("the end of a policy", set()),
    ],
)
@pytest.mark.parametrize("takes_back", [True, False])
async def test_an_agent_that_starts_has_connections_judged_about_which_it_knows_no_better(
    missed: str, judged: set[object], takes_back: bool
) -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("web", "web"), pod("client", "client", "10.244.2.9"), pod("far", "client", "10.244.2.8"))
    await attach(rig, "web")
    await rig.settle()
    attached = rig.agent.network.attached
    await rig.agent.stop()
    rig.subscribed = None
    match missed:
        case "a label of a peer":
            rig.put(pod("client", "none", "10.244.2.9"))
        case "a policy":
            rig.put(policy("more", EVERYTHING, egress=[]))
        case "a rule":
            rig.put(msgspec.structs.replace(WEB, ingress=()))
        case "a flush of the tables":
            rig.host.objects.nft.clear()
        case "a peer more":
            rig.put(pod("late", "client", "10.244.2.10"))
        case "the end of a policy":
            rig.remove(WEB)
    rig.opener.judged.clear()
    rig.settings = msgspec.structs.replace(rig.settings, policies=PolicySettings(takes_back=takes_back))
    rig.new_agent()
    await rig.start(attached=attached)
    await rig.settle()
    assert rig.opener.judged == ([judged] if judged and takes_back else [])


@pytest.mark.parametrize("takes_back", [True, False])
async def test_connections_of_a_pod_that_goes_are_forgotten_before_another_one_has_its_address(takes_back: bool) -> None:
    rig = Rig()
    rig.settings = msgspec.structs.replace(rig.settings, policies=PolicySettings(takes_back=takes_back))
    rig.new_agent()
    await rig.start(*cluster(1))
    rig.put(pod("web"))
    request = await attach(rig, "web")
    await rig.settle()
    await rig.agent.network.delete(request)
    assert not rig.opener.forgotten and rig.agent.network.addresses.owners == {request.id}
    asks = dataclasses.replace(rig.attachment("other", asked_ips=(str(min(OWN, key=lambda ip: ip.version)),)), namespace="a")
    await rig.agent.network.add(asks)
    assert rig.opener.forgotten == [OWN], "before the address is free for others"
    await rig.agent.network.delete(request)
    await rig.settle()
    assert rig.opener.forgotten == [OWN] and rig.opener.judged == [], "it was gone"


async def test_connections_of_a_pod_that_goes_after_its_object_are_forgotten_too() -> None:
    """As one that is deleted without any grace: where policies may select it, none is known that does."""
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("web", "web"))
    request = await attach(rig, "web")
    rig.put(pod("web", "web", uid="another"))
    await rig.settle()
    await rig.agent.network.delete(request)
    await rig.agent.network.idle()
    assert rig.opener.forgotten == [OWN]


async def test_a_pod_whose_connections_cannot_be_forgotten_goes_all_the_same_and_that_is_tried_again() -> None:
    errors = [OSError(24, "Too many open files")]

    class Failing(Kernel):
        def forget_connections(self, ips: Collection[IPAddress]) -> int:
            if errors:
                raise errors.pop()
            return super().forget_connections(ips)

    rig = Rig(kernel=Failing)
    await rig.start(*cluster(1))
    rig.put(pod("web"))
    await rig.agent.network.delete(await attach(rig, "web"))
    await rig.agent.network.idle()
    assert not errors and rig.opener.forgotten == []
    await rig.settle()
    assert rig.opener.forgotten == [OWN]


@pytest.mark.parametrize("change", ["it goes", "it has another address"])
async def test_connections_of_a_peer_that_goes_are_judged_again_as_its_address_may_be_anybody_s(change: str) -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    client = pod("client", "client", "10.244.2.9")
    rig.put(WEB, pod("web", "web"), client, pod("none", "none", "10.244.2.10"))
    await attach(rig, "web")
    await rig.settle()
    rig.remove(pod("none"))
    await rig.settle()
    assert rig.opener.judged == [], "that one was no peer"
    if change == "it goes":
        rig.remove(client)
    else:
        rig.put(pod("client", "client", "10.244.2.11"))
    await rig.settle()
    assert rig.opener.judged.pop() == {ip_address("10.244.2.9")}
    rig.put(client)
    rig.remove(WEB)
    await rig.settle()
    assert {ip_address("10.244.2.9")} not in rig.opener.judged, "no rule looks for it any more"


async def test_where_connections_are_kept_none_is_judged_again() -> None:
    rig = Rig()
    rig.settings = msgspec.structs.replace(rig.settings, policies=PolicySettings(takes_back=False))
    rig.new_agent()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("web", "web"), pod("client", "client", "10.244.2.9"))
    await attach(rig, "web")
    rig.put(pod("client", "none", "10.244.2.9"), policy("more", EVERYTHING, egress=[]))
    await rig.settle()
    assert verdicts(rig, "egress4")["pod/a/web"] == "out" and peers(rig) == []
    rig.host.objects.nft.clear()
    rig.host.objects.foreign_commits += 1
    for second in (1.0, 2.0):
        await rig.poll(second)
    await rig.agent.idle()
    assert verdicts(rig, "egress4")["pod/a/web"] == "out"
    assert rig.opener.judged == []


async def test_connections_are_judged_again_when_what_may_pass_changes_and_not_otherwise() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rig.put(WEB, pod("web", "web"), pod("client", "client", "10.244.2.9"))
    await attach(rig, "web")
    await rig.settle()
    assert rig.opener.judged == [], "it has no connections yet"
    rig.put(pod("client", "none", "10.244.2.9"))
    await rig.settle()
    assert rig.opener.judged.pop() == {ip_address("10.244.2.9")}, "a peer that is none any more"
    rig.put(policy("more", EVERYTHING, egress=[]))
    await rig.settle()
    assert rig.opener.judged.pop() == {ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2")}
    rig.put(pod("client", "client", "10.244.2.9"), pod("late", "client", "10.244.2.10"))
    rig.remove(pod("late"))
    await rig.settle()
    assert rig.opener.judged == []
    attached = rig.agent.network.attached
    await rig.agent.stop()
    rig.new_agent()
    await rig.start(attached=attached)
    await rig.settle()
    assert rig.opener.judged.pop() == OWN, "the one before may have been killed before it did that"
    attached = rig.agent.network.attached
    await rig.agent.stop()
    rig.subscribed = None
    rig.put(pod("client", "none", "10.244.2.9"), policy("more", EVERYTHING))
    rig.new_agent()
    await rig.start(attached=attached)
    await rig.settle()
    own = {ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2")}
    assert rig.opener.judged.pop() == {ip_address("10.244.2.9"), *own}, "there was no agent when that changed"


def test_agents_that_are_told_of_a_namespace_have_one_key_for_each_selector() -> None:
    many = [pod(f"c{n}", "client", f"10.244.2.{n}") for n in range(2, 50)]
    change = Change(moves=(Move(PodSelector("a", select(app="client")), joined=many),))
    digest_of.cache_clear()
    made = [list(policy_plans.peers(None, change, View(f"node{n}", {}, {}, {}))) for n in range(3)]
    assert [len(keys) for keys in made] == [1, 1, 1] and digest_of.cache_info().misses == 1


async def test_who_joins_those_whom_a_rule_denies_is_judged_again() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    rogue = PolicyRule((PodSelector(EVERYTHING, select(app="rogue")),), None, "Deny")
    rig.put(NamespaceInfo(SlimMetadata("a")), pod("web", "web"), pod("client", "client", "10.244.2.9"))
    await attach(rig, "web")
    rig.put(cluster_policy("guard", ingress=[rogue]))
    await rig.settle()
    assert verdicts(rig, "ingress4") == {"node/node1": "pass", "pod/a/web": "admin"}
    assert verdicts(rig, "policies-in4") == {"pod/a/web": "pass"}
    rig.opener.judged.clear()
    rig.put(pod("client", "rogue", "10.244.2.9"))
    await rig.settle()
    assert rig.opener.judged.pop() == {ip_address("10.244.2.9")}
    rig.put(WEB)
    await rig.settle()
    assert verdicts(rig, "policies-in4") == {"pod/a/web": "in"}
    assert ip_address("10.244.1.2") in rig.opener.judged.pop(), "it is led elsewhere after the Admin tier"
    rig.remove(cluster_policy("guard"))
    await rig.settle()
    assert verdicts(rig, "ingress4") == {"node/node1": "pass", "pod/a/web": "in"} and verdicts(rig, "policies-in4") == {}


async def test_what_of_a_policy_of_the_cluster_is_not_known_fails_closed_and_an_event_says_so() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    later = ClusterNetworkPolicy(
        PolicyMetadata("later"), egress=(PolicyRule(None, None, "Deny"),), unread=("egress rule 1: what is it?",)
    )
    rig.put(NamespaceInfo(SlimMetadata("a")), later, pod("web", "web"))
    await attach(rig, "web")
    why = "on node1: egress rule 1: what is it?: an Accept does not mean it, a Deny or Pass with it denies everything"
    assert rig.events == [("clusternetworkpolicy/later", "NotApplied", why)]


async def test_a_pod_does_not_start_while_the_kernel_refuses_those_whom_a_rule_denies() -> None:
    rig = Rig(kernel=Choosy)
    await rig.start(*cluster(1))
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    kernel.refused = "Members("
    deny = cluster_policy("deny", ingress=[PolicyRule((PodSelector("a", select(app="client")),), action="Deny")])
    rig.put(NamespaceInfo(SlimMetadata("a")), deny, pod("web", "web"), pod("client", "client", "10.244.2.9"))
    for _ in range(2):
        with pytest.raises(NetworkError, match="Invalid argument"):
            await attach(rig, "web")
        assert "pod/a/web" not in verdicts(rig, "ingress4")
    kernel.refused = ""
    await attach(rig, "web")
    assert verdicts(rig, "ingress4")["pod/a/web"] == "admin" and peers(rig) == ["pod/a/client"]


async def test_what_the_kernel_refuses_of_a_policy_is_an_event_of_the_policy() -> None:
    rig = Rig(kernel=Choosy)
    await rig.start(*cluster(1))
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    kernel.refused = "comment='np/a/web'"
    rig.put(NamespaceInfo(SlimMetadata("a")), pod("web", "web"), pod("late", "web"))
    await attach(rig, "web")
    rig.put(WEB)
    await rig.settle()
    why = "on node1: the kernel refuses it: nft element: Invalid argument"
    assert ("networkpolicy/a/web", "NotApplied", why) in rig.events
    with pytest.raises(NetworkError, match="Invalid argument"):
        await attach(rig, "late")
