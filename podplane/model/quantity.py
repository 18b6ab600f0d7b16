"""Quantities of Kubernetes, such as 100m, 1.5Gi and 12e6 (apimachinery, api/resource/quantity.go)."""

from __future__ import annotations

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
