# SPDX-License-Identifier: Apache-2.0
"""Is a genuine report the one the relying party wants? Strict unless asked otherwise.

A signature only proves that some SNP machine runs some VM. What that VM is follows from MEASUREMENT, under which
policy it runs from HOST_DATA, and that the answer is fresh from REPORT_DATA. These three have no default; whoever does
not want to check one has to write :data:`UNCHECKED`, and the verdict says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib import resources
from typing import Final

from parma_snp import report as abi
from parma_snp.errors import SnpError
from parma_snp.report import Product, Report


class Unchecked(Enum):
    """The type of :data:`UNCHECKED`, of which there is one value."""

    UNCHECKED = "unchecked"


UNCHECKED: Final = Unchecked.UNCHECKED


@dataclass(frozen=True)
class Expected:
    """What a relying party demands of a report. Bytes are compared whole.

    ``host_data`` 32 bytes, SHA-256 of the policy. ``measurement`` 48 bytes or several acceptable ones. ``report_data``
    64 bytes, of the relying party's choice and never used before. ``vmpl`` 0..3. ``min_tcb`` maps component names (fmc,
    bl, tee, snp, ucode) to the lowest acceptable level of REPORTED_TCB; None takes the table shipped with this package.
    ``vlek_csp_ids`` lists the cloud providers (CSP_ID) whose VLEK is accepted. ``platform_info_*`` and
    ``launch_mitigations_required`` are bit masks. Key digests are SHA-384 of the 1028-byte key structure; an empty
    tuple demands nothing.
    """

    host_data: bytes | Unchecked
    measurement: bytes | tuple[bytes, ...] | Unchecked
    report_data: bytes | Unchecked
    vmpl: int | Unchecked = 0
    allow_debug: bool = False
    allow_migrate_ma: bool = False
    allow_smt: bool = True
    allow_provisional: bool = False
    allow_masked_chip_id: bool = False
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
        """The acceptable measurements; None when any will do."""
        if isinstance(self.measurement, Unchecked):
            return None
        return self.measurement if isinstance(self.measurement, tuple) else (self.measurement,)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The names of what the relying party chose not to check."""
        names = ("host_data", "measurement", "report_data", "vmpl", "vlek_csp_ids")
        return tuple(name for name in names if isinstance(getattr(self, name), Unchecked))


def _check_length(name: str, value: bytes | Unchecked, size: int) -> None:
    if not isinstance(value, Unchecked) and len(value) != size:
        raise SnpError("usage", f"{name} has another length", expected=f"{size} bytes", found=f"{len(value)} bytes")


@cache
def default_minimum_tcb() -> Mapping[Product, Mapping[str, int]]:
    """The dated table of lowest acceptable patch levels that comes with this package."""
    document = json.loads(resources.files("parma_snp").joinpath("data", "minimum_tcb.json").read_text())
    return {product: dict(document["products"][product]) for product in abi.PRODUCTS}


@dataclass(frozen=True)
class Subject:
    """A report whose signature and bindings are already verified, with what the certificate adds to it."""

    report: Report
    product: Product
    emulated: bool
    csp_id: str | None  # None for a VCEK


Appraiser = Callable[[Subject, Expected], Iterator[SnpError]]


def appraise(subject: Subject, expected: Expected) -> dict[str, tuple[SnpError, ...]]:
    """Run every appraisal and return the failures of each by its name; empty tuples are passes. Pure."""
    return {name: tuple(check(subject, expected)) for name, check in _APPRAISERS.items()}


