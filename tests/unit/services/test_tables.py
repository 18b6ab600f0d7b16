"""What is kept to be shared by Services is bounded, and is shared."""

from __future__ import annotations

import ipaddress

from podplane.services import tables


def test_chains_and_elements_that_users_choose_are_kept_up_to_a_bound() -> None:
    for number in range(1, tables.CACHED + 50):
        tables.chain_element(4, number, number)
        tables.load_balancing_chains(4, number)
        tables.load_balancing_chains(4, 1, number)
        tables.source_ranges_chain(4, (ipaddress.ip_network(f"10.{number >> 8}.{number & 255}.0/24"),))
    for kept in (tables.chain_element, tables.load_balancing_chains, tables.source_ranges_chain):
        assert kept.cache_info().currsize == tables.CACHED


def test_services_with_the_same_count_share_chains_and_their_element() -> None:
    assert tables.load_balancing_chains(4, 3) is tables.load_balancing_chains(4, 3)
    assert tables.chain_element(4, 3, 3) is tables.chain_element(4, 3, 3)
