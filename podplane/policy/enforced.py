"""What the pods of one node are under, as it was planned last: whose an address is, whose policies decide, and what counts for them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, ItemsView, Iterator, Mapping

import msgspec

from podplane.policy.compiling import Group, Program

NO_GROUPS: Mapping[str, Group] = {}


class Enforced(msgspec.Struct, frozen=True):
    """One pod interface: its pod and addresses, the policies that select it, and its groups by direction (IN, OUT)."""

    path: str
    ips: tuple[str, ...]
    programs: tuple[Program, ...] = ()
    groups: Mapping[str, Group] = NO_GROUPS


class AllEnforced:
    """All pod interfaces of a node."""

    def __init__(self) -> None:
        self._by_owner: dict[Hashable, Enforced] = {}
        self._by_ip: dict[str, Enforced] = {}
        self._under_policies = 0

    @property
    def any_under_policies(self) -> bool:
        """Does any policy select any of them?"""
        return self._under_policies > 0

    def put(self, owner: Hashable, new: Enforced | None) -> None:
        """This is what is planned for an interface now; None: nothing."""
        old = self._by_owner.pop(owner, None)
        if old is not None:
            self._under_policies -= bool(old.programs)
            for ip in old.ips:
                if self._by_ip.get(ip) is old:
                    del self._by_ip[ip]
        if new is not None:
            self._by_owner[owner] = new
            self._under_policies += bool(new.programs)
            self._by_ip |= dict.fromkeys(new.ips, new)

    def ips_of(self, owner: Hashable) -> tuple[str, ...]:
        """The addresses of an interface; none where nothing is planned for it."""
        enforced = self.of(owner)
        return enforced.ips if enforced is not None else ()

    def of(self, owner: Hashable) -> Enforced | None:
        """What is planned for an interface."""
        return self._by_owner.get(owner)

    def items(self) -> ItemsView[Hashable, Enforced]:
        """All of them, by interface."""
        return self._by_owner.items()

    def at(self, ip: str) -> Enforced | None:
        """The interface that has an address."""
        return self._by_ip.get(ip)

    def ips_under_policies(self) -> Iterator[str]:
        """The addresses of the interfaces that any policy selects."""
        return (ip for enforced in self._by_owner.values() if enforced.programs for ip in enforced.ips)

    def programs(self) -> Collection[Program]:
        """Of all policies that select any of them, each once."""
        return {id(one): one for enforced in self._by_owner.values() for one in enforced.programs}.values()

    def groups(self) -> Iterator[tuple[str, Group]]:
        """(direction, group) of all, each once."""
        found = {
            group.denied.name: (direction, group)
            for enforced in self._by_owner.values()
            for direction, group in enforced.groups.items()
        }
        yield from found.values()
