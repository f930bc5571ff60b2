# SPDX-License-Identifier: Apache-2.0
"""Quantities like ``500m`` and ``64Mi``, and what a container sees of them through ``resourceFieldRef``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_QUANTITY: Final = re.compile(
    r"([+-]?[0-9]{1,20}(?:\.[0-9]{0,20})?|[+-]?\.[0-9]{1,20})([A-Za-z]*)(?:e([+-]?[0-9]{1,2}))?"
)
_SUFFIXES: Final = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
}


def parse(text: str) -> Fraction | None:
    """The number, or None where it is no quantity."""
    exponent = re.fullmatch(r"([+-]?[0-9.]{1,40})[eE]([+-]?[0-9]{1,2})", text, re.ASCII)
    if exponent:
        base = parse(exponent[1])
        return None if base is None else base * Fraction(10) ** int(exponent[2])
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _SUFFIXES or match[3]:
        return None
    return Fraction(match[1].rstrip(".")) * _SUFFIXES[match[2]]


def in_units_of(amount: Fraction, divisor: Fraction) -> str:
    """As the container sees it: a whole number, rounded up."""
    return str(-(-amount // (divisor or Fraction(1))))
