"""Packed sets in a real kernel and in the fake: what is written is read back, a change costs what differs, refusals are exact."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import IPv4Address

import msgspec
import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.nft import codec
from podplane.kernel.opener import KernelOpener
from podplane.kernel.slices import result
from podplane.state.nft import Chain, Element, Lookup, Payload, Rule, Set, Table
from podplane.state.nft_members import Members, packed
from podplane.state.operations import Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Value

pytestmark = pytest.mark.kernel
PLACE = {"family": "inet", "table": "podplane-test"}
OWN = Ownership(tables=frozenset({("inet", "podplane-test")}))
TABLE = Table(**PLACE)
PEERS = Set(**PLACE, name="peers", key=("ipv4_addr",), packed=True, comment="pods", rank=2)
PORTS = Set(**PLACE, name="ports", key=("ipv6_addr", "inet_proto", "inet_service"), packed=True)
RULE = Rule((Payload(base=1, offset=12, length=4), Lookup(set="peers")))


@contextlib.contextmanager
def opened(name: str) -> Iterator[Kernel]:
    """With the table; in the namespace that the test runs in."""
    opener = FakeOpener()
    made = Kernel(CurrentNamespace(), KernelOpener()) if name == "real" else Kernel(opener.namespace(), opener)
    made.apply([Operation(None, TABLE)])
    try:
        yield made
    finally:
        made.apply([Operation(TABLE, None)])
        made.close()


both = pytest.mark.parametrize("name", ["real", "fake"])


def members(numbers: range | list[int], comment: str = "pod/a/web") -> Members:
    return Members.of(PEERS, [packed((10 << 24 | n).to_bytes(4, "big"), comment) for n in numbers])


def done(kernel: Kernel, *operations: Operation) -> None:
    report = kernel.apply(operations)
    assert not report.failed and len(report.applied) == len(operations), report.failed


def read(kernel: Kernel, value: Value) -> Value | None:
    return kernel.read(OWN).get(value.identity)


@both
def test_many_elements_are_written_and_read_as_one_value(name: str) -> None:
    with opened(name) as kernel:
        many, other = members(range(1500)), members([1501, 1502], "")
        done(kernel, Operation(None, many), Operation(None, PEERS), Operation(None, PORTS))
        assert read(kernel, PEERS) == PEERS and read(kernel, many) == many and read(kernel, Members.of(PORTS, ())) is None
        done(kernel, Operation(many, other))
        assert read(kernel, many) == other
        ports = Members.of(PORTS, [packed(bytes(15) + bytes((n, 6, 0, 0, 0, 0, 80, 0, 0)), f"pod/a/{n}") for n in range(9)])
        done(kernel, Operation(None, ports), Operation(other, None))
        assert read(kernel, ports) == ports and read(kernel, many) is None


@both
def test_networks_are_written_and_read_as_one_value(name: str) -> None:
    """With neighbours, and up to the last address."""
    networks = Set(**PLACE, name="networks", key=("ipv4_addr",), packed=True, interval=True)
    numbers = [(10 << 24 | n << 9, 24 - n % 2) for n in range(700)] + [(0xFFFFFFF0, 28)]
    keys = [first.to_bytes(4, "big") + bytes((length,)) for first, length in numbers]
    many, fewer = (Members.of(networks, [packed(one, "np/a/p") for one in some]) for some in (keys, keys[3:]))
    with opened(name) as kernel:
        done(kernel, Operation(None, networks), Operation(None, many))
        assert read(kernel, networks) == networks and read(kernel, many) == many
        done(kernel, Operation(many, fewer))
        assert read(kernel, many) == fewer
        done(kernel, Operation(fewer, None), Operation(networks, None))
        assert set(kernel.read(OWN)) == {TABLE.identity}


@both
def test_a_change_sends_what_differs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(name) as kernel:
        many = members(range(1000))
        done(kernel, Operation(None, PEERS), Operation(None, many))
        sent: list[int] = []
        encode = codec.elements
        monkeypatch.setattr(
            "podplane.kernel.nft.codec.elements",
            lambda *arguments, **how: sent.append(sum(len(one.contents) for one in arguments[1])) or encode(*arguments, **how),
        )
        new = packed((10 << 24 | 5000).to_bytes(4, "big"), "pod/a/new")
        changed = many.with_(new).without((10 << 24 | 7).to_bytes(4, "big"))
        renamed = changed.with_(packed((10 << 24 | 8).to_bytes(4, "big"), "pod/a/other"))
        done(kernel, Operation(many, renamed))
        assert sorted(sent) == [1, 1, 2] and read(kernel, many) == renamed


@both
def test_a_set_goes_with_its_elements_and_not_while_a_rule_looks_into_it(name: str) -> None:
    with opened(name) as kernel:
        some, chain = members(range(10)), Chain(**PLACE, name="c", rules=(RULE,))
        done(kernel, Operation(None, PEERS), Operation(None, some), Operation(None, chain))
        report = kernel.apply([Operation(some, None), Operation(PEERS, None)])
        assert {failure.operation.value for failure in report.failed} == {some, PEERS} and read(kernel, some) == some
        done(kernel, Operation(some, None), Operation(PEERS, None), Operation(chain, None))
        assert set(kernel.read(OWN)) == {TABLE.identity}


@both
def test_what_is_refused_in_part_says_what_the_kernel_holds(name: str) -> None:
    with opened(name) as kernel:
        here, wanted = members([5, 6]), members(range(300), "pod/a/new")
        done(kernel, Operation(None, PEERS), Operation(None, here))
        report: Report = kernel.apply([Operation(None, wanted)])
        (failure,) = report.failed
        assert not report.applied and failure.operation.new == wanted
        assert failure.holds == members([n for n in range(300) if n not in (5, 6)], "pod/a/new")
        lonely = kernel.apply([Operation(None, Members.of(PORTS, [packed(bytes(24), "")]))])
        assert [failure.holds for failure in lonely.failed] == [None]


def test_what_others_put_there_is_read_with_it() -> None:
    with opened("real") as kernel:
        some, tables = members([1, 2]), KernelOpener().nft(CurrentNamespace())
        done(kernel, Operation(None, PEERS), Operation(None, some))
        tables.apply([Operation(None, Element(**PLACE, set="peers", key=(IPv4Address("10.0.0.3"),)))])
        tables.close()
        assert read(kernel, some) == Members.of(PEERS, [*some, bytes((10, 0, 0, 3))])


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_set_that_is_changed_while_it_is_read_is_read_whole(is_packed: bool) -> None:
    """The dump that this interrupts leaves out hundreds of elements that last."""
    owner = msgspec.structs.replace(PEERS, packed=is_packed)
    lasting, others = members(range(1200)), members(range(100_000, 102_400))
    more = Members.of(PEERS, [*lasting, *others])
    going = [Operation(more, lasting)] if is_packed else [Operation(one, None) for one in others.elements()]
    with opened("real") as kernel:
        done(kernel, *(Operation(None, one) for one in (owner, *([more] if is_packed else more.elements()))))
        steps = kernel.read_steps(OWN)
        for _ in range(3):  # the table, what is in it, and the first elements
            next(steps)
        done(kernel, *going)
        found = result(steps)
    read = found.get(lasting.identity) if is_packed else [found.get(one.identity) for one in lasting.elements()]
    assert read == (lasting if is_packed else list(lasting.elements()))
    assert len(found) == (3 if is_packed else 2 + len(lasting))


@both
def test_a_table_is_made_anew_in_one_transaction_or_stays_as_it_was(name: str) -> None:
    """Another version of the program has sets of other shapes, which the kernel can't change; each packet finds all of one version."""
    with opened(name) as kernel:
        done(kernel, Operation(None, PEERS), Operation(None, Chain(**PLACE, name="rules", rules=(RULE,))))
        before = kernel.read(OWN)
        kernel.foreign_commit()
        other = msgspec.structs.replace(PEERS, packed=False)
        elements = [Element(**PLACE, set="peers", key=(IPv4Address(10 << 24 | n),), comment="pod/a/web") for n in range(1000)]
        values = [TABLE, other, Chain(**PLACE, name="rules", rules=(RULE,)), *elements]
        wrong = Chain(**PLACE, name="astray", rules=(Rule((Payload(base=1, offset=12, length=4), Lookup(set="nowhere"))),))
        assert not kernel.make_anew([TABLE], [*values[:3], wrong]) and kernel.read(OWN) == before
        assert kernel.make_anew([TABLE], values)
        assert not kernel.foreign_commit(), "it is this process' own commit"
        assert kernel.read(OWN).keys() == {one.identity for one in values}
        done(kernel, Operation(None, Element(**PLACE, set="peers", key=(IPv4Address("10.200.0.1"),))))
