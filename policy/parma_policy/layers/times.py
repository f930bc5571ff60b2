# SPDX-License-Identifier: Apache-2.0
"""Times as the image stores them.

A time is ``(seconds, nanoseconds)`` since 1970, or None for "not given". On disk it is one 64-bit word whose low half
goes to the classic field and whose high half goes to the ``*_extra`` field. The conversion differs from the kernel's
for times before 1970 and after 2038, on purpose: it is what the policy's root hashes were made with.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Time: TypeAlias = tuple[int, int] | None

_YEAR_ONE: Final = -62135596800  # Go's zero time, which means "no time"
_OLDEST: Final = -0x80000000
_NEWEST: Final = 0x37FFFFFFF
_MASK64: Final = (1 << 64) - 1


def encode(time: Time) -> int:
    """The 64-bit word for a time; out-of-range seconds are clamped and lose their fraction."""
    if time is None or time == (_YEAR_ONE, 0):
        return 0
    seconds, nanoseconds = time
    if seconds < _OLDEST:
        return 0x80000000
    if seconds > _NEWEST:
        return _NEWEST
    return (seconds & _MASK64) | (nanoseconds << 34)


def decode(word: int) -> Time:
    """Read a stored word back. Not the inverse of ``encode`` for negative seconds, as in the reference."""
    if word == 0:
        return None
    seconds = word & 0x3FFFFFFFF
    if 0x7FFFFFFF < seconds < 0x100000000:
        seconds -= 0x100000000
    carry, nanoseconds = divmod(word >> 34, 1_000_000_000)
    return seconds + carry, nanoseconds


def normalised(seconds: int, nanoseconds: int) -> Time:
    """A time from a second and a possibly negative fraction, wrapping like a signed 64-bit second does."""
    carry, nanoseconds = divmod(nanoseconds, 1_000_000_000)
    seconds = (seconds + carry + (1 << 63)) % (1 << 64) - (1 << 63)
    return seconds, nanoseconds
