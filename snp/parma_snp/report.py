# SPDX-License-Identifier: Apache-2.0
"""The attestation report of SEV-SNP: 1184 bytes, little endian.

Source: AMD publication 56860, "SEV Secure Nested Paging Firmware ABI Specification", ATTESTATION_REPORT.
Versions 2 to 5 are understood. This module needs no cryptography, so that the guest can use it; whether a report is
genuine is the business of ``parma_snp.verify``.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

from parma_snp.errors import SnpError

REPORT_SIZE: Final = 1184
SIGNED_SIZE: Final = 0x2A0
REPORT_DATA_SIZE: Final = 64
HOST_DATA_SIZE: Final = 32
MEASUREMENT_SIZE: Final = 48
VERSIONS: Final = (2, 3, 4, 5)
HOST_REQUESTED_VMPL: Final = 0xFFFFFFFF

COMPONENT_SIZE: Final = 72  # of r or s, of which 48 are used by P-384
TURIN_CHIP_ID_SIZE: Final = 8

Product = Literal["Milan", "Genoa", "Turin"]
MILAN: Final = "Milan"
GENOA: Final = "Genoa"
TURIN: Final = "Turin"
PRODUCTS: Final[tuple[Product, ...]] = (MILAN, GENOA, TURIN)

SIGNING_KEY_VCEK: Final = 0
SIGNING_KEY_VLEK: Final = 1
SIGNING_KEY_NONE: Final = 7

# Guest policy (POLICY), specification table "Guest Policy".
POLICY_SMT: Final = 1 << 16
POLICY_RESERVED_ONE: Final = 1 << 17
POLICY_MIGRATE_MA: Final = 1 << 18
POLICY_DEBUG: Final = 1 << 19
POLICY_SINGLE_SOCKET: Final = 1 << 20
POLICY_KNOWN: Final = (1 << 26) - 1

# (offset, length) of what must be zero whatever the version is. The bytes after the signature are not covered by it;
# requiring zero leaves no room for data that nobody vouches for. (Padding of r and s: see their range check.)
_RESERVED: Final = (
    (0x4C, 4),
    (0x18B, 21),
    (0x1EB, 1),
    (0x1EF, 1),
    (0x208, 152),
    (0x330, 368),
)
_RESERVED_BEFORE_V3: Final = (0x188, 3)
_RESERVED_BEFORE_V5: Final = (0x1F8, 16)

_TCB_OFFSETS: Final = {"current": 0x38, "reported": 0x180, "committed": 0x1E0, "launch": 0x1F0}
TcbName = Literal["current", "reported", "committed", "launch"]


class Tcb(NamedTuple):
    """A TCB_VERSION taken apart. ``fmc`` is None where the product has none; ``reserved`` holds the other bytes."""

    fmc: int | None
    bl: int
    tee: int
    snp: int
    ucode: int
    reserved: bytes

    def component(self, name: str) -> int | None:
        """A security patch level by its short name (fmc, bl, tee, snp, ucode); None where the product has none."""
        value: int | None = getattr(self, name)
        return value

    def __str__(self) -> str:
        parts = [("fmc", self.fmc), ("bl", self.bl), ("tee", self.tee), ("snp", self.snp), ("ucode", self.ucode)]
        return " ".join(f"{name}={value}" for name, value in parts if value is not None)


TCB_COMPONENTS: Final = ("fmc", "bl", "tee", "snp", "ucode")


def decode_tcb(raw: bytes, product: Product) -> Tcb:
    """Take apart the 8 bytes of a TCB_VERSION. The layout follows the product, never the report's version."""
    if product == TURIN:
        return Tcb(raw[0], raw[1], raw[2], raw[3], raw[7], raw[4:7])
    return Tcb(None, raw[0], raw[1], raw[6], raw[7], raw[2:6])


