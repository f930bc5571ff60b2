# SPDX-License-Identifier: Apache-2.0
"""What a relying party demands of evidence. Strict unless asked otherwise.

A signature only proves that some SNP machine runs some VM. What that VM is follows from MEASUREMENT, under which
policy it runs from HOST_DATA, and that the answer is fresh from REPORT_DATA. These three have no default; whoever does
not want to check one has to write :data:`UNCHECKED`, and the verdict says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib import resources
from typing import Final

from parma_snp import report as abi
from parma_snp.errors import SnpError
from parma_snp.report import Product


class Unchecked(Enum):
    """The type of :data:`UNCHECKED`, of which there is one value."""

    UNCHECKED = "unchecked"


UNCHECKED: Final = Unchecked.UNCHECKED


@dataclass(frozen=True)
class Endorser:
    """Any measurement that this issuer has signed for: a name and a version instead of a digest.

    ``issuer`` is a did:x509, ``feed`` the series of images that the issuer means, ``min_svn`` the lowest security
    version of it that will do (not GUEST_SVN of the report). ``require_receipt`` wants a transparency ledger's receipt
    signed by one of ``ledger_keys`` (DER SubjectPublicKeyInfo).
    """

    issuer: str
    feed: str
    min_svn: int
    require_receipt: bool = False
    ledger_keys: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.require_receipt and not self.ledger_keys:
            raise SnpError("usage", "a receipt is required and no ledger's key is given")

    def __str__(self) -> str:
        return f"endorsed by {self.issuer}, feed {self.feed}, SVN {self.min_svn} or later"


_ID_SIZES: Final = {"image_id": 16, "family_id": 16, "report_id": 32, "chip_id": 64}

Measurement = bytes | tuple[bytes, ...] | Endorser | Unchecked


@dataclass(frozen=True)
class Expected:
    """What a relying party demands of a report. Bytes are compared whole.

    ``host_data`` 32 bytes, SHA-256 of the policy. ``measurement`` 48 bytes, several acceptable ones, or who must have
    endorsed it. ``report_data`` 64 bytes, of the relying party's choice and never used before. ``vmpl`` 0..3.
    ``image_id`` and ``family_id`` 16 bytes, ``report_id`` 32, ``chip_id`` 64, or the 8 that Turin uses.
    ``min_tcb`` maps component names (fmc, bl, tee, snp, ucode) to the lowest acceptable level of REPORTED_TCB; None
    takes the table shipped with this package, which refuses products it has no entry for. ``vlek_csp_ids`` lists the
    cloud providers (CSP_ID) whose VLEK is accepted. ``platform_info_*`` and ``launch_mitigations_required`` are bit
    masks. ``allow_permissive`` accepts a policy that forbids nothing. Key digests are SHA-384 of the 1028-byte key
    structure; an empty tuple demands nothing.
    """

    host_data: bytes | Unchecked
    measurement: Measurement
    report_data: bytes | Unchecked
    vmpl: int | Unchecked = 0
    allow_debug: bool = False
    allow_migrate_ma: bool = False
    allow_smt: bool = True
    allow_provisional: bool = False
    allow_masked_chip_id: bool = False
    allow_permissive: bool = False
    require_single_socket: bool = False
    min_tcb: Mapping[str, int] | None = None
    min_committed_tcb: Mapping[str, int] = field(default_factory=dict)
    min_launch_tcb: Mapping[str, int] = field(default_factory=dict)
    min_abi: tuple[int, int] | None = None
    min_guest_svn: int = 0
    min_report_version: int = 2
    vlek_csp_ids: tuple[str, ...] | Unchecked = ()
    image_id: bytes | None = None
    family_id: bytes | None = None
    report_id: bytes | None = None
    chip_id: bytes | None = None
    id_key_digests: tuple[bytes, ...] = ()
    author_key_digests: tuple[bytes, ...] = ()
    require_author_key: bool = False
    platform_info_required: int = 0
    platform_info_forbidden: int = 0
    launch_mitigations_required: int = 0

    def __post_init__(self) -> None:
        _check_length("host_data", self.host_data, abi.HOST_DATA_SIZE)
        _check_length("report_data", self.report_data, abi.REPORT_DATA_SIZE)
        for name, size in _ID_SIZES.items():
            wanted: bytes | None = getattr(self, name)
            if wanted is not None and not (name == "chip_id" and len(wanted) == abi.TURIN_CHIP_ID_SIZE):
                _check_length(name, wanted, size)
        for digest in self.measurements or ():
            _check_length("measurement", digest, abi.MEASUREMENT_SIZE)
        if self.measurements == ():
            raise SnpError("usage", "no acceptable measurement is given", hint="UNCHECKED accepts any")
        for minimum in (self.min_tcb or {}, self.min_committed_tcb, self.min_launch_tcb):
            if unknown := set(minimum) - set(abi.TCB_COMPONENTS):
                raise SnpError(
                    "usage",
                    "unknown TCB component",
                    expected=", ".join(abi.TCB_COMPONENTS),
                    found=", ".join(sorted(unknown)),
                )

    @property
    def measurements(self) -> tuple[bytes, ...] | None:
        """The acceptable measurements; None when they are not named one by one."""
        if isinstance(self.measurement, bytes):
            return (self.measurement,)
        return self.measurement if isinstance(self.measurement, tuple) else None

    @property
    def endorser(self) -> Endorser | None:
        """Who must have endorsed the measurement, if that is what is asked for."""
        return self.measurement if isinstance(self.measurement, Endorser) else None

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The names of what the relying party chose not to check."""
        names = ("host_data", "measurement", "report_data", "vmpl", "vlek_csp_ids")
        return tuple(name for name in names if isinstance(getattr(self, name), Unchecked))


def _check_length(name: str, value: bytes | Unchecked, size: int) -> None:
    if not isinstance(value, Unchecked) and len(value) != size:
        raise SnpError("usage", f"{name} has another length", expected=f"{size} bytes", found=f"{len(value)} bytes")


def parse_levels(text: str) -> Mapping[str, int]:
    """Patch levels as they are written by people: ``snp=24,ucode=219``. Raises SnpError ``usage``."""
    levels: dict[str, int] = {}
    for part in text.split(","):
        name, _, level = (word.strip() for word in part.partition("="))
        known = name in abi.TCB_COMPONENTS and name not in levels
        if not known or not level.isascii() or not level.isdecimal() or int(level) > 0xFF:
            components = ", ".join(abi.TCB_COMPONENTS)
            raise SnpError(
                "usage", "not TCB components and levels", expected=f"snp=24,ucode=219; of {components}", found=text
            )
        levels[name] = int(level)
    return levels


@dataclass(frozen=True)
class MinimumTcb:
    """The table of lowest acceptable patch levels that comes with this package.

    ``reviewed`` is an ISO 8601 date; a product that maps to None has no published minimum.
    """

    reviewed: str
    source: str
    products: Mapping[Product, Mapping[str, int] | None]


@cache
def default_minimum_tcb() -> MinimumTcb:
    """Read ``data/minimum_tcb.json``."""
    document = json.loads(resources.files("parma_snp").joinpath("data", "minimum_tcb.json").read_text())
    products = {product: document["products"][product] for product in abi.PRODUCTS}
    return MinimumTcb(document["reviewed"], document["source"], products)
