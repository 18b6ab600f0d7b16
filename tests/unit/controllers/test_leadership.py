"""The election of one of several processes: never two at a time, and never nobody for long."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.controllers.leadership import DEADLINE, DURATION_SECONDS, NAME, RENEWALS, Fence, Leadership
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Request
from tests.unit.apiserver.test_server import Api
from tests.unit.virtual_time import VirtualLoop, virtual

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{NAME}"
STEP = 0.5


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Process:
    """One of several: whether it leads is noted as long as it may write."""

    def __init__(self, api: Api, name: str) -> None:
        self.api, self.is_cut, self.is_slow, self.is_leading, self.begun = api, False, 0.0, False, 0
        loop = asyncio.get_running_loop()
        self.leadership = Leadership(Client(self.handle, "secret"), name, now, clock=loop.time)
        self.fence = Client(Fence(self.handle, self.leadership), "secret")
        self.task = asyncio.ensure_future(self.leadership.run(self.lead))

    async def handle(self, request: Request) -> Answer:
        if self.is_cut:
            await asyncio.sleep(1.0)
            raise ApiError(503, "ServiceUnavailable", "cut off")
        answer = await self.api.server.handle(request)
        await asyncio.sleep(self.is_slow)
        return answer

    async def lead(self) -> None:
        self.is_leading = True
        self.begun += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.is_leading = False

    @property
    def may_write(self) -> bool:
        return self.leadership.seconds_left > 0

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(is_so: Callable[[], bool], seconds: float) -> float:
    """Wait for it; how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not is_so():
        assert loop.time() - began < seconds, "not in time"
        await asyncio.sleep(0.05)
    return loop.time() - began


async def two(api: Api) -> tuple[Process, Process]:
    """A leader, and one that stands by."""
    first = Process(api, "first")
    await until(lambda: first.is_leading, 1)
    second = Process(api, "second")
    await asyncio.sleep(DURATION_SECONDS * 2)
    assert first.is_leading and not second.is_leading
    return first, second


@virtual
async def test_who_is_killed_is_followed_within_fifteen_seconds() -> None:
    first, second = await two(Api())
    first.is_cut = True  # as one that is killed, it says nothing any more
    took = await until(lambda: second.is_leading, 15)
    assert took > DURATION_SECONDS * DEADLINE, "no sooner than the former one has stopped"
    assert not first.may_write and not first.is_leading
    await first.end()
    await second.end()


@virtual
async def test_who_ends_by_itself_is_followed_at_once() -> None:
    api = Api()
    first, second = await two(api)
    await first.end()
    assert (await api("GET", LEASE))["spec"]["holderIdentity"] == ""
    assert await until(lambda: second.is_leading, 15) <= DURATION_SECONDS / RENEWALS + 0.1
    await second.end()


@virtual
async def test_who_is_told_to_end_while_it_renews_leaves_the_lease_all_the_same() -> None:
    """The renewal is written, and its answer is not waited for any more."""
    api = Api()
    first, second = await two(api)
    first.is_slow, before = 1.0, api.store.version
    await until(lambda: api.store.version > before, DURATION_SECONDS)
    first.is_slow = 0.0
    await first.end()
    assert (await api("GET", LEASE))["spec"]["holderIdentity"] == ""
    await until(lambda: second.is_leading, DURATION_SECONDS / RENEWALS + 0.1)
    await second.end()


@virtual
async def test_who_is_told_to_end_while_it_acquires_leaves_no_lease_either() -> None:
    api = Api()
    first = Process(api, "first")
    first.is_slow, before = 1.0, api.store.version
    await until(lambda: api.store.version > before, DURATION_SECONDS)
    first.is_slow = 0.0
    await first.end()
    assert (await api("GET", LEASE))["spec"]["holderIdentity"] == "" and first.begun == 0


@virtual
async def test_who_lost_its_lease_writes_nothing_and_asks_nobody() -> None:
    api = Api()
    first, second = await two(api)
    first.is_cut = True
    await until(lambda: not first.may_write, 15)
    first.is_cut = False
    before = api.store.version
    for verb in (
        first.fence.create("configmaps", "default", {"metadata": {"name": "x"}}),
        first.fence.delete("pods", "a", "b"),
    ):
        with pytest.raises(ApiError, match="it writes nothing") as refused:
            await verb
        assert refused.value.code == 503
    assert api.store.version == before and await first.fence.list("configmaps")
    await first.end()
    await second.end()


