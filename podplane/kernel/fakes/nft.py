"""nf_tables of a fake namespace: nothing without its table, no element without its set, nothing removed that is used."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

import msgspec

from podplane.kernel.errors import KernelError, NotFound, from_errno
from podplane.kernel.fakes.objects import Objects
from podplane.state.nft import GOTO, JUMP, Chain, Element, Immediate, Lookup, NftValue, Set, Table, Verdict
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value

RANK: dict[type[Value], int] = {Table: 0, Set: 1, Chain: 2, Element: 3}


class FakeNft:
    """One namespace's tables."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects.nft
        self._namespace = objects
        self._seen = objects.foreign_commits

    def close(self) -> None:
        """Nothing."""

    def has_foreign_commit(self) -> bool:
        """Did anybody else commit since this was asked last?"""
        before, self._seen = self._seen, self._namespace.foreign_commits
        return before != self._seen

    def has_family(self, family: str) -> bool:
        """Does it have tables of this family?"""
        return family in self._namespace.nft_families

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Additions from tables to elements, then removals in reverse; each operation for itself."""
        report = Report()
        put = sorted((o for o in operations if o.new is not None), key=lambda o: (RANK[type(o.value)], _is_base(o)))
        gone = sorted((o for o in operations if o.new is None), key=lambda o: (-_gone_rank(o), not _is_base(o)))
        for operation in (*put, *gone):
            if operation.new is None and isinstance(operation.old, Chain):
                self._flush(o.old for o in gone if isinstance(o.old, Chain))
            try:
                self._put(operation.value) if operation.new is not None else self._remove(operation.value)
            except KernelError as error:
                report.failed.append(Failure(operation, error))
            else:
                report.applied.append(operation)
        return report

    def _flush(self, chains: Iterable[Value]) -> None:
        """Chains that go lose their rules first, all of them."""
        for chain in chains:
            if chain.identity in self._objects:
                self._objects[chain.identity] = msgspec.structs.replace(chain, rules=())

    def _values(self, value: NftValue) -> list[NftValue]:
        """All of the value's table."""
        same = (value.family, value.table)
        return [v for v in self._objects.values() if isinstance(v, NftValue) and (v.family, v.table) == same]

    def _put(self, value: Value) -> None:
        assert isinstance(value, NftValue)
        own = self._values(value)
        if isinstance(value, Table) and not self.has_family(value.family):
            raise from_errno(f"nft table {value.family} {value.table}", errno.EOPNOTSUPP)
        if not isinstance(value, Table) and not any(isinstance(v, Table) for v in own):
            raise from_errno(f"nft table {value.family} {value.table}", errno.ENOENT)
        sets = {v.name for v in own if isinstance(v, Set)}
        if isinstance(value, Element) and value.set not in sets:
            raise NotFound(f"elements of nft set {value.table} {value.set}", "there is no such set")
        if isinstance(value, Chain):
            missing = [name for name in _sets_of(value) if name not in sets]
            if missing:
                raise from_errno(f"nft rule in {value.table} {value.name}", errno.ENOENT)
        self._objects[value.identity] = value

    def _remove(self, value: Value) -> None:
        assert isinstance(value, NftValue)
        own = self._values(value)
        if isinstance(value, Table):
            for inside in own:
                del self._objects[inside.identity]
            return
        if isinstance(value, Set) and any(value.name in _sets_of(v) for v in own if isinstance(v, Chain)):
            raise from_errno(f"delete nft set {value.table} {value.name}", errno.EBUSY)
        if isinstance(value, Chain) and any(value.name in _chains_of(v) for v in own):
            raise from_errno(f"delete nft chain {value.table} {value.name}", errno.EBUSY)
        self._objects.pop(value.identity, None)
        if isinstance(value, Set):
            for element in own:
                if isinstance(element, Element) and element.set == value.name:
                    self._objects.pop(element.identity, None)

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """All objects of the owner's tables."""
        return {
            identity: value
            for identity, value in self._objects.items()
            if isinstance(value, NftValue) and (value.family, value.table) in owner.tables
        }


def _is_base(operation: Operation) -> bool:
    return getattr(operation.value, "hook", None) is not None


def _gone_rank(operation: Operation) -> int:
    """As the real door does: elements, that may lead to chains; chains, that use sets; sets."""
    return {Element: 3, Chain: 2, Set: 1, Table: 0}[type(operation.value)]


def _sets_of(chain: Chain) -> set[str]:
    return {e.set for rule in chain.rules for e in rule.expressions if isinstance(e, Lookup)}


def _chains_of(value: NftValue) -> set[str]:
    """Chains that a chain's rules, or an element of a verdict map, jump to."""
    found: list[Verdict] = []
    if isinstance(value, Chain):
        found = [e.data for r in value.rules for e in r.expressions if isinstance(e, Immediate) and isinstance(e.data, Verdict)]
    elif isinstance(value, Element) and isinstance(value.data, Verdict):
        found = [value.data]
    return {verdict.chain for verdict in found if verdict.code in (JUMP, GOTO)}
