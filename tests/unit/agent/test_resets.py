"""Servers are told of TCP connections that policies took back: when one is looked for, how often, and what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address

import pytest

from podplane.agent import resets
from podplane.agent.resets import Resets
from podplane.kernel.door import Kernel
from podplane.kernel.errors import Denied, NotFound, Retry, Unsupported
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.netlink import DumpInterrupted
from podplane.state.conntrack import Revoked
from podplane.state.value import IPAddress
from tests.unit.agent.rig import until

WEB, OTHER, FAR = (ip_address(f"10.244.{node}.{pod}") for node, pod in ((1, 2), (1, 3), (2, 2)))
CLIENT = ip_address("10.244.2.9")


class Door:
    """How often it was asked, and what it answers with."""

    def __init__(self, *errors: Exception) -> None:
        self.asked: list[Mapping[IPAddress, str]] = []
        self._errors = list(errors)

    def end_revoked(self, namespaces: Mapping[IPAddress, str]) -> int:
        self.asked.append(namespaces)
        if self._errors:
            raise self._errors.pop(0)
        return 1


def resets_of(door: Door) -> Resets:
    return Resets("node1", door, lambda: {WEB: "web"}, asyncio.Lock())


async def test_packets_of_one_moment_are_one_walk_and_what_comes_during_it_is_another_after_a_rest() -> None:
    door = Door()
    its = resets_of(door)
    its.begin()
    await its.idle()
    assert door.asked == [], "nothing was denied"
    for _ in range(3):
        its.tcp_denied()
    await until(lambda: bool(door.asked))
    its.tcp_denied()
    await its.idle()
    its.begin()
    await its.idle()
    assert door.asked == [{WEB: "web"}], "it rests, and nobody waits for that"
    its._rests_until = 0.0
    for _ in range(2):
        its.begin()
        await its.idle()
    assert len(door.asked) == 2


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
async def test_what_fails_is_tried_with_the_next_packet_unless_the_kernel_can_t_do_it(
    error: Exception, goes_on: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resets, "REST_SECONDS", -1.0)
    monkeypatch.setattr(resets, "REST_SHARE", 0)
    door = Door(error)
    its = resets_of(door)
    for _ in range(2):
        its.tcp_denied()
        await its.idle()
    assert len(door.asked) == 1 + goes_on and len(caplog.records) == 1


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
