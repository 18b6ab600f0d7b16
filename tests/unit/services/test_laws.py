"""Laws over generated Services and slices: the table of a Service says what its elements do, and a restart plans the same.

`Kernel` looks elements up as the rules of `tables` do. `reported` is what elements say of a Service, the way a reader of
`nft list table` would find it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.objects import Metadata
from podplane.model.service import (
    Conditions,
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
from podplane.services import report
from podplane.services.elements import encode
from podplane.services.endpoints import Place
from podplane.services.feature import ServicesMemory, accept, plan
from podplane.services.model import ServiceTable
from podplane.services.report import Description, described
from podplane.services.resolve import NodeContext, resolve
from podplane.services.rules import CHAIN_BITS, CHAIN_MASK
from podplane.state.conntrack import Frontend, Target
from podplane.state.nft import Element, Verdict
from podplane.state.value import Value

BOTH = (4, 6)
NODE_IPS = ("192.168.1.10", "fd00:192:168:1::10")
CONTEXT = NodeContext(
    Place("node1", "a"),
    BOTH,
    tuple(map(ipaddress.ip_address, NODE_IPS)),
    (ipaddress.ip_network("10.96.0.0/16"), ipaddress.ip_network("fd00:10:96::/112")),
)
REFUSED, NOT_SERVED = "refused", "not served"
POLICIES = st.sampled_from(["Cluster", "Local"])
CONDITIONS = st.sampled_from([Conditions(), Conditions(ready=False, serving=True, terminating=True), Conditions(ready=False)])
EXTERNAL = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "10.96.0.200", "127.0.0.1", "no address")


@st.composite
def services(draw: st.DrawFn, number: int) -> Service:
    """A Service with one or two ports, whatever else it asks for."""
    ports = [ServicePort(80, "http", draw(st.sampled_from(["TCP", "UDP"])), draw(st.sampled_from([0, 30000 + number])))]
    if draw(st.booleans()):
        ports.append(ServicePort(53, "dns", draw(st.sampled_from(["UDP", "SCTP"]))))
    ips = (f"10.96.0.{number}", f"fd00:10:96::{number}")
    spec = ServiceSpec(
        type="LoadBalancer",
        cluster_ip=ips[0],
        cluster_ips=ips,
        external_ips=tuple(draw(st.lists(st.sampled_from(EXTERNAL), max_size=3))),
        ports=tuple(ports),
        session_affinity=draw(st.sampled_from(["None", "ClientIP"])),
        internal_traffic_policy=draw(POLICIES),
        external_traffic_policy=draw(POLICIES),
        load_balancer_source_ranges=draw(st.sampled_from([(), ("192.0.2.0/24",), (" fd00::/8", "nonsense")])),
    )
    ingress = draw(st.sampled_from([(), ("198.51.100.1",), ("198.51.100.1", "192.0.2.1")]))
    labels = draw(st.sampled_from([{}, {}, {}, {"service.kubernetes.io/headless": ""}]))
    return Service(
        Metadata(name=f"s{number}", namespace="default", labels=labels),
        spec,
        ServiceStatus(LoadBalancerStatus(tuple(Ingress(ip=ip) for ip in ingress))),
    )


@st.composite
def slices(draw: st.DrawFn) -> list[EndpointSlice]:
    """Slices of both families: endpoints here and elsewhere, some in two slices, some without one of the ports."""
    found = []
    for family, address in (("IPv4", "10.244.1.{}"), ("IPv4", "10.244.1.{}"), ("IPv6", "fd00:10:244:1::{}")):
        endpoints = tuple(
            Endpoint((address.format(last),), draw(CONDITIONS), draw(st.sampled_from(["node1", "node2"])))
            for last in draw(st.lists(st.integers(1, 6), unique=True, max_size=4))
        )
        ports = [EndpointPort("http", protocol, 8080) for protocol in ("TCP", "UDP")]
        ports += [EndpointPort("dns", protocol, 5353) for protocol in ("UDP", "SCTP")]
        found.append(EndpointSlice(address_type=family, endpoints=endpoints, ports=tuple(ports[: draw(st.integers(2, 4))])))
    return found


ONE = st.tuples(services(1), slices())
ALL = st.tuples(st.tuples(services(1), slices()), st.tuples(services(2), slices()), st.tuples(services(3), slices()))


class Kernel:
    """The elements of a node, looked up as a packet does it."""

    def __init__(self, values: Iterable[Value]) -> None:
        self.sets: dict[str, dict[tuple[object, ...], Element]] = {}
        for value in values:
            if isinstance(value, Element):
                self.sets.setdefault(value.set, {})[value.key] = value

    def lookup(self, kind: str, version: int, *key: object) -> Element | None:
        return self.sets.get(f"{kind}{version}", {}).get(key)

    def targets(self, frontend: Frontend, inside: bool) -> frozenset[Target] | str:
        """The endpoints that a new connection may get, REFUSED or NOT_SERVED."""
        version, key = frontend.ip.version, (frontend.ip, frontend.protocol, frontend.port)
        kinds = ("inside", "frontends") if inside else ("frontends",)
        found = next((e for kind in kinds if (e := self.lookup(kind, version, *key)) is not None), None)
        if found is None:
            return (
                REFUSED if self.lookup("refused", version, *key) or self.lookup("owned", version, frontend.ip) else NOT_SERVED
            )
        (mark,) = found.data  # type: ignore[misc]  # a mark
        chain = self.lookup("choice", version, mark & CHAIN_MASK)  # type: ignore[operator]  # a number
        assert chain is not None and isinstance(chain.data, Verdict)
        count, _, seconds = chain.data.chain.partition("-")[2].partition("-")
        group = mark >> CHAIN_BITS << CHAIN_BITS  # type: ignore[operator]  # a number
        return frozenset(self._endpoint(version, group, slot, bool(seconds)) for slot in range(int(count)))

    def _endpoint(self, version: int, group: int, slot: int, has_affinity: bool) -> Target:
        if not has_affinity:
            found = self.lookup("endpoints", version, group, slot)
            assert found is not None
            return found.data  # type: ignore[return-value]  # as this map has it
        member = self.lookup("ids", version, group, slot)
        assert member is not None and self.lookup("sticky", version, *member.data) is not None  # type: ignore[misc]  # a mark
        target = self.lookup("targets", version, *member.data)  # type: ignore[misc]  # a mark
        assert target is not None and member.data[0] & CHAIN_MASK  # type: ignore[index,operator]  # a mark
        return target.data  # type: ignore[return-value]  # as this map has it


def said(table: ServiceTable, frontend: Frontend, inside: bool) -> frozenset[Target] | str:
    """The same, as a Service's table says it."""
    one = next((one for one in table.frontends if one.key == frontend), None)
    if one is None:
        return REFUSED if frontend.ip in table.owned else NOT_SERVED
    if inside and one.cluster_group is not None and one.cluster_group.targets:
        return frozenset(one.cluster_group.targets)
    return frozenset(one.group.targets) or REFUSED


