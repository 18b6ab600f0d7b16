"""nf_tables on a real kernel: what is refused is named exactly, what others put into our table is read and repaired."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterable

import msgspec
import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.errors import Exists, NotFound
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from podplane.kernel.text import nft as text
from podplane.state.network import Link
from podplane.state.nft import (
    DROP,
    GOTO,
    Chain,
    CounterReference,
    Element,
    Hook,
    Limit,
    Log,
    NamedCounter,
    NftValue,
    OpaqueElement,
    OpaqueObject,
    Set,
    Table,
    Verdict,
)
from podplane.state.nft_nat import protocol
from podplane.state.nft_rules import count_in, counter, destination_not_in_set, family, jump, rule, verdict
from podplane.state.operations import Operation, Report, diff
from podplane.state.ownership import Ownership
from podplane.state.value import Value, fragment

pytestmark = pytest.mark.kernel
PLACE = {"family": "inet", "table": "podplane-test"}
OWN = Ownership(tables=frozenset({("inet", "podplane-test")}))
PORTS = Set(**PLACE, name="ports", key=("inet_service",), rank=2)
TABLE = Table(**PLACE)
WANTED: list[NftValue] = [
    TABLE,
    PORTS,
    Set(**PLACE, name="inside4", key=("ipv4_addr",), interval=True),
    Set(**PLACE, name="ways", key=("mark",), data=("verdict",), rank=1),
    Chain(**PLACE, name="one", rules=(rule(counter(), comment="one"),)),
    Chain(**PLACE, name="two", rules=(rule(counter(), jump("one"), comment="two"),)),
    Chain(
        **PLACE,
        name="forward",
        hook=Hook("filter", "forward", 0),
        rules=(rule(family(4), destination_not_in_set(4, "inside4"), jump("two")),),
    ),
    Element(**PLACE, set="ports", key=(80,), comment="svc/default/web:http"),
    Element(**PLACE, set="ways", key=(7,), data=Verdict(GOTO, "one")),
]


def door() -> Kernel:
    """The kernel of this test's own network namespace."""
    return Kernel(CurrentNamespace(), KernelOpener())


def create(*values: Value) -> list[Operation]:
    return [Operation(None, value) for value in values]


def built() -> Kernel:
    """The table that these tests are about."""
    kernel = door()
    report = kernel.apply(create(*WANTED))
    assert not report.failed, [str(f) for f in report.failed]
    return kernel


