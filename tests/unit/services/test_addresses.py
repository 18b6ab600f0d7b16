"""Addresses are parsed as the standard library does it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.services.addresses import addresses, network, parse
from podplane.state.value import IPAddress


@given(st.ip_addresses())
def test_an_address_is_read_from_its_text(ip: IPAddress) -> None:
    assert parse(str(ip)) == ip and type(parse(str(ip))) is type(ip)


ALMOST = st.lists(st.text("0123456789:+- a", max_size=4), min_size=1, max_size=5).map(".".join)


@given(ALMOST)
def test_what_is_almost_an_address_is_refused_as_the_standard_library_does(text: str) -> None:
    try:
        wanted = ipaddress.ip_address(text)
    except ValueError:
        with pytest.raises(ValueError, match="does not appear to be"):
            parse(text)
    else:
        assert parse(text) == wanted


def test_what_is_no_address_or_of_another_version_is_left_out() -> None:
    found = addresses(("10.0.0.1", "", "None", "fd00::1", "10.0.0.01", "10.0.0.2", "10.0.0.1"), 4)
    assert list(map(str, found)) == ["10.0.0.1", "10.0.0.2"]
    assert list(map(str, addresses(("10.0.0.1", "fd00::1"), 6))) == ["fd00::1"]


def test_a_network_is_read_with_spaces_and_with_bits_behind_its_prefix() -> None:
    assert network(" 10.0.0.1/8 ") == ipaddress.ip_network("10.0.0.0/8")
    assert network("10.0.0.0/33") is None
