"""What one namespace of the fake kernel holds."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from podplane.kernel.text import ip, nft
from podplane.state.network import Address, Link, Neighbour, Route, Sysctl
from podplane.state.value import Identity, Value


@dataclass(slots=True)
class Objects:
    """One network namespace: rtnetlink's and nf_tables' objects by identity, and sysctls that were set.

    `foreign_commits` counts the changes of nf_tables that somebody else made.
    """

    network: dict[Identity, Value] = field(default_factory=dict)
    nft: dict[Identity, Value] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    foreign_commits: int = 0
    peers: dict[str, tuple[Objects, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        loopback = Link(name="lo", up=False)
        self.network[loopback.identity] = loopback

    def on_link(self, name: str) -> list[Value]:
        """What lies on a link: addresses, routes, neighbours, proxies, forwarding entries."""
        return [value for value in self.network.values() if getattr(value, "link", "") == name]

    def delete_link(self, name: str) -> list[Value]:
        """Delete a link, what lies on it, and the other end of a veth pair; its ports lose it. What went in this namespace."""
        gone = [*self.on_link(name), self.network[Link(name=name).identity]]
        for value in gone:
            del self.network[value.identity]
        for value in [v for v in self.network.values() if isinstance(v, Link) and v.master == name]:
            self.network[value.identity] = msgspec.structs.replace(value, master="", hairpin=False)
        there, far = self.peers.pop(name, (None, ""))
        if there is not None and there.peers.pop(far, None) is not None:
            lost = there.delete_link(far)
            gone += lost if there is self else []
        return gone

    def flush_link(self, name: str) -> list[Value]:
        """What the kernel deletes when a link is set down: its routes and neighbours, and its IPv6 addresses. What went."""
        gone: list[Value] = [
            v for v in self.on_link(name) if isinstance(v, Route | Neighbour) or (isinstance(v, Address) and v.ip.version == 6)
        ]
        for value in gone:
            del self.network[value.identity]
        return gone

    def dump(self) -> str:
        """Everything, in the syntax of `ip` and `nft list`; what rtnetlink's objects are lines, the tables follow."""
        sysctls = [Sysctl(name=name, value=value) for name, value in self.sysctls.items()]
        lines = ip.lines([*self.network.values(), *sysctls])
        ordered = sorted(self.nft.values(), key=lambda value: str(value.identity))
        return "".join(f"{line}\n" for line in lines) + nft.tables(ordered)