def nft(*lines: str) -> None:
    """Have somebody else change tables."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    done = subprocess.run(["nft", "-f", "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
    if "add flowtable" in done.stderr and "No such file" in done.stderr:
        pytest.skip("this kernel has no flowtables")
    assert not done.returncode, done.stderr


def audit(kernel: Kernel) -> Report:
    """Read, compare, repair, as an agent does."""
    wanted, found = fragment(WANTED), kernel.read(OWN)
    surplus = [Operation(value, None) for identity, value in found.items() if identity not in wanted]
    missing = [
        Operation(found.get(identity), value)
        for identity, value in wanted.items()
        if identity not in found or not kernel.matches(value, found[identity])
    ]
    return kernel.apply(surplus + missing)


def elements(numbers: Iterable[int]) -> list[Element]:
    return [Element(**PLACE, set="ports", key=(n,), comment=f"svc/default/s{n}:http") for n in numbers]


# What is refused.


def test_of_thousands_of_elements_exactly_the_refused_ones_are_named() -> None:
    kernel = built()
    there = elements(range(1000, 6000, 97))
    assert not kernel.apply(create(*there)).failed
    report = kernel.apply(create(*elements(range(1000, 6000))))
    assert {f.operation.value for f in report.failed} == set(there)
    assert all(isinstance(f.error, Exists) for f in report.failed)
    assert len(report.applied) == 5000 - len(there)


def test_many_refusals_are_not_blamed_on_the_next_transaction() -> None:
    kernel = built()
    there = elements(range(2000, 22000))
    assert not kernel.apply(create(*there)).failed
    report = kernel.apply(create(*elements(range(22000, 22600)), *there))
    assert len(report.applied) == 600
    assert len(report.failed) == 20_000 and all(isinstance(f.error, Exists) for f in report.failed)
    good = elements([99])
    assert kernel.apply(create(*good)).applied == create(*good)
    assert kernel.read(OWN)[good[0].identity] == good[0]


def test_a_chain_with_more_wrong_rules_than_answers_fit_is_refused_and_the_next_change_is_made() -> None:
    kernel = built()
    wrong = rule(family(4), destination_not_in_set(4, "absent"))
    chain = Chain(**PLACE, name="wrong", rules=(wrong,) * 900)
    report = kernel.apply(create(chain))
    assert [f.operation.value for f in report.failed] == [chain]
    assert isinstance(report.failed[0].error, NotFound)
    assert chain.identity not in kernel.read(OWN), "not even an empty one"
    assert not kernel.apply(create(*elements([99]))).failed


@pytest.mark.parametrize("value", WANTED, ids=lambda v: str(v.identity[0]))
def test_what_is_there_is_not_created_again(value: NftValue) -> None:
    kernel = built()
    before = kernel.read(OWN)
    report = kernel.apply(create(value))
    assert [type(f.error) for f in report.failed] == [Exists]
    assert kernel.read(OWN) == before


def test_a_circle_of_jumps_is_refused_and_leaves_nothing() -> None:
    kernel = built()
    before = kernel.read(OWN)
    old = next(v for v in WANTED if isinstance(v, Chain) and v.name == "one")
    report = kernel.apply([Operation(old, Chain(**PLACE, name="one", rules=(rule(jump("two")),)))])
    assert [f.operation.old for f in report.failed] == [old]
    assert kernel.read(OWN) == before


def test_chains_are_created_and_deleted_whatever_the_order_of_their_jumps() -> None:
    kernel = built()
    names = ["c", "a", "d", "b"]
    jumps = {"a": "b", "b": "c", "c": "d"}
    chains = [Chain(**PLACE, name=n, rules=(rule(jump(jumps[n])),) if n in jumps else ()) for n in names]
    assert not kernel.apply(create(*chains)).failed
    assert not kernel.apply([Operation(chain, None) for chain in chains]).failed


@pytest.mark.parametrize(
    "hook", [Hook("filter", "forward", 0, "drop"), Hook("filter", "forward", 5), Hook("filter", "input", 0), None], ids=str
)
def test_a_chain_changes_its_hook(hook: Hook | None) -> None:
    kernel = built()
    old = next(v for v in WANTED if isinstance(v, Chain) and v.hook is not None)
    new = Chain(**PLACE, name=old.name, hook=hook, rules=old.rules, comment="changed")
    report = kernel.apply([Operation(old, new)])
    assert not report.failed, [str(f) for f in report.failed]
    assert kernel.read(OWN)[new.identity] == new


def test_a_set_that_would_change_is_refused_unless_it_is_its_rank() -> None:
    kernel = built()
    before = kernel.read(OWN)
    for change in ({"comment": "another"}, {"key": ("mark",)}):
        other = Set(**({"key": PORTS.key} | PLACE | {"name": "ports"} | change))  # type: ignore[arg-type]  # fields
        assert "can't change a set" in str(kernel.apply([Operation(PORTS, other)]).failed[0].error)
    assert not kernel.apply([Operation(PORTS, Set(**PLACE, name="ports", key=PORTS.key, rank=9))]).failed
    assert kernel.read(OWN) == before


# What others did.

INTRUSIONS: dict[str, list[str]] = {
    "a rule with a quota": ["add rule inet podplane-test one quota over 10 mbytes drop"],
    "a rule with a set of its own": ["add rule inet podplane-test one tcp dport { 22, 23 } accept"],
    "a rule with a chain of its own": ["add rule inet podplane-test one jump { counter accept; }"],
    "a rule instead of ours": ["flush chain inet podplane-test one", "add rule inet podplane-test one ct count over 5 reject"],
    "a chain that rules of ours jump to": [
        "add chain inet podplane-test evil",
        "add rule inet podplane-test two jump evil",
    ],
    "base chains": [
        "add chain inet podplane-test evil { type filter hook input priority 7; policy drop; }",
        "add chain inet podplane-test ingress { type filter hook ingress device lo priority 0; }",
    ],
    "sets of all kinds": [
        "add set inet podplane-test a { type ipv4_addr; timeout 5m; elements = { 10.0.0.1 } }",
        "add set inet podplane-test b { type ether_addr . inet_service; }",
        "add set inet podplane-test c { typeof ct helper; }",
        "add set inet podplane-test d { type inet_service; size 100; elements = { 7 } }",
        "add map inet podplane-test e { type ipv4_addr : mark; flags interval; elements = { 10.0.0.1-10.0.0.9 : 5 } }",
        "add set inet podplane-test f { type icmp_type; flags constant; elements = { echo-request } }",
    ],
    "objects and who uses them": [
        "add counter inet podplane-test hits",
        "add quota inet podplane-test hits { over 10 mbytes }",
        "add limit inet podplane-test slow { rate 5/second }",
        "add map inet podplane-test users { type ipv4_addr : counter; }",
        'add element inet podplane-test users { 10.0.0.1 : "hits" }',
        'add rule inet podplane-test one counter name "hits"',
    ],
    "a flowtable": [
        "add flowtable inet podplane-test fast { hook ingress priority 0; devices = { lo }; }",
        "add rule inet podplane-test forward ip protocol tcp flow add @fast",
    ],
    "elements": ["add element inet podplane-test ports { 22, 23 }"],
    "an element instead of ours": [
        "delete element inet podplane-test ports { 80 }",
        'add element inet podplane-test ports { 80 comment "svc/default/other:http" }',
    ],
    "ranges and networks": [
        "add element inet podplane-test inside4 { 10.0.0.1-10.0.0.9, 10.1.0.0/16, 255.0.0.0-255.255.255.255 }"
    ],
    "an element for all others": ["add element inet podplane-test ways { * : drop }"],
    "elements of another verdict": [
        "delete element inet podplane-test ways { 7 }",
        "add element inet podplane-test ways { 7 : jump two, 8 : accept }",
    ],
    "a sleeping table": ["add table inet podplane-test { flags dormant; }"],
    "a policy": ["add chain inet podplane-test forward { policy drop; }"],
    "a chain without its rules": ["flush chain inet podplane-test forward"],
    "nothing of ours": ["delete table inet podplane-test"],
}


@pytest.mark.parametrize("name", INTRUSIONS)
def test_an_audit_repairs_what_others_did_to_our_table(name: str) -> None:
    kernel = built()
    good = kernel.read(OWN)
    assert not kernel.foreign_commit()
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
    nft(*INTRUSIONS[name])
    assert kernel.foreign_commit()
    assert kernel.read(OWN) != good, "it is seen"
    for _ in range(3):  # an object goes once nothing refers to it any more
        report = audit(kernel)
        if not report.failed:
            break
    assert not report.failed, [str(f) for f in report.failed]
    assert kernel.read(OWN) == good
    after = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
    assert sorted(after.splitlines()) == sorted(listed.splitlines())
    assert not audit(kernel).applied


def test_tables_of_others_are_left_alone_and_never_looked_into() -> None:
    kernel = built()
    nft(
        "add table inet other { flags dormant; }",
        "add chain inet other forward { type filter hook forward priority 0; }",
        "add rule inet other forward quota over 5 mbytes drop",
        "add table netdev other",
        "add table ip podplane-test",
        "add set ip podplane-test s { type ipv4_addr; timeout 5m; }",
    )
    found = kernel.read(OWN)
    assert found == fragment(WANTED)
    assert not audit(kernel).applied
    assert not kernel.apply(diff(found, {})).failed
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["table", "inet", "other", "table", "netdev", "other", "table", "ip", "podplane-test"]


def test_opaque_values_say_what_they_are() -> None:
    kernel = built()
    nft(*INTRUSIONS["objects and who uses them"], *INTRUSIONS["a sleeping table"], *INTRUSIONS["ranges and networks"])
    found = list(kernel.read(OWN).values())
    objects = {(v.kind, v.name) for v in found if isinstance(v, OpaqueObject)}
    assert objects == {("table", ""), ("object", "hits"), ("object", "slow"), ("set", "users")}, "a quota of that name, too"
    assert NamedCounter(**PLACE, name="hits") in found
    (span,) = (v for v in found if isinstance(v, OpaqueElement))
    assert span.key == (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 10)))
    rules = [r for v in found if isinstance(v, Chain) for r in v.rules]
    assert {e.name for r in rules for e in r.expressions if isinstance(e, CounterReference)} == {"hits"}


# Counters.


def ping(count: int) -> None:
    """Datagrams to this namespace itself: nobody takes them, and the input hook counts them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(count):
            client.sendto(b"x", ("127.0.0.1", 9))


