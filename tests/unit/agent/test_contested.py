"""Many Services that ask for the same addresses: who has which, whatever the order of changes, and what a change costs."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.agent.keys import ServiceKey
from podplane.model.service import Service
from tests.unit.agent.rig import Rig, cluster, frontends, slice_of, wanting

NAMES, ADDRESSES = "abcd", ("192.0.2.1", "192.0.2.2")
Wish = tuple[int, frozenset[str]]
"""When a Service was created, and the external IPs that it asks for."""


def service(number: int, age: int, ips: frozenset[str]) -> Service:
    """One of the Services."""
    return wanting(NAMES[number], f"10.96.0.{number + 1}", str(age), *sorted(ips))


def expected(wishes: dict[int, Wish]) -> dict[str, str]:
    """Each address is the oldest Service's that asks for it."""
    found = {f"10.96.0.{number + 1} 80": f"svc/default/{NAMES[number]}:80" for number in wishes}
    for ip in ADDRESSES:
        asking = [(age, number) for number, (age, ips) in wishes.items() if ip in ips]
        if asking:
            found[f"{ip} 80"] = f"svc/default/{NAMES[min(asking)[1]]}:80"
    return found


@settings(max_examples=60, deadline=None)
@given(
    ages=st.permutations(range(len(NAMES))),
    steps=st.lists(
        st.tuples(st.integers(0, len(NAMES) - 1), st.none() | st.frozensets(st.sampled_from(ADDRESSES)), st.booleans()),
        max_size=14,
    ),
)
def test_the_oldest_service_has_an_address_whatever_came_before(
    ages: list[int], steps: list[tuple[int, frozenset[str] | None, bool]]
) -> None:
    async def scenario() -> None:
        rig, wishes = Rig(("10.96.0.0/16",)), dict[int, Wish]()
        await rig.start(*cluster(1), *(slice_of(name, "10.244.1.2") for name in NAMES))
        for number, ips, settles in steps:
            if ips is None and number in wishes:
                rig.remove(service(number, *wishes.pop(number)))
            elif ips is not None:
                wishes[number] = ages[number], ips
                rig.put(service(number, *wishes[number]))
            if settles:
                await rig.settle()
                assert frontends(rig) == expected(wishes)
        await rig.settle()
        assert frontends(rig) == expected(wishes)
        lost = {f"default/{NAMES[n]}" for n, (_, ips) in wishes.items() if any(_owner(wishes, ip) != n for ip in ips)}
        assert {key.path for key in rig.agent.planner.blocked if isinstance(key, ServiceKey)} == lost

    asyncio.run(scenario())


async def test_one_that_gives_way_takes_something_else_that_is_contested_too() -> None:
    """b takes the first address from a, which asks for the second one by now and takes that from d, and so b takes that from a, too."""
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1), *(slice_of(name, "10.244.1.2") for name in NAMES))
    both = frozenset(ADDRESSES)
    for number, age, ips in ((3, 3, both), (0, 1, frozenset(ADDRESSES[:1]))):
        rig.put(service(number, age, ips))
    await rig.settle()
    rig.put(service(1, 0, both), service(0, 1, both))
    await rig.settle()
    assert frontends(rig) == expected({3: (3, both), 0: (1, both), 1: (0, both)})
    assert {key.path for key in rig.agent.planner.blocked if isinstance(key, ServiceKey)} == {"default/a", "default/d"}


def _owner(wishes: dict[int, Wish], ip: str) -> int:
    return min((age, number) for number, (age, ips) in wishes.items() if ip in ips)[1]


async def test_a_change_of_the_one_that_has_an_address_costs_nothing_for_those_that_wait_for_it() -> None:
    rig, number = Rig(("10.96.0.0/16",)), 50
    owner = wanting("owner", "10.96.0.1", "0", "192.0.2.1")
    waiting = [wanting(f"w{n}", f"10.96.1.{n}", "1", "192.0.2.1") for n in range(1, number + 1)]
    slices = [slice_of("owner", "10.244.1.2", "10.244.1.3"), *(slice_of(one.metadata.name, "10.244.1.2") for one in waiting)]
    await rig.start(*cluster(1), owner, *waiting, *slices)
    assert len(rig.agent.planner.blocked) == number
    planned: list[object] = []
    plan = rig.agent.planner.plan
    rig.agent.planner.plan = lambda key: (planned.append(key), plan(key))[1]  # type: ignore[method-assign]
    rig.put(slice_of("owner", "10.244.1.2"))  # an endpoint goes: objects are released
    await rig.settle()
    assert planned == [ServiceKey("default/owner")]
    rig.remove(owner)
    await rig.settle()
    assert frontends(rig)["192.0.2.1 80"] == "svc/default/w1:80"
    assert len(rig.agent.planner.blocked) == number - 1
