# SPDX-License-Identifier: Apache-2.0
"""``parma verify``: evidence judged offline, as a relying party. Exit status: see ``parma_snp.cli``."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parma_snp.errors import SnpError

if TYPE_CHECKING:
    from parma_snp.anchors import TrustAnchors
    from parma_snp.expected import Expected, Measurement
    from parma_snp.verify import Check, Verdict

ACCEPTED: Final = 0
REFUSED: Final = 1
UNUSABLE: Final = 2

_NO_NONCE: Final = "--dangerously-accept-replayed-evidence"

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


def _levels(text: str) -> Mapping[str, int]:
    from parma_snp.expected import parse_levels

    try:
        return parse_levels(text)
    except SnpError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_verify(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``verify``. It sets ``run``, a function from the parsed arguments to the exit status."""
    verify = subparsers.add_parser(
        "verify",
        help="verify evidence offline, as a relying party",
        description="Verify evidence offline: from AMD's pinned roots to the policy and the guest image that you "
        "expect. Exit status 0 only if everything is as required. docs/attestation.md says what each check is for.",
    )
    verify.add_argument(
        "evidence",
        type=Path,
        metavar="FILE",
        help="evidence document of 'parma evidence', or a bare report of 1184 bytes ('-': standard input)",
    )
    _add_demands(verify)
    _add_material(verify)
    _add_emulated(verify)
    verify.add_argument("--explain", action="store_true", help="walk through each check: why, wanted, found, source")
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON")
    verify.set_defaults(run=run_verify)


def _add_demands(verify: argparse.ArgumentParser) -> None:
    demands = verify.add_argument_group("what you demand")
    policy = demands.add_mutually_exclusive_group(required=True)
    policy.add_argument("--policy", type=Path, metavar="FILE", help="the policy the VM must enforce, exact bytes")
    policy.add_argument("--host-data", type=_hex_of(32), metavar="HEX", help="the SHA-256 of that policy")
    image = demands.add_mutually_exclusive_group(required=True)
    image.add_argument(
        "--measurement",
        type=_hex_of(48),
        metavar="HEX",
        action="append",
        help="an acceptable launch measurement (parma measure); may be repeated",
    )
    image.add_argument(
        "--endorser", metavar="DID", help="did:x509 of the issuer that must have signed the measurement; with --min-svn"
    )
    demands.add_argument("--min-svn", type=int, metavar="N", help="the endorser's lowest acceptable image version")
    demands.add_argument("--feed", metavar="NAME", help="the endorser's series of images (default: Parma's own)")
    demands.add_argument(
        "--ledger-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="demand a transparency receipt by this key (PEM or DER public key); may be repeated",
    )
    fresh = demands.add_mutually_exclusive_group(required=True)
    fresh.add_argument("--nonce", type=_hex_of(64), metavar="HEX", help="the 64 random bytes that you asked with")
    fresh.add_argument(
        "--report-data", type=_hex_of(64), metavar="HEX", help="REPORT_DATA itself, of a report that a workload made"
    )
    fresh.add_argument(
        _NO_NONCE, dest="no_nonce", action="store_true", help="do not check freshness: anybody's old evidence passes"
    )
    demands.add_argument("--product", choices=("Milan", "Genoa", "Turin"), help="accept this processor only")
    demands.add_argument(
        "--min-tcb",
        type=_levels,
        metavar="NAME=N,...",
        help="lowest patch levels (fmc, bl, tee, snp, ucode) instead of the table that comes with this software",
    )
    demands.add_argument("--vmpl", type=int, default=0, choices=range(4), help="VMPL of the guest (default: 0)")
    demands.add_argument(
        "--allow-provisional", action="store_true", help="accept firmware that the host can still roll back"
    )
    demands.add_argument(
        "--allow-csp", action="append", default=[], metavar="CSP_ID", help="accept VLEK keys of this cloud provider"
    )
    demands.add_argument(
        "--allow-permissive", action="store_true", help="accept a policy that only records what it would refuse"
    )
    demands.add_argument("--at", type=_moment, metavar="TIME", help="verify as of this ISO 8601 time instead of now")


def _add_material(verify: argparse.ArgumentParser) -> None:
    material = verify.add_argument_group("what the evidence may lack; none of it is trusted")
    material.add_argument(
        "--certificates",
        type=Path,
        metavar="FILE",
        help="PEM chain, DER VCEK, host-amd-cert document or certificate table, in place of those in the evidence",
    )
    material.add_argument("--endorsement", type=Path, metavar="FILE", help="COSE_Sign1 over the measurement, likewise")
    material.add_argument(
        "--crl", type=Path, metavar="FILE", help="AMD's revocation list (DER); then required to be current"
    )


def _add_emulated(verify: argparse.ArgumentParser) -> None:
    emulated = verify.add_argument_group("development: evidence that protects nothing; both or neither")
    emulated.add_argument("--allow-emulated", action="store_true", help="accept an emulated secure processor")
    emulated.add_argument(
        "--emulated-root", type=Path, metavar="FILE", help="root certificate of that emulated processor"
    )


def run_verify(options: argparse.Namespace) -> int:
    """``parma verify``."""
    from parma_snp import evidence as documents

    try:
        data = _read(options.evidence, documents.MAX_EVIDENCE_SIZE)
        expected = _expected(options)
        roots = _roots(options)
        crl = _read(options.crl) if options.crl else None
        added = {name: _read(path) for name in ("certificates", "endorsement") if (path := getattr(options, name))}
    except (SnpError, OSError) as error:
        print(f"parma verify: {error}", file=sys.stderr)
        return UNUSABLE
    try:
        verdict = _judge(data, expected, roots, crl, added, options)
    except SnpError as error:
        _print_refusal(error, as_json=options.json)
        return REFUSED
    _print_verdict(verdict, as_json=options.json, explained=options.explain)
    return ACCEPTED if verdict.accepted else REFUSED


