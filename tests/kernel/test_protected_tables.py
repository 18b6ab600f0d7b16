"""Tables that belong to who made them: others can't flush, delete or change them, and who comes next adopts them."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from podplane.agent.agent import Agent
from podplane.kernel.door import Kernel
from podplane.kernel.errors import Denied
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.netlink import Message, Socket
from podplane.kernel.nft import codec, foreign
from podplane.kernel.nft import constants as c
from podplane.kernel.nft.others import Place, Tables
from podplane.kernel.nft.table import BEGIN, END
from podplane.kernel.opener import NETLINK_NETFILTER, KernelOpener
from podplane.state.nft import DROP, Chain, Element, Hook, Set, Table
from podplane.state.nft_rules import counter, rule, verdict
from podplane.state.operations import Operation
from podplane.state.ownership import Ownership
from podplane.state.value import Value, fragment
from tests.plans import agent_settings, node
from tests.unit.agent.rig import caches_of, served

pytestmark = pytest.mark.kernel
PLACE = {"family": "inet", "table": "podplane-test"}
NAME = "inet podplane-test"
OWN = Ownership(tables=frozenset({("inet", "podplane-test")}))
TABLE = Table(**PLACE)
WANTED: list[Value] = [
    TABLE,
    Set(**PLACE, name="ports", key=("inet_service",)),
    Chain(**PLACE, name="forward", hook=Hook("filter", "forward", 0), rules=(rule(counter(), verdict(DROP), comment="one"),)),
    Element(**PLACE, set="ports", key=(80,), comment="svc/default/web:http"),
]
FORWARD = Place("inet", "podplane-test", "forward")
FOREIGN_TABLE = Table(family="inet", table="theirs")


def opened(*, protects: bool = True) -> Kernel:
    """A door to the namespace of this test, as an agent has it, or as others do."""
    return Kernel(CurrentNamespace(), KernelOpener(protects_tables=protects))


def made() -> Kernel:
    """The door that has made the table. Linux 6.9 is needed. (No fixture: those are not in the namespace of the test.)"""
    kernel = opened()
    create(kernel, *WANTED)
    if not flags() & c.TABLE_OWNED:
        pytest.skip("this kernel has no tables that outlive their owner")
    return kernel


def create(kernel: Kernel, *values: Value) -> None:
    """Create these, each of which the kernel takes."""
    report = kernel.apply([Operation(None, one) for one in values])
    assert not report.failed, [str(one) for one in report.failed]


def commit(*messages: Message) -> list[int]:
    """As another program: the error numbers of the messages that are refused."""
    with Socket(NETLINK_NETFILTER) as socket:
        return [one.errno for one in socket.transaction([BEGIN, *messages, END])]


def flags() -> int:
    """Those of the table, as the kernel has them; -1 when it is not there."""
    with Tables(CurrentNamespace()) as tables:
        return {f"{family} {name}": found for (family, name), found in tables._tables()}.get(NAME, -1)


def deviates(kernel: Kernel) -> bool:
    return kernel.read(OWN) != fragment(WANTED)


def test_others_flush_what_is_theirs_alone() -> None:
    door = made()
    create(opened(protects=False), FOREIGN_TABLE)
    assert foreign.table_names(CurrentNamespace()) == [NAME, "inet theirs"]
    foreign.flush_ruleset(CurrentNamespace())
    assert foreign.table_names(CurrentNamespace()) == [NAME]
    assert not deviates(door)


def test_others_can_not_change_what_is_in_it() -> None:
    door = made()
    chain = WANTED[2]
    assert isinstance(chain, Chain)
    with Tables(CurrentNamespace()) as tables, pytest.raises(Denied):
        tables.remove([("inet", "podplane-test")])
    asleep = codec.table(TABLE, 1 | c.TABLE_PROTECTED, known=True)
    for message in (codec.flush_chain(chain), *codec.rules(chain), codec.delete_chain(chain), asleep):
        assert commit(message) == [1]
    with pytest.raises(Denied):
        foreign.append_quota(CurrentNamespace(), *FORWARD, 10)
    assert not deviates(door) and not deviates(opened(protects=False)), "whoever reads it sees the same"


def test_who_comes_next_adopts_it_and_that_is_nobodys_change() -> None:
    door = made()
    door.close()
    assert flags() == c.TABLE_PERSISTENT
    after = opened()
    assert not after.foreign_commit()
    assert not deviates(after)
    assert flags() == c.TABLE_PROTECTED
    assert not after.foreign_commit(), "it was its own"
    foreign.flush_ruleset(CurrentNamespace())
    assert not deviates(after)
    element = Element(**PLACE, set="ports", key=(81,))
    create(after, element)
    assert element.identity in after.read(OWN)
    after.close()


def test_while_nobody_owns_it_anybody_removes_it() -> None:
    door = made()
    door.close()
    other = opened(protects=False)
    assert not deviates(other) and flags() == c.TABLE_PERSISTENT, "who only reads adopts nothing"
    report = other.apply([Operation(one, None) for one in WANTED])
    assert not report.failed and flags() == -1


def test_two_at_once_are_told_apart_and_the_second_one_writes_when_the_first_has_ended() -> None:
    door = made()
    second = opened()
    found = second.read(OWN)[TABLE.identity]
    assert found != TABLE, "it is somebody else's"
    added = [Operation(None, Element(**PLACE, set="ports", key=(port,))) for port in range(1000, 3000)]
    report = second.apply(added)
    assert len(report.failed) == len(added) and not report.applied
    said = str(report.failed[0].error)
    assert said.endswith(": another process owns the table; end it: does another agent run?")
    (failure,) = second.apply([Operation(found, TABLE)]).failed
    assert isinstance(failure.error, Denied)
    door.close()
    assert not second.apply([Operation(found, TABLE)]).failed, "it is tried again, without a reading"
    assert flags() == c.TABLE_PROTECTED
    assert not second.apply(added).failed
    second.close()


def test_one_that_was_put_to_sleep_meanwhile_is_awake_again() -> None:
    door = made()
    door.close()
    assert not commit(codec.table(TABLE, 1 | c.TABLE_PERSISTENT, known=True))
    after = opened()
    assert not deviates(after) and flags() == c.TABLE_PROTECTED
    after.close()


@pytest.mark.parametrize("protects", [True, False])
def test_one_that_was_made_without_protection_stays_so_until_it_is_made_anew(protects: bool) -> None:
    create(opened(protects=False), *WANTED)
    kernel = opened(protects=protects)
    assert not deviates(kernel) and flags() == 0
    assert not commit(codec.table(TABLE, 1, known=True))
    (found,) = [one for one in kernel.read(OWN).values() if one.identity == TABLE.identity]
    assert found != TABLE
    assert not kernel.apply([Operation(found, TABLE)]).failed and flags() == 0
    assert kernel.make_anew([TABLE], WANTED) and not deviates(kernel)
    foreign.flush_ruleset(CurrentNamespace())
    create(kernel, *(WANTED if deviates(kernel) else ()))
    assert not deviates(kernel)


def test_on_a_kernel_without_such_tables_they_are_made_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        c, "TABLE_PROTECTED", 8 | c.TABLE_OWNED
    )  # a flag that no kernel knows: it refuses all that it does not know
    opener = KernelOpener(protects_tables=True)
    for kernel in (Kernel(CurrentNamespace(), opener), Kernel(CurrentNamespace(), opener)):
        create(kernel, *WANTED)
        assert flags() == 0 and not deviates(kernel)
        foreign.flush_ruleset(CurrentNamespace())
        assert flags() == -1


def started() -> tuple[Agent, Kernel]:
    """One that has started on this namespace."""
    kernel = opened()
    agent = Agent("node1", agent_settings((4,)), kernel, caches_of(node(1, (4,)), node(2, (4,)), *served(1, (2, 3))))
    asyncio.run(agent.start())
    assert not agent.ledger.refused, [str(one.error) for one in agent.ledger.refused.values()]
    return agent, kernel


def test_an_agents_tables_are_all_protected_and_the_next_one_adopts_them_without_a_write() -> None:
    for words in ("link set lo up", "link add eth0 type bridge", "addr add 192.168.1.10/24 dev eth0", "link set eth0 up"):
        subprocess.run(["ip", *words.split()], check=True)
    first, kernel = started()
    before = foreign.table_names(CurrentNamespace())
    assert len(before) > 1
    foreign.flush_ruleset(CurrentNamespace())
    if foreign.table_names(CurrentNamespace()) == []:
        pytest.skip("this kernel has no tables that outlive their owner")
    assert foreign.table_names(CurrentNamespace()) == before
    assert not asyncio.run(first.watcher.auditor.audit()), "nothing is to be repaired"
    kernel.close()
    second, kernel = started()
    assert second.writer.operations_applied == 0
    foreign.flush_ruleset(CurrentNamespace())
    assert foreign.table_names(CurrentNamespace()) == before
    kernel.close()
