"""Sysctls of a fake namespace: those that podplane relies on exist, with the kernel's defaults; those of interfaces come with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from podplane.kernel.errors import KernelError, NotFound

DEFAULTS: Mapping[str, str] = {
    "net.ipv4.fib_multipath_hash_policy": "0",
    "net.ipv6.fib_multipath_hash_policy": "0",
    "net.ipv4.ip_forward": "0",
    "net.ipv6.conf.all.forwarding": "0",
    "net.bridge.bridge-nf-call-iptables": "0",
    "net.bridge.bridge-nf-call-ip6tables": "0",
    "net.netfilter.nf_conntrack_acct": "0",
    "net.netfilter.nf_conntrack_tcp_be_liberal": "0",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait": "60",
    "net.netfilter.nf_conntrack_tcp_timeout_established": "432000",
}
OF_INTERFACES: Mapping[str, str] = {
    "net.ipv6.conf.{}.accept_dad": "1",
    "net.ipv6.conf.{}.dad_transmits": "1",
    "net.ipv6.conf.{}.accept_ra": "1",
    "net.ipv6.conf.{}.accept_redirects": "1",
    "net.ipv6.conf.{}.accept_source_route": "0",
    "net.ipv6.conf.{}.disable_ipv6": "0",
    "net.ipv6.conf.{}.proxy_ndp": "0",
    "net.ipv6.neigh.{}.proxy_delay": "80",
    "net.ipv4.neigh.{}.proxy_delay": "80",
    "net.ipv4.conf.{}.accept_redirects": "1",
    "net.ipv4.conf.{}.accept_source_route": "1",
    "net.ipv4.conf.{}.send_redirects": "1",
    "net.ipv4.conf.{}.rp_filter": "0",
    "net.ipv4.conf.{}.route_localnet": "0",
    "net.ipv4.conf.{}.proxy_arp": "0",
}
OF_ALL: Mapping[str, str] = {
    "net.ipv4.ip_forward": "net.ipv4.conf.{}.forwarding",
    "net.ipv6.conf.all.forwarding": "net.ipv6.conf.{}.forwarding",
}
"""A write of these sets that of each interface, and what new ones begin with, if it changes something (inet_forward_change,
addrconf_forward_change)."""


class FakeSysctls:
    """What was set, over the defaults of what exists."""

    def __init__(self, values: dict[str, str], interfaces: Callable[[], Collection[str]]) -> None:
        self._values = values
        self._interfaces = interfaces

    def _default(self, name: str) -> str | None:
        known = dict(DEFAULTS)
        for interface in ("all", "default", *self._interfaces()):
            known |= {pattern.format(interface): value for pattern, value in OF_INTERFACES.items()}
        for every, pattern in OF_ALL.items():
            value = self._values.get(every, DEFAULTS[every])
            known |= dict.fromkeys((pattern.format(interface) for interface in ("default", *self._interfaces())), value)
        return known.get(name)

    def set(self, values: Mapping[str, str]) -> Mapping[str, KernelError]:
        """Set each; the refused ones with the reason."""
        refused: dict[str, KernelError] = {}
        for name, value in values.items():
            if self._default(name) is None:
                refused[name] = NotFound(f"sysctl {name} = {value}", "there is no such sysctl here")
            elif not value.lstrip("-").isdigit():
                refused[name] = KernelError(f"sysctl {name} = {value}", "Invalid argument")
            else:
                if (pattern := OF_ALL.get(name)) is not None and self.read([name]) != {name: value}:
                    for interface in ("default", *self._interfaces()):
                        self._values.pop(pattern.format(interface), None)
                self._values[name] = value
        return refused

    def exists(self, name: str) -> bool:
        """Is there such a sysctl?"""
        return self._default(name) is not None

    def read(self, names: Iterable[str]) -> dict[str, str]:
        """The values of those that exist."""
        found = {name: self._values.get(name, self._default(name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def watch(self, names: Iterable[str]) -> FakeSysctlWatch:
        """A watch of some of them."""
        return FakeSysctlWatch(self, names)

    def close(self) -> None:
        """Nothing is open."""


class FakeSysctlWatch:
    """Looks at sysctls; those of an interface that goes are not watched any more."""

    def __init__(self, sysctls: FakeSysctls, names: Iterable[str]) -> None:
        self._sysctls = sysctls
        wanted = set(names)
        self._names = {name for name in wanted if sysctls.exists(name)}
        self._unwatched = wanted - self._names

    @property
    def unwatched(self) -> frozenset[str]:
        """Those that do not exist, or do not any more."""
        return frozenset(self._unwatched)

    def changed(self, expected: Mapping[str, str]) -> dict[str, str]:
        """Name → value now, of those that have another value than expected."""
        lost = {name for name in expected if name not in self._names or not self._sysctls.exists(name)}
        self._unwatched |= lost
        self._names -= lost
        found = self._sysctls.read(expected.keys() - lost)
        return {name: found[name] for name, value in expected.items() if name in found and found[name] != value}

    def close(self) -> None:
        """Nothing."""
        self._names = set()
