# SPDX-License-Identifier: Apache-2.0
"""The host's configuration: any bytes, in a file or in the runtime's options, are a configuration or `Malformed`.

The first byte says how to read the others: as TOML, or as changes to a table that is right.
"""

from __future__ import annotations

import json
from typing import Any

from parma_shim import config
from parma_wire.errors import Malformed
from tests.fuzz.edits import edited_json

_GOOD: dict[str, Any] = config.to_values(config.Config()) | {
    "certificates": "/etc/parma/vcek.pem",
    "minimum_tcb": "snp=24,ucode=219",
    "policy_dirs": ["/a", "/b"],
    "task_api": 3,
}
_TEXT = 1
SEEDS = [
    bytes([_TEXT]) + "\n".join(config.to_lines(config.Config()).values()).encode(),
    bytes([_TEXT]) + b'ConfigPath = ""\nTypeUrl = "x"\ntee = "none"\nboot_timeout = 1.5\n',
    bytes([_TEXT]) + b"x = " + b"[" * 40,
    bytes([_TEXT]) + b"te = 1",
    *(bytes([0, place, what]) for place in range(0, 30, 7) for what in (0, 7, 30, 45)),
]


def target(data: bytes) -> None:
    """What is accepted says the same when it is written down and read again."""
    try:
        loaded = _read(data)
    except Malformed:
        return
    written = "\n".join(config.to_lines(loaded).values()).encode()
    assert config.from_values(config.parse_toml(written, "again"), "again") == loaded


def _read(data: bytes) -> config.Config:
    if data[:1] == bytes([_TEXT]):
        return config.from_values(config.parse_toml(data[1:], "the file"), "the file")
    values = edited_json(_GOOD, data[1:])
    json.dumps(values)
    return config.from_values(values, "a table")
