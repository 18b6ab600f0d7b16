"""Work in slices: nothing is lost or twice, and between any two slices what is there can stand."""

from __future__ import annotations

import ipaddress
from collections.abc import Generator

from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.slices import LATE, LINK, MOST, RANK, result, slices
from podplane.state.network import Address, Link, Neighbour, Route, Sysctl
from podplane.state.nft import GOTO, Chain, Element, Set, Table, Verdict
from podplane.state.operations import Operation, Report, diff
from podplane.state.value import Value
from tests.plans import FAMILIES, OWNER, uplink, wanted


def value(kind: str, number: int) -> Value:
    """The values of some kinds by number."""
    ip = ipaddress.ip_address(number + (10 << 24))
    values: dict[str, Value] = {
        "link": Link(name=f"l{number}", kind="bridge"),
        "port": Link(name=f"p{number}", kind="veth", master=f"l{number}"),
        "address": Address(link="l1", ip=ip, prefix_length=24),
        "route": Route(destination=ipaddress.ip_network(ip), link="l1", protocol=80),
        "neighbour": Neighbour(link="l1", ip=ip, mac="0a:58:00:00:00:01"),
    }
    return values[kind]


KINDS = st.sampled_from(("link", "port", "address", "route", "neighbour"))
OPERATIONS = st.lists(st.tuples(KINDS, st.integers(0, 300), st.booleans()), max_size=900, unique_by=lambda row: row[:2])


@given(OPERATIONS)
def test_slices_are_ordered_bounded_and_complete(rows: list[tuple[str, int, bool]]) -> None:
    operations = [Operation(value(k, n), None) if gone else Operation(None, value(k, n)) for k, n, gone in rows]
    found = list(slices(operations))
    flat = [o for part in found for o in part]
    assert sorted(map(id, flat)) == sorted(map(id, operations))
    late = [o for o in flat if o.new is None and type(o.value) in LATE]
    removals, puts = [o for o in flat if o.new is None and o not in late], [o for o in flat if o.new is not None]
    assert flat == removals + puts + late, "a route goes after those that come in its place"
    for ranks in ([RANK[type(o.value)] for o in part] for part in (removals, late)):
        assert ranks == sorted(ranks, reverse=True)
    keys = [(RANK[type(o.value)], bool(getattr(o.value, "master", ""))) for o in puts]
    assert keys == sorted(keys)
    assert len([part for part in found if any(o.new is None and isinstance(o.value, Link) for o in part)]) <= 1
    for part in found:
        costs = [LINK if isinstance(o.value, Link) else 1 for o in part if o.new is not None or not isinstance(o.value, Link)]
        assert part and sum(costs) <= 2 * MOST


def test_what_fits_one_slice_is_one() -> None:
    operations = [Operation(value("link", 1), None), Operation(None, value("link", 2)), Operation(value("route", 1), None)]
    assert list(slices(operations)) == [operations]
    assert list(slices([])) == []


def test_the_value_of_a_generator() -> None:
    def steps() -> Generator[None, None, int]:
        yield
        yield
        return 7

    assert result(steps()) == 7


def fake() -> tuple[Kernel, FakeOpener]:
    opener = FakeOpener()
    kernel = Kernel(opener.namespace(), opener)
    kernel.apply([Operation(None, v) for v in uplink((4, 6)).values()])
    return kernel, opener


def test_steps_do_what_apply_does_and_report_each_operation_once() -> None:
    want = {i: v for i, v in wanted(FAMILIES["dual"]).items() if not v.netns}
    one, _ = fake()
    other, _ = fake()
    peers = [value.name for value in want.values() if isinstance(value, Link) and value.peer]
    on_peers = {
        name for value in want.values() for name in peers if name in (getattr(value, "link", ""), getattr(value, "name", ""))
    }
    assert on_peers == set(peers)
    operations = [o for o in diff({}, want) if not {getattr(o.value, "link", ""), getattr(o.value, "name", "")} & on_peers]
    steps = list(one.steps(operations))
    whole = other.apply(operations)
    merged = Report()
    for step in steps:
        merged.merge(step)
    assert len(steps) > 2
    assert merged == whole and not whole.failed
    assert sorted(map(str, merged.applied)) == sorted(map(str, operations))
    assert one.read(OWNER) == other.read(OWNER)


def test_a_caller_that_stops_between_two_steps_has_done_what_was_reported_and_no_more() -> None:
    kernel, _ = fake()
    operations: list[Operation] = [Operation(None, Sysctl(name="net.ipv4.ip_forward", value="1"))]
    place = {"family": "inet", "table": "podplane-nodes"}
    operations += [Operation(None, Table(**place)), Operation(None, Set(**place, name="ports", key=("inet_service",)))]
    operations += [Operation(None, Element(**place, set="ports", key=(n,), comment="c" * 100)) for n in range(2000)]
    steps = kernel.steps(operations)
    applied: list[Operation] = []
    while len(applied) < 200:
        applied += next(steps).applied
    steps.close()  # type: ignore[attr-defined]  # a generator
    found = kernel.read(OWNER)
    assert 200 <= len(applied) < 2000
    assert {v for v in found.values() if isinstance(v, Element)} == {o.new for o in applied if isinstance(o.new, Element)}


def test_what_is_not_used_any_more_is_removed_after_what_is_waited_for_was_reported() -> None:
    kernel, _ = fake()
    place = {"family": "inet", "table": "podplane-policy"}
    led = {one: Element(**place, set="ways", key=(80,), data=Verdict(GOTO, one)) for one in ("old", "new")}
    chains = {one: Chain(**place, name=one, rules=()) for one in led}
    ways, peers = (
        Set(**place, name="ways", key=("inet_service",), data=("verdict",)),
        Set(**place, name="peers", key=("inet_service",)),
    )
    kernel.apply([Operation(None, one) for one in (Table(**place), ways, peers, chains["old"], led["old"])])
    moved = [Operation(None, chains["new"]), Operation(led["old"], led["new"])]
    removed = [Operation(chains["old"], None), Operation(peers, None)]
    first, second = (one for one in kernel.steps([*removed, *moved]) if one.applied)
    assert (first.applied, second.applied) == (moved, removed)


def test_what_is_not_used_any_more_is_removed_when_nothing_is_waited_for() -> None:
    kernel, _ = fake()
    place = {"family": "inet", "table": "podplane-policy"}
    table, chain = Table(**place), Chain(**place, name="old", rules=())
    kernel.apply([Operation(None, table), Operation(None, chain)])
    (step,) = (one for one in kernel.steps([Operation(chain, None)]) if one.applied)
    assert step.applied == [Operation(chain, None)]
