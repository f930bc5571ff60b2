# SPDX-License-Identifier: Apache-2.0
"""A file of signed ID blocks, one for each launch measurement: what the configuration's ``id_block`` names.

An ID block is good for one measurement, so an image with several supported VM shapes has several. JSON::

    {"format": 1, "id_blocks": [{"measurement": hex, "id_block": base64, "id_auth": base64, "author_key": bool}, ...]}
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Final

from parma_snp import idblock
from parma_snp.errors import SnpError
from parma_snp.launch import IdBlock
from parma_snp.strict_json import Object

_FORMAT: Final = 1
_MAX_SIZE: Final = 1 << 20
_CODE: Final = "idblock.format"
_KEYS: Final = ("measurement", "id_block", "id_auth", "author_key")


def dumps(blocks: Iterable[IdBlock]) -> str:
    """The file's text."""
    entries = [
        {
            "measurement": signed.measurement.hex(),
            "id_block": base64.b64encode(signed.block).decode(),
            "id_auth": base64.b64encode(signed.auth).decode(),
            "author_key": signed.author_key,
        }
        for signed in blocks
    ]
    return json.dumps({"format": _FORMAT, "id_blocks": entries}, indent=1) + "\n"


def loads(data: bytes) -> dict[bytes, IdBlock]:
    """The blocks by measurement, each checked as the firmware would. Raises SnpError of the ``idblock`` family."""
    document = Object.parse(data, code=_CODE, limit=_MAX_SIZE)
    document.require_keys(("format", "id_blocks"))
    if document.number("format") != _FORMAT:
        raise SnpError(_CODE, "not a file of ID blocks that this version reads", expected=f"format {_FORMAT}")
    found: dict[bytes, IdBlock] = {}
    for entry in document.objects("id_blocks"):
        entry.require_keys(_KEYS)
        signed = IdBlock(entry.base64("id_block"), entry.base64("id_auth"), entry.boolean("author_key"))
        idblock.check(signed)
        if entry.hex("measurement") != signed.measurement or signed.measurement in found:
            raise SnpError(_CODE, "an ID block is listed under another measurement, or twice")
        found[signed.measurement] = signed
    return found


def select(data: bytes, measurement: bytes) -> IdBlock:
    """The block for a VM with this launch measurement (48 bytes). Raises SnpError ``idblock.missing``."""
    blocks = loads(data)
    try:
        return blocks[measurement]
    except KeyError:
        raise SnpError(
            "idblock.missing",
            "there is no ID block for this VM",
            expected="one of " + ", ".join(f"{known.hex()[:16]}..." for known in blocks) if blocks else "",
            found=f"{measurement.hex()[:16]}...",
            hint="make it for this image: parma id-block make --image DIR",
        ) from None
