"""Hints by zone: shares of CPUs, who gives to whom, why there are none, and that nothing but nodes and endpoints decides."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.controllers import topology_hints
from podplane.apiserver.controllers.topology_hints import OVERLOAD, Refused, assign, exchange, shares_of, wanted_by_zone
from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.controllers.test_services import SERVICES, service
from tests.unit.apiserver.controllers.test_slices import BOTH, cluster, pod, slices
from tests.unit.apiserver.test_server import Object

AUTO = {"service.kubernetes.io/topology-mode": "Auto"}
ZONE = "topology.kubernetes.io/zone"
NODE = "/api/v1/nodes/node"
EXCLUDED = topology_hints.EXCLUDED[0]


def node(zone: str | None, cpu: str = "4", ready: str = "True", **labels: str) -> Object:
    own = {**({ZONE: zone} if zone is not None else {}), **labels}
    status = {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"name": "n", "labels": own}, "status": status}


def endpoint(zone: str | None, ready: bool = True) -> Object:
    return {"conditions": {"ready": ready}, **({"zone": zone} if zone else {})}


def hints(endpoints: list[Object]) -> list[str]:
    return [one["hints"]["forZones"][0]["name"] if "hints" in one else "" for one in endpoints]


def test_shares_are_those_of_cpus() -> None:
    found = shares_of(
        [node("a"), node("a", "2"), node("b", "2000m"), node("c", "1", "False"), node("d", "8", **{EXCLUDED: ""})]
    )
    assert found == {"a": Fraction(3, 4), "b": Fraction(1, 4)}


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [node("a")],
        [node("a"), node(None)],
        [node("a"), node("")],
        [node("a"), node("b", "0")],
        [node("a"), node("b", "1", "False")],
    ],
    ids=["no nodes", "one zone", "no zone", "an empty zone", "no CPU", "one zone is not ready"],
)
def test_without_shares_there_are_no_hints(nodes: list[Object]) -> None:
    with pytest.raises(
        Refused, match=r"^Insufficient Node information: allocatable CPU or zone not specified on one or more nodes$"
    ):
        shares_of(nodes)


def test_fewer_endpoints_than_zones_are_not_enough() -> None:
    with pytest.raises(Refused, match=r"^Insufficient number of endpoints \(1 endpoints, 2 zones\)$"):
        wanted_by_zone(shares_of([node("a"), node("b")]), 1)


def test_no_zone_is_overloaded() -> None:
    """Of three endpoints, with equal shares, a zone with one would have to take half of all traffic."""
    with pytest.raises(Refused, match=r"^Unable to allocate minimum required endpoints .* \(3 endpoints, 2 zones\)$"):
        wanted_by_zone(shares_of([node("a"), node("b")]), 3)


def test_endpoints_are_for_their_own_zone_where_that_is_fair() -> None:
    endpoints = [endpoint(zone) for zone in "abab"] + [endpoint("a", ready=False)]
    assign(endpoints, [node("a"), node("b")])
    assert hints(endpoints) == ["a", "b", "a", "b", ""]


def test_a_zone_with_too_many_gives_some() -> None:
    endpoints = [endpoint("a") for _ in range(5)] + [endpoint("b")]
    assign(endpoints, [node("a"), node("b")])
    assert Counter(hints(endpoints)) == {"a": 3, "b": 3}
    assert hints(endpoints)[5] == "b"


def test_an_endpoint_without_a_zone_ends_all_hints() -> None:
    endpoints = [endpoint("a"), endpoint("b"), endpoint(None), endpoint("a")]
    with pytest.raises(Refused, match=r"^One or more endpoints do not have a zone specified$"):
        assign(endpoints, [node("a"), node("b")])
    assert hints(endpoints) == [""] * 4


zones = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 8), min_size=2)


@given(zones, st.lists(st.sampled_from("abcd"), min_size=2, max_size=24))
def test_each_zone_has_enough_or_there_are_no_hints(cpus: dict[str, int], places: list[str]) -> None:
    """With hints, every ready endpoint has one, and who gives gives no more than it has; deciding again is the same."""
    nodes = [node(zone, str(cpu)) for zone, cpu in cpus.items()]
    endpoints = [endpoint(zone) for zone in places]
    try:
        assign(endpoints, nodes)
    except Refused:
        assert hints(endpoints) == [""] * len(places)
        return
    again = [endpoint(zone) for zone in places]
    assign(again, list(reversed(nodes)))
    assert hints(again) == hints(endpoints)
    assert "" not in hints(endpoints)
    if set(places) <= cpus.keys():
        have, total = Counter(hints(endpoints)), sum(cpus.values())
        for zone, cpu in cpus.items():
            least = Fraction(cpu, total) * len(places) / (1 + OVERLOAD)
            assert have[zone] > least - 1


def test_who_has_most_gives_to_who_lacks_most() -> None:
    target = {"a": Fraction(2), "b": Fraction(2), "c": Fraction(2)}
    assert exchange(target, {"a": 5, "b": 1}) == ({"a": 3}, ["b", "c", "c"])
    assert exchange(target, {"a": 2, "b": 2, "c": 2}) == ({}, [])


# In a cluster.


async def zoned(annotations: Object, **spec: object) -> Cluster:
    """Nodes in the zones z1 to z3, and two pods on each."""
    made = await cluster()
    for number in (1, 2, 3):
        await made("PATCH", f"{NODE}{number}", {"metadata": {"labels": {ZONE: f"z{number}"}}})
    body = service("web", **spec)
    await made("POST", SERVICES, {**body, "metadata": {"name": "web", "annotations": annotations}})
    for number in range(6):
        await pod(made, f"p{number}", number, nodeName=f"node{number % 3 + 1}")
    await made.settle()
    return made


async def told(made: Cluster) -> set[str]:
    """What the slices say: each endpoint's zone and hint."""
    return {
        f"{one['zone']}>{one['hints']['forZones'][0]['name'] if 'hints' in one else ''}"
        for slice_ in await slices(made)
        for one in slice_["endpoints"]
    }


