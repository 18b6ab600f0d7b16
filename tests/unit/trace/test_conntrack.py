"""Connections and translations: chosen once, followed by later packets, turned round for answers."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.trace.conntrack import DESTINATION, SOURCE, Range, Track, choose_translation, confirm, track, translate
from podplane.trace.evaluator import answer
from podplane.trace.memory import DST_NAT, SRC_NAT, Connection, Memory, Tuple
from podplane.trace.packet import Packet, echo

CLIENT, SERVICE, POD, NODE = (ipaddress.ip_address(f"10.0.0.{n}") for n in (1, 2, 3, 4))
PACKET = Packet(source=CLIENT, destination=SERVICE)
RANDOM_FULLY = 1 << 4
AS_IT_IS = Range()


def first(_: int) -> int:
    return 0


def pass_machine(
    packet: Packet, known: dict[Tuple, Connection], to: Range = AS_IT_IS, from_: Range = AS_IT_IS
) -> tuple[Packet, Track]:
    """Through prerouting and postrouting of a machine that remembers."""
    seen = track(packet, known)
    for end, wanted in ((DESTINATION, to), (SOURCE, from_)):
        choose_translation(seen, end, wanted, known, first)
        packet = translate(packet, seen, end)
    confirm(seen, known)
    return packet, seen


@pytest.mark.parametrize("packet", [PACKET, msgspec.structs.replace(PACKET, protocol="udp"), echo(CLIENT, SERVICE, 77)])
@given(st.booleans(), st.booleans())
def test_an_answer_comes_from_whom_the_client_asked(packet: Packet, has_target: bool, is_masked: bool) -> None:
    known: dict[Tuple, Connection] = {}
    to, from_ = Range(POD if has_target else None), Range(NODE if is_masked else None)
    there, seen = pass_machine(packet, known, to, from_)
    assert (there.source, there.destination) == (NODE if is_masked else CLIENT, POD if has_target else SERVICE)
    assert seen.connection is not None and seen.state == "new"
    assert bool(seen.connection.status & DST_NAT) == has_target and bool(seen.connection.status & SRC_NAT) == is_masked
    back, seen = pass_machine(answer(there), known)
    assert back == answer(packet) and seen.state == "established" and seen.is_reply
    again, seen = pass_machine(packet, known, Range(CLIENT))
    assert again == there, "a later packet follows what the first one chose"
    assert seen.state == "established" and not seen.is_reply


def test_ports_are_translated_with_the_address() -> None:
    known: dict[Tuple, Connection] = {}
    there, _ = pass_machine(PACKET, known, Range(POD, 8080, 8080))
    assert (there.destination, there.destination_port) == (POD, 8080)
    back, _ = pass_machine(answer(there), known)
    assert (back.source, back.source_port, back.destination_port) == (SERVICE, 80, 40000)


def test_of_two_clients_behind_one_address_each_gets_its_own_answers() -> None:
    known: dict[Tuple, Connection] = {}
    other = msgspec.structs.replace(PACKET, source=NODE)
    one, _ = pass_machine(PACKET, known, from_=Range(POD))
    two, _ = pass_machine(other, known, from_=Range(POD))
    assert one.source == two.source == POD and one.source_port == 40000 != two.source_port
    assert pass_machine(answer(two), known)[0].destination == NODE
    assert pass_machine(answer(one), known)[0].destination == CLIENT


def test_a_random_port_is_another_one_and_within_a_range_that_is_given() -> None:
    there, _ = pass_machine(PACKET, {}, from_=Range(NODE, flags=RANDOM_FULLY))
    assert there.source_port != 40000
    there, _ = pass_machine(PACKET, {}, from_=Range(NODE, 5000, 5001, RANDOM_FULLY))
    assert there.source_port in (5000, 5001)


def test_what_is_not_tracked_is_not_translated() -> None:
    for state in ("invalid", "untracked"):
        packet = msgspec.structs.replace(PACKET, state=state)
        there, seen = pass_machine(packet, {}, Range(POD))
        assert there == packet and seen.connection is None and seen.state == state


def test_a_copy_of_memory_changes_alone() -> None:
    memory = Memory({"": {}}, {("", "inet", "t", "s"): {b"a": b""}})
    copy = memory.copy()
    pass_machine(PACKET, copy.connections[""])
    copy.elements["", "inet", "t", "s"][b"b"] = b""
    assert memory == Memory({"": {}}, {("", "inet", "t", "s"): {b"a": b""}})
