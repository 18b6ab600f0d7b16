"""A network that is written as it should be is known at a glance, and nothing is said of it; of all others what was said before."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.kinds import addresses, network_policies


def networks(version: Any) -> st.SearchStrategy[str]:
    lengths = st.integers(0, 32 if version == 4 else 128)
    return st.builds(
        lambda ip, length: str(ipaddress.ip_network((ip, length), strict=False)), st.ip_addresses(v=version), lengths
    )


ODD = [
    "10.0.0.1/24",
    "010.0.0.0/8",
    "10.0.0.0/08",
    "10.0.0.0",
    "::ffff:10.0.0.0/104",
    "::10.0.0.0/120",
    "FD00::/16",
    "fd00:0::/16",
    "",
]
ODD += [
    "/",
    "10.0.0.0/",
    "10.0.0.0/33",
    "fd00::/129",
    "10.0.0.0/-1",
    "10.0.0.0/+8",
    "10.0.0.0/8 ",
    "a\0/8",
    "fe80::%1/64",
    "1.0.0.0/\u0663",
]
ODD += ["1.0.0.0/\u0663", "10.0.0.0/255.0.0.0", "10/8", "0x0a.0.0.0/8", "10.0.0.0/8/8", "\u0661.0.0.0/8"]


def said(text: str) -> tuple[list[Any], list[str]]:
    causes = list(addresses.check_cidr(text, "x"))
    return causes, [] if causes else list(addresses.cidr_warnings(text, "x"))


@given(st.one_of(networks(4), networks(6), st.sampled_from(ODD), st.text("0123456789abf.:/", max_size=12)))
def test_a_glance_says_nothing_else_than_a_closer_look(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "is_canonical", lambda text: False)
        expected = said(text)
    assert said(text) == expected
    if addresses.is_canonical(text):
        assert expected == ([], [])


@given(st.one_of(networks(4), networks(6)))
def test_what_python_writes_is_canonical_but_for_addresses_of_ipv4_within_ipv6(text: str) -> None:
    assert addresses.is_canonical(text) or text.startswith("::")


@pytest.mark.parametrize("text", ODD)
def test_what_is_written_otherwise_takes_a_closer_look(text: str) -> None:
    assert not addresses.is_canonical(text)


def test_the_networks_of_a_large_policy_are_not_parsed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(addresses, "network", lambda text: parsed.append(text) or text)
    blocks = [{"ipBlock": {"cidr": f"10.{n // 250}.{n % 250}.0/24"}} for n in range(500)]
    blocks += [{"ipBlock": {"cidr": f"fd00:{n:x}::/32"}} for n in range(1, 500)]
    policy = {"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": blocks}]}}
    assert list(network_policies.check(policy, None)) == list(network_policies.warnings(policy)) == []
    assert parsed == []
