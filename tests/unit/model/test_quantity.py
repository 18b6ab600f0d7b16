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


@pytest.mark.parametrize(
    ("text", "written"),
    [
        *(
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1000k", "1M"),
            ("0.0001", "100u"),
            ("1e3", "1e3"),
        ),
        *(
            ("12e7", "120e6"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1025Ki", "1025Ki"),
            ("0.1Ki", "102400m"),
            ("0.5Ki", "512"),
        ),
        *(
            ("3n", "3n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("-1.5Gi", "-1536Mi"),
            ("00", "0"),
            ("-0", "0"),
            ("0Ki", "0"),
            (".5", "500m"),
        ),
        *(
            ("+3", "+3"),
            ("5.", "5."),
            ("1.500", "1.500"),
            ("9Ei", "9223372036854775807"),
            ("0.000", "0"),
            ("1E", "1E"),
            ("1e-2", "10e-3"),
        ),
    ],
)
def test_a_quantity_is_written_as_kubernetes_writes_it(text: str, written: str) -> None:
    """Each as the published resource.Quantity gives it; what looks canonical stays, even with a sign or a point."""
    assert quantity.canonical(text) == written


@pytest.mark.parametrize("text", ["2000E", "1e99", "1" * 70, "x", "1Kii"])
def test_what_is_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|range|Fraction"):
        quantity.canonical(text)


DIGITS = st.from_regex(r"[+-]?([0-9]{1,6}(\.[0-9]{0,4})?|\.[0-9]{1,4})([numkMG]|[KMG]i|e-?[0-6])?", fullmatch=True)


@given(DIGITS)
def test_writing_keeps_the_value_and_is_done_once(text: str) -> None:
    written = quantity.canonical(text)
    assert quantity.canonical(written) == written
    value, kept = quantity.parse(text), quantity.parse(written)
    assert abs(value) <= abs(kept) < abs(value) + Fraction(1, 10**9), "rounded up to nanos"
