# SPDX-License-Identifier: Apache-2.0
"""The certificate table that a host hands to its guest along with an extended report.

Source: AMD publication 56421, "SEV-ES Guest-Hypervisor Communication Block Standardization", SNP Extended Guest
Request. Entries of 24 bytes (GUID, offset, length) up to a zero entry, then the certificates (DER). All of it is
untrusted host data, and today's KVM hands out an empty one.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import Final

from parma_snp.certificates import CertificateChain, complete_chain
from parma_snp.errors import SnpError

VCEK: Final = "63da758d-e664-4564-adc5-f4b93be8accd"
VLEK: Final = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
ASK: Final = "4ab7b379-bbac-4fe4-a02f-05aef327c782"
ARK: Final = "c0b406a4-a803-4952-9743-3fb6014cd0ae"
CRL: Final = "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"
_NAMES: Final = {VCEK: "VCEK", VLEK: "VLEK", ASK: "ASK", ARK: "ARK", CRL: "CRL"}

MAX_TABLE_SIZE: Final = 64 * 1024
_ENTRY: Final = struct.Struct("<16sII")
_CODE: Final = "certtable.format"


@dataclass(frozen=True)
class Entry:
    """One certificate. ``guid`` in RFC 4122 text form; ``name`` is its short name, or the GUID when unknown."""

    guid: str
    data: bytes

    @property
    def name(self) -> str:
        return _NAMES.get(self.guid, self.guid)


def parse(table: bytes) -> tuple[Entry, ...]:
    """The entries of an untrusted table, in order; empty input has none. Raises SnpError ``certtable.format``."""
    if len(table) > MAX_TABLE_SIZE:
        raise SnpError(_CODE, "the table is too large", expected=f"at most {MAX_TABLE_SIZE} bytes")
    headers = _headers(table)
    if not headers:
        return ()
    end_of_headers = (len(headers) + 1) * _ENTRY.size
    entries: list[Entry] = []
    for guid, offset, length in headers:
        if length == 0 or offset < end_of_headers or offset + length > len(table):
            raise SnpError(
                _CODE,
                f"entry {guid} does not lie within the table's data",
                expected=f"bytes {end_of_headers}..{len(table)}",
                found=f"{offset}..{offset + length}",
            )
        if guid in _NAMES and any(entry.guid == guid for entry in entries):
            raise SnpError(_CODE, f"{_NAMES[guid]} appears twice")
        entries.append(Entry(guid, table[offset : offset + length]))
    return tuple(entries)


def _headers(table: bytes) -> list[tuple[str, int, int]]:
    headers: list[tuple[str, int, int]] = []
    if not table:
        return headers
    for position in range(0, len(table), _ENTRY.size):
        if position + _ENTRY.size > len(table):
            raise SnpError(_CODE, "the table ends within an entry")
        guid, offset, length = _ENTRY.unpack_from(table, position)
        if not any(guid):
            if offset or length:
                raise SnpError(_CODE, "the terminating entry is not zero")
            return headers
        headers.append((str(uuid.UUID(bytes=guid)), offset, length))
    raise SnpError(_CODE, "the table has no end", expected="an entry of zeros")


def chain_of(entries: tuple[Entry, ...]) -> CertificateChain:
    """The chain in a table, completed with AMD's bundled certificates where the host left them out.

    Raises SnpError ``certtable.no_key`` when there is no VCEK or VLEK, or both; ``cert.parse``.
    """
    by_name = {entry.name: entry.data for entry in entries}
    keys = [by_name[name] for name in ("VCEK", "VLEK") if name in by_name]
    if len(keys) != 1:
        raise SnpError(
            "certtable.no_key", "no single signing certificate", expected="a VCEK or a VLEK", found=str(len(keys))
        )
    chain = complete_chain(keys[0], by_name.get("ASK"), by_name.get("ARK"))
    return CertificateChain(chain.leaf, chain.intermediate, chain.root, by_name.get("CRL"))