SAME = {"z1>z1", "z2>z2", "z3>z3"}
NONE = {"z1>", "z2>", "z3>"}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (AUTO, SAME),
        ({"service.kubernetes.io/topology-mode": "auto"}, SAME),
        ({"service.kubernetes.io/topology-aware-hints": "auto"}, SAME),
        ({"service.kubernetes.io/topology-mode": "Disabled", "service.kubernetes.io/topology-aware-hints": "auto"}, NONE),
        ({"service.kubernetes.io/topology-mode": "AUTO"}, NONE),
        ({}, NONE),
    ],
)
async def test_the_annotation_asks_for_hints(annotations: Object, expected: set[str]) -> None:
    made = await zoned(annotations, **BOTH)
    assert await told(made) == expected
    texts = {f"Topology Aware Hints has been enabled, addressType: {family}" for family in ("IPv4", "IPv6")}
    assert set(await made.events("TopologyAwareHintsEnabled")) == (texts if expected == SAME else set())


async def test_it_counts_more_than_the_field() -> None:
    made = await zoned(AUTO, trafficDistribution="PreferSameNode")
    assert not any("forNodes" in one["hints"] for slice_ in await slices(made) for one in slice_["endpoints"])


async def test_nodes_that_change_change_the_hints() -> None:
    made = await zoned(AUTO)
    before = [slice_["metadata"]["resourceVersion"] for slice_ in await slices(made)]
    await made("PATCH", f"{NODE}1", {"metadata": {"annotations": {"any": "thing"}}})
    await made.settle()
    assert [slice_["metadata"]["resourceVersion"] for slice_ in await slices(made)] == before
    await made("PATCH", f"{NODE}1", {"metadata": {"labels": {ZONE: None}}})
    await made.settle()
    assert not any("hints" in one for slice_ in await slices(made) for one in slice_["endpoints"])
    (why,) = await made.events("TopologyAwareHintsDisabled")
    assert why.endswith("zone not specified on one or more nodes, addressType: IPv4")
    await made("PATCH", f"{NODE}1", {"metadata": {"labels": {ZONE: "z1"}}})
    await made.settle()
    assert await told(made) == SAME


async def test_the_hints_go_with_the_annotation() -> None:
    made = await zoned(AUTO)
    await made("PATCH", f"{SERVICES}/web", {"metadata": {"annotations": None}})
    await made.settle()
    assert await told(made) == NONE
