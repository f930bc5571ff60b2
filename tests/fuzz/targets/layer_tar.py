# SPDX-License-Identifier: Apache-2.0
"""Layers: any bytes are a file system image or a `LayerError`, the same however they arrive.

Hardly any change of a tar keeps its checksums right, so each input is also taken with them mended: what lies behind the
checksum is what an attacker reaches.
"""

from __future__ import annotations

import io
import re

from parma_policy.layers.convert import LayerImage, layer_to_image
from parma_policy.layers.errors import LayerError
from parma_policy.layers.stream import Readable
from tests.layers import tars
from tests.layers.make_vectors import goldens

_LIMIT = 16 << 20
"""Bytes of the image: a few bytes of a sparse file can ask for any amount."""

_TINY = 509
"""Bytes a read: a prime, so that no block arrives whole."""

_LARGEST_SEED = 16 << 10

SEEDS = [case.tar for case in goldens() if case.tar and len(case.tar) <= _LARGEST_SEED]


class Dripping:
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, _TINY))


def target(data: bytes) -> None:
    """Converts ``data``, and ``data`` with its checksums mended."""
    for tar in (data, mended(data)):
        out = io.BytesIO()
        found = convert(io.BytesIO(tar), out)
        assert found == convert(Dripping(tar), None)
        assert isinstance(found, str) or len(out.getvalue()) == found.total_size


def convert(tar: Readable, out: io.BytesIO | None) -> LayerImage | str:
    """The image, or the error's kind and message."""
    try:
        return layer_to_image(tar, out, maximum_disk_size=_LIMIT)
    except LayerError as error:
        text = f"{error.kind}: {error}"
    assert text.isprintable()
    return text


def mended(data: bytes) -> bytes:
    """With right checksums in what the sizes make the headers."""
    out = bytearray(data)
    position = 0
    while position + 512 <= len(out):
        block = out[position : position + 512]
        if any(block):
            out[position : position + 512] = tars.sealed(block)
        digits = re.match(rb"[0-7]*", bytes(block[124:135]))
        size = int(digits[0] or b"0", 8) if digits else 0
        position += 512 + -(-size // 512) * 512
    return bytes(out)
