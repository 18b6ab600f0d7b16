"""Pods of which policies can't be programmed: they are closed for the directions of these policies, until they can."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from ipaddress import ip_address

import msgspec
import pytest

from podplane.agent.keys import PolicyPodKey
from podplane.cni.network import NetworkError
from podplane.model.cluster_policy import Policy
from podplane.model.pod_info import Labels, NamespaceInfo, PodInfo, SlimMetadata
from podplane.model.policy import EVERYTHING, Direction, PodSelector, PolicyRule
from podplane.policy import compiling, feature
from podplane.policy.compiling import Program
from podplane.state.nft import Chain, Element, Verdict
from tests.policed import FakePoliced, cluster_policy, info, policy, select
from tests.unit.agent.rig import Choosy, Rig, cluster

CLIENTS = PolicyRule((PodSelector("a", select(app="client")),))
WEB = policy("web", select(app="web"), [CLIENTS])
SENDS = policy("sends", select(app="web"), egress=[CLIENTS])
WEB_POD = 1, 1
OWN = {ip_address("10.244.1.2"), ip_address("fd00:10:244:1::2")}


def pod(name: str, ip: str = "", app: str = "") -> PodInfo:
    metadata = SlimMetadata(name, "a", name, Labels({"app": app or name}))
    return PodInfo(metadata, "node1", (ip,) if ip else ())


async def rig_with(*names: str) -> tuple[Rig, Choosy]:
    """A node with these pods, in no policy's reach, and its kernel."""
    rig = Rig(kernel=Choosy)
    await rig.start(*cluster(1))
    rig.put(NamespaceInfo(SlimMetadata("a")), *(pod(name) for name in names), pod("client", "10.244.2.9"))
    for name in names:
        await attach(rig, name)
    kernel = rig.agent._kernel
    assert isinstance(kernel, Choosy)
    return rig, kernel


async def attach(rig: Rig, name: str) -> None:
    await rig.agent.network.add(dataclasses.replace(rig.attachment(name), namespace="a"))


def led(rig: Rig, name: str) -> tuple[str, str]:
    """To which chains a pod is led by what it sends, and by what it is sent."""
    found = [one for one in rig.host.objects.nft.values() if isinstance(one, Element) and one.comment == f"pod/a/{name}"]
    ways = {one.set: one.data.chain for one in found if isinstance(one.data, Verdict)}
    for maps in ("egress", "ingress"):
        assert ways[f"{maps}4"] == ways[f"{maps}6"]
    return ways["egress4"], ways["ingress4"]


def chains(rig: Rig) -> set[str]:
    return {one.name for one in rig.host.objects.nft.values() if isinstance(one, Chain)}


async def tried_again(rig: Rig, seconds: float) -> None:
    """So much later, what is due is tried again."""
    await rig.poll(rig.now + seconds)
    await rig.settle()


@pytest.mark.parametrize(
    ("one", "closed"), [(WEB, ("ingress", "deny-in")), (SENDS, ("deny-out", "pass"))], ids=["ingress", "egress"]
)
@pytest.mark.parametrize("part", ["comment='np/a/{name}'", "name='np-{name}-", "comment='default deny: np/a/{name}'"])
async def test_pods_of_a_policy_that_the_kernel_refuses_are_closed_until_it_takes_it(
    one: Policy, closed: tuple[str, str], part: str
) -> None:
    rig, kernel = await rig_with("web", "other")
    assert led(rig, "web") == ("ingress", "pass")
    kernel.refused = part.format(name=one.metadata.name)
    rig.opener.judged.clear()
    rig.put(one)
    await rig.settle()
    assert led(rig, "web") == closed and led(rig, "other") == ("ingress", "pass")
    assert rig.opener.judged == [OWN], "what passed before the policy came does so no more"
    assert rig.events and all("the kernel refuses it" in message for _, _, message in rig.events)
    kernel.refused = ""
    rig.opener.judged.clear()
    await tried_again(rig, 100.0)
    out, into = led(rig, "web")
    assert (out, into)[closed[0] == "ingress"].startswith(("in-", "out-")) and {out, into} <= chains(rig)
    assert rig.opener.judged == [OWN], "what its rules allow passes again"
    assert not rig.agent.ledger.refused


