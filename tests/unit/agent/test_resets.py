"""Servers are told of TCP connections that policies took back: when one is looked for, how often, and what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

import pytest

from podplane.agent import resets
from podplane.agent.resets import Resets
from podplane.kernel.door import Kernel
from podplane.kernel.errors import Denied, NotFound, Retry, Unsupported
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.netlink import DumpInterrupted
from podplane.state.conntrack import Revoked, Sent
from podplane.state.value import IPAddress
from tests.unit.agent.rig import until

WEB, OTHER, FAR = (ip_address(f"10.244.{node}.{pod}") for node, pod in ((1, 2), (1, 3), (2, 2)))
CLIENT = ip_address("10.244.2.9")


class Door:
    """How often it was asked, and what it answers with."""

    def __init__(self, *errors: Exception) -> None:
        self.asked: list[Mapping[IPAddress, str]] = []
        self.resets = self.read = 0
        self._errors = list(errors)

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        assert (family, table, names) == ("inet", "podplane-policy", ("resets",))
        self.read += 1
        return {"resets": self.resets}

    def end_revoked(self, namespaces: Mapping[IPAddress, str]) -> int:
        self.asked.append(namespaces)
        if self._errors:
            raise self._errors.pop(0)
        return 1


def resets_of(door: Door, *, may_be: bool = True) -> Resets:
    return Resets("node1", door, lambda: {WEB: "web"}, asyncio.Lock(), lambda: may_be)


async def test_packets_of_one_moment_are_one_walk_and_what_comes_during_it_is_another_after_a_rest() -> None:
    door = Door()
    its = resets_of(door)
    its.tcp_denied()
    await its.idle()
    assert (door.read, door.asked) == (1, []), "nothing of a connection that was let pass once"
    door.resets = 1
    for _ in range(3):
        its.tcp_denied()
    await until(lambda: bool(door.asked))
    door.resets = 2
    await its.idle()
    for _ in range(2):
        its.tcp_denied()
        await its.idle()
    assert door.asked == [{WEB: "web"}], "it rests, and nobody waits for that"
    its._rests_until = 0.0
    for _ in range(2):
        its.begin()
        await its.idle()
    assert len(door.asked) == 2


async def test_the_counter_is_read_once_in_a_while_though_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door()
    its = resets_of(door)
    door.resets = 1
    for _ in range(3):
        its.begin()
        await its.idle()
    assert (door.read, len(door.asked)) == (1, 1)
    monkeypatch.setattr(resets, "LOOK_SECONDS", 0.0)
    its._looks_at = 0.0
    for _ in range(3):
        its.begin()
        await its.idle()
    assert (door.read, len(door.asked)) == (4, 1), "no more packets"


async def test_nothing_is_read_while_no_connection_can_have_been_taken_back() -> None:
    door = Door()
    its = resets_of(door, may_be=False)
    its.begin()
    its.tcp_denied()
    await its.idle()
    assert door.read == 0


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (OSError(24, "Too many open files"), True),
        (Retry("end", "no memory"), True),
        (DumpInterrupted("x"), True),
        (NotFound("end", "no such socket"), True),
        (Denied("end", "not permitted"), False),
        (Unsupported("end", "no"), False),
    ],
)
async def test_what_fails_is_tried_again_unless_the_kernel_can_t_do_it(
    error: Exception, goes_on: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resets, "REST_SECONDS", -1.0)
    monkeypatch.setattr(resets, "REST_SHARE", 0)
    monkeypatch.setattr(resets, "LOOK_SECONDS", 0.0)
    door = Door(error, error)
    its = resets_of(door)
    door.resets = 1
    for _ in range(4):
        its.begin()
        await its.idle()
    assert len(door.asked) == (3 if goes_on else 1)
    assert len(caplog.records) == 1, "it is said once"


def test_connections_are_ended_at_servers_that_are_pods_of_the_node() -> None:
    opener = FakeOpener()
    kernel = Kernel(opener.namespace(), opener)
    kernel.attach("web", opener.namespace())
    kernel.attach("other", opener.namespace())
    found = [Revoked(server, 80, CLIENT, 4000 + n) for n, server in enumerate((WEB, FAR, OTHER, WEB))]
    opener.revoked += found
    assert kernel.end_revoked({WEB: "web", OTHER: "other"}) == 3
    assert opener.ended == [found[0], found[3], found[2]]
    opener.ended.clear()
    kernel.detach("other")
    assert kernel.end_revoked({WEB: "web", OTHER: "other"}) == 2 and opener.ended == [found[0], found[3]]


def test_clients_whose_connections_are_not_translated_have_been_reset_by_the_tables() -> None:
    opener = FakeOpener()
    kernel = Kernel(opener.namespace(), opener)
    kernel.attach("web", opener.namespace())
    opener.revoked.append(Revoked(FAR, 80, WEB, 4000, Sent(WEB, 4000, FAR, 80)))
    assert kernel.end_revoked({WEB: "web"}) == 0 and opener.ended == []


def test_servers_elsewhere_are_asked_once_for_connections_of_clients_of_the_node() -> None:
    opener = FakeOpener()
    kernel = Kernel(opener.namespace(), opener)
    kernel.attach("web", opener.namespace())
    service = ip_address("10.96.0.7")
    ours, others = Sent(WEB, 4000, service, 80), Sent(CLIENT, 4001, FAR, 80)
    opener.revoked += [Revoked(FAR, 8080, WEB, 4000, ours), Revoked(OTHER, 8080, CLIENT, 4001, others)]
    for _ in range(3):
        assert kernel.end_revoked({WEB: "web"}) == 1
    assert opener.ended == [Revoked(WEB, 4000, service, 80)] * 3, "its client's end of what was translated"
    assert opener.probed == [ours], "by the address that its client sends to"
    opener.revoked[0] = Revoked(FAR, 8080, WEB, 4002, again := ours._replace(source_port=4002))
    kernel.end_revoked({WEB: "web"})
    assert opener.probed == [ours, again]
    opener.revoked.clear()
    kernel.end_revoked({WEB: "web"})
    opener.revoked.append(Revoked(FAR, 8080, WEB, 4000, ours))
    kernel.end_revoked({WEB: "web"})
    assert opener.probed == [ours, again, ours], "another connection has the same ports later"
