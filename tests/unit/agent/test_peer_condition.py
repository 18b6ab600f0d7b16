"""The condition of a node about peers that it does not reach: written when it changed, seldom, and never while all is well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podplane.agent.peer_condition import QUIET_SECONDS, STANDS_SECONDS, TYPE, PeerCondition, said_of
from podplane.apiserver.server import utc_now
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import PeerProblem
from podplane.model.objects import Node, NodeCondition
from tests.plans import node

WRONG = PeerProblem(
    peer="node2",
    backend="vxlan",
    families=[],
    underlay="reached",
    carried_in="UDP port 4789",
    loss=1.0,
    age=3.0,
    is_not_ready=False,
    is_withdrawn=False,
)
MESSAGE = "node2 is not reached over vxlan, but over the underlay: is UDP port 4789 filtered?"


class Api(Client):
    """Keeps what is written; it may be away."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.is_away = False

    async def patch_own_status(self, resource: str, namespace: str, name: str, status: Any, uid: str) -> None:
        if self.is_away:
            raise ApiError(503, "ServiceUnavailable", "it is away")
        self.written += status["conditions"]


class Rig:
    """A condition of node1, whose Node has what is written."""

    def __init__(self) -> None:
        self.api, self.now, self.problems, self.is_settled = Api(), 100.0, list[PeerProblem](), True
        self.events: list[str] = []
        self.has_node = True
        self.condition = self.new_condition()

    def new_condition(self) -> PeerCondition:
        """That of an agent that starts."""
        return PeerCondition(
            self.api,
            self.node,
            lambda: self.problems,
            lambda: self.is_settled,
            lambda key, message, reason: self.events.append(f"{key} {reason}: {message}"),
            utc_now,
        )

    def node(self) -> Node | None:
        made = node(1, (4,))
        conditions = tuple(NodeCondition(one["type"], one["status"]) for one in self.api.written[-1:])
        status = msgspec.structs.replace(made.status, conditions=conditions)
        return msgspec.structs.replace(made, status=status) if self.has_node else None

    async def pass_(self, seconds: float) -> None:
        """As the loop does it: again when it says so."""
        end = self.now + seconds
        while (delay := await self.condition._step(self.now)) is not None and self.now + delay <= end:
            self.now += delay
        self.now = end


async def test_while_all_is_well_nothing_is_ever_written() -> None:
    rig = Rig()
    await rig.pass_(1000)
    assert rig.api.written == [] and rig.events == []


async def test_what_is_wrong_is_written_once_it_stood_and_what_is_over_too() -> None:
    rig = Rig()
    rig.problems = [WRONG]
    await rig.pass_(STANDS_SECONDS / 2)
    assert rig.api.written == []
    await rig.pass_(1000)
    (condition,) = rig.api.written
    assert (condition["type"], condition["status"], condition["reason"]) == (TYPE, "True", "PodsUnreachable")
    assert condition["message"] == MESSAGE and rig.events == [f"node/node1 {TYPE}: {MESSAGE}"]
    rig.problems = []
    await rig.pass_(10)
    assert [one["status"] for one in rig.api.written] == ["True", "False"] and rig.api.written[1]["reason"] == "PeersReached"
    await rig.pass_(1000)
    assert len(rig.api.written) == 2 and len(rig.events) == 1


async def test_what_is_over_within_a_moment_is_not_written() -> None:
    rig = Rig()
    for _ in range(20):
        rig.problems = [WRONG]
        await rig.pass_(STANDS_SECONDS / 2)
        rig.problems = []
        await rig.pass_(STANDS_SECONDS / 2)
    assert rig.api.written == []


async def test_what_changes_all_the_time_is_written_seldom() -> None:
    rig = Rig()
    for number in range(100):
        rig.problems = [msgspec.structs.replace(WRONG, peer=f"node{number % 7}")] if number % 3 else []
        await rig.pass_(4)
    assert 1 < len(rig.api.written) <= 400 / QUIET_SECONDS + 1


async def test_the_age_of_a_problem_is_no_change() -> None:
    rig = Rig()
    for age in range(100):
        rig.problems = [msgspec.structs.replace(WRONG, age=float(age))]
        await rig.pass_(5)
    assert len(rig.api.written) == 1


async def test_an_agent_that_starts_takes_back_what_one_before_it_said_once_it_knows() -> None:
    rig = Rig()
    rig.api.written = [{"type": TYPE, "status": "True"}]
    rig.is_settled = False
    await rig.pass_(10)
    assert len(rig.api.written) == 1
    rig.is_settled = True
    await rig.pass_(10)
    assert rig.api.written[-1]["status"] == "False"


async def test_the_time_of_a_transition_is_that_of_the_status_and_another_agent_writes_no_event_of_the_same() -> None:
    rig = Rig()
    for peer in ("node2", "node3"):
        rig.problems = [msgspec.structs.replace(WRONG, peer=peer)]
        await rig.pass_(60)
    assert ["lastTransitionTime" in one for one in rig.api.written] == [True, False] and len(rig.events) == 2
    rig.condition = rig.new_condition()
    await rig.pass_(60)
    assert len(rig.api.written) == 3 and "lastTransitionTime" not in rig.api.written[2] and len(rig.events) == 2
    rig.problems = []
    await rig.pass_(60)
    assert rig.api.written[3]["status"] == "False" and "lastTransitionTime" in rig.api.written[3]
    rig.problems = [WRONG]
    await rig.pass_(60)
    assert "lastTransitionTime" in rig.api.written[4] and len(rig.events) == 3


async def test_without_a_node_nothing_is_written_and_an_api_that_is_away_is_asked_again() -> None:
    rig = Rig()
    rig.problems, rig.has_node = [WRONG], False
    await rig.pass_(10)
    assert rig.api.written == []
    rig.has_node, rig.api.is_away = True, True
    with pytest.raises(ApiError):
        await rig.pass_(10)
    rig.api.is_away = False
    await rig.pass_(10)
    assert len(rig.api.written) == 1


@pytest.mark.parametrize("other", [{"loss": 0.2}, {"is_not_ready": True}])
def test_loss_and_peers_that_are_not_ready_are_no_reason(other: dict[str, Any]) -> None:
    assert not said_of([msgspec.structs.replace(WRONG, **other)]).is_wrong


def test_of_many_peers_some_are_named() -> None:
    said = said_of([msgspec.structs.replace(WRONG, peer=f"node{n}", underlay="lost") for n in range(16)])
    assert said.reason == "NodesUnreachable" and said.message.endswith("; 11 more are not reached") and len(said.message) < 500
