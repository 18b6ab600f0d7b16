"""The name server's process, as far as it needs no socket of a node."""

from __future__ import annotations

import socket

import pytest

from podplane.kubeapi.access import Access
from podplane.kubeapi.errors import ApiError
from podplane.nameserver import control
from podplane.nameserver.program import NameServer
from tests.unit.virtual_time import virtual


class Listing:
    """In the place of informers: fails so many times."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.calls = 0

    async def sync(self) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


def made(failures: list[Exception]) -> tuple[NameServer, Listing]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    begin = control.Begin(Access("127.0.0.1", 1), "cluster.local", (), ("10.96.0.10",))
    with ours, theirs:
        server = NameServer(begin, ours)
    listing = Listing(failures)
    server._objects = server._configuration = listing  # type: ignore[assignment]  # all that is asked of them here
    return server, listing


@virtual
async def test_hosts_that_it_is_told_of_may_ask() -> None:
    server, _ = made([])
    assert server._answers.client("192.0.2.7") is None
    server._follow(control.Hosts(come=("192.0.2.7",)), [])
    assert server._answers.client("192.0.2.7") is not None
    server._follow(control.Hosts(gone=("192.0.2.7",)), [])
    assert server._answers.client("192.0.2.7") is None


@virtual
async def test_while_the_api_is_away_objects_are_asked_for_again() -> None:
    away = ApiError(503, "ServiceUnavailable", "the API does not answer")
    server, listing = made([away, away, away])
    await server._sync()
    assert listing.calls == 6, "both, three times"


@virtual
async def test_another_fault_ends_the_process() -> None:
    server, _ = made([RuntimeError("a fault")])
    with pytest.raises(RuntimeError):
        await server._sync()
