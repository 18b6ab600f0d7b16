"""Annotations of bandwidth: quantities of bit/s from 1k to 1P, as Kubernetes takes them."""

from __future__ import annotations

import pytest

from podplane.model.bandwidth import EGRESS, INGRESS, limits, why_refused
from podplane.model.view import NO_LIMITS, Bandwidth


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1k", 1000),
        ("10M", 10_000_000),
        ("1P", 10**15),
        ("10Mi", 10 * 1024**2),
        ("1500", 1500),
        ("1.5M", 1_500_000),
        ("1e6", 1_000_000),
        ("1000.1", 1001),
    ],
)
def test_quantities_are_bits_a_second_rounded_up(text: str, rate: int) -> None:
    assert limits({INGRESS: text}) == Bandwidth(ingress_rate=rate)
    assert limits({EGRESS: text, "other": "x"}) == Bandwidth(egress_rate=rate)
    assert limits({INGRESS: text, EGRESS: "2k"}) == Bandwidth(ingress_rate=rate, egress_rate=2000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("999", "999 is not within 1k and 1P bit/s"),
        ("0", "0 is not within"),
        ("-10M", "-10M is not within"),
        ("1001T", "1001T is not within"),
        ("10Mbit", "'10Mbit' is no quantity, such as 10M"),
        ("", "'' is no quantity"),
        ("fast", "'fast' is no quantity"),
        ("1/2", "'1/2' is no quantity"),
        ("1e999", "out of range"),
    ],
)
@pytest.mark.parametrize("name", [INGRESS, EGRESS])
def test_what_makes_no_sense_is_named(name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        limits({name: text})
    assert str(caught.value).startswith(f"annotation {name}: ")


def test_without_annotations_there_are_no_limits() -> None:
    assert limits({}) is NO_LIMITS and not why_refused(NO_LIMITS)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Bandwidth(ingress_rate=999), "bandwidth: ingressRate 999 is not within 1k and 1P bit/s"),
        (Bandwidth(egress_rate=10**15 + 1), "egressRate 1000000000000001 is not within"),
        (Bandwidth(ingress_burst=8000), "ingressBurst 8000 makes no sense without ingressRate"),
        (Bandwidth(egress_rate=1000, egress_burst=-1), "egressBurst -1 is negative"),
    ],
)
def test_limits_that_no_pod_can_have_are_refused(asked: Bandwidth, words: str) -> None:
    assert words in why_refused(asked)
    assert not why_refused(Bandwidth(ingress_rate=1000, ingress_burst=1, egress_rate=10**15))
