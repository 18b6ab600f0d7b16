"""Generated addresses, networks and names, for tests of codecs."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from podplane.state.value import IPAddress, IPNetwork

VERSIONS = st.sampled_from((4, 6))
MACS = st.binary(min_size=6, max_size=6).map(lambda packed: packed.hex(":"))


def addresses(version: int) -> st.SearchStrategy[IPAddress]:
    """Addresses of one family."""
    if version == 4:
        return st.integers(0, (1 << 32) - 1).map(ipaddress.IPv4Address)
    return st.integers(0, (1 << 128) - 1).map(ipaddress.IPv6Address)


def networks(version: int, shortest: int = 0) -> st.SearchStrategy[IPNetwork]:
    """Networks of one family."""
    lengths = st.integers(shortest, 32 if version == 4 else 128)
    pairs = st.tuples(addresses(version), lengths)
    return pairs.map(lambda pair: ipaddress.ip_network(pair, strict=False))


def any_address() -> st.SearchStrategy[IPAddress]:
    """Addresses of both families."""
    return VERSIONS.flatmap(addresses)


@st.composite
def network_or_address(draw: st.DrawFn) -> tuple[IPAddress, IPNetwork]:
    """An address, and a network of its family."""
    version = draw(VERSIONS)
    return draw(addresses(version)), draw(networks(version))
