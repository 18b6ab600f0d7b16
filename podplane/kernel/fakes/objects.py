"""What one namespace of the fake kernel holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from podplane.kernel.text import ip, nft
from podplane.state.network import Link, Sysctl
from podplane.state.value import Identity, Value


@dataclass(slots=True)
class Objects:
    """One network namespace: rtnetlink's and nf_tables' objects by identity, and sysctls that were set.

    `foreign_commits` counts the changes of nf_tables that somebody else made. `nft_families` are those that it has.
    """

    network: dict[Identity, Value] = field(default_factory=dict)
    nft: dict[Identity, Value] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    foreign_commits: int = 0
    nft_families: frozenset[str] = frozenset({"inet", "ip", "ip6", "bridge"})
    peers: dict[str, tuple[Objects, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        loopback = Link(name="lo", up=False)
        self.network[loopback.identity] = loopback

    def dump(self) -> str:
        """Everything, in the syntax of `ip` and `nft list`; what rtnetlink's objects are lines, the tables follow."""
        sysctls = [Sysctl(name=name, value=value) for name, value in self.sysctls.items()]
        lines = ip.lines([*self.network.values(), *sysctls])
        ordered = sorted(self.nft.values(), key=lambda value: str(value.identity))
        return "".join(f"{line}\n" for line in lines) + nft.tables(ordered)