def probes() -> list[Frontend]:
    """Every frontend that generated Services may have, and some that none has."""
    ips = [*(f"10.96.0.{n}" for n in (1, 2, 3, 200)), *(f"fd00:10:96::{n}" for n in (1, 2, 3)), *NODE_IPS]
    ips += ["192.0.2.1", "192.0.2.2", "2001:db8::1", "198.51.100.1", "127.0.0.1"]
    ports = (80, 53, 30001, 30002, 30003, 81)
    return [Frontend(p, ipaddress.ip_address(ip), port) for ip in ips for port in ports for p in ("tcp", "udp", "sctp")]


PROBES = probes()


@given(ONE)
def test_the_table_says_what_the_elements_do(one: tuple[Service, list[EndpointSlice]]) -> None:
    memory = ServicesMemory()
    planned = plan(*one, CONTEXT, memory)
    kernel = Kernel(planned.fragment.values())
    for frontend in PROBES:
        for inside in (True, False):
            assert said(planned.table, frontend, inside) == kernel.targets(frontend, inside), (frontend, inside)
    guarded = {Frontend(key[1], key[0], key[2]) for v in BOTH for key in kernel.sets.get(f"guarded{v}", {})}  # type: ignore[arg-type]  # parts
    assert guarded == {guard.key for guard in planned.table.guards}


def reported(values: Iterable[Value]) -> Description:
    """A Service's report, read out of its elements."""
    own = Description([], {})
    elements = [value for value in values if isinstance(value, Element)]
    for element in elements:
        if element.set.rstrip("46") in ("frontends", "refused"):
            ip, protocol, port = element.key
            group = element.comment if element.data is not None else ""
            own.frontends.append(report.Frontend(str(ip), int(port), str(protocol), group))  # type: ignore[call-overload]  # a number
        if element.set.rstrip("46") in ("endpoints", "targets"):
            ip, port = element.data  # type: ignore[misc]  # a target
            own.groups.setdefault(element.comment, []).append((str(ip), int(port)))  # type: ignore[call-overload]  # a number
    return own


def in_order(description: Description) -> object:
    frontends = sorted(map(msgspec.structs.astuple, description.frontends))
    return frontends, {name: sorted(targets) for name, targets in description.groups.items()}


@given(ONE)
def test_the_report_of_a_table_is_what_its_elements_say(one: tuple[Service, list[EndpointSlice]]) -> None:
    planned = plan(*one, CONTEXT, ServicesMemory())
    assert in_order(described(planned.table)) == in_order(reported(planned.fragment.values()))


@given(ALL, ALL)
def test_an_agent_that_starts_anew_plans_what_is_in_the_kernel(
    before: list[tuple[Service, list[EndpointSlice]]], after: list[tuple[Service, list[EndpointSlice]]]
) -> None:
    """Whatever came and went before: numbers and slots are those of the kernel."""
    memory = ServicesMemory()
    for service, own in (*before, *after):
        taken = frozenset(plan(service, own, CONTEXT, memory).contested)
        accept(memory, plan(service, own, CONTEXT, memory, taken))
    tables = list(memory.tables())
    kernel = {key: value for table in tables for key, value in encode(table, memory.numbers).items()}
    again = ServicesMemory()
    again.recover(kernel.values())
    assert {key: value for table in tables for key, value in encode(table, again.numbers).items()} == kernel


@given(ONE)
def test_the_order_of_endpoints_in_a_slice_says_nothing(one: tuple[Service, list[EndpointSlice]]) -> None:
    service, own = one
    turned = [msgspec.structs.replace(s, endpoints=tuple(reversed(s.endpoints or ()))) for s in own]
    assert resolve(service, own, CONTEXT) == resolve(service, turned, CONTEXT)