@virtual
async def test_a_write_that_is_not_answered_is_given_up_with_the_lease() -> None:
    api = Api()
    first, second = await two(api)
    first.is_slow = 1000.0
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(ApiError, match="before the Lease of this process ended"):
        await first.fence.create("configmaps", "default", {"metadata": {"name": "x"}})
    assert loop.time() - began <= DURATION_SECONDS * DEADLINE
    await first.end()
    await second.end()


@virtual
async def test_an_api_that_is_away_is_waited_for() -> None:
    first, second = await two(Api())
    first.is_cut = second.is_cut = True
    await asyncio.sleep(600)
    assert not first.is_leading and not second.is_leading
    first.is_cut = second.is_cut = False
    await until(lambda: first.is_leading or second.is_leading, 15)
    await first.end()
    await second.end()


@virtual
async def test_a_lease_that_was_deleted_or_restored_stays_with_who_has_it() -> None:
    api = Api()
    first, second = await two(api)
    await api("DELETE", LEASE)
    await asyncio.sleep(30)
    assert first.is_leading and not second.is_leading
    await api("PATCH", LEASE, {"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}})
    await asyncio.sleep(30)
    assert first.is_leading and not second.is_leading
    await first.end()
    await second.end()


@virtual
async def test_in_a_store_that_was_restored_the_leader_begins_anew() -> None:
    first, second = await two(Api())
    assert first.begun == 1
    lease = first.leadership._lease
    assert lease is not None
    later = msgspec.structs.replace(lease.metadata, resource_version="1000000")
    first.leadership._lease = msgspec.structs.replace(lease, metadata=later)  # what is there is older than what was
    await asyncio.sleep(DURATION_SECONDS)
    assert (first.begun, first.is_leading, second.is_leading) == (2, True, False)
    await first.end()
    await second.end()


@virtual
async def test_a_lease_that_was_taken_away_is_lost() -> None:
    api = Api()
    first, second = await two(api)
    await api("PATCH", LEASE, {"spec": {"holderIdentity": "another"}})
    await until(lambda: not first.may_write, DURATION_SECONDS / RENEWALS + 0.1)
    assert not first.is_leading
    await first.end()
    await second.end()


@virtual
async def test_what_fails_is_begun_anew() -> None:
    api, begun = Api(), 0

    async def fails() -> None:
        nonlocal begun
        begun += 1
        raise RuntimeError("oh")

    loop = asyncio.get_running_loop()
    leadership = Leadership(Client(api.server.handle, "secret"), "one", now, clock=loop.time)
    task = asyncio.ensure_future(leadership.run(fails))
    await until(lambda: begun >= 3, 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


CHANGES = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["cut", "slow", "well"]), st.integers(1, 40)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_whatever_the_network_does_never_do_two_lead(changes: list[tuple[int, str, int]]) -> None:
    async def play() -> None:
        api = Api()
        processes = [Process(api, f"p{number}") for number in range(3)]
        for number, state, steps in changes:
            one = processes[number]
            one.is_cut, one.is_slow = state == "cut", 4.0 if state == "slow" else 0.0
            for _ in range(steps):
                await asyncio.sleep(STEP)
                assert sum(process.may_write for process in processes) <= 1
        for one in processes:
            one.is_cut, one.is_slow = False, 0.0
        await until(lambda: sum(process.is_leading for process in processes) == 1, 2 * DURATION_SECONDS)
        for one in processes:
            await one.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play())


@virtual
async def test_a_lease_that_says_it_lasts_for_years_is_followed_after_a_minute() -> None:
    api = Api()
    spec = {"holderIdentity": "evil", "leaseDurationSeconds": 2**31 - 1, "renewTime": "2026-01-01T00:00:00.000000Z"}
    await api("POST", LEASE.rpartition("/")[0], {"metadata": {"name": NAME}, "spec": spec})
    process = Process(api, "one")
    assert await until(lambda: process.is_leading, 80) > 30
    await process.end()
