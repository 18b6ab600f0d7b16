"""Which endpoints take a Service's connections on a node."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.objects import Metadata
from podplane.model.service import (
    SERVICE_NAME,
    Conditions,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Hints,
    ServicePort,
    Zone,
)
from podplane.services import endpoints
from podplane.services.endpoints import MANY_SLICES, MOST_KEPT, Candidates, Place, candidates, usable
from podplane.state.conntrack import Target

HTTP = ServicePort(80, "http")
HERE = Place("node1", "a")
READY, LAST, UNREADY, DEAD = (
    Conditions(True, True, False),
    Conditions(False, True, True),
    Conditions(False, False, False),
    Conditions(False, False, True),
)


def endpoint(number: int, conditions: Conditions = READY, node: str = "node1", zones: tuple[str, ...] = ()) -> Endpoint:
    hints = Hints(for_zones=tuple(map(Zone, zones))) if zones else None
    return Endpoint(addresses=(f"10.244.1.{number}",), conditions=conditions, node_name=node, hints=hints)


def found(*endpoints: Endpoint, port: int = 8080) -> Candidates:
    slice_ = EndpointSlice(endpoints=endpoints, ports=(EndpointPort("http", "TCP", port),))
    return candidates([slice_], HTTP, 4)


def numbers(targets: list[Target]) -> list[int]:
    return sorted(target.ip.packed[-1] for target in targets)


def test_an_endpoint_that_says_nothing_is_ready() -> None:
    assert numbers(found(endpoint(1, Conditions())).everywhere(HERE)) == [1]


@pytest.mark.parametrize(
    ("conditions", "chosen"),
    [
        ([READY, UNREADY, LAST, DEAD], [1]),
        ([UNREADY, LAST, DEAD, LAST], [2, 4]),
        ([UNREADY, DEAD], []),
    ],
)
def test_ready_ones_or_else_those_that_serve_until_they_end(conditions: list[Conditions], chosen: list[int]) -> None:
    rows = found(*(endpoint(number, own) for number, own in enumerate(conditions, 1)))
    assert numbers(rows.everywhere(HERE)) == numbers(rows.local(HERE)) == chosen


def test_local_means_this_node_even_when_only_others_are_ready() -> None:
    rows = found(endpoint(1, node="node2"), endpoint(2, LAST), endpoint(3, UNREADY))
    assert numbers(rows.everywhere(HERE)) == [1]
    assert numbers(rows.local(HERE)) == [2]
    assert numbers(rows.local(Place("node3"))) == []


@pytest.mark.parametrize(
    ("zones", "chosen"),
    [
        ([("a",), ("b",), ("a", "b")], [1, 3]),
        ([("b",), ("b",), ("b",)], [1, 2, 3]),
        ([("a",), (), ("b",)], [1, 2, 3]),
    ],
)
def test_hints_count_when_all_have_them_and_some_are_for_this_zone(zones: list[tuple[str, ...]], chosen: list[int]) -> None:
    rows = found(*(endpoint(number, zones=own) for number, own in enumerate(zones, 1)))
    assert numbers(rows.everywhere(HERE)) == chosen


def test_hints_for_the_node_come_before_those_for_its_zone() -> None:
    own = Hints(for_zones=(Zone("a"),), for_nodes=(Zone("node1"),))
    other = Hints(for_zones=(Zone("a"),), for_nodes=(Zone("node2"),))
    rows = found(*(Endpoint(addresses=(f"10.244.1.{n}",), hints=h) for n, h in ((1, own), (2, other))))
    assert numbers(rows.everywhere(HERE)) == [1]
    assert numbers(rows.everywhere(Place("node9", "a"))) == [1, 2]


def test_a_target_in_two_slices_is_one() -> None:
    slices = [EndpointSlice(endpoints=(endpoint(1),), ports=(EndpointPort("http", "TCP", 80),))] * 2
    assert candidates(slices, HTTP, 4).everywhere(HERE) == [Target(ipaddress.ip_address("10.244.1.1"), 80)]


@pytest.mark.parametrize("order", [1, -1])
def test_an_endpoint_that_one_slice_says_is_ready_is_ready(order: int) -> None:
    """It moves between slices, say, and was seen in both."""
    ports = (EndpointPort("http", "TCP", 80),)
    both = [EndpointSlice(endpoints=(endpoint(1, conditions),), ports=ports) for conditions in (READY, UNREADY)]
    assert len(candidates(both[::order], HTTP, 4).everywhere(HERE)) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_ready_entries_that_counts_that_names_its_node(order: int) -> None:
    ports = (EndpointPort("http", "TCP", 80),)
    both = [EndpointSlice(endpoints=(endpoint(1, node=node),), ports=ports) for node in ("node1", "")]
    assert len(candidates(both[::order], HTTP, 4).local(HERE)) == 1


@pytest.mark.parametrize("label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"])
def test_a_slice_that_is_labelled_for_others_is_no_services(label: str) -> None:
    labels = {SERVICE_NAME: "web"}
    assert EndpointSlice(Metadata("web-1", "default", labels=labels)).service == "default/web"
    assert EndpointSlice(Metadata("web-1", "default", labels={**labels, label: ""})).service == ""
    assert EndpointSlice(Metadata("web-1", "default")).service == ""


def test_a_slice_of_names_or_of_the_other_version_has_no_endpoint_that_can_be_used() -> None:
    four, six, name = (Endpoint(addresses=(text,)) for text in ("10.244.1.1", "fd00::1", "example.com"))
    for kind, own in (("IPv4", [four]), ("IPv6", [six]), ("FQDN", []), ("", [])):
        slice_ = EndpointSlice(address_type=kind, endpoints=(four, six, name, Endpoint()))
        assert [endpoint for endpoint, _ in usable(slice_)] == own


def test_what_is_no_endpoint_of_the_port_is_left_out() -> None:
    ports = (EndpointPort("http", "UDP", 1), EndpointPort("https", "TCP", 2), EndpointPort("http", "TCP", None))
    strange = [Endpoint(addresses=(text,)) for text in ("web.example.org", "fd00::1", "")] + [Endpoint()]
    assert candidates([EndpointSlice(endpoints=(endpoint(1),), ports=ports)], HTTP, 4).rows == ()
    assert found(*strange).rows == ()
    assert candidates([EndpointSlice(endpoints=None, ports=None)], HTTP, 4).rows == ()


each = st.sampled_from([READY, LAST, UNREADY, DEAD])


@given(st.lists(st.tuples(each, st.sampled_from(["node1", "node2"]), st.sampled_from([(), ("a",), ("b",)])), max_size=8))
def test_whoever_is_chosen_serves_and_nobody_is_left_without_need(seen: list[tuple[Conditions, str, tuple[str, ...]]]) -> None:
    endpoints = [endpoint(number, *own) for number, own in enumerate(seen, 1)]
    chosen = numbers(found(*endpoints).everywhere(HERE))
    by_number = dict(enumerate(endpoints, 1))
    assert all(by_number[n].is_ready or by_number[n].is_serving_terminating for n in chosen)
    assert bool(chosen) == any(e.is_ready or e.is_serving_terminating for e in endpoints)
    assert len({by_number[n].is_ready for n in chosen}) <= 1
    assert set(numbers(found(*endpoints).local(HERE))) <= {n for n, e in by_number.items() if e.node_name == "node1"}


def test_of_a_service_with_many_slices_each_change_counts() -> None:
    """What was found last of such a one is kept, since all nodes ask for the same."""
    ports, every = (EndpointPort("http", "TCP", 80),), range(1, 2 * MANY_SLICES)
    slices = [EndpointSlice(endpoints=(endpoint(number),), ports=ports) for number in every]
    assert candidates(slices, HTTP, 4) is candidates(list(slices), HTTP, 4)
    assert numbers(candidates(slices, HTTP, 4).everywhere(HERE)) == [*every]
    assert candidates(slices, HTTP, 6).rows == candidates(slices, ServicePort(443, "https"), 4).rows == ()
    assert candidates(slices, HTTP, 4, [ipaddress.ip_network("10.244.1.0/24")]).rows == ()
    for number in every:
        slices[number - 1] = EndpointSlice(endpoints=(endpoint(number, UNREADY),), ports=ports)
        assert numbers(candidates(slices, HTTP, 4).everywhere(HERE)) == [one for one in every if one > number]
    assert len(endpoints._of_many) <= MOST_KEPT
