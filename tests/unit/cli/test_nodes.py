"""Nodes are asked all at once: none holds up another, and what is no answer of an agent is an error that says so."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from podplane.cli import nodes
from podplane.cli.nodes import Question, ask, port_said, why_silent
from podplane.cli.waiting import Waiting, telling
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import STARTING, Description, Traffic
from podplane.model.config import ACTIVE_FAULTS, AGENT_PORT_SAID


class Client:
    """Nodes that answer by this table; those in `meet` answer when all of them were asked, and without an answer never."""

    def __init__(self, answers: dict[str, Any], meet: int = 0) -> None:
        self.answers = answers
        self.barrier = threading.Barrier(meet) if meet else None
        self.released = threading.Event()

    @contextlib.contextmanager
    def another(self, seconds: float) -> Iterator[Client]:
        yield self

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        raise ApiError(404, "NotFound", f"{resource} {name!r} not found")

    def of_node(self, node: str, port: int, path: str) -> Any:
        if self.barrier is not None:
            self.barrier.wait()
        answer = self.answers.get(node)
        if answer is None:
            self.released.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


def asked(client: Client, names: list[str], shape: Any = Any, seconds: float = 60.0) -> dict[str, Any]:
    questions = [Question(name, 10256, "traffic", shape) for name in names]
    return {one.node: answer for one, answer in ask(client, questions, seconds).items()}


def test_all_are_asked_at_once() -> None:
    """Each waits for the others: one after another, none would answer."""
    names = [f"node{n}" for n in range(nodes.AT_ONCE)]
    client = Client(dict.fromkeys(names, ()), meet=len(names))
    assert asked(client, names) == dict.fromkeys(names, ())


def test_more_nodes_than_are_asked_at_once_are_all_asked() -> None:
    names = [f"node{n}" for n in range(5 * nodes.AT_ONCE)]
    assert asked(Client(dict.fromkeys(names, ())), names) == dict.fromkeys(names, ())


class Starting(Client):
    """Nodes whose agents answer for themselves when they were asked often enough."""

    def __init__(self, answers: dict[str, Any], refusals: list[ApiError]) -> None:
        super().__init__(answers)
        self.refusals = refusals

    def of_node(self, node: str, port: int, path: str) -> Any:
        if self.refusals and node == "node1":
            raise self.refusals.pop()
        return super().of_node(node, port, path)


def test_an_agent_that_is_starting_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "AGAIN_SECONDS", 0.0)
    refused = ApiError(
        503, "ServiceUnavailable", "error trying to reach service: dial tcp 192.168.1.10:10256: connect: connection refused"
    )
    starting = ApiError(503, "ServiceUnavailable", f"{STARTING}: waiting for the API")
    client = Starting({"node1": [], "node2": []}, [starting, refused])
    assert asked(client, ["node1", "node2"]) == {"node1": [], "node2": []}
    assert not client.refusals
    other = ApiError(503, "ServiceUnavailable", "this API server has no way to node node1")
    client = Starting({"node1": []}, [refused, other])
    assert asked(client, ["node1"])["node1"] is other
    assert client.refusals == [refused]


class Held(Client):
    """Nodes of which some answer only once all others have been asked."""

    def __init__(self, others: int) -> None:
        super().__init__({})
        self.others = threading.Semaphore(0)
        self.count = others

    def of_node(self, node: str, port: int, path: str) -> Any:
        if node.startswith("silent"):
            self.released.wait()
        else:
            self.others.release()
            if self.others._value >= self.count:
                self.released.set()
        return ()


def test_nodes_that_are_silent_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are silent have all connections at first: with no more of them nobody else would ever be asked."""
    monkeypatch.setattr(nodes, "STUCK_SECONDS", 0.001)
    silent, others = [f"silent{n}" for n in range(4 * nodes.AT_ONCE)], [f"node{n}" for n in range(nodes.AT_ONCE)]
    found = asked(Held(len(others)), [*silent, *others])
    assert found == dict.fromkeys((*silent, *others), ())


def test_one_that_nobody_had_the_time_to_ask_is_not_said_to_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MOST_AT_ONCE", 2)
    client = Client({"node4": ()})
    found = asked(client, ["node1", "node2", "node3", "node4"], seconds=0.5)
    client.released.set()
    assert [found[f"node{n}"].reason for n in (3, 4)] == [nodes.NOT_ASKED] * 2


def test_agents_that_refuse_or_are_starting_are_asked_again_only_for_so_long() -> None:
    """A machine without power refuses for ever, as one does whose agent is about to listen."""
    for why, seconds, start_seconds in (("connection refused", 0.1, 9.0), (f"{STARTING}: the API is away", 0.1, 0.3)):
        error = ApiError(503, "ServiceUnavailable", why)
        client = Client({"node1": error})
        (found,) = ask(client, [Question("node1", 10256, "traffic")], seconds, start_seconds).values()
        assert isinstance(found, ApiError)


