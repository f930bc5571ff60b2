# SPDX-License-Identifier: Apache-2.0
"""RSA keys that are there already: a large one takes a second to make, and tests of every fault would wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

_AT_HAND: Final = 8
_BITS: Final = 4096


def prepare() -> None:
    """From now on each process gets the same first keys of 4096 bits, one after the other."""
    make: Final = rsa.generate_private_key
    keys: Final[Iterator[rsa.RSAPrivateKey]] = iter([make(65537, _BITS) for _ in range(_AT_HAND)])

    def ready(public_exponent: int, key_size: int, backend: Any = None) -> rsa.RSAPrivateKey:
        key = next(keys, None) if (public_exponent, key_size) == (65537, _BITS) else None
        return key or make(public_exponent, key_size, backend)

    setattr(rsa, "generate_private_key", ready)  # noqa: B010  # mypy: a function is no variable
