"""What is counted as it is written is what a walk over everything would find; and nothing is walked where it is asked for."""

from __future__ import annotations

import datetime
import ipaddress
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.controllers import ip_addresses, namespaces
from podplane.apiserver.controllers.allocated import ALLOCATOR, MANAGED_BY, Allocated
from podplane.apiserver.controllers.contents import Contents
from podplane.apiserver.controllers.stored import StoredView
from podplane.apiserver.service_ips import ADDRESSES, RANGES
from podplane.apiserver.store import Store

Object = dict[str, Any]
NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)

places = st.tuples(st.sampled_from(["pods", "secrets"]), st.sampled_from(["", "n", "m"]), st.sampled_from("abc"))
writes = st.lists(st.tuples(places, st.none() | st.lists(st.sampled_from(["x/y", "z/y"]), unique=True)), max_size=20)


@given(writes)
def test_contents_are_those_of_a_walk(changes: list[tuple[tuple[str, str, str], list[str] | None]]) -> None:
    contents, there = Contents(), dict[tuple[str, str, str], Object]()
    for place, finalizers in [*changes, *((place, None) for place, _ in changes)]:
        resource, namespace, name = place
        if (old := there.pop(place, None)) is not None:
            contents.observe(resource, old, add=False)
        if finalizers is not None:
            there[place] = {"metadata": {"name": name, "namespace": namespace, "finalizers": finalizers}}
            contents.observe(resource, there[place], add=True)
        for one in ("n", "m"):
            walked = [(kind, object_) for (kind, its, _), object_ in there.items() if its == one]
            assert contents.of(one).resources == Counter(kind for kind, _ in walked)
            assert contents.of(one).finalizers == Counter(f for _, object_ in walked for f in object_["metadata"]["finalizers"])
    assert contents._namespaces == {}


networks = st.builds(
    lambda base, bits, length: ipaddress.ip_network((int(ipaddress.ip_address(base)) + bits, length), strict=False),
    st.just("10.0.0.0"),
    st.integers(0, 255),
    st.integers(24, 32),
) | st.just(ipaddress.ip_network("fd00::/120"))
addresses = st.sets(st.builds(lambda last: f"10.0.0.{last}", st.integers(0, 255)) | st.sampled_from(["fd00::1", "fd01::1"]))


def address(name: str, manager: str = ALLOCATOR) -> Object:
    return {"metadata": {"name": name, "labels": {MANAGED_BY: manager}}, "spec": {}}


@given(addresses, addresses, networks, st.lists(networks, max_size=4))
def test_addresses_of_a_range_are_those_of_a_walk(come: set[str], go: set[str], own: Any, others: list[Any]) -> None:
    allocated = Allocated()
    for name in come | go:
        allocated.observe(ADDRESSES, address(name), add=True)
    for name in go - come:
        allocated.observe(ADDRESSES, address(name), add=False)
    inside = [ip for ip in map(ipaddress.ip_address, come) if ip in own and not any(ip in other for other in others)]
    assert allocated.is_any_in(own, others) is bool(inside)


def test_only_addresses_that_were_made_for_services_count() -> None:
    allocated, network = Allocated(), ipaddress.ip_network("10.0.0.0/24")
    allocated.observe(ADDRESSES, address("10.0.0.1", "somebody"), add=True)
    allocated.observe("services", address("10.0.0.2"), add=True)
    assert not allocated.is_any_in(network, [])
    allocated.observe(ADDRESSES, address("10.0.0.1", "somebody"), add=False)
    allocated.observe(ADDRESSES, address("10.0.0.3"), add=True)
    assert allocated.is_any_in(network, [])


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The resources of which somebody asked for more than one object."""
    asked: list[str] = []
    snapshot = Store.snapshot

    def counted(store: Store, resource: str, *arguments: Any, **more: Any) -> Any:
        asked.append(resource)
        return snapshot(store, resource, *arguments, **more)

    monkeypatch.setattr(Store, "snapshot", counted)
    return asked


def test_what_remains_of_a_namespace_is_said_without_a_walk(walked: list[str]) -> None:
    store = Store(":memory:")
    metadata: Object = {"name": "n", "deletionTimestamp": "2024-01-01T00:00:00Z"}
    store.put("namespaces", ("", "n"), {"metadata": metadata, "spec": {}, "status": {}})
    for name in "abc":
        store.put("secrets", ("n", name), {"metadata": {"name": name, "namespace": "n", "finalizers": ["x/y"]}})
    view = StoredView(store, lambda: NOW)
    walked.clear()
    said = list(namespaces.CONDITIONS.decide(view, ("", "n")))
    assert "secrets. has 3 resource instances" in repr(said)
    assert "x/y in 3 resource instances" in repr(said)
    assert walked == []


def test_a_range_that_goes_walks_no_addresses(walked: list[str]) -> None:
    store = Store(":memory:")
    metadata: Object = {
        "name": "r",
        "deletionTimestamp": "2024-01-01T00:00:00Z",
        "finalizers": [ip_addresses.PROTECTION],
    }
    store.put(RANGES, ("", "r"), {"metadata": metadata, "spec": {"cidrs": ["10.0.0.0/24"]}})
    for last in range(5):
        store.put(ADDRESSES, ("", f"10.0.0.{last}"), address(f"10.0.0.{last}"))
    view = StoredView(store, lambda: NOW)
    walked.clear()
    said = list(ip_addresses.RANGE_CONTROLLER.decide(view, ("", "r")))
    assert "There are still IPAddresses" in repr(said)
    assert ADDRESSES not in walked