def _freshness(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report = subject.report
    if not isinstance(expected.report_data, Unchecked) and report.report_data != expected.report_data:
        yield SnpError(
            "appraise.report_data",
            "REPORT_DATA is not what was asked for",
            expected=expected.report_data.hex(),
            found=report.report_data.hex(),
            hint="the evidence is old, or was made for somebody else",
        )


def _identity(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report = subject.report
    if not isinstance(expected.host_data, Unchecked) and report.host_data != expected.host_data:
        yield SnpError(
            "appraise.host_data",
            "the VM was launched with another policy",
            expected=expected.host_data.hex(),
            found=report.host_data.hex(),
            hint="HOST_DATA is the SHA-256 of the exact policy bytes",
        )
    measurements = expected.measurements
    if measurements is not None and report.measurement not in measurements:
        yield SnpError(
            "appraise.measurement",
            "firmware, kernel, initrd, command line or VM shape is another",
            expected=" or ".join(digest.hex() for digest in measurements),
            found=report.measurement.hex(),
            hint="vCPU count and model are part of the measurement; `parma measure --table` lists it for each shape",
        )
    named = (("image_id", report.image_id), ("family_id", report.family_id), ("report_id", report.report_id))
    for name, found in (*named, ("chip_id", report.chip_id)):
        wanted: bytes | None = getattr(expected, name)
        if wanted is not None and found != wanted:
            yield SnpError(f"appraise.{name}", f"{name.upper()} differs", expected=wanted.hex(), found=found.hex())


def _privilege(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    vmpl = subject.report.vmpl
    if vmpl == abi.HOST_REQUESTED_VMPL:
        yield SnpError("appraise.vmpl", "the host asked for this report, not the guest", expected="a VMPL of 0..3")
    elif vmpl > 3 or (not isinstance(expected.vmpl, Unchecked) and vmpl != expected.vmpl):
        wanted = "0..3" if isinstance(expected.vmpl, Unchecked) else str(expected.vmpl)
        yield SnpError("appraise.vmpl", "the report was asked for at another VMPL", expected=wanted, found=str(vmpl))


def _guest_policy(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report = subject.report
    refused = (
        (abi.POLICY_DEBUG, expected.allow_debug, "appraise.debug", "the host may read the guest's memory (DEBUG)"),
        (
            abi.POLICY_MIGRATE_MA,
            expected.allow_migrate_ma,
            "appraise.migrate_ma",
            "a migration agent may move the guest",
        ),
        (abi.POLICY_SMT, expected.allow_smt, "appraise.smt", "the guest policy permits SMT"),
    )
    for bit, allowed, code, message in refused:
        if report.policy & bit and not allowed:
            yield SnpError(
                code, message, expected=f"guest policy bit {bit.bit_length() - 1} clear", found=f"{report.policy:#x}"
            )
    if expected.require_single_socket and not report.policy & abi.POLICY_SINGLE_SOCKET:
        yield SnpError("appraise.policy", "the guest may run on several sockets", found=f"{report.policy:#x}")
    if expected.min_abi is not None and report.policy_abi < expected.min_abi:
        yield SnpError(
            "appraise.abi",
            "the guest policy permits older firmware",
            expected="{}.{} or later".format(*expected.min_abi),
            found="{}.{}".format(*report.policy_abi),
        )


def _firmware(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report, product = subject.report, subject.product
    default: Mapping[str, int] = {} if subject.emulated else default_minimum_tcb()[product]
    minima = (
        ("reported", expected.min_tcb if expected.min_tcb is not None else default, "appraise.min_tcb"),
        ("committed", expected.min_committed_tcb, "appraise.min_tcb"),
        ("launch", expected.min_launch_tcb, "appraise.min_launch_tcb"),
    )
    for which, minimum, code in minima:
        tcb = report.tcb(which, product)  # type: ignore[arg-type]  # mypy widens the literals of the tuple
        for component, least in minimum.items():
            level = tcb.component(component)
            if level is None or level < least:
                yield SnpError(
                    code,
                    f"the {which} {component} patch level is too low",
                    expected=f"at least {least}",
                    found="none" if level is None else str(level),
                    hint="the host must update its firmware",
                )
    if expected.allow_provisional:
        return
    versions = report.committed_version, report.current_version
    if versions[0] != versions[1] or report.tcb_bytes("committed") != report.tcb_bytes("current"):
        yield SnpError(
            "appraise.provisional",
            "the firmware is provisional: the host can still roll it back",
            expected=f"{versions[1]} committed ({report.tcb('current', product)})",
            found=f"{versions[0]} ({report.tcb('committed', product)})",
        )


def _platform(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report = subject.report
    missing = expected.platform_info_required & ~report.platform_info
    forbidden = expected.platform_info_forbidden & report.platform_info
    if missing or forbidden:
        yield SnpError(
            "appraise.platform_info",
            "PLATFORM_INFO is not as required",
            expected=f"bits {expected.platform_info_required:#x} set, {expected.platform_info_forbidden:#x} clear",
            found=f"{report.platform_info:#x}",
        )
    required = expected.launch_mitigations_required
    if required & ~(report.launch_mitigations or 0):
        yield SnpError(
            "appraise.mit_vector",
            "mitigations were not active at launch",
            expected=f"{required:#x}",
            found="none (report before version 5)"
            if report.launch_mitigations is None
            else f"{report.launch_mitigations:#x}",
        )
    if report.version < expected.min_report_version:
        yield SnpError(
            "appraise.min_report_version",
            "the report's version is too old",
            expected=f"at least {expected.min_report_version}",
            found=str(report.version),
        )


def _owner(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report = subject.report
    if report.guest_svn < expected.min_guest_svn:
        yield SnpError(
            "appraise.guest_svn",
            "GUEST_SVN is too low",
            expected=f"at least {expected.min_guest_svn}",
            found=str(report.guest_svn),
        )
    if expected.id_key_digests and report.id_key_digest not in expected.id_key_digests:
        yield SnpError("appraise.id_key", "the ID key is not a trusted one", found=report.id_key_digest.hex())
    if expected.require_author_key and not report.author_key_enabled:
        yield SnpError("appraise.author_key", "the ID key is not certified by an author key")
    trusted = expected.author_key_digests
    if trusted and (not report.author_key_enabled or report.author_key_digest not in trusted):
        yield SnpError(
            "appraise.author_key", "the author key is not a trusted one", found=report.author_key_digest.hex()
        )


def _provider(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    if subject.csp_id is None or isinstance(expected.vlek_csp_ids, Unchecked):
        return
    if subject.csp_id.removeprefix("CN=") not in {name.removeprefix("CN=") for name in expected.vlek_csp_ids}:
        yield SnpError(
            "appraise.vlek_not_allowed",
            "the report is signed by a cloud provider's key (VLEK) that is not accepted",
            expected=", ".join(expected.vlek_csp_ids) or "a VCEK",
            found=subject.csp_id,
        )


_APPRAISERS: Final[Mapping[str, Appraiser]] = {
    "freshness": _freshness,
    "identity": _identity,
    "privilege level": _privilege,
    "guest policy": _guest_policy,
    "firmware level": _firmware,
    "platform": _platform,
    "image owner": _owner,
    "cloud provider": _provider,
}
