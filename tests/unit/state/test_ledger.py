"""The ledger: what is known of the kernel is what the kernel holds, whatever happens in whatever order, and operations are
computed against it."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.kernel.errors import Denied, Exists, NotFound
from podplane.state.ledger import MAX_RETRY_SECONDS, RETRY_SECONDS, Ledger, Status
from podplane.state.network import Link, Proxy, Sysctl
from podplane.state.nft import Chain, Element, Set, Table
from podplane.state.nft_members import Members, packed
from podplane.state.operations import Failure, Operation, Report
from podplane.state.value import Identity, Value, fragment


def value(name: str, content: str, netns: str = "") -> Link:
    """A version of an object."""
    return Link(netns=netns, name=name, alias=content, up=False)


def same(wanted: Value, found: Value) -> bool:
    """Fields that are left to the kernel may have any value."""
    left = {f: getattr(found, f) for f in ("mtu",) if getattr(wanted, f, None) == 0}
    return msgspec.structs.replace(wanted, **left) == found


def ledger() -> Ledger:
    return Ledger(same)


class FakeKernel:
    """Holds values, is as strict as the real one, and refuses what it is told to."""

    def __init__(self) -> None:
        self.values: dict[Identity, Value] = {}
        self.refuses: set[Identity] = set()

    def carry_out(self, operations: list[Operation]) -> Report:
        report = Report()
        for operation in operations:
            identity = operation.value.identity
            error: Exception | None = None
            if identity in self.refuses:
                error = Denied("it", "Operation not permitted")
            elif operation.new is None and identity not in self.values:
                error = NotFound("it", "No such device")
            elif operation.old is None and operation.new is not None and identity in self.values:
                error = Exists("it", "File exists")
            if error is not None:
                report.failed.append(Failure(operation, error))
                continue
            if operation.new is None:
                del self.values[identity]
            else:
                self.values[identity] = operation.new
            report.applied.append(operation)
        return report


def drain(book: Ledger, kernel: FakeKernel, now: float = 0.0) -> None:
    while book.has_due:
        book.acknowledge(kernel.carry_out(book.take(book.due)), now)


NAMES = st.sampled_from("abcd")
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sampled_from("xyz"), st.dictionaries(NAMES, st.sampled_from("123"), max_size=4)),
        st.tuples(st.just("send"), st.integers(0, 3), st.none()),
        st.tuples(st.just("answer"), st.integers(0, 3), st.none()),
        st.tuples(st.just("foreign"), NAMES, st.sampled_from([None, "1", "2", "9"])),
        st.tuples(st.just("refuse"), NAMES, st.booleans()),
        st.tuples(st.just("read"), st.none(), st.none()),
    ),
    max_size=25,
)


@given(EVENTS)
@settings(max_examples=300, deadline=None)
def test_whatever_happens_the_kernel_ends_as_desired(events: list[tuple[str, Any, Any]]) -> None:
    """Changes come while batches are under way, the kernel refuses, and others change objects: nothing is lost and nothing
    is written twice."""
    book, kernel = ledger(), FakeKernel()
    batches: list[list[Operation]] = []
    for kind, one, other in events:
        if kind == "want":
            # keys want different objects, so that they never conflict
            book.replace(one, fragment(value(f"{one}{name}", content) for name, content in other.items()))
        elif kind == "send" and book.has_due:
            batches.append(book.take(book.due[: one + 1]))
        elif kind == "answer" and batches:
            book.acknowledge(kernel.carry_out(batches.pop(min(one, len(batches) - 1))), 0.0)
        elif kind == "foreign":
            identity = value(f"x{one}", "").identity
            if other is None:
                kernel.values.pop(identity, None)
            else:
                kernel.values[identity] = value(f"x{one}", other)
            book.observe(identity, kernel.values.get(identity))
        elif kind == "refuse":
            identity = value(f"y{one}", "").identity
            kernel.refuses.add(identity) if other else kernel.refuses.discard(identity)
        elif kind == "read" and not batches:
            for _ in book.end_reading(book.begin_reading(), dict(kernel.values), lambda identity: True):
                pass
    for batch in batches:
        book.acknowledge(kernel.carry_out(batch), 0.0)
    kernel.refuses.clear()
    for _ in range(3):  # an observation during a batch is left out: a reading brings it
        for _ in book.end_reading(book.begin_reading(), dict(kernel.values), lambda identity: True):
            pass
        book.release_retries(0.0, every=True)
        drain(book, kernel)
    assert kernel.values == dict(book.desired)
    assert not book.refused
    assert book.counts() == {Status.DONE: len(book.desired), Status.PENDING: 0, Status.REFUSED: 0}


@given(EVENTS)
@settings(max_examples=100, deadline=None)
def test_what_is_done_is_not_sent_again(events: list[tuple[str, Any, Any]]) -> None:
    book, kernel = ledger(), FakeKernel()
    for kind, one, other in events:
        if kind == "want":
            book.replace(one, fragment(value(f"{one}{name}", content) for name, content in other.items()))
            drain(book, kernel)
            assert not book.has_due
            book.replace(one, dict(book.desired.fragment(one)))
            assert not book.has_due
            assert kernel.values == dict(book.desired)


def test_an_operation_is_computed_when_it_is_sent() -> None:
    """What was wanted for a moment only is never sent; what changes while it is under way is sent after that, against what
    the kernel has then."""
    book, kernel = ledger(), FakeKernel()
    one, two, three = (value("a", content) for content in "123")
    book.replace("x", fragment([one]))
    book.replace("x", fragment([two]))
    batch = book.take(book.due)
    assert batch == [Operation(None, two)]
    book.replace("x", fragment([three]))
    assert not book.has_due, "it is under way"
    book.acknowledge(kernel.carry_out(batch), 0.0)
    assert book.take(book.due) == [Operation(two, three)]


def test_after_a_refusal_the_next_change_is_against_what_the_kernel_has() -> None:
    """A value that was refused was never there: a change must not remove it (the next one would be refused too)."""
    book, kernel = ledger(), FakeKernel()
    good, bad, better = (value("a", content) for content in "123")
    book.replace("x", fragment([good]))
    drain(book, kernel)
    kernel.refuses.add(good.identity)
    book.replace("x", fragment([bad]))
    drain(book, kernel)
    assert book.status(bad.identity) is Status.REFUSED
    kernel.refuses.clear()
    book.replace("x", fragment([better]))
    assert book.take(book.due) == [Operation(good, better)]


def test_a_change_and_its_reversal_before_it_is_sent_is_no_change() -> None:
    book, kernel = ledger(), FakeKernel()
    book.replace("x", fragment([value("a", "1")]))
    drain(book, kernel)
    book.replace("x", {})
    book.replace("x", fragment([value("a", "1")]))
    assert not book.has_due


def test_a_refusal_has_a_reason_and_is_tried_again_later_and_later() -> None:
    book, kernel = ledger(), FakeKernel()
    wanted = value("a", "1")
    kernel.refuses.add(wanted.identity)
    book.replace("x", fragment([wanted]))
    now, waits = 0.0, []
    for _ in range(12):
        drain(book, kernel, now)
        refusal = book.refusal(wanted.identity)
        assert refusal is not None and str(refusal.error) == "it: Operation not permitted" and refusal.since == 0.0
        waits.append(refusal.next_try - now)
        assert book.next_retry() == refusal.next_try
        book.release_retries(refusal.next_try - 0.01)
        assert not book.has_due
        now = refusal.next_try
        book.release_retries(now)
        assert book.has_due and book.next_retry() is None
    assert waits[:3] == [RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS]
    assert waits[-1] == MAX_RETRY_SECONDS
    kernel.refuses.clear()
    drain(book, kernel, now)
    assert book.status(wanted.identity) is Status.DONE and not book.refused


def test_a_refused_object_costs_the_others_nothing() -> None:
    book, kernel = ledger(), FakeKernel()
    kernel.refuses.add(value("a", "").identity)
    book.replace("x", fragment(value(name, "1") for name in "abc"))
    drain(book, kernel)
    assert book.counts() == {Status.DONE: 2, Status.PENDING: 0, Status.REFUSED: 1}


def test_what_the_kernel_may_choose_is_no_deviation() -> None:
    book = ledger()
    wanted = value("a", "1")
    book.replace("x", fragment([wanted]))
    book.acknowledge(Report(applied=book.take(book.due)), 0.0)
    assert not book.observe(wanted.identity, msgspec.structs.replace(wanted, mtu=1500))
    assert book.observe(wanted.identity, msgspec.structs.replace(wanted, alias="2"))
    assert not book.observe(wanted.identity, msgspec.structs.replace(wanted, alias="2")), "that is known"


def test_what_nobody_wants_is_removed() -> None:
    book = ledger()
    surplus = value("z", "1")
    assert book.observe(surplus.identity, surplus)
    assert book.take(book.due) == [Operation(surplus, None)]


def test_an_observation_of_what_is_under_way_waits_for_the_answer() -> None:
    book = ledger()
    wanted = value("a", "1")
    book.replace("x", fragment([wanted]))
    batch = book.take(book.due)
    assert not book.observe(wanted.identity, None), "it may be older than the batch"
    book.acknowledge(Report(applied=batch), 0.0)
    assert book.status(wanted.identity) is Status.DONE


def test_a_reading_does_not_judge_what_was_written_meanwhile() -> None:
    book = ledger()
    before, during = value("a", "1"), value("b", "1")
    book.replace("x", fragment([before]))
    book.acknowledge(Report(applied=book.take(book.due)), 0.0)
    reading = book.begin_reading()
    found: dict[Identity, Value] = {}  # somebody removed a, and b is not there yet
    book.replace("y", fragment([during]))
    book.acknowledge(Report(applied=book.take(book.due)), 0.0)
    deviating = [identity for slice_ in book.end_reading(reading, found, lambda identity: True) for identity in slice_]
    assert deviating == [before.identity]
    assert book.status(during.identity) is Status.DONE


def test_a_link_that_goes_is_set_down_first_and_settled_by_that() -> None:
    book, kernel = ledger(), FakeKernel()
    veth = Link(name="pp1", kind="veth")
    book.replace("x", fragment([veth]))
    drain(book, kernel)
    changed = book.replace("x", {})
    down = msgspec.structs.replace(veth, up=False)
    assert book.take(book.due) == [Operation(veth, down)]
    assert book.unsettled(changed)
    assert book.acknowledge(Report(applied=[Operation(veth, down)]), 0.0) == [veth.identity]
    assert book.take(book.due) == [Operation(down, None)]


def test_what_is_about_to_be_deleted_is_no_foreign_change_when_it_is_seen_once_more() -> None:
    """The kernel notifies that a link was set down with all that it knows of the link, which is more than was asked for."""
    book, kernel = ledger(), FakeKernel()
    veth = Link(name="pp1", kind="veth")
    book.replace("x", fragment([veth]))
    drain(book, kernel)
    book.replace("x", {})
    down = msgspec.structs.replace(veth, up=False)
    assert book.take(book.due) == [Operation(veth, down)]
    book.acknowledge(Report(applied=[Operation(veth, down)]), 0.0)
    seen = msgspec.structs.replace(down, mtu=1500, mac="02:00:00:00:00:01")
    assert not book.observe(seen.identity, seen)
    assert book.take(book.due) == [Operation(seen, None)]


def test_the_proxies_of_the_node_are_known() -> None:
    book = ledger()
    proxy = Proxy(link="eth0", ip=ipaddress.ip_address("192.168.1.250"), protocol=80)
    book.replace("x", fragment([proxy, msgspec.structs.replace(proxy, netns="pod/a")]))
    assert list(book.proxies) == [proxy.identity]
    book.replace("x", {})
    assert not book.proxies


def test_a_namespace_that_goes_takes_along_what_is_in_it() -> None:
    book, kernel = ledger(), FakeKernel()
    inside, outside = value("eth0", "1", "pod/a"), value("cbr0", "1")
    book.replace("x", fragment([inside, outside]))
    drain(book, kernel)
    book.replace("x", {})
    assert book.vanish("pod/a") == [inside.identity]
    assert [operation.value for operation in book.take(book.due)] == [outside]


def test_the_sysctls_of_the_node_are_known_by_name() -> None:
    book = ledger()
    forwarding = Sysctl(name="net.ipv4.ip_forward", value="1")
    book.replace("x", fragment([forwarding, Sysctl(netns="pod/a", name="net.ipv4.ip_forward", value="0")]))
    assert book.sysctls == {"net.ipv4.ip_forward": "1"}
    book.replace("x", {})
    assert book.sysctls == {}


def test_a_million_objects_have_no_status_objects() -> None:
    """What is done is in `desired` alone: neither deviations, nor what is due or sent, nor refusals grow with it."""
    book = ledger()
    rng = random.Random(0)
    book.replace("x", fragment(value(f"n{n}", str(rng.random())) for n in range(2000)))
    book.acknowledge(Report(applied=book.take(book.due)), 0.0)
    held = [getattr(book, name) for name in vars(book) if name not in ("desired",)]
    assert not any(isinstance(one, dict | set | list) and one for one in held)
    assert book.counts()[Status.DONE] == 2000


@pytest.mark.parametrize("netns", ["", "pod/a"])
def test_who_told_is_believed(netns: str) -> None:
    book = ledger()
    wanted = value("a", "1", netns)
    book.replace("x", fragment([wanted]))
    book.trust([wanted.identity])
    assert not book.has_due and book.status(wanted.identity) is Status.DONE


def test_a_reading_does_not_judge_what_was_notified_after_it_began() -> None:
    book = ledger()
    link = Link(name="pp1", kind="veth")
    book.replace("x", fragment([link]))
    book.acknowledge(Report(applied=book.take(book.due)), 0.0)
    reading = book.begin_reading()
    assert book.observe(link.identity, None)
    for _ in book.end_reading(reading, {link.identity: link}, lambda identity: True):
        pass
    assert book.status(link.identity) is Status.PENDING


def test_a_link_that_can_not_be_set_down_before_its_removal_is_refused_and_waits() -> None:
    book = ledger()
    up = Link(name="pp1", kind="veth")
    book.replace("pod", fragment([up]))
    book.acknowledge(Report(applied=book.take(book.due)), 0.0)
    book.replace("pod", {})
    (operation,) = book.take(book.due)
    assert operation.new == msgspec.structs.replace(up, up=False)
    settled = book.acknowledge(Report(failed=[Failure(operation, Denied("it", "Operation not permitted"))]), 1.0)
    assert settled == [up.identity] and not book.has_due and book.status(up.identity) is Status.REFUSED
    book.release_retries(1.0 + RETRY_SECONDS)
    assert book.has_due


def test_sysctls_of_a_link_that_is_gone_are_due_as_long_as_they_are_wanted() -> None:
    book = ledger()
    own = Sysctl(name="net.ipv6.conf.pp1.disable_ipv6", value="1", link="pp1")
    book.replace("pod", fragment([own, Sysctl(name="net.ipv4.ip_forward", value="1")]))
    book.acknowledge(Report(applied=book.take(book.due)), 0.0)
    assert book.lose_sysctls("eth0") == [] and book.lose_sysctls("pp1") == [own.identity]
    assert book.take(book.due) == [Operation(None, own)]
    book.replace("pod", {})
    assert book.lose_sysctls("pp1") == [] and not book._link_sysctls


TABLE, OTHER = Table(table="one"), Table(table="two")
NUMBERED = Set(table="one", name="numbers", key=("mark",))


def number(key: int, table: str = "one", of: str = "numbers") -> Element:
    return Element(table=table, set=of, key=(key,))


def test_what_is_in_a_table_goes_with_it_and_is_due_again_when_it_is_wanted() -> None:
    book = ledger()
    kept, gone, elsewhere = number(1), number(2), number(1, "two")
    chain = Chain(table="one", name="numbers")
    book.replace("node", fragment([TABLE, NUMBERED]))
    book.replace("service", fragment([kept, chain, OTHER, elsewhere]))
    book.replace("another", fragment([kept, gone]))
    book.acknowledge(Report(book.take(book.due)), 0.0)
    book.replace("another", {})
    book.replace("node", {})
    book.acknowledge(Report(book.take([NUMBERED.identity, TABLE.identity])), 0.0)
    assert list(book.lose_contents()) == [[gone.identity]], "nobody wants it, so that settles it"
    assert dict(book.deviations) == {kept.identity: None, chain.identity: None}
    assert book.due == [kept.identity, chain.identity]
    assert list(book.lose_contents()) == [], "that was noted"


def test_a_set_that_goes_costs_no_walk_over_what_is_in_others() -> None:
    """One that goes with elements of its own, unplanned or not, finds these among what deviates."""
    book = ledger()
    others = [number(n, of="others") for n in range(1000)]
    book.replace("node", fragment([TABLE, OTHER, *others]))
    book.replace("service", fragment([NUMBERED, number(1)]))
    book.acknowledge(Report(book.take(book.due)), 0.0)
    book.replace("service", {})
    book.acknowledge(Report(book.take([NUMBERED.identity])), 0.0)
    assert list(book.lose_contents()) == [[number(1).identity]], "one slice, of what deviates"
    assert not book.deviations and not book.due


def test_elements_go_with_their_set_and_nothing_else_of_that_name() -> None:
    book = ledger()
    element, chain, other = number(1), Chain(table="one", name="numbers"), number(1, of="others")
    book.replace("node", fragment([NUMBERED]))
    book.replace("service", fragment([TABLE, element, chain, other]))
    book.acknowledge(Report(book.take(book.due)), 0.0)
    book.replace("node", {})
    book.acknowledge(Report(book.take(book.due)), 0.0)
    assert list(book.lose_contents()) == [[]]
    assert dict(book.deviations) == {element.identity: None}


def test_what_was_refused_without_its_table_is_tried_again_as_soon_as_that_is_there() -> None:
    book = ledger()
    book.replace("service", fragment([number(1), number(1, "two")]))
    book.acknowledge(Report(failed=[Failure(o, NotFound("it", "No such file")) for o in book.take(book.due)]), 0.0)
    assert not book.has_due
    book.replace("node", fragment([TABLE]))
    book.acknowledge(Report(book.take([TABLE.identity])), 0.0)
    assert book.due == [number(1).identity]


def test_of_what_was_refused_in_part_the_rest_is_due_later_or_what_is_there_goes() -> None:
    book = ledger()
    peers = Set(table="t", name="peers", key=("mark",), packed=True)
    half, whole = (Members.of(peers, [packed(bytes((n, 0, 0, 0)), "") for n in range(count)]) for count in (2, 4))
    book.replace("set", fragment([whole]))
    (operation,) = book.take(book.due)
    book.acknowledge(Report(failed=[Failure(operation, Denied("it", "no memory"), half)]), 0.0)
    assert book.status(whole.identity) is Status.REFUSED and not book.has_due
    book.release_retries(RETRY_SECONDS)
    (operation,) = book.take(book.due)
    assert operation == Operation(half, whole)
    book.replace("set", {})
    book.acknowledge(Report(failed=[Failure(operation, Denied("it", "no memory"), half.with_(packed(bytes(4), "x")))]), 1.0)
    (operation,) = book.take(book.due)
    assert operation.new is None and operation.old == half.with_(packed(bytes(4), "x"))
