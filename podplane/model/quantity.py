"""Quantities of Kubernetes, such as 100m, 1.5Gi and 12e6 (apimachinery, api/resource/quantity.go)."""

from __future__ import annotations

import functools
import re
from fractions import Fraction

MAX_LENGTH = 64
SMALL = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "k": Fraction(1000)}
LARGE = {letter: Fraction(1000) ** power for power, letter in enumerate("MGTPE", 2)}
BINARY = {f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
SUFFIXES = {**SMALL, **LARGE, **BINARY}


def parse(text: str | int | float) -> Fraction:
    """The number. ValueError for what is none."""
    text = str(text).strip()
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a quantity of {len(text)} characters")
    for length in (2, 1):
        suffix = text[-length:]
        if suffix in SUFFIXES:
            return Fraction(text[:-length]) * SUFFIXES[suffix]
    exponent = text.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > MAX_LENGTH:
        raise ValueError(f"the quantity {text} is out of range")
    return Fraction(text)


def binary(number: int) -> str:
    """A whole number as a quantity of binary suffixes: the largest that leaves it whole, as Kubernetes writes one."""
    power = 0
    while number and number % 1024 == 0 and power < len(BINARY):
        number, power = number // 1024, power + 1
    return f"{number}{list(BINARY)[power - 1] if power else ''}"


@functools.lru_cache(1024)
def rounded(text: str) -> str:
    """A canonical quantity of a list of resources, which Kubernetes rounds up to thousandths (SetDefaults_ResourceList)."""
    value = parse(text) * 1000
    if value.denominator == 1:
        return text
    return like(Fraction((-1 if value < 0 else 1) * -(-abs(value) // 1), 1000), text)


def like(value: Fraction, text: str) -> str:
    """A number as a canonical quantity in the notation of another one."""
    found = NUMBER.fullmatch(text)
    return _written(value, found[3] if found else "")


NUMBER = re.compile(r"[+-]?0*(\d*)(?:\.(\d*))?(.*)", re.ASCII)
NANO, MAX = -9, 2**63 - 1
INT64_DIGITS = 18
DECIMALS = {
    name: exponent for exponent, name in zip(range(-9, 21, 3), ("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), strict=True)
}


@functools.lru_cache(1024)
def canonical(text: str) -> str:
    """A quantity as Kubernetes writes it: no fraction, the largest suffix of its kind that leaves none; what is so already stays.

    ValueError for what is none. Source: apimachinery, api/resource: ParseQuantity and CanonicalizeBytes.
    """
    value, found = parse(text), NUMBER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    whole, fraction, suffix = found[1] or "0", found[2] or "", found[3]
    if _is_canonical(whole, fraction, suffix):
        return text
    return _written(value, suffix)


def _is_canonical(whole: str, fraction: str, suffix: str) -> bool:
    """Does Kubernetes keep the text? It looks at the digits only."""
    digits = whole + fraction
    if suffix in BINARY:
        power = list(BINARY).index(suffix) + 1
        precise = not fraction and 15 - len(whole) - power * 3 - 1 >= 0
        return precise and int(whole) & 7 != 0 and int(whole) << 10 * power <= MAX
    exponent = DECIMALS[suffix] if suffix in DECIMALS else int(suffix[1:])
    scale = exponent - len(fraction)
    precise = len(digits) <= INT64_DIGITS and scale >= NANO
    return precise and scale % 3 == 0 and not digits.endswith("000") and digits[0] != "0"


def _written(value: Fraction, suffix: str) -> str:
    size = abs(value)
    nano = -(-size * 10**9 // 1)
    if suffix in BINARY:
        nano = min(nano, MAX * 10**9)
    sign = "-" if value < 0 else ""
    if not nano:
        return "0"
    if suffix in BINARY and nano % 10**9 == 0 and nano >= 1024 * 10**9:
        return sign + binary(nano // 10**9)
    exponent = NANO
    while nano % 1000 == 0:
        nano, exponent = nano // 1000, exponent + 3
    if suffix and suffix not in SUFFIXES:
        return f"{sign}{nano}{f'e{exponent}' if exponent else ''}"
    for name, power in DECIMALS.items():
        if power == exponent:
            return f"{sign}{nano}{name}"
    raise ValueError(f"the quantity is out of range: no suffix is so large as 10^{exponent}")
