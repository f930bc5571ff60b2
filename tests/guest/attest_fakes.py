# SPDX-License-Identifier: Apache-2.0
"""A secure processor that counts what it is asked for, and the enforcer's answers from it."""

from __future__ import annotations

from parma_guest.attest.service import Access, Answerer
from parma_wire.errors import Unavailable

REPORT = bytes(range(148)) * 8
KEY = b"k" * 32
IDENTITY = b"i" * 32
HOST_DATA = b"h" * 32
DATA = bytes(range(64))
HASHED = b"d" * 32 + bytes(32)


class FakeTee:
    """Counts what it is asked for."""

    def __init__(self, name: str = "snp") -> None:
        self.name = name
        self.reports: list[tuple[bytes, int]] = []

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        self.reports.append((report_data, vmpl))
        return b"" if self.name == "none" else REPORT

    def host_data(self) -> bytes | None:
        return HOST_DATA

    def derived_key(self) -> bytes:
        if self.name == "none":
            raise Unavailable("there is no secure processor to derive keys")
        return KEY


def answerer(*reachable: str, tee: FakeTee | None = None) -> Answerer:
    return Answerer(tee or FakeTee(), Access(frozenset(reachable), IDENTITY), HOST_DATA)