class Beside(Client):
    """Nodes whose usual port is kube-proxy's; one says where its agent answers."""

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        return {"metadata": {"annotations": {AGENT_PORT_SAID: "10356"} if name == "node1" else None}}

    def of_node(self, node: str, port: int, path: str) -> Any:
        if port == 10356:
            return super().of_node(node, port, path)
        raise ApiError(404, "NotFound", "404 page not found")


def test_an_agent_beside_kube_proxy_is_asked_where_its_node_says() -> None:
    found = asked(Beside({"node1": [], "node2": []}), ["node1", "node2"])
    assert found["node1"] == [] and str(found["node2"]) == "404 page not found"


def test_a_port_that_there_can_not_be_is_none() -> None:
    for said in ("", "x", "0", "-1", "65536", "99999", "9" * 5000, "²"):
        assert port_said({AGENT_PORT_SAID: said}) == 0
    assert port_said({AGENT_PORT_SAID: "65535"}) == 65535 and port_said({}) == 0


def test_one_that_is_silent_is_an_error_and_the_others_are_told() -> None:
    client = Client({"node1": [], "node3": ApiError(503, "", "it is not ready")})
    found = asked(client, ["node1", "node2", "node3"], seconds=0.2)
    client.released.set()
    assert found["node1"] == []
    assert [(str(found[n]), found[n].reason) for n in ("node2", "node3")] == [
        ("no answer within 0.2 s", "Timeout"),
        ("it is not ready", ""),
    ]


@pytest.mark.parametrize(
    ("shape", "answer"),
    [
        (list[Traffic], {"name": "echo", "source": "10.0.0.1"}),
        (list[Traffic], [{"address": "10.0.0.1"}]),
        (Description, [1]),
        (Description, {"frontends": [], "groups": {"a": [["10.0.0.1"]]}}),
        (Description, "text"),
    ],
)
def test_what_is_no_answer_of_an_agent_is_an_error(shape: Any, answer: Any) -> None:
    """A Service may lead a node's port elsewhere (its external IP is the node's), and a program of the node may have it."""
    (error,) = asked(Client({"node1": answer}), ["node1"], shape).values()
    assert isinstance(error, ApiError)
    assert str(error).startswith("port 10256 of node node1 does not answer traffic as its agent does: ")


def test_an_active_fault_is_why() -> None:
    node = {"metadata": {"name": "node1", "annotations": {ACTIVE_FAULTS: '[{"fault": "uplink-down", "since": "now"}]'}}}
    why = why_silent(node, "no answer within 3 s", "podplane fault node1 --clear")
    assert why == "no answer within 3 s (the fault uplink-down is active: `podplane fault node1 --clear` undoes it)"
    assert why_silent({"metadata": {"name": "node1"}}, "no answer", "") == "no answer"
    down = {"type": "NetworkUnavailable", "status": "True", "message": "eth0 is down"}
    assert (
        why_silent({"metadata": {"name": "node1"}, "status": {"conditions": [down]}}, "no answer", "")
        == "no answer (eth0 is down)"
    )
    up = {"metadata": {"name": "node1"}, "status": {"conditions": [down | {"status": "False"}]}}
    assert why_silent(up, "no answer", "") == "no answer"


def test_a_wait_is_told_once_and_only_when_it_is_long() -> None:
    said: list[str] = []
    now = [0.0]
    waiting = Waiting(said.append, lambda: now[0])
    for now[0] in (0.0, 0.9, 1.0, 1.1, 5.0):
        waiting.look(lambda: f"node1 at {now[0]:g}")
    assert said == ["Waiting for node1 at 1 …"]
    assert waiting.silent_for > 1e6


def test_the_reasons_of_a_long_wait_are_told_each_as_it_comes() -> None:
    said: list[str] = []
    now = [0.0]
    waiting = Waiting(said.append, lambda: now[0])
    for now[0], why in ((0.5, "early"), (1.0, ""), (2.0, "no agent"), (3.0, "no agent"), (4.0, ""), (5.0, "no room")):
        waiting.look(lambda: "web", lambda why=why: why)
    assert said == ["Waiting for web …", "  no agent", "  no room"]


def test_a_poll_tells_what_it_waits_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.cli.waiting.SAY_AFTER_SECONDS", 0.0)
    tell = telling(lambda found: f"{len(found)} pods")
    tell(["a", "b"])
    tell(["a"])
    assert capsys.readouterr().err == "Waiting for 2 pods …\n"
