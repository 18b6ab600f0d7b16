"""Faults: the table, the words that commands and labs exchange, what a node is told after it was cut off, and who carries it out."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.agent.node import Started
from podplane.agent.pause import Pause
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Request as HttpRequest
from podplane.kubeapi.messages import Response
from podplane.lab.api_connection import ApiConnection, copy_of, differences, objects_of
from podplane.lab.errors import LabError
from podplane.lab.faults import messages
from podplane.lab.faults.actions import ACTIONS
from podplane.lab.faults.arguments import Boot, FaultError, Loss, Narrow, Port, loss_of, mtu_of, port_of, seconds_of
from podplane.lab.faults.control import FaultControl
from podplane.lab.faults.messages import Active, Answer, Request
from podplane.lab.faults.table import BY_NAME, CLEAR, FAULTS
from podplane.model.config import ACTIVE_FAULTS, FAULT, FAULT_ANSWERS
from podplane.model.objects import Metadata, Node
from tests.plans import node
from tests.unit.agent.rig import caches_of, service_of, slice_of

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


# The table.


def test_each_fault_has_an_action_and_an_undo_where_it_says_so() -> None:
    assert {fault.name for fault in FAULTS} == ACTIONS.keys()
    assert {name for name, action in ACTIONS.items() if action.undo} == {fault.name for fault in FAULTS if fault.undo}
    assert all(name in BY_NAME for fault in FAULTS for name in fault.not_during)
    assert len(BY_NAME) == len(FAULTS)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("2m", 120.0), ("1h", 3600.0)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "5", "1.5m", "-1s", "node1", "1s "])
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(FaultError, match="is no duration: write 90s, 2m or 1h"):
        seconds_of(text)


@pytest.mark.parametrize("text", ["9999999s", "999999999h", "9" * 5000 + "h"])
def test_a_duration_that_is_too_long_is_told_from_what_is_none(text: str) -> None:
    with pytest.raises(FaultError, match=r"^'9+[sh]?' is too long: a duration has 6 digits at most, as 999999h$"):
        seconds_of(text)
    assert seconds_of("999999h") == 999999 * 3600


@pytest.mark.parametrize(
    ("option", "argument", "why"),
    [
        ("uplink-down", "x", "--uplink-down takes no value"),
        ("isolate", "--one-way", "--isolate does not go with '--one-way': write --isolate"),
        ("loss", "", "--loss needs a value: write --loss SHARE [--one-way]"),
        ("loss", "--one-way", "--loss needs a value: write --loss SHARE [--one-way]"),
        ("loss", "10% --unseen", "--loss does not go with '10% --unseen': write --loss SHARE [--one-way]"),
        ("loss", "10% 20%", "--loss does not go with '10% 20%': write --loss SHARE [--one-way]"),
        ("loss", "10", "'10' is no share of packets: write 10%, 0.5% or 100%"),
        ("loss", "0%", "'0%' is no share of packets: write 10%, 0.5% or 100%"),
        ("loss", "101%", "'101%' is no share of packets: write 10%, 0.5% or 100%"),
        ("loss", "\u0661%", "'\u0661%' is no share of packets: write 10%, 0.5% or 100%"),
        ("block-port", "0", "'0' is no port: write 4789, 4789/udp or gre"),
        ("block-port", "65536", "'65536' is no port: write 4789, 4789/udp or gre"),
        ("block-port", "\u0661", "'\u0661' is no port: write 4789, 4789/udp or gre"),
        ("block-port", "udp", "'udp' is no port: write 4789, 4789/udp or gre"),
        ("block-port", "4789/gre", "'gre' has no ports: write tcp, udp, sctp, or nothing for all of them"),
        ("block-port", "4789/", "'' has no ports: write tcp, udp, sctp, or nothing for all of them"),
        ("mtu", "67", "'67' is no MTU: write a number of bytes from 68 to 65535"),
        ("mtu", "9" * 5000, "is no MTU: write a number of bytes from 68 to 65535"),
        ("mtu", "1400.0", "'1400.0' is no MTU: write a number of bytes from 68 to 65535"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(option: str, argument: str, why: str) -> None:
    with pytest.raises(FaultError) as refused:
        BY_NAME[option].refuse(argument)
    assert str(refused.value).endswith(why)


def test_arguments() -> None:
    for option, argument in (
        ("loss", "10%"),
        ("loss", "10% --one-way"),
        ("block-port", "gre"),
        ("mtu", "1400 --unseen"),
        ("isolate", ""),
    ):
        BY_NAME[option].refuse(argument)
    assert (loss_of("0.5%"), loss_of("100% --one-way")) == (Loss(0.005), Loss(1.0, one_way=True))
    assert (port_of("4789"), port_of("53/udp")) == (Port(("tcp", "udp", "sctp"), 4789), Port(("udp",), 53))
    assert (port_of("gre"), mtu_of("1400"), mtu_of("68 --unseen")) == (Port(("gre",)), Narrow(1400), Narrow(68, unseen=True))


# Messages.


def test_messages_come_back_as_they_were_written() -> None:
    request = Request("1", "cut-api", "90s")
    assert messages.request_of(messages.request_body(request)["metadata"]["annotations"]) == request
    active = [Active("cut-api", "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"), Active("loss", "x", argument="10%")]
    assert [str(one) for one in active] == ["cut-api", "loss 10%"]
    assert messages.active_of(messages.active_body(active)["metadata"]["annotations"]) == active
    assert messages.active_body([]) == {"metadata": {"annotations": {ACTIVE_FAULTS: None}}}
    answers = [Answer(str(number), f"done {number}") for number in range(20)]
    found = messages.answers_body(answers)["metadata"]["annotations"]
    assert messages.answer_to("19", found) == Answer("19", "done 19")
    assert messages.answer_to("1", found) is None, "only the last answers are kept"


@pytest.mark.parametrize("text", ["zzz", "{}", '[{"id": 1}]', "[1]"])
def test_annotations_that_somebody_else_wrote_say_nothing(text: str) -> None:
    assert messages.answer_to("1", {FAULT_ANSWERS: text}) is None and messages.active_of({ACTIVE_FAULTS: text}) == []
    assert (messages.request_of({}), messages.active_of({}), messages.answer_to("1", {})) == (None, [], None)


# The connection to the API.


async def test_nothing_passes_while_the_connection_is_cut_not_even_an_answer_on_its_way() -> None:
    sent: list[str] = []
    connection: ApiConnection

    async def handler(request: HttpRequest) -> Response:
        sent.append(request.path)
        connection.causes = {"a fault": None} if "slow" in request.path else {}
        return Response(200, b"{}")

    connection = ApiConnection("node1", handler)
    client = Client(connection, "token")
    assert await client.get("nodes", "", "node1") == {}
    with pytest.raises(ApiError, match="node1 can't reach the API: a fault") as refused:
        await client.get("nodes", "", "slow")
    assert refused.value.code == 503
    with pytest.raises(ApiError):
        await client.get("nodes", "", "node2")
    assert len(sent) == 2, "the last one was not sent"


async def test_copies_stay_as_they_are() -> None:
    caches = caches_of(node(1, (4,)), service_of("a", "10.96.0.1"), slice_of("a", "10.244.1.2"))
    objects = objects_of(caches)
    caches.nodes.set(node(2, (4,)))
    caches.services.remove("default/a")
    caches.slices.remove("default/a-a")
    copy = await copy_of(objects, Pause())
    assert (list(copy.nodes.objects), list(copy.services.objects)) == (["node1"], ["default/a"])
    assert list(copy.slices_by_service.get("default/a")) == ["default/a-a"]


async def test_others_run_while_a_copy_is_made() -> None:
    """However many objects there are: here a turn is over after each."""
    caches = caches_of(*(service_of(f"s{i}", f"10.96.0.{i}") for i in range(1, 101)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    copy = await copy_of(objects_of(caches), Pause(seconds=0.0))
    task.cancel()
    assert dict(copy.services.objects) == dict(caches.services.objects)
    assert turns >= 100


OBJECTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.builds(
        lambda uid, label: Node(metadata=Metadata(name="x", uid=uid, labels={"x": label})),
        st.sampled_from(["1", "2"]),
        st.sampled_from(["1", "2"]),
    ),
)


@given(OBJECTS, OBJECTS)
def test_differences_lead_from_the_old_objects_to_the_new_ones(old: dict[str, Node], new: dict[str, Node]) -> None:
    """Replayed on the old objects they give the new ones, each with what was there before; another uid is another object."""
    told = list(differences(old, new))
    for before, after in told:
        assert before != after
        assert before is None or after is None or before.metadata.uid == after.metadata.uid
    gone = [before for before, after in told if after is None]
    assert len(told) - len(gone) == sum(old.get(path) != one for path, one in new.items())
    assert len(gone) == sum(path not in new or new[path].metadata.uid != one.metadata.uid for path, one in old.items())


# The control of one node's faults.


class FakeTarget:
    """A node to which things happen; `log` has them in order."""

    name = "node1"

    def __init__(self) -> None:
        self.log: list[str] = []
        self.error: Exception | None = None

    async def restart_agent(self) -> Started:
        if self.error:
            raise self.error
        self.log.append("restart")
        return Started(changes=2, refused=("x",), seconds=0.05)

    def kill_agent(self) -> int:
        if self.error:
            raise self.error
        self.log.append("kill agent")
        return 9 if self.log.count("kill agent") == 1 else 0

    def pause_agent(self) -> int:
        self.log.append("pause")
        return 9

    def resume_agent(self) -> None:
        self.log.append("go on")

    async def power_off(self, boot: Boot) -> None:
        self.log.append(f"off, {boot.new_mac:d}{boot.new_ip:d}")

    async def power_on(self) -> str:
        if self.error:
            raise self.error
        self.log.append("on")
        return "192.168.1.13"

    async def cut_api(self) -> None:
        self.log.append("cut")

    async def reconnect_api(self) -> None:
        self.log.append("reconnect")

    async def stop_name_server(self) -> None:
        self.log.append("stop")

    def resume_name_server(self) -> None:
        self.log.append("resume")

    def kill_name_server(self) -> int:
        self.log.append("kill")
        return 7 if self.log.count("kill") == 1 else 0


class Rig:
    """The control of node1, and an API that has just that node."""

    def __init__(self, **annotations: str) -> None:
        self.target: Any = FakeTarget()
        self.annotations: dict[str, Any] = dict(annotations)
        self.control = FaultControl(self.target, Client(self._api, "token"), lambda: NOW, self.node())
        self.task = asyncio.create_task(self.control.run())

    def node(self, uid: str = "u1") -> Node:
        known = {name: text for name, text in self.annotations.items() if text is not None}
        return Node(metadata=Metadata(name="node1", uid=uid, annotations=known))

    async def _api(self, request: HttpRequest) -> Response:
        body = msgspec.json.decode(request.body)
        self.annotations |= body["metadata"]["annotations"]
        self.control.node_changed(self.node(body["metadata"]["uid"]))
        return Response(200, b"{}")

    async def ask(self, id_: str, fault: str, argument: str = "") -> Answer:
        self.annotations |= messages.request_body(Request(id_, fault, argument))["metadata"]["annotations"]
        self.control.node_changed(self.node())
        return await self.answer(id_)

    async def answer(self, id_: str) -> Answer:
        for _ in range(1000):
            if (found := messages.answer_to(id_, self.annotations)) is not None:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(f"no answer to {id_}: {self.annotations}")

    @property
    def active(self) -> list[Active]:
        return messages.active_of({ACTIVE_FAULTS: self.annotations.get(ACTIVE_FAULTS) or ""})


async def test_an_agent_that_is_a_process_is_killed_and_stopped_for_a_time() -> None:
    rig = Rig()
    assert (await rig.ask("1", "kill-agent")).done == "The agent of node1 (process 9 of the lab) was killed."
    assert (await rig.ask("2", "kill-agent")).error == "the agent of node1 does not run: it is about to start"
    assert (await rig.ask("3", "stop-agent", "1s")).done == "The agent of node1 (process 9 of the lab) is stopped, for 1s."
    for number, fault in ((4, "kill-agent"), (5, "restart-agent")):
        assert "stop-agent is active on node1: clear it first" in (await rig.ask(str(number), fault)).error
    assert (await rig.ask("6", CLEAR)).done == "The agent of node1 goes on."
    assert rig.target.log == ["kill agent"] * 2 + ["pause", "go on"] and rig.active == []
    rig.target.error = FaultError("it is a part of the lab's process")
    assert (await rig.ask("7", "kill-agent")).error == "it is a part of the lab's process"
    rig.task.cancel()


async def test_a_fault_is_made_answered_and_undone() -> None:
    rig = Rig()
    said = await rig.ask("1", "restart-agent")
    assert said == Answer("1", "The agent of node1 started again in 50 ms and wrote 3 changes to the kernel.")
    assert not rig.active, "it is over at once"
    assert (await rig.ask("2", "cut-api")).done == "node1 can't reach the API, until `--clear`."
    assert rig.active == [Active("cut-api", "2026-01-01T00:00:00Z")]
    assert (await rig.ask("3", "cut-api")).error == "cut-api is active on node1 already: clear it first"
    assert (await rig.ask("4", "restart-agent")).error == "cut-api is active on node1: clear it first"
    assert (await rig.ask("5", CLEAR)).done == "node1 reaches the API again."
    assert not rig.active
    assert (await rig.ask("6", CLEAR)).done == "No fault is active on node1."
    assert rig.target.log == ["restart", "cut", "reconnect"]
    rig.task.cancel()


async def test_a_node_without_power_boots_when_nothing_else_is_wrong_and_can_do_nothing_before() -> None:
    rig = Rig()
    assert (await rig.ask("1", "uplink-down", "x")).error == "--uplink-down takes no value"
    assert (await rig.ask("2", "power-off", "--new-mac")).done == "node1 is without power, and its pods are gone."
    assert [str(one) for one in rig.active] == ["power-off --new-mac"]
    assert (await rig.ask("3", "restart-agent")).error == "power-off is active on node1: clear it first"
    rig.target.error = LabError("the agent of node1 is not ready")
    assert (await rig.ask("4", CLEAR)).error == "the agent of node1 is not ready"
    assert [str(one) for one in rig.active] == ["power-off --new-mac"], "it is tried again by another request"
    rig.target.error = None
    rig.control.active = {"power-off": rig.control.active["power-off"], "stop-agent": Active("stop-agent", "x")}
    assert (await rig.ask("5", CLEAR)).done == "The agent of node1 goes on. node1 has booted, at 192.168.1.13."
    assert rig.target.log == ["off, 10", "go on", "on"] and not rig.active
    await rig.ask("6", "cut-api")
    assert (await rig.ask("7", "power-off")).error == "cut-api is active on node1: clear it first"
    rig.task.cancel()


async def test_a_name_server_is_stopped_resumed_and_killed() -> None:
    rig = Rig()
    assert "answers none: those of other nodes do" in (await rig.ask("1", "stop-name-server")).done
    assert [one.fault for one in rig.active] == ["stop-name-server"]
    assert (await rig.ask("2", CLEAR)).done == "The name server of node1 answers again."
    assert (await rig.ask("3", "kill-name-server")).done == "The name server of all nodes (process 7 of the lab) was killed."
    assert (await rig.ask("4", "kill-name-server")).error == "the name server does not run: it is about to start"
    assert not rig.active and rig.target.log == ["stop", "resume", "kill", "kill"]
    rig.task.cancel()


async def test_a_fault_with_a_duration_ends_by_itself() -> None:
    rig = Rig()
    assert (await rig.ask("1", "cut-api", "1s")).done == "node1 can't reach the API, for 1s."
    assert rig.active == [Active("cut-api", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z")]
    for _ in range(1000):
        if not rig.active:
            break
        await asyncio.sleep(0.01)
    assert (rig.active, rig.target.log) == ([], ["cut", "reconnect"])
    rig.task.cancel()


async def test_the_end_of_a_fault_that_was_cleared_does_not_end_the_next_one() -> None:
    rig = Rig()
    await rig.ask("1", "cut-api", "1s")
    await rig.ask("2", CLEAR)
    await rig.ask("3", "cut-api")
    await asyncio.sleep(1.2)
    assert rig.active == [Active("cut-api", "2026-01-01T00:00:00Z")]
    rig.task.cancel()


@pytest.mark.parametrize(
    ("fault", "argument", "error"),
    [
        ("meteor", "", "this lab knows no fault 'meteor'"),
        ("cut-api", "soon", "'soon' is no duration: write 90s, 2m or 1h, after the name of the node"),
        ("uplink-down", "x", "--uplink-down takes no value"),
    ],
)
async def test_what_makes_no_sense_is_answered_with_the_reason(fault: str, argument: str, error: str) -> None:
    rig = Rig()
    assert (await rig.ask("1", fault, argument)).error == error
    assert not rig.target.log
    rig.task.cancel()


async def test_a_fault_that_fails_is_answered_and_the_next_one_is_made(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.target.error = RuntimeError("boom")
    assert (await rig.ask("1", "restart-agent")).error == "unforeseen: RuntimeError('boom')"
    assert "fault node=node1 restart-agent" in caplog.text
    rig.target.error = None
    assert (await rig.ask("2", "restart-agent")).done
    rig.task.cancel()


async def test_what_the_last_run_of_the_lab_asked_for_and_had_active_is_over() -> None:
    old = msgspec.json.encode(Request("0", "cut-api")).decode()
    rig = Rig(**{FAULT: old, ACTIVE_FAULTS: '[{"fault":"cut-api","since":"x"}]'})
    assert (await rig.ask("1", "restart-agent")).done
    assert (rig.active, rig.target.log) == ([], ["restart"])
    rig.task.cancel()


async def test_nonsense_in_the_annotation_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(**{FAULT: "{"})
    rig.annotations[FAULT] = '{"id": 1}'
    rig.control.node_changed(rig.node())
    assert caplog.text.count("fault node=node1 request=") == 2
    assert (await rig.ask("1", "restart-agent")).done
    assert FAULT_ANSWERS in rig.annotations
    rig.task.cancel()


async def test_a_node_that_registers_again_has_its_active_faults() -> None:
    rig = Rig()
    await rig.ask("1", "cut-api")
    rig.annotations = {}
    rig.control.node_changed(rig.node("u2"))
    for _ in range(1000):
        if rig.active:
            break
        await asyncio.sleep(0.01)
    assert [one.fault for one in rig.active] == ["cut-api"]
    rig.task.cancel()


def test_what_nothing_on_the_node_says_is_seen_elsewhere() -> None:
    mtu = BY_NAME["mtu"]
    assert "ip link" in mtu.seen_at("1400") and mtu.seen_at("1400 --unseen").startswith("`{check}` names ")
    assert BY_NAME["loss"].seen_at("10% --one-way") == BY_NAME["loss"].look_at
    assert all(row.flags.keys() >= row.look_at_with.keys() for row in BY_NAME.values())
