"""Allocators: unique, in order, reused as late as possible, and honest about what is left."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.ipam.pool import AddressPool, BlockPool, Exhausted, Ring

V4, V6 = ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_network("fd00:10:244::/48")


def test_node1_gets_block_1_and_block_0_comes_last() -> None:
    pool = BlockPool(V4, 24)
    blocks = [str(pool.next()) for _ in range(256)]
    assert blocks[:2] == ["10.244.1.0/24", "10.244.2.0/24"]
    assert blocks[-1] == "10.244.0.0/24"
    with pytest.raises(Exhausted, match=r"10\.244\.0\.0/16 has 256 blocks of /24, all in use"):
        pool.next()


def test_ipv6_blocks() -> None:
    pool = BlockPool(V6, 64)
    assert str(pool.next()) == "fd00:10:244:1::/64"
    assert pool.free == 65535


def test_a_cluster_cidr_of_one_block_is_that_block() -> None:
    pool = BlockPool(ipaddress.ip_network("10.1.2.0/24"), 24)
    assert str(pool.next()) == "10.1.2.0/24"


def test_a_block_larger_than_the_cidr_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than"):
        BlockPool(V4, 15)


def test_foreign_blocks_are_not_taken() -> None:
    pool = BlockPool(V4, 24)
    assert not pool.take(ipaddress.ip_network("10.245.1.0/24"))
    assert not pool.take(ipaddress.ip_network("10.244.1.0/25"))
    assert pool.take(ipaddress.ip_network("10.244.1.0/24"))
    assert not pool.take(ipaddress.ip_network("10.244.1.0/24"))
    assert str(pool.next()) == "10.244.2.0/24"


@pytest.mark.parametrize(("block", "size"), [("10.244.1.0/24", 253), ("10.0.0.0/29", 5), ("fd00::/64", 2**64 - 2)])
def test_network_gateway_and_broadcast_are_never_pods(block: str, size: int) -> None:
    pool = AddressPool(ipaddress.ip_network(block))
    assert pool.size == size
    assert pool.next() == pool.gateway + 1
    assert not pool.take(pool.gateway)


def test_a_released_address_comes_back_last() -> None:
    pool = AddressPool(ipaddress.ip_network("10.0.0.0/29"))
    first = pool.next()
    pool.release(first)
    assert [str(pool.next()) for _ in range(5)] == ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]
    with pytest.raises(Exhausted, match="5 pod addresses"):
        pool.next()


def test_a_taken_address_moves_the_cursor_past_it() -> None:
    pool = AddressPool(ipaddress.ip_network("10.0.0.0/24"))
    assert pool.take(ipaddress.ip_address("10.0.0.9"))
    assert str(pool.next()) == "10.0.0.10"


@given(st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=80))
def test_a_ring_never_hands_out_what_is_in_use(steps: list[int | None]) -> None:
    """None takes the next one, a number releases it."""
    ring = Ring(3, 14)
    model: set[int] = set()
    for step in steps:
        if step is not None:
            ring.release(step)
            model.discard(step)
        elif len(model) == ring.size:
            with pytest.raises(Exhausted):
                ring.next()
        else:
            number = ring.next()
            assert 3 <= number <= 14
            assert number not in model
            model.add(number)
        assert ring.free == ring.size - len(model)


@given(st.integers(1, 12))
def test_reuse_waits_for_all_others(released: int) -> None:
    ring = Ring(1, 12)
    for _ in range(6):
        ring.next()
    if released <= 6:
        ring.release(released)
        rest = [ring.next() for _ in range(6)]
        assert rest == [7, 8, 9, 10, 11, 12]
        assert ring.next() == released
    else:
        ring.release(released)
        assert ring.next() == 7
