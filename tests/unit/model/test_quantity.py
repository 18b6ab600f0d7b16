"""Quantities: what Kubernetes writes is read, and nothing else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("100m", Fraction(1, 10)),
        ("1.5Gi", 3 * 2**29),
        ("12e6", 12_000_000),
        ("12E6", 12_000_000),
        ("2E", 2 * 10**18),
        ("-1Ki", -1024),
        ("1k", 1000),
        (".5", Fraction(1, 2)),
        ("250n", Fraction(1, 4_000_000)),
        (3, 3),
    ],
)
def test_what_kubernetes_writes(text: str | int, number: Fraction | int) -> None:
    assert quantity.parse(text) == number


@pytest.mark.parametrize("text", ["", "m", "1x", "1 Gi i", "ten", "1e1000000", "9" * 65, "0x10", "1Mii"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        quantity.parse(text)


@given(st.integers(-(10**9), 10**9), st.sampled_from(sorted(quantity.SUFFIXES)))
def test_a_suffix_is_a_factor(number: int, suffix: str) -> None:
    assert quantity.parse(f"{number}{suffix}") == number * quantity.SUFFIXES[suffix]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1536, "1536"), (1 << 21, "2Mi"), (1 << 30, "1Gi"), (3 << 61, "6Ei")],
)
def test_a_whole_number_with_a_binary_suffix(number: int, text: str) -> None:
    assert quantity.binary(number) == text
    assert quantity.parse(text) == number
