# SPDX-License-Identifier: Apache-2.0
"""The footer of a fixed VHD (layer format notes, section 14). Hyper-V hosts want it; no hash covers it."""

from __future__ import annotations

import struct
from typing import Final

FOOTER_SIZE: Final = 512
_FOOTER: Final = struct.Struct(">8sIIQI4sIIQQIII16sB")


def footer(size: int, uuid: bytes = bytes(16)) -> bytes:
    """The 512 bytes to append to an image of ``size`` bytes."""

    def packed(checksum: int) -> bytes:
        fields = (b"conectix", 2, 0x00010000, (1 << 64) - 1, 0, bytes(4), 0x000A0000, 0, size, size, 0, 2, checksum)
        return _FOOTER.pack(*fields, uuid, 0).ljust(FOOTER_SIZE, b"\0")

    return packed(~sum(packed(0)) & 0xFFFFFFFF)