def _read(path: Path, limit: int | None = None) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read() if limit is None else sys.stdin.buffer.read(limit + 1)
    return path.read_bytes()


def _judge(
    data: bytes,
    expected: Expected,
    roots: TrustAnchors,
    crl: bytes | None,
    added: Mapping[str, bytes],
    options: argparse.Namespace,
) -> Verdict:
    """Verify a document, or a bare report; ``added`` is what the relying party has from elsewhere."""
    from parma_snp import evidence as documents
    from parma_snp.report import parse
    from parma_snp.sources import read_certificates
    from parma_snp.verify import verify

    demands: dict[str, Any] = {
        "now": options.at or datetime.now(UTC),
        "expected": expected,
        "roots": roots,
        "crl": "require" if crl else "use-if-present",
        "product": options.product,
        "allow_emulated": options.allow_emulated,
    }
    if data.lstrip()[:1] != b"{":
        report = parse(data)
        if "certificates" not in added:
            raise documents.without_certificates(data, options.product)
        chain = replace(read_certificates(added["certificates"], report), crl=crl)
        verdict = verify(data, chain, endorsement=added.get("endorsement", b""), **demands)
        if not verdict.authentic or options.policy is None:
            return verdict
        strictness = documents.strictness(_read(options.policy), expected)
        return replace(verdict, checks=(*verdict.checks, strictness))
    evidence = documents.parse(data)
    if "certificates" in added:
        unverified_report = parse(evidence.report) if evidence.report else None
        chain = read_certificates(added["certificates"], unverified_report)
        evidence = replace(evidence, certificates=chain.to_pem())
    evidence = replace(evidence, endorsement=added.get("endorsement", evidence.endorsement))
    return documents.verify_evidence(evidence, crl_der=crl, **demands)


def _roots(options: argparse.Namespace) -> TrustAnchors:
    from parma_snp.anchors import AMD, emulated_root
    from parma_snp.certificates import load_root

    if options.allow_emulated != (options.emulated_root is not None):
        raise SnpError("usage", "--allow-emulated and --emulated-root go together")
    return emulated_root(load_root(_read(options.emulated_root))) if options.allow_emulated else AMD


def _expected(options: argparse.Namespace) -> Expected:
    from parma_snp.binding import report_data_for_nonce
    from parma_snp.expected import UNCHECKED, Expected

    report_data = UNCHECKED if options.no_nonce else options.report_data
    if options.nonce is not None:
        report_data = report_data_for_nonce(options.nonce)
    return Expected(
        host_data=options.host_data or hashlib.sha256(_read(options.policy)).digest(),
        measurement=_measurement(options),
        report_data=report_data,
        vmpl=options.vmpl,
        min_tcb=options.min_tcb,
        allow_provisional=options.allow_provisional,
        allow_permissive=options.allow_permissive,
        vlek_csp_ids=tuple(options.allow_csp),
    )


def _measurement(options: argparse.Namespace) -> Measurement:
    if options.endorser is None:
        if options.min_svn is not None or options.feed is not None or options.ledger_key:
            raise SnpError("usage", "--min-svn, --feed and --ledger-key go with --endorser")
        return tuple(options.measurement)
    from parma_snp.endorsement import EMULATED_FEED, FEED, load_ledger_key
    from parma_snp.expected import Endorser

    if options.min_svn is None:
        raise SnpError("usage", "--endorser needs --min-svn", hint="a version below which the image is not trusted")
    return Endorser(
        issuer=options.endorser,
        feed=options.feed or (EMULATED_FEED if options.allow_emulated else FEED),
        min_svn=options.min_svn,
        require_receipt=bool(options.ledger_key),
        ledger_keys=tuple(load_ledger_key(_read(path)) for path in options.ledger_key),
    )


def _print_refusal(error: SnpError, *, as_json: bool) -> None:
    """A refusal before any check was made."""
    if as_json:
        print(json.dumps({"accepted": False, "emulated": False, "failures": [error.to_json()]}, indent=1))
    else:
        print(f"REFUSED\n  {error}")


def _print_verdict(verdict: Verdict, *, as_json: bool, explained: bool) -> None:
    if as_json:
        print(json.dumps(verdict_json(verdict, explained=explained), indent=1))
        return
    print(render_verdict(verdict))
    if explained:
        from parma_snp import explain

        print(explain.render(verdict))


def verdict_json(verdict: Verdict, *, explained: bool = False) -> dict[str, object]:
    """A verdict as a JSON object; ``explained`` adds to each check why it is made and its source."""
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
        "checks": [_check_json(check, explained=explained) for check in verdict.checks],
        "failures": [failure.to_json() for failure in verdict.failures],
    }


def _check_json(check: Check, *, explained: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": check.name,
        "passed": not check.failures,
        "detail": check.detail,
        "wanted": check.wanted,
        "found": check.found,
    }
    if explained:
        from parma_snp.explain import REASONS

        document |= REASONS[check.name]._asdict()
    return document


def render_verdict(verdict: Verdict) -> str:
    """A verdict for people: the outcome, then each check in the order it was made."""
    outcome = "ACCEPTED" if verdict.accepted else "REFUSED"
    lines = [f"{outcome} (EMULATED: protects nothing from the host)" if verdict.emulated else outcome]
    for check in verdict.checks:
        lines.append(f"  {'FAIL' if check.failures else 'ok':<5}{check.name:<19}{check.detail}")
        lines += [f"       {failure}" for failure in check.failures]
    if verdict.unchecked:
        lines.append(f"  NOT CHECKED: {', '.join(verdict.unchecked)}")
    return "\n".join(lines)
