"""The fake kernel does to rtnetlink's objects what the real one does: the same operations, the same reports, the same state.

The operations are generated, and many of them are wrong: they create what is there, delete what is not, change what is somebody
else's, need a link that is missing or down.
"""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.kernel.text import ip as text
from podplane.state.network import Address, Encap, Fdb, Link, Neighbour, Peer, Proxy, Qdisc, Redirect, Route, Rule, Vxlan
from podplane.state.operations import Operation, Report
from podplane.state.ownership import Ownership, link_alias
from podplane.state.value import Identity, Value

pytestmark = pytest.mark.kernel
ip, network = ipaddress.ip_address, ipaddress.ip_network
OURS, THEIRS = 80, 4
OWNERS = tuple(Ownership(links=frozenset({"cbr0"}), link_prefixes=("pp",), route_protocol=p) for p in (OURS, THEIRS))
MACHINE: list[Value] = [
    Link(name="lo"),
    Link(name="eth0", kind="bridge"),
    Address(link="eth0", ip=ip("192.168.1.10"), prefix_length=24),
    Address(link="eth0", ip=ip("fd00::10"), prefix_length=64),
]
BRIDGE = Link(name="cbr0", kind="bridge", mtu=1400, mac="0a:58:0a:f4:01:01", alias=link_alias())
TUNNEL = Link(name="ppvx", kind="vxlan", mtu=1400, vxlan=Vxlan(vni=7, device="eth0"), alias=link_alias())
PORT = Link(name="pp1", kind="veth", mtu=1400, master="cbr0", hairpin=True, alias=link_alias("pod/a/b"), peer=Peer(name="far1"))


def changed(value: Value, **fields: object) -> Value:
    """Another version of a value."""
    return msgspec.structs.replace(value, **fields)


def versions() -> list[list[Value]]:
    """Objects, each with the versions that it may have: ours, ours of another content, somebody else's."""
    objects: list[list[Value]] = [
        [BRIDGE, changed(BRIDGE, mtu=1300), changed(BRIDGE, up=False), changed(BRIDGE, alias="")],
        [TUNNEL, changed(TUNNEL, vxlan=Vxlan(vni=8, device="eth0")), changed(TUNNEL, mtu=1300), changed(TUNNEL, alias="")],
        [PORT, changed(PORT, hairpin=False), changed(PORT, master="", hairpin=False), changed(PORT, alias="")],
    ]
    for link, place in (("eth0", "192.168.1.{}"), ("eth0", "fd00::{}"), ("cbr0", "10.1.0.{}"), ("cbr0", "fd01::{}")):
        near = Neighbour(link=link, ip=ip(place.format(20)), mac="02:00:00:00:00:01", protocol=OURS)
        objects.append([near, changed(near, mac="02:00:00:00:00:02"), changed(near, protocol=THEIRS)])
        proxy = Proxy(link=link, ip=ip(place.format(30)), protocol=OURS)
        objects.append([proxy, changed(proxy, protocol=THEIRS)])
        if link == "cbr0":
            objects.append([Address(link=link, ip=ip(place.format(1)), prefix_length=24 if "." in place else 64)])
    for link, destination, gateway in (
        ("eth0", "10.2.0.0/16", "192.168.1.1"),
        ("eth0", "fd02::/64", "fd00::1"),
        ("cbr0", "10.3.0.0/16", None),
        ("cbr0", "fd03::/64", None),
    ):
        route = Route(destination=network(destination), gateway=ip(gateway) if gateway else None, link=link, protocol=OURS)
        objects.append([route, changed(route, mtu=1300), changed(route, protocol=THEIRS)])
    for destination, remote in (("10.4.0.0/16", "192.168.1.{}"), ("fd04::/64", "192.168.1.{}"), ("fd05::/64", "fd00::{}")):
        into = Route(
            destination=network(destination), link="cbr0", encap=Encap(remote=ip(remote.format(12)), hops=64), protocol=OURS
        )
        other = Encap(remote=ip(remote.format(13)), local=ip(remote.format(10)), id=7, flags=4)
        objects.append([into, changed(into, encap=other), changed(into, encap=None), changed(into, protocol=THEIRS)])
    objects.append([Fdb(link="ppvx", mac="02:00:00:00:00:09", remote=ip(f"192.168.1.{n}")) for n in (12, 13)])
    objects += [[Fdb(link="ppvx", mac="00:00:00:00:00:00", remote=ip(f"192.168.1.{n}"))] for n in (12, 13)]
    shaper = Qdisc(link="cbr0", rate=1_000_000, burst=16384, limit=65536)
    objects.append([shaper, changed(shaper, rate=2_000_000), changed(shaper, handle=0x8001)])
    redirect = Redirect(link="pp1", to="cbr0")
    objects.append([redirect, changed(redirect, to="ppvx")])
    for family, source in ((4, "10.0.0.0/8"), (6, "fd00::/16")):
        rule = Rule(priority=100, family=family, table=77, source=network(source), protocol=OURS)
        objects.append([rule, changed(rule, table=78), changed(rule, protocol=THEIRS)])
    return objects


VERSIONS = versions()


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    """One operation, whose `old` need not be what the kernel holds."""
    own = st.sampled_from(draw(st.sampled_from(VERSIONS)))
    kind = draw(st.sampled_from(("create", "create", "create", "change", "delete")))
    if kind == "create":
        return Operation(None, draw(own))
    return Operation(draw(own), draw(own) if kind == "change" else None)


BATCHES = st.lists(st.lists(operations(), max_size=8, unique_by=lambda o: o.value.identity), max_size=6)


def words(batch: list[Operation]) -> str:
    """A batch as lines of `ip`: what is to be made of what."""
    return "\n".join(" -> ".join(text.line(v) if v is not None else "nothing" for v in operation) for operation in batch) + "\n"


def outcome(report: Report) -> tuple[set[Value], dict[Value, str], set[Value]]:
    """What was applied, what was refused and how, what was made anew."""
    refused = {f.operation.value: type(f.error).__name__ for f in report.failed}
    return {o.value for o in report.applied}, refused, set(report.recreated)


def state(kernel: Kernel) -> dict[Identity, Value]:
    """All that is ours or theirs, without MACs and MTUs that the kernel chose."""
    found = kernel.read(OWNERS[1]) | kernel.read(OWNERS[0])
    return {i: changed(v, mac="") if isinstance(v, Link) else v for i, v in found.items()}


def test_generated_operations_end_the_same_way_in_both_kernels() -> None:
    workers = Workers(1)

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(BATCHES)
    def law(batches: list[list[Operation]]) -> None:
        opener = FakeOpener()
        fake = Kernel(opener.namespace(), opener)
        with NetworkNamespace.create(workers) as namespace:
            real = Kernel(namespace, KernelOpener())
            try:
                for batch in ([Operation(None, value) for value in MACHINE], *batches):
                    note(words(batch))
                    assert outcome(real.apply(batch)) == outcome(fake.apply(batch))
                    assert state(real) == state(fake)
            finally:
                real.close()

    law()
