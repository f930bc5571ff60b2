# SPDX-License-Identifier: Apache-2.0
"""resolv.conf, hosts and hostname of the host: `Malformed`, or written anew, and then nothing is left to change."""

from __future__ import annotations

import contextlib

from parma_guest.generated import GENERATED
from parma_wire.errors import Malformed

_NAMES = sorted(GENERATED)
SEEDS = [
    bytes([number]) + text
    for number in range(len(_NAMES))
    for text in (
        b"box\n",
        b"# comment\n127.0.0.1 localhost box\n::1\tlocalhost ip6-localhost\n10.0.0.1 db db.example.org # here\n",
        b"search a.example b.example.\r\nnameserver 10.0.0.2\nnameserver fd00::1\noptions ndots:5 timeout:2 use-vc\n",
        b"nameserver fe80::1%eth0\n",
    )
]


def target(data: bytes) -> None:
    """The first byte chooses the file."""
    generate = GENERATED[_NAMES[(data[0] if data else 0) % len(_NAMES)]]
    with contextlib.suppress(Malformed):
        made = generate(data[1:])
        assert generate(made) == made
        assert all(byte in b"\t\n" or 32 <= byte < 127 for byte in made)
        assert made == b"" or made.endswith(b"\n")
