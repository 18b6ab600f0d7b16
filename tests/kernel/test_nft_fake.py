"""The fake's nf_tables and the kernel's: the same operations have the same outcome, whatever they are, and leave the same tables."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from podplane.state.nft import (
    DROP,
    GOTO,
    Chain,
    Dynset,
    Element,
    Hook,
    Immediate,
    Lookup,
    Meta,
    NamedCounter,
    NftValue,
    Payload,
    Rule,
    Set,
    Table,
    Verdict,
)
from podplane.state.nft_rules import count_in, counter, jump, rule
from podplane.state.operations import Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Value

pytestmark = pytest.mark.kernel
PLACE = {"family": "inet", "table": "podplane-test"}
OWN = Ownership(tables=frozenset({("inet", "podplane-test")}))
TABLE = Table(**PLACE)
CHAINS = ("one", "two", "three")
HOOKS = (None, Hook("filter", "input", 0), Hook("filter", "input", 1))


def in_ports() -> tuple[Payload, Lookup]:
    return Payload(base=2, offset=2, length=2), Lookup(set="ports")


RULES: tuple[Rule, ...] = (
    rule(counter()),
    rule(count_in("hits")),
    *(rule(jump(name)) for name in CHAINS),
    Rule((*in_ports(), Immediate(data=Verdict(DROP)))),
    Rule((Meta(key=3, dreg=1), Lookup(set="ways", dreg=0))),
    Rule((Payload(base=2, offset=2, length=2), Dynset(set="seen", op=0, data=1, timeout=5000))),
)
VALUES: dict[str, st.SearchStrategy[NftValue]] = {
    "table": st.just(TABLE),
    "ports": st.builds(lambda rank: Set(**PLACE, name="ports", key=("inet_service",), rank=rank), st.integers(0, 2)),
    "ways": st.just(Set(**PLACE, name="ways", key=("mark",), data=("verdict",))),
    "seen": st.builds(
        lambda size: Set(**PLACE, name="seen", key=("inet_service",), data=("inet_service",), size=size),
        st.sampled_from((8, 9)),
    ),
    "hits": st.builds(lambda comment: NamedCounter(**PLACE, name="hits", comment=comment), st.sampled_from(("", "", "other"))),
    **{
        name: st.builds(
            lambda hook, rules, comment, name=name: Chain(**PLACE, name=name, hook=hook, rules=tuple(rules), comment=comment),
            st.sampled_from((None, None, *HOOKS)),
            st.lists(st.sampled_from(RULES), max_size=2),
            st.sampled_from(("", "", "", "other")),
        )
        for name in CHAINS
    },
    **{
        f"port {n}": st.builds(
            lambda comment, n=n: Element(**PLACE, set="ports", key=(n,), comment=comment), st.sampled_from("ab")
        )
        for n in range(4)
    },
    **{
        f"way {n}": st.builds(
            lambda chain, n=n: Element(**PLACE, set="ways", key=(n,), data=Verdict(GOTO, chain)),
            st.sampled_from((*CHAINS, "absent")),
        )
        for n in range(3)
    },
}


@st.composite
def batches(draw: st.DrawFn) -> list[list[Operation]]:
    """Batches of operations, most of them on what an earlier one of these left; some are wrong."""
    known: dict[str, Value] = {}
    found = []
    for _ in range(draw(st.integers(1, 5))):
        batch = []
        for name in draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=8, unique=True)):
            new = draw(VALUES[name])
            old = known.get(name)
            if draw(st.integers(0, 9)) == 0:
                old = None if old is not None else draw(VALUES[name])
            if old is not None and draw(st.integers(0, 2)) == 0:
                batch.append(Operation(old, None))
                known.pop(name, None)
            else:
                batch.append(Operation(old, new))
                known[name] = new
        found.append(batch)
    return found


def _as_it_is(operation: Operation, there: Value | None) -> Operation:
    """What is changed is as it is in the kernel; what is created or deleted may be there or not."""
    if operation.old is None or operation.new is None or there is None:
        return operation
    return Operation(there, operation.new)


def outcome(report: Report) -> dict[object, str]:
    """Identity → "applied", or the kind of error; of a chain with several wrong rules the kernel names one."""
    applied = {o.value.identity: "applied" for o in report.applied}
    refused = {f.operation.value.identity: type(f.error).__name__ for f in report.failed}
    return applied | {i: "refused" if i[0] == "nft chain" else kind for i, kind in refused.items()}


@settings(max_examples=40, derandomize=True, database=None)
@given(batches())
def test_the_fake_does_what_the_kernel_does(rows: list[list[Operation]]) -> None:
    real, opener = Kernel(CurrentNamespace(), KernelOpener()), FakeOpener()
    fake = Kernel(opener.namespace(), opener)
    real.apply([Operation(TABLE, None)])
    try:
        for kernel in (real, fake):
            kernel.apply([Operation(None, TABLE)])
        for row in rows:
            there = real.read(OWN)
            batch = [_as_it_is(operation, there.get(operation.value.identity)) for operation in row]
            theirs, ours = real.apply(batch), fake.apply(batch)
            assert outcome(ours) == outcome(theirs), [*map(str, batch), *map(str, theirs.failed)]
            assert fake.read(OWN) == real.read(OWN)
    finally:
        real.close()
