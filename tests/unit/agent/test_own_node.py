"""The node's own object goes and comes back while what it changes is planned and sent: in the end the kernel holds what is desired."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.agent.keys import Key, NodeKey, ServiceKey
from podplane.state.nft import NftValue
from tests.unit.agent.rig import Rig, cluster, frontends, served

NUMBERS = (1, 2, 3, 4, 5)
KEYS: tuple[Key, ...] = (NodeKey("node1"), *(ServiceKey(f"default/s{n}") for n in NUMBERS))


async def serving() -> Rig:
    """An agent that serves Services of each kind."""
    rig = Rig(("10.96.0.0/16", "fd00:10:96::/112"))
    await rig.start(*cluster(1, 2), *(one for n in NUMBERS for one in served(n, range(1, 1 + n))))
    return rig


async def agrees(rig: Rig) -> None:
    """What was refused is tried again, and then the kernel holds what is desired, and the agent knows it."""
    await rig.settle()
    await rig.poll(at=rig.now + 1)
    await rig.agent.writer.idle()
    ledger = rig.agent.ledger
    wanted = {identity: value for identity, value in ledger.desired.items() if isinstance(value, NftValue)}
    assert wanted and rig.host.objects.nft.keys() == wanted.keys()
    assert not ledger.deviations


@pytest.mark.parametrize("planned", range(len(KEYS)))
async def test_tables_that_are_deleted_before_all_in_them_is_planned_anew_are_filled_again(planned: int) -> None:
    rig = await serving()
    before, own = frontends(rig), rig.caches.nodes.objects["node1"]
    rig.remove(own)
    for key in KEYS[: 1 + planned]:
        rig.agent.planner.try_plan(key)
    rig.agent.writer.wake()  # as any notification does
    await rig.agent.writer.idle()
    assert not frontends(rig)
    rig.put(own)
    await agrees(rig)
    assert frontends(rig) == before
    assert rig.events == [], "nobody else changed anything"


EVENTS = st.lists(
    st.one_of(
        st.sampled_from(["go", "come", "send", "poll", "read", "urgent"]).map(lambda what: (what, 0)),
        st.tuples(st.just("plan"), st.integers(0, len(KEYS) - 1)),
        st.tuples(st.just("turns"), st.integers(0, 40)),
        st.tuples(st.just("serve"), st.integers(1, 5)),
    ),
    max_size=16,
)


@given(EVENTS, st.booleans())
@settings(max_examples=50, deadline=None)
async def test_whenever_the_node_goes_and_comes_the_kernel_ends_as_desired(
    events: list[tuple[str, int]], has_pod: bool
) -> None:
    """A pod that is attached keeps its network all the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("podplane.agent.pause.TURN_SECONDS", 0.0)  # a turn for others at each pause
        patch.setattr("podplane.kernel.nft.table.SLICE_BYTES", 1)  # each unit in a transaction of its own
        rig = await serving()
        if has_pod:
            await rig.agent.network.add(rig.attachment("a"))
        links = set(rig.host.objects.network)
        run = asyncio.create_task(rig.agent.run())
        tasks = []
        for what, number in events:
            rig.now += 0.01  # the agent does not wait between two reconciles
            if (begun := happen(rig, what, number)) is not None:
                tasks.append(asyncio.ensure_future(begun))
            for _ in range(number if what == "turns" else 0):
                await asyncio.sleep(0)
            assert not has_pod or links <= rig.host.objects.network.keys()
        happen(rig, "come", 0)
        await asyncio.gather(*tasks)
        run.cancel()
        await asyncio.wait([run])
        await agrees(rig)


def happen(rig: Rig, what: str, number: int) -> Awaitable[object] | None:
    """One thing that happens to an agent, or that it does; what is to be awaited of it."""
    agent, (own, _) = rig.agent, cluster(1, 2)
    match what:
        case "go":
            rig.remove(own)
        case "come":
            rig.put(own)
        case "plan":
            agent.planner.try_plan(KEYS[number])
        case "send":
            agent.writer.wake()
        case "serve":
            rig.put(served(3, range(1, 1 + number))[1])
        case "poll":
            return rig.poll(rig.now + 0.1)
        case "read":
            return agent.watcher.auditor.audit()
        case "urgent":
            return agent.writer.settled(agent.ledger.due[::7])
    return None
