"""A subscription to the changes of a fake namespace: it says what the real one would say (`kernel.rtnl.monitor`)."""

from __future__ import annotations

import os
from collections.abc import Callable

from podplane.kernel.rtnl.reading import has_protocol
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Qdisc, Redirect, Route, Rule
from podplane.state.operations import Changes, LinkEvent, Observation
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value


class FakeMonitor:
    """Collects what it is told; `fileno` is a real descriptor (eventfd), so that an event loop can wait on it."""

    def __init__(self, owner: Ownership, own_links: Callable[[], set[str]], mtu_of: Callable[[str], int]) -> None:
        """`own_links` are the names of the links that are the owner's now; `mtu_of(name)` is a link's MTU, 0 where there is none."""
        self._owner, self._own_links = owner, own_links
        self.mtu_of = mtu_of
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._observed: dict[Identity, Value | None] = {}
        self._links: dict[str, LinkEvent] = {}
        self._lost = self._has_settings = False

    def fileno(self) -> int:
        """Readable when there are changes."""
        return self._event

    def close(self) -> None:
        """End the subscription; idempotent."""
        if self._event >= 0:
            os.close(self._event)
            self._event = -1

    def changes(self) -> Changes:
        """What changed since the last call."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            pass
        observations = [Observation(identity, value) for identity, value in self._observed.items()]
        changes = Changes([], {}, True) if self._lost else Changes(observations, self._links, False)
        changes.settings = self._has_settings
        self._observed, self._links, self._lost, self._has_settings = {}, {}, False, False
        return changes

    def observe(self, value: Value, is_there: bool) -> None:
        """An object came, changed or went; what the real monitor leaves out is left out here."""
        if self._concerns(value, is_there):
            self._observed.pop(value.identity, None)
            self._observed[value.identity] = value if is_there else None
            self._wake()

    def _concerns(self, value: Value, is_there: bool) -> bool:
        match value:
            case Link():
                return self._owner.may_name(value.name)
            case Address() | Fdb() | Qdisc() | Redirect():
                return value.link in self._own_links()
            case Route() | Neighbour() | Rule():
                return is_there or has_protocol(value, self._owner.route_protocol)
            case Proxy():
                return False
        raise TypeError(f"{type(value).__name__} is no object of rtnetlink")

    def report_setting(self) -> None:
        """A sysctl of the network was changed."""
        self._has_settings = True
        self._wake()

    def report_link(self, name: str, event: LinkEvent) -> None:
        """A link came, went, went up or down, or its carrier changed."""
        self._links[name] = event.after(self._links.get(name))
        self._wake()

    def report_wider(self, link: Link) -> None:
        """A link carries larger packets than before; of the owner's this is not said."""
        if not self._owner.may_name(link.name):
            self.report_link(link.name, LinkEvent(True, link.up, came=True))

    def lose(self) -> None:
        """Its buffer overflowed."""
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._event >= 0:
            os.eventfd_write(self._event, 1)