def test_a_named_counter_goes_on_counting_when_its_chain_is_rewritten() -> None:
    kernel = door()
    kernel.apply(create(Link(name="lo")))
    udp, hits = protocol("udp"), NamedCounter(**PLACE, name="hits", comment="np/shop/web ingress rule 1")
    input_ = Chain(**PLACE, name="input", hook=Hook("filter", "input", 0), rules=(rule(udp, count_in("hits"), verdict(DROP)),))
    other = msgspec.structs.replace(input_, rules=(*input_.rules, rule(counter(), comment="one more")))
    assert not kernel.apply(create(TABLE, hits, input_)).failed
    ping(3)
    assert kernel.counts("inet", "podplane-test") == {"hits": 3}
    assert not kernel.apply([Operation(input_, other)]).failed
    ping(2)
    assert kernel.counts("inet", "podplane-test") == {"hits": 5}
    assert kernel.read(OWN) == fragment([TABLE, hits, other])
    (failure,) = kernel.apply([Operation(hits, None)]).failed
    assert "nft counter podplane-test hits" in str(failure.error), "a rule refers to it"
    assert not kernel.apply([Operation(other, None), Operation(hits, None)]).failed
    assert kernel.counts("inet", "podplane-test") == {} == kernel.counts("inet", "podplane-none")


def test_counters_limits_and_logs_read_as_nft_writes_them() -> None:
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    limited = (Limit(rate=100, unit=1, burst=50), Log(group=80, prefix="in"))
    values = [TABLE, NamedCounter(**PLACE, name="hits", comment="np/a"), Chain(**PLACE, name="one", rules=(rule(limited),))]
    values.append(Chain(**PLACE, name="two", rules=(rule(count_in("hits"), jump("one"), comment="x"),)))
    assert not door().apply(create(*values)).failed
    listed = subprocess.run(
        ["nft", "list", "table", "inet", "podplane-test"], capture_output=True, text=True, check=True
    ).stdout
    assert listed == text.tables(values)
