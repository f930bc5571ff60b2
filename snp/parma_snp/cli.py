# SPDX-License-Identifier: Apache-2.0
"""The command ``parma verify``; the parser of the ``parma`` command plugs them in.

Exit status: 0 accepted, 1 refused, 2 the command could not be carried out as given.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parma_snp.errors import SnpError
from parma_snp.permissive import is_permissive

if TYPE_CHECKING:
    from parma_snp.anchors import TrustAnchors
    from parma_snp.appraise import Expected
    from parma_snp.verify import Verdict

ACCEPTED: Final = 0
REFUSED: Final = 1
UNUSABLE: Final = 2

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def _hex_of(size: int) -> Callable[[str], bytes]:
    def convert(text: str) -> bytes:
        try:
            value = bytes.fromhex(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not hex: {text!r}") from None
        if len(value) != size:
            raise argparse.ArgumentTypeError(f"expected {size} bytes ({2 * size} hex digits), found {len(value)} bytes")
        return value

    return convert


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an ISO 8601 time: {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def add_snp_commands(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``verify``. It sets ``run``, a function from the parsed arguments to the exit status."""
    _add_verify(subparsers)


def _add_verify(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    verify = subparsers.add_parser(
        "verify",
        help="verify evidence offline, as a relying party",
        description="Verify an evidence document offline: from AMD's pinned roots to the policy and the measurement "
        "that you expect. Exit status 0 only if everything is as required.",
    )
    verify.add_argument(
        "evidence", type=Path, metavar="EVIDENCE.json", help="the evidence document ('-': standard input)"
    )
    policy = verify.add_mutually_exclusive_group(required=True)
    policy.add_argument("--policy", type=Path, metavar="FILE", help="the policy the VM must enforce, exact bytes")
    policy.add_argument("--host-data", type=_hex_of(32), metavar="HEX", help="the SHA-256 of that policy")
    verify.add_argument(
        "--measurement",
        type=_hex_of(48),
        metavar="HEX",
        action="append",
        required=True,
        help="an acceptable launch measurement (parma measure); may be repeated",
    )
    fresh = verify.add_mutually_exclusive_group()
    fresh.add_argument(
        "--nonce",
        type=_hex_of(64),
        metavar="HEX",
        help="the 64 random bytes for which you asked the guest for evidence",
    )
    fresh.add_argument(
        "--report-data",
        type=_hex_of(64),
        metavar="HEX",
        help="REPORT_DATA itself, for reports that a workload asked for; without either, freshness is not checked",
    )
    verify.add_argument(
        "--allow-provisional", action="store_true", help="accept firmware that the host can still roll back"
    )
    verify.add_argument(
        "--allow-csp", action="append", default=[], metavar="CSP_ID", help="accept VLEK keys of this cloud provider"
    )
    verify.add_argument(
        "--crl", type=Path, metavar="FILE", help="AMD's revocation list (DER); then required to be current"
    )
    verify.add_argument("--at", type=_moment, metavar="TIME", help="verify as of this ISO 8601 time instead of now")
    verify.add_argument(
        "--allow-emulated", action="store_true", help="accept an emulated secure processor, which protects nothing"
    )
    verify.add_argument(
        "--emulated-root", type=Path, metavar="FILE", help="root certificate of that emulated processor"
    )
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON")
    verify.set_defaults(run=run_verify)


def run_verify(options: argparse.Namespace) -> int:
    """``parma verify``."""
    from parma_snp import evidence as documents

    try:
        document = _read(options.evidence, documents.MAX_EVIDENCE_SIZE)
        host_data = options.host_data or hashlib.sha256(_read(options.policy)).digest()
        roots = _roots(options)
        crl = _read(options.crl) if options.crl else None
        expected = _expected(options, host_data)
    except (SnpError, OSError) as error:
        print(f"parma verify: {error}", file=sys.stderr)
        return UNUSABLE
    try:
        evidence = documents.parse(document)
        verdict = documents.verify_evidence(
            evidence,
            now=options.at or datetime.now(UTC),
            expected=expected,
            roots=roots,
            crl="require" if crl else "use-if-present",
            crl_der=crl,
            allow_emulated=options.allow_emulated,
        )
    except SnpError as error:
        _print_refusal(error, as_json=options.json)
        return REFUSED
    permissive = is_permissive(evidence.policy)
    if options.json:
        print(json.dumps({**verdict_json(verdict), "permissive": permissive}, indent=1))
    else:
        print(render_verdict(verdict) + ("\n  PERMISSIVE: this policy forbids nothing" if permissive else ""))
    return ACCEPTED if verdict.accepted else REFUSED


def _read(path: Path, limit: int | None = None) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read() if limit is None else sys.stdin.buffer.read(limit + 1)
    return path.read_bytes()


def _roots(options: argparse.Namespace) -> TrustAnchors:
    from parma_snp.anchors import AMD, emulated_root
    from parma_snp.certificates import load_root

    if options.allow_emulated != (options.emulated_root is not None):
        raise SnpError("usage", "--allow-emulated and --emulated-root go together")
    return emulated_root(load_root(_read(options.emulated_root))) if options.allow_emulated else AMD


def _expected(options: argparse.Namespace, host_data: bytes) -> Expected:
    from parma_snp.appraise import UNCHECKED, Expected
    from parma_snp.binding import report_data_for_nonce

    report_data = options.report_data
    if options.nonce is not None:
        report_data = report_data_for_nonce(options.nonce)
    return Expected(
        host_data=host_data,
        measurement=tuple(options.measurement),
        report_data=report_data if report_data is not None else UNCHECKED,
        allow_provisional=options.allow_provisional,
        vlek_csp_ids=tuple(options.allow_csp),
    )


def _print_refusal(error: SnpError, *, as_json: bool) -> None:
    """A refusal before any check was made."""
    if as_json:
        print(json.dumps({"accepted": False, "emulated": False, "failures": [error.to_json()]}, indent=1))
    else:
        print(f"REFUSED\n  {error}")


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """A verdict as a JSON object."""
    report = verdict.report
    return {
        "accepted": verdict.accepted,
        "emulated": verdict.emulated,
        "authentic": verdict.authentic,
        "product": verdict.product,
        "signing_key": verdict.role,
        "host_data": report.host_data.hex() if report else None,
        "measurement": report.measurement.hex() if report else None,
        "report_data": report.report_data.hex() if report else None,
        "unchecked": list(verdict.unchecked),
        "checks": [
            {"name": check.name, "passed": not check.failures, "detail": check.detail} for check in verdict.checks
        ],
        "failures": [failure.to_json() for failure in verdict.failures],
    }


def render_verdict(verdict: Verdict) -> str:
    """A verdict for people: the outcome, then each check in the order it was made."""
    outcome = "ACCEPTED" if verdict.accepted else "REFUSED"
    lines = [f"{outcome} (EMULATED: protects nothing from the host)" if verdict.emulated else outcome]
    for check in verdict.checks:
        lines.append(f"  {'FAIL' if check.failures else 'ok':<5}{check.name:<17}{check.detail}")
        lines += [f"       {failure}" for failure in check.failures]
    if verdict.unchecked:
        lines.append(f"  not checked: {', '.join(verdict.unchecked)}")
    return "\n".join(lines)