async def test_what_is_still_refused_when_it_is_tried_again_stays_closed_and_other_policies_count() -> None:
    rig, kernel = await rig_with("web")
    kernel.refused = "comment='np/a/web'"
    rig.put(WEB)
    await rig.settle()
    written = rig.written
    await tried_again(rig, 100.0)
    assert led(rig, "web") == ("ingress", "deny-in") and rig.written == written
    rig.put(SENDS)
    await rig.settle()
    out, into = led(rig, "web")
    assert out.startswith("out-") and into == "deny-in"
    rig.remove(WEB)
    await rig.settle()
    assert led(rig, "web") == (out, "pass") and not rig.agent.ledger.refused


async def test_a_policy_whose_change_is_refused_is_closed_and_its_former_chain_goes() -> None:
    rig, kernel = await rig_with("web")
    rig.put(WEB)
    await rig.settle()
    before = led(rig, "web")[1]
    assert before.startswith("in-")
    kernel.refused = "name='np-web-in-"
    rig.put(policy("web", select(app="web"), [CLIENTS, PolicyRule((PodSelector("a", select(app="more")),))]))
    await rig.settle()
    await tried_again(rig, 100.0)
    assert led(rig, "web") == ("ingress", "deny-in") and before not in chains(rig)
    kernel.refused = ""
    rig.put(WEB)
    await rig.settle()
    assert led(rig, "web") == ("ingress", before)


async def test_a_pod_that_the_kernel_does_not_lead_to_its_policies_is_led_there_later_and_later() -> None:
    rig, kernel = await rig_with("web")
    kernel.refused = "chain='in-"
    rig.put(WEB)
    await rig.settle()
    assert led(rig, "web") == ("ingress", "deny-in")
    written = rig.written
    await tried_again(rig, 0.1)
    assert rig.written == written, "it is not time yet"
    for _ in range(8):
        await tried_again(rig, 20.0)
        assert led(rig, "web") == ("ingress", "deny-in")
    await tried_again(rig, 1.0)
    kernel.refused = ""
    written = rig.written
    await tried_again(rig, 1.0)
    assert led(rig, "web") == ("ingress", "deny-in") and rig.written == written, "it waits for longer now"
    await tried_again(rig, 100.0)
    assert led(rig, "web")[1].startswith("in-")


@pytest.mark.parametrize(("action", "is_closed"), [("Deny", True), ("Accept", False)])
async def test_who_is_missing_among_those_whom_a_rule_denies_closes_its_pods(action: str, is_closed: bool) -> None:
    rig, kernel = await rig_with("web")
    kernel.refused = "Members("
    rule = PolicyRule((PodSelector(EVERYTHING, select(app="client")),), None, action)  # type: ignore[arg-type]  # an action
    rig.put(cluster_policy("guard", ingress=[rule]))
    await rig.settle()
    out, into = led(rig, "web")
    assert out == "ingress" and (into == "deny-in") == is_closed
    kernel.refused = ""
    await tried_again(rig, 100.0)
    assert led(rig, "web")[1].startswith("admin-in-")


async def test_when_the_kernel_takes_what_all_pods_share_after_it_refused_it_connections_are_judged() -> None:
    rig, kernel = await rig_with("web")
    rig.put(WEB)
    await rig.settle()
    attached = rig.agent.network.attached
    await rig.agent.stop()
    rig.host.objects.nft.clear()
    rig.new_agent(Choosy)
    kernel = rig.agent._kernel  # type: ignore[assignment]  # it is one
    kernel.refused = "name='forward'"
    await rig.start(attached=attached)
    await rig.settle()
    assert "forward" not in chains(rig)
    rig.opener.judged.clear()
    await tried_again(rig, 0.0)
    assert rig.opener.judged == []
    kernel.refused = ""
    await tried_again(rig, 100.0)
    assert "forward" in chains(rig) and rig.opener.judged == [OWN]


