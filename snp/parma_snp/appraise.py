# SPDX-License-Identifier: Apache-2.0
"""Is a genuine report the one the relying party wants? One appraisal for each thing that can be wanted.

Pure functions of the report and of :class:`parma_snp.expected.Expected`. An appraisal is always made, also when nothing
is demanded, so that an explained verdict shows what the report says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from parma_snp import report as abi
from parma_snp.errors import SnpError
from parma_snp.expected import Expected, Unchecked, default_minimum_tcb
from parma_snp.report import Product, Report, TcbName

_ANY: Final = "anything"
_SHOWN_LEVELS: Final[tuple[TcbName, ...]] = ("reported", "committed", "launch")


@dataclass(frozen=True)
class Subject:
    """A report whose signature and bindings are already verified, with what the certificate adds to it."""

    report: Report
    product: Product
    emulated: bool
    csp_id: str | None  # None for a VCEK


class Finding(NamedTuple):
    """The outcome of one appraisal. ``failures`` empty: passed."""

    name: str
    wanted: str
    found: str
    failures: tuple[SnpError, ...]


class _Appraisal(NamedTuple):
    wanted: Callable[[Subject, Expected], str]
    found: Callable[[Subject], str]
    failures: Callable[[Subject, Expected], Iterator[SnpError]]


def appraise(subject: Subject, expected: Expected) -> list[Finding]:
    """Run every appraisal, in a fixed order."""
    return [
        Finding(name, entry.wanted(subject, expected), entry.found(subject), tuple(entry.failures(subject, expected)))
        for name, entry in _APPRAISALS.items()
    ]


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


def _host_data(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report = subject.report
    if not isinstance(expected.host_data, Unchecked) and report.host_data != expected.host_data:
        yield SnpError(
            "appraise.host_data",
            "the VM was launched with another policy",
            expected=expected.host_data.hex(),
            found=report.host_data.hex(),
            hint="HOST_DATA is the SHA-256 of the exact policy bytes",
        )


def _measurement(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    """Named digests; a measurement that has to be endorsed is the business of ``parma_snp.verify``."""
    measurements, report = expected.measurements, subject.report
    if measurements is not None and report.measurement not in measurements:
        yield SnpError(
            "appraise.measurement",
            "firmware, kernel, initrd, command line or VM shape is another",
            expected=" or ".join(digest.hex() for digest in measurements),
            found=report.measurement.hex(),
            hint="vCPU count and model are part of the measurement; `parma measure --table` lists it for each shape",
        )


def _wanted_measurement(_: Subject, expected: Expected) -> str:
    if expected.endorser is not None:
        return str(expected.endorser)
    return _ANY if expected.measurements is None else " or ".join(value.hex() for value in expected.measurements)


def _identity(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    for name in _IDS:
        found: bytes = getattr(subject.report, name)
        wanted: bytes | None = getattr(expected, name)
        if wanted is not None and found != wanted.ljust(len(found), b"\0"):  # Turin's CHIP_ID may be given short
            yield SnpError(f"appraise.{name}", f"{name.upper()} differs", expected=wanted.hex(), found=found.hex())


_IDS: Final = ("image_id", "family_id", "report_id", "chip_id")


def _wanted_ids(_: Subject, expected: Expected) -> str:
    wanted = [(name, getattr(expected, name)) for name in _IDS]
    return ", ".join(f"{name.upper()} {value.hex()}" for name, value in wanted if value is not None) or _ANY


def _found_ids(subject: Subject) -> str:
    return ", ".join(f"{name.upper()} {getattr(subject.report, name).hex()}" for name in _IDS)


def _privilege(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    vmpl = subject.report.vmpl
    if vmpl == abi.HOST_REQUESTED_VMPL:
        yield SnpError("appraise.vmpl", "the host asked for this report, not the guest", expected="a VMPL of 0..3")
    elif vmpl > 3 or (not isinstance(expected.vmpl, Unchecked) and vmpl != expected.vmpl):
        wanted = _wanted_vmpl(subject, expected)
        yield SnpError("appraise.vmpl", "the report was asked for at another VMPL", expected=wanted, found=str(vmpl))


def _wanted_vmpl(_: Subject, expected: Expected) -> str:
    return "0..3" if isinstance(expected.vmpl, Unchecked) else str(expected.vmpl)


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


def _wanted_guest_policy(_: Subject, expected: Expected) -> str:
    flags = (("DEBUG", expected.allow_debug), ("MIGRATE_MA", expected.allow_migrate_ma), ("SMT", expected.allow_smt))
    wanted = [f"no {name}" for name, allowed in flags if not allowed]
    wanted += ["SINGLE_SOCKET"] if expected.require_single_socket else []
    wanted += ["firmware ABI {}.{} or later".format(*expected.min_abi)] if expected.min_abi else []
    return ", ".join(wanted) or _ANY


def _minimum_tcb(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report, product = subject.report, subject.product
    reported = _reported_minimum(subject, expected)
    if reported is None:
        yield SnpError(
            "appraise.min_tcb",
            f"no minimum patch level is known for {product}",
            expected="one that you choose, from AMD's security bulletins",
            found=str(report.tcb("reported", product)),
            hint="name the lowest that you accept: --min-tcb snp=N,ucode=N",
        )
    minima: tuple[tuple[TcbName, Mapping[str, int], str], ...] = (
        ("reported", reported or {}, "appraise.min_tcb"),
        ("committed", expected.min_committed_tcb, "appraise.min_tcb"),
        ("launch", expected.min_launch_tcb, "appraise.min_launch_tcb"),
    )
    for which, minimum, code in minima:
        tcb = report.tcb(which, product)
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


def _reported_minimum(subject: Subject, expected: Expected) -> Mapping[str, int] | None:
    """None when there is none for the product. An emulated processor has no firmware to be of any level."""
    if expected.min_tcb is not None:
        return expected.min_tcb
    return {} if subject.emulated else default_minimum_tcb().products[subject.product]


def _wanted_tcb(subject: Subject, expected: Expected) -> str:
    if _reported_minimum(subject, expected) is None:
        return f"a minimum of your choice: the table of {default_minimum_tcb().reviewed} has none for {subject.product}"
    named = (
        ("reported", _reported_minimum(subject, expected) or {}),
        ("committed", expected.min_committed_tcb),
        ("launch", expected.min_launch_tcb),
    )
    wanted = [f"{which} {name}>={least}" for which, minimum in named for name, least in minimum.items()]
    dated = "" if expected.min_tcb is not None or subject.emulated else f" (table of {default_minimum_tcb().reviewed})"
    return (", ".join(wanted) or _ANY) + dated


def _found_tcb(subject: Subject) -> str:
    return "; ".join(f"{which} {subject.report.tcb(which, subject.product)}" for which in _SHOWN_LEVELS)


def _committed(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report = subject.report
    if expected.allow_provisional:
        return
    versions = report.committed_version, report.current_version
    if versions[0] != versions[1] or report.tcb_bytes("committed") != report.tcb_bytes("current"):
        yield SnpError(
            "appraise.provisional",
            "the firmware is provisional: the host can still roll it back",
            expected=f"{versions[1]} committed ({report.tcb('current', subject.product)})",
            found=f"{versions[0]} ({report.tcb('committed', subject.product)})",
        )


def _found_committed(subject: Subject) -> str:
    report = subject.report
    return f"current {report.current_version}, committed {report.committed_version}"


def _platform(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    report = subject.report
    missing = expected.platform_info_required & ~report.platform_info
    forbidden = expected.platform_info_forbidden & report.platform_info
    if missing or forbidden:
        yield SnpError(
            "appraise.platform_info",
            "PLATFORM_INFO is not as required",
            expected=_wanted_platform(subject, expected),
            found=f"{report.platform_info:#x}",
        )


def _wanted_platform(_: Subject, expected: Expected) -> str:
    return f"bits {expected.platform_info_required:#x} set, {expected.platform_info_forbidden:#x} clear"


def _mitigations(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    required = expected.launch_mitigations_required
    if required & ~(subject.report.launch_mitigations or 0):
        yield SnpError(
            "appraise.mit_vector",
            "mitigations were not active at launch",
            expected=f"{required:#x}",
            found=_found_mitigations(subject),
        )


def _found_mitigations(subject: Subject) -> str:
    vector = subject.report.launch_mitigations
    return "none (report before version 5)" if vector is None else f"{vector:#x}"


def _version(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    if subject.report.version < expected.min_report_version:
        yield SnpError(
            "appraise.min_report_version",
            "the report's version is too old",
            expected=f"at least {expected.min_report_version}",
            found=str(subject.report.version),
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


def _wanted_owner(_: Subject, expected: Expected) -> str:
    wanted = [f"GUEST_SVN {expected.min_guest_svn} or later"] if expected.min_guest_svn else []
    wanted += ["one of the named ID keys"] if expected.id_key_digests else []
    wanted += ["an author key"] if expected.require_author_key or expected.author_key_digests else []
    return ", ".join(wanted) or _ANY


def _found_owner(subject: Subject) -> str:
    report = subject.report
    return f"GUEST_SVN {report.guest_svn}, ID_KEY_DIGEST {report.id_key_digest.hex()}"


def _provider(subject: Subject, expected: Expected) -> Iterator[SnpError]:
    if subject.csp_id is None or isinstance(expected.vlek_csp_ids, Unchecked):
        return
    if subject.csp_id.removeprefix("CN=") not in {name.removeprefix("CN=") for name in expected.vlek_csp_ids}:
        yield SnpError(
            "appraise.vlek_not_allowed",
            "the report is signed by a cloud provider's key (VLEK) that is not accepted",
            expected=_wanted_provider(subject, expected),
            found=subject.csp_id,
        )


def _wanted_provider(_: Subject, expected: Expected) -> str:
    if isinstance(expected.vlek_csp_ids, Unchecked):
        return _ANY
    return " or ".join(("a VCEK", *(f"a VLEK of {name}" for name in expected.vlek_csp_ids)))


def _hex_or_any(value: bytes | Unchecked) -> str:
    return _ANY if isinstance(value, Unchecked) else value.hex()


_APPRAISALS: Final[Mapping[str, _Appraisal]] = {
    "freshness": _Appraisal(lambda _, e: _hex_or_any(e.report_data), lambda s: s.report.report_data.hex(), _freshness),
    "policy": _Appraisal(lambda _, e: _hex_or_any(e.host_data), lambda s: s.report.host_data.hex(), _host_data),
    "measurement": _Appraisal(_wanted_measurement, lambda s: s.report.measurement.hex(), _measurement),
    "identifiers": _Appraisal(_wanted_ids, _found_ids, _identity),
    "privilege level": _Appraisal(_wanted_vmpl, lambda s: str(s.report.vmpl), _privilege),
    "guest policy": _Appraisal(_wanted_guest_policy, lambda s: f"{s.report.policy:#x}", _guest_policy),
    "minimum TCB": _Appraisal(_wanted_tcb, _found_tcb, _minimum_tcb),
    "committed firmware": _Appraisal(
        lambda _, e: _ANY if e.allow_provisional else "current equals committed", _found_committed, _committed
    ),
    "platform": _Appraisal(_wanted_platform, lambda s: f"{s.report.platform_info:#x}", _platform),
    "mitigations": _Appraisal(
        lambda _, e: f"{e.launch_mitigations_required:#x}" if e.launch_mitigations_required else _ANY,
        _found_mitigations,
        _mitigations,
    ),
    "report version": _Appraisal(
        lambda _, e: f"{e.min_report_version} or later", lambda s: str(s.report.version), _version
    ),
    "image owner": _Appraisal(_wanted_owner, _found_owner, _owner),
    "cloud provider": _Appraisal(_wanted_provider, lambda s: s.csp_id or "a VCEK", _provider),
}

NAMES: Final = tuple(_APPRAISALS)
"""Of the appraisals, in order."""