def product_of(family: int, model: int) -> Product | None:
    """The product whose certificate chain a processor uses, by its CPUID family and model; None if unknown.

    Models 0xA0 to 0xAF of family 0x19 (Bergamo, Siena) use Genoa's chain.
    """
    if family == 0x19 and model <= 0x0F:
        return MILAN
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return GENOA
    if family == 0x1A and model <= 0x11:
        return TURIN
    return None


class CpuId(NamedTuple):
    """CPUID family (base and extended added), model and stepping of the processor."""

    family: int
    model: int
    stepping: int


class FirmwareVersion(NamedTuple):
    """Version of the SEV firmware; ordered like the tuple."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


class Report:
    """A well-formed report, decoded on access. Made by :func:`parse`; says nothing about authenticity."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw: Final = raw

    def _u32(self, offset: int) -> int:
        value: int = struct.unpack_from("<I", self.raw, offset)[0]
        return value

    def _u64(self, offset: int) -> int:
        value: int = struct.unpack_from("<Q", self.raw, offset)[0]
        return value

    @property
    def version(self) -> int:
        return self._u32(0x00)

    @property
    def guest_svn(self) -> int:
        return self._u32(0x04)

    @property
    def policy(self) -> int:
        """The guest policy the VM was launched with."""
        return self._u64(0x08)

    @property
    def policy_abi(self) -> tuple[int, int]:
        """The least firmware ABI (major, minor) the guest policy demands."""
        return (self.policy >> 8) & 0xFF, self.policy & 0xFF

    @property
    def family_id(self) -> bytes:
        return self.raw[0x10:0x20]

    @property
    def image_id(self) -> bytes:
        return self.raw[0x20:0x30]

    @property
    def vmpl(self) -> int:
        return self._u32(0x30)

    @property
    def signature_algorithm(self) -> int:
        return self._u32(0x34)

    @property
    def platform_info(self) -> int:
        return self._u64(0x40)

    @property
    def key_info(self) -> int:
        return self._u32(0x48)

    @property
    def author_key_enabled(self) -> bool:
        return bool(self.key_info & 1)

    @property
    def chip_key_masked(self) -> bool:
        """MASK_CHIP_KEY: the platform signs nothing, the signature field is zero."""
        return bool(self.key_info & 2)

    @property
    def signing_key(self) -> int:
        return (self.key_info >> 2) & 7

    @property
    def report_data(self) -> bytes:
        """64 bytes chosen by the guest's software: nonce or key hash."""
        return self.raw[0x50:0x90]

    @property
    def measurement(self) -> bytes:
        """48 bytes, the launch digest."""
        return self.raw[0x90:0xC0]

    @property
    def host_data(self) -> bytes:
        """32 bytes chosen by the host at launch and immutable since; Parma puts SHA-256(policy) here."""
        return self.raw[0xC0:0xE0]

    @property
    def id_key_digest(self) -> bytes:
        return self.raw[0xE0:0x110]

    @property
    def author_key_digest(self) -> bytes:
        return self.raw[0x110:0x140]

    @property
    def report_id(self) -> bytes:
        return self.raw[0x140:0x160]

    @property
    def report_id_ma(self) -> bytes:
        return self.raw[0x160:0x180]

    @property
    def cpuid(self) -> CpuId | None:
        """Of the processor; None before version 3."""
        return CpuId(*self.raw[0x188:0x18B]) if self.version >= 3 else None

    @property
    def chip_id(self) -> bytes:
        """64 bytes; zero when masked or signed by a VLEK. Turin uses the first eight."""
        return self.raw[0x1A0:0x1E0]

    @property
    def current_version(self) -> FirmwareVersion:
        build, minor, major = self.raw[0x1E8:0x1EB]
        return FirmwareVersion(major, minor, build)

    @property
    def committed_version(self) -> FirmwareVersion:
        build, minor, major = self.raw[0x1EC:0x1EF]
        return FirmwareVersion(major, minor, build)

    @property
    def launch_mitigations(self) -> int | None:
        """LAUNCH_MIT_VECTOR; None before version 5."""
        return self._u64(0x1F8) if self.version >= 5 else None

    @property
    def current_mitigations(self) -> int | None:
        """CURRENT_MIT_VECTOR; None before version 5."""
        return self._u64(0x200) if self.version >= 5 else None

    def tcb_bytes(self, name: TcbName) -> bytes:
        """One of the four TCB_VERSION fields as it stands, 8 bytes."""
        offset = _TCB_OFFSETS[name]
        return self.raw[offset : offset + 8]

    def tcb(self, name: TcbName, product: Product) -> Tcb:
        """One of the four TCB_VERSION fields, taken apart for ``product``."""
        return decode_tcb(self.tcb_bytes(name), product)

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers: the bytes as received, never a re-serialisation of parsed fields."""
        return self.raw[:SIGNED_SIZE]

    @property
    def signature(self) -> tuple[int, int]:
        """(r, s) of ECDSA P-384; not yet range-checked."""
        middle = SIGNED_SIZE + COMPONENT_SIZE
        r = int.from_bytes(self.raw[SIGNED_SIZE:middle], "little")
        s = int.from_bytes(self.raw[middle : middle + COMPONENT_SIZE], "little")
        return r, s


def _require_zero(data: bytes, offset: int, length: int) -> None:
    found = data[offset : offset + length]
    if any(found):
        first = next(index for index, byte in enumerate(found) if byte)
        raise SnpError(
            "format.reserved",
            f"reserved byte {offset + first:#x} of the report is set",
            expected="0",
            found=f"{found[first]:#04x}",
            hint="either the bytes are not a report, or its version is newer than this software",
        )


def parse(data: bytes) -> Report:
    """Check the form of a report and wrap it.

    ``data`` is exactly the 1184 bytes of the report, without the 32-byte header of a MSG_REPORT_RSP.
    Raises SnpError with ``format.size``, ``format.version``, ``format.sig_algo``, ``format.policy_bit17``,
    ``format.reserved`` or ``format.signing_key``.
    """
    if len(data) != REPORT_SIZE:
        hint = "strip the 32-byte response header first" if len(data) in (REPORT_SIZE + 32, 4000) else ""
        raise SnpError(
            "format.size",
            "an attestation report has another size",
            expected=f"{REPORT_SIZE} bytes",
            found=f"{len(data)} bytes",
            hint=hint,
        )
    report = Report(bytes(data))
    if report.version not in VERSIONS:
        raise SnpError("format.version", "unknown report version", expected="2, 3, 4 or 5", found=str(report.version))
    if report.signature_algorithm != 1:
        raise SnpError(
            "format.sig_algo",
            "unknown signature algorithm",
            expected="1 (ECDSA P-384 with SHA-384)",
            found=str(report.signature_algorithm),
        )
    _check_policy(report.policy)
    _check_reserved(report)
    return report


def _check_policy(policy: int) -> None:
    if not policy & POLICY_RESERVED_ONE:
        raise SnpError("format.policy_bit17", "bit 17 of the guest policy must be one", found=f"{policy:#x}")
    if policy & ~POLICY_KNOWN:
        raise SnpError(
            "format.reserved",
            "reserved bits of the guest policy are set",
            expected="bits 26..63 zero",
            found=f"{policy:#x}",
        )


def _check_reserved(report: Report) -> None:
    if report.key_info >> 5:
        raise SnpError(
            "format.reserved",
            "reserved bits of KEY_INFO are set",
            expected="bits 5..31 zero",
            found=f"{report.key_info:#x}",
        )
    if report.signing_key not in (SIGNING_KEY_VCEK, SIGNING_KEY_VLEK, SIGNING_KEY_NONE):
        raise SnpError(
            "format.signing_key",
            "unknown signing key",
            expected="0 (VCEK), 1 (VLEK) or 7 (none)",
            found=str(report.signing_key),
        )
    for offset, length in _RESERVED:
        _require_zero(report.raw, offset, length)
    if report.version < 3:
        _require_zero(report.raw, *_RESERVED_BEFORE_V3)
    if report.version < 5:
        _require_zero(report.raw, *_RESERVED_BEFORE_V5)