async def test_an_agent_that_starts_keeps_closed_what_the_one_before_it_closed() -> None:
    rig, kernel = await rig_with("web")
    kernel.refused = "comment='np/a/web'"
    rig.put(WEB)
    await rig.settle()
    attached = rig.agent.network.attached
    await rig.agent.stop()
    rig.new_agent(Choosy)._kernel.refused = "comment='np/a/web'"  # type: ignore[attr-defined]  # Choosy
    await rig.start(attached=attached)
    assert led(rig, "web") == ("ingress", "deny-in") and rig.written == 0
    rig.agent._kernel.refused = ""  # type: ignore[attr-defined]  # Choosy
    await tried_again(rig, 100.0)
    assert led(rig, "web")[1].startswith("in-")


async def test_a_pod_that_starts_under_a_refused_policy_is_refused_and_its_like_stay_closed() -> None:
    rig, kernel = await rig_with("web")
    kernel.refused = "comment='np/a/web'"
    rig.put(WEB, pod("late", app="web"))
    await rig.settle()
    with pytest.raises(NetworkError, match="Invalid argument"):
        await attach(rig, "late")
    await rig.settle()
    assert led(rig, "web") == ("ingress", "deny-in")
    assert [one.path for one in rig.agent.planner.memory(PolicyPodKey).closed] == ["a/web"]


def unplannable(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    def compiled(one: Policy, direction: Direction, versions: tuple[int, ...]) -> Program:
        if one.metadata.name in names:
            raise ZeroDivisionError("a mistake of ours")
        return compiling.compile_policy(one, direction, versions)

    monkeypatch.setattr(feature, "compile_policy", compiled)


async def test_a_policy_that_can_t_be_planned_closes_its_pods_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, _ = await rig_with("web", "other")
    wrong = {"web"}
    unplannable(monkeypatch, wrong)
    rig.put(WEB, SENDS, policy("others", select(app="other"), [CLIENTS]))
    await rig.settle()
    out, into = led(rig, "web")
    assert out.startswith("out-") and into == "deny-in" and led(rig, "other")[1].startswith("in-")
    why = "on node1: it can't be planned, and its pods are closed: ZeroDivisionError('a mistake of ours')"
    assert rig.events == [("networkpolicy/a/web", "NotApplied", why)]
    wrong.clear()
    rig.put(policy("web", select(app="web"), [CLIENTS, CLIENTS]))
    await rig.settle()
    assert led(rig, "web")[1].startswith("in-")


async def test_a_pod_whose_plan_fails_altogether_passes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, _ = await rig_with("web", "other")

    def failing(*args: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(feature, "group", failing)
    rig.opener.judged.clear()
    rig.put(WEB)
    await rig.settle()
    found = [one.comment for one in rig.host.objects.nft.values() if isinstance(one, Element) and one.set == "ingress4"]
    assert "pod/a/other" in found and "pod/a/web" not in found, "the gate drops it"
    assert rig.opener.judged == [OWN]
    why = "on node1: its policies can't be planned, and it passes nothing: ZeroDivisionError('a mistake of ours')"
    assert rig.events == [("pod/a/web", "NotApplied", why)]
    monkeypatch.undo()
    rig.put(SENDS)
    await rig.settle()
    assert led(rig, "web")[1].startswith("in-")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_nothing_passes_a_closed_direction_and_everything_the_other(
    direction: Direction, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakePoliced()
    cluster.put(info(*WEB_POD, {"app": "web"}))
    wrong = {"web"}
    unplannable(monkeypatch, wrong)
    everybody = [PolicyRule(None)]
    web = policy("web", select(app="web"), **{direction: everybody})  # type: ignore[arg-type]  # a direction's rules
    cluster.put(web)
    others = [(1, 2), (2, 1)]
    assert all(cluster.passes(one, WEB_POD, version) == (direction == "egress") for one in others)
    assert all(cluster.passes(WEB_POD, one, version) == (direction == "ingress") for one in others)
    assert cluster.passes((1, 2), (2, 1), version), "that is about others"
    wrong.clear()
    cluster.put(msgspec.structs.replace(web, metadata=msgspec.structs.replace(web.metadata, uid="new")))
    assert all(cluster.passes(one, WEB_POD, version) and cluster.passes(WEB_POD, one, version) for one in others)
