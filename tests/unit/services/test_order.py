"""A change of several transactions is whole after each of them: nothing leads to what is not there yet, or not there any more."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.nft.packed import Packed
from podplane.kernel.nft.units import units
from podplane.model.objects import Metadata
from podplane.model.service import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Ingress,
    LoadBalancerStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
)
from podplane.services.elements import encode
from podplane.services.endpoints import Place
from podplane.services.numbers import Numbers
from podplane.services.resolve import NodeContext, resolve
from podplane.services.rules import CHAIN_BITS, CHAIN_MASK
from podplane.services.tables import affinity_sets, guard_chains, sets
from podplane.state.nft import Element, Set, Verdict
from podplane.state.operations import Operation, Report, diff, patch
from podplane.state.value import Identity, Value

HERE = NodeContext(Place("node1"), (4,), (ipaddress.ip_address("192.168.1.10"),))
Kinds = Mapping[str, Mapping[tuple[object, ...], Element]]


def wanted(counts: Mapping[int, int], numbers: Numbers) -> dict[Identity, Value]:
    """Services by number, each with so many endpoints: the odd ones with affinity, the third with source ranges."""
    values: dict[Identity, Value] = {}
    for number, count in counts.items():
        spec = ServiceSpec(
            type="LoadBalancer",
            cluster_ip=f"10.96.0.{number}",
            cluster_ips=(f"10.96.0.{number}",),
            ports=(ServicePort(80),),
            session_affinity="ClientIP" if number % 2 else "None",
            load_balancer_source_ranges=("192.0.2.0/24",) if number == 3 else (),
        )
        status = ServiceStatus(LoadBalancerStatus((Ingress(ip=f"198.51.100.{number}"),)))
        endpoints = tuple(Endpoint((f"10.244.{number}.{k}",)) for k in range(1, count + 1))
        slices = [EndpointSlice(endpoints=endpoints, ports=(EndpointPort(port=8080),))]
        values |= encode(
            resolve(Service(Metadata(name=f"s{number}", namespace="default"), spec, status), slices, HERE), numbers
        )
    return values


SETS = {
    (one.family, one.table, one.name): one for one in (*sets(4), *affinity_sets(4), *guard_chains(4)) if isinstance(one, Set)
}


def in_the_kernels_order(operations: Sequence[Operation]) -> list[Operation]:
    """As the kernel door sends them."""
    report = Report()
    found = [o for unit in units(operations, dict(SETS), lambda _: None, Packed(), report) if unit for o in unit.operations]
    assert len(found) == len(operations) and not report.failed
    return found


def is_whole(state: Iterable[Value]) -> bool:
    """Does every frontend lead to a chosen way, and that to as many endpoints as it says; is who has a guard behind it?"""
    kinds: dict[str, dict[tuple[object, ...], Element]] = {}
    for value in state:
        if isinstance(value, Element):
            kinds.setdefault(value.set, {})[value.key] = value
    return all(_leads_on(frontend, kinds) for frontend in kinds.get("frontends4", {}).values())


def _leads_on(frontend: Element, kinds: Kinds) -> bool:
    mark = frontend.data[0]  # type: ignore[index]  # a mark
    assert isinstance(mark, int)
    choice = kinds.get("choice4", {}).get((mark & CHAIN_MASK,))
    if choice is None or not isinstance(choice.data, Verdict):
        return False
    count, group = int(choice.data.chain.split("-")[1]), mark >> CHAIN_BITS << CHAIN_BITS
    guarded = str(frontend.key[0]) != "198.51.100.3" or frontend.key in kinds.get("guarded4", {})
    if choice.data.chain.count("-") == 1:
        return guarded and all((group, k) in kinds.get("endpoints4", {}) for k in range(count))
    numbers = [kinds.get("ids4", {}).get((group, k)) for k in range(count)]
    return guarded and all(n is not None and n.data in kinds.get("targets4", {}) for n in numbers)


COUNTS = st.dictionaries(st.integers(1, 4), st.integers(0, 3))


@given(COUNTS, COUNTS)
def test_after_each_step_every_frontend_leads_on(before: dict[int, int], after: dict[int, int]) -> None:
    numbers = Numbers()
    state = wanted(before, numbers)
    for operation in in_the_kernels_order(diff(state, wanted(after, numbers))):
        state = patch(state, [operation])
        assert is_whole(state.values()), operation
