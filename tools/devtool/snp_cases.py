# SPDX-License-Identifier: Apache-2.0
"""Replay a folder of attestation cases in the format of ``vectors/snp``.

A case is a folder with a ``case.json`` that names its category; which file names belong to a category is fixed. A case
may carry its own trust anchors, named relative to a folder ``roots`` beside or above it. Files with many cases each:
see ``snp_case_files``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from devtool.snp_case_files import FILES, Complaint
from parma_snp import certtable, hostcert, idblock
from parma_snp.anchors import AMD, TrustAnchors, other_roots
from parma_snp.certificates import CertificateChain
from parma_snp.errors import SnpError
from parma_snp.expected import UNCHECKED, Endorser, Expected
from parma_snp.launch import IdBlock
from parma_snp.report import MILAN, TCB_COMPONENTS, TURIN, Product, Report, Tcb, parse
from parma_snp.verify import verify

# How the words of the cases map to ours; the cases' defaults are laxer than ours (see `expected_of`).
_SAME_NAME: Final = (
    "allow_debug",
    "allow_migrate_ma",
    "allow_smt",
    "allow_provisional",
    "allow_masked_chip_id",
    "require_single_socket",
    "require_author_key",
    "min_guest_svn",
    "min_report_version",
    "min_tcb",
    "min_committed_tcb",
    "min_launch_tcb",
)
_BYTES: Final = ("host_data", "report_data", "measurement", "image_id", "family_id", "report_id", "chip_id")
_MASKS: Final = {
    "platform_info_require": "platform_info_required",
    "platform_info_forbid": "platform_info_forbidden",
    "launch_mit_require": "launch_mitigations_required",
}
_FIELDS: Final = {
    "sig_algo": "signature_algorithm",
    "launch_mit_vector": "launch_mitigations",
    "current_mit_vector": "current_mitigations",
}
_SIGNING_KEYS: Final = {0: "VCEK", 1: "VLEK"}
_RESERVED_TCB: Final = tuple(f"r{number}" for number in range(4, 8))
"""Reserved bytes of a TCB_VERSION, named after the certificate extensions that repeat them."""
_DIGESTS: Final = ("id_key_digests", "author_key_digests")


def expected_of(policy: dict[str, Any]) -> Expected:
    """A case's relying-party policy in our terms; an unknown key is an error of the case."""
    fields: dict[str, Any] = {
        "host_data": UNCHECKED,
        "measurement": UNCHECKED,
        "report_data": UNCHECKED,
        "vmpl": UNCHECKED,
        "vlek_csp_ids": UNCHECKED,
        "min_tcb": {},
    }
    for key, value in policy.items():
        if value is None:
            continue
        if key in _SAME_NAME:
            fields[key] = value
        elif key == "vmpl":
            fields[key] = value if isinstance(value, int) else UNCHECKED
        elif key in _BYTES:
            fields[key] = bytes.fromhex(value)
        elif key in _MASKS:
            fields[_MASKS[key]] = _number(value)
        elif key in _DIGESTS:
            fields[key] = tuple(bytes.fromhex(digest) for digest in value)
        elif key == "deny_vlek":
            fields["vlek_csp_ids"] = () if value else UNCHECKED
        elif key == "min_abi":
            fields[key] = _abi(value)
        else:
            raise ValueError(f"unknown policy key {key}")
    return Expected(**fields)


def _number(value: int | str) -> int:
    return int(value, 0) if isinstance(value, str) else value


def _abi(value: Any) -> tuple[int, int]:
    """ "0.31", [0, 31], {"major": 0, "minor": 31}, or a number as in the guest policy: 31, "0x1f"."""
    if isinstance(value, int) or (isinstance(value, str) and "." not in value):
        return divmod(_number(value), 0x100)
    parts = value.split(".") if isinstance(value, str) else value
    major, minor = (parts["major"], parts["minor"]) if isinstance(parts, dict) else parts
    return int(major), int(minor)


def _anchors(named: Any, folder: Path) -> TrustAnchors:
    if named == "amd":
        return AMD
    roots = next(parent / "roots" for parent in folder.parents if (parent / "roots").is_dir())
    return other_roots({product: (roots / file).read_bytes() for product, file in named.items()})


def _report_case(folder: Path, case: dict[str, Any]) -> list[str]:
    crl = folder / "crl.der"
    chain = CertificateChain(
        (folder / "vek.der").read_bytes(),
        (folder / "ask.der").read_bytes(),
        (folder / "ark.der").read_bytes(),
        crl.read_bytes() if crl.exists() else None,
    )
    verdict = verify(
        (folder / "report.bin").read_bytes(),
        chain,
        now=datetime.fromisoformat(case["verify_time"]),
        expected=expected_of(case.get("policy") or {}),
        roots=_anchors(case.get("trust_anchors", "amd"), folder),
        product=case.get("product"),
    )
    if not verdict.accepted:
        return [failure.code for failure in verdict.failures]
    report = verdict.require()
    wrong = sorted(_other_fields(report, case.get("fields") or {}, verdict.product or MILAN))
    return [f"other {name}" for name in wrong] + list(_other_companions(folder, report))


def _other_companions(folder: Path, report: Report) -> Iterator[str]:
    """What came along with an accepted report and does not belong to it."""
    policy, document, info = (
        path.read_bytes() if (path := folder / name).exists() else None
        for name in ("security-policy-base64", "host-amd-cert.json", "reference-info.cose")
    )
    if policy is not None and hashlib.sha256(base64.b64decode(policy)).digest() != report.host_data:
        yield "other policy"
    if document is not None:
        hostcert.parse_json(document).check_report(report)
    if info is not None:
        from parma_snp import endorsement

        if endorsement.read(info, now=datetime.now(UTC)).measurement != report.measurement:
            yield "endorsement of another measurement"


def _other_fields(report: Report, fields: dict[str, Any], product: Product) -> Iterator[str]:
    """The names of those recorded fields that we decode otherwise; fields that we do not know are left out."""
    for name, wanted in fields.items():
        found = _field(report, name, product)
        if found is None or wanted is None:
            continue
        if isinstance(found, Tcb):
            same = all(found.component(part) == wanted.get(part) for part in TCB_COMPONENTS)
            reserved = [wanted[name] for name in _RESERVED_TCB if name in wanted]
            same = same and (not reserved or reserved == list(found.reserved))
        else:
            same = found == (_number(wanted) if isinstance(found, int) else wanted)
        if not same:
            yield name


def _field(report: Report, name: str, product: Product) -> object:
    """A field of a report in the form of the cases; None for one that we do not know."""
    if name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        return report.tcb(name.removesuffix("_tcb"), product)  # type: ignore[arg-type]  # one of the four
    if name in ("current_version", "committed_version"):
        return str(getattr(report, name))
    if name == "cpuid_fms":
        return list(report.cpuid) if report.cpuid else None
    if name == "tcb_layout":
        return "turin" if product == TURIN else "legacy"
    if name == "signing_key":
        return _SIGNING_KEYS.get(report.signing_key)
    value = getattr(report, _FIELDS.get(name, name), None)
    return value.hex() if isinstance(value, bytes) else value if isinstance(value, int) else None


def _certtable_case(folder: Path, case: dict[str, Any]) -> None:
    entries = certtable.parse((folder / "table.bin").read_bytes())
    found = [
        {"name": e.name, "guid": e.guid, "length": len(e.data), "sha256": hashlib.sha256(e.data).hexdigest()}
        for e in entries
    ]
    if case.get("entries") is not None and found != case["entries"]:
        raise SnpError("replay", "other entries", expected=str(case["entries"]), found=str(found))


def _hostcert_case(folder: Path, case: dict[str, Any]) -> None:
    data = (folder / "report.bin").read_bytes()
    certificates = hostcert.parse((folder / "host-amd-cert-base64").read_bytes())
    certificates.check_report(parse(data))
    verify(
        data,
        certificates.chain,
        now=datetime.fromisoformat(case["verify_time"]),
        expected=expected_of(case.get("policy") or {}),
        roots=_anchors(case.get("trust_anchors", "amd"), folder),
        product=case.get("product"),
    ).require()


def _idblock_case(folder: Path, case: dict[str, Any]) -> None:
    block, auth = (folder / "id_block.bin").read_bytes(), (folder / "id_auth.bin").read_bytes()
    checked = idblock.check(IdBlock(block, auth, case["author_key_enabled"]))
    identity = checked.identity
    found = {
        "launch_digest": identity.measurement.hex(),
        "family_id": identity.family_id.hex(),
        "image_id": identity.image_id.hex(),
        "guest_svn": identity.guest_svn,
        "policy": hex(identity.policy),
        "id_key_digest": checked.id_key_digest.hex(),
        "author_key_digest": checked.author_key_digest.hex(),
    }
    wrong = {key: value for key, value in found.items() if key in case and case[key] != value}
    if wrong:
        raise SnpError("replay", "other content", found=str(wrong))


def _uvm_case(folder: Path, case: dict[str, Any]) -> None:
    from parma_snp import endorsement

    policy = case["policy"]
    data, now = (folder / "endorsement.cose").read_bytes(), _moment(case)
    receipt = bool(policy.get("require_receipt"))
    ledger_keys = _ledger_keys(folder.parent) if receipt else ()
    wanted = Endorser(policy["issuer"], policy["feed"], int(policy.get("min_svn") or 0), bool(ledger_keys), ledger_keys)
    found = endorsement.verify(data, wanted, bytes.fromhex(policy["measurement"]), now=now)
    if receipt and not endorsement.claimed_ledgers(data):
        # Without any ledger's key, that a receipt is for this document is all that can be told.
        raise SnpError("uvm.receipt", "there is no receipt")
    fields = case.get("fields") or {}
    shown = {"svn": found.svn, "measurement": found.measurement.hex(), "format": found.generation}
    wrong = {key: value for key, value in shown.items() if key in fields and fields[key] != value}
    if wrong:
        raise SnpError("replay", "other content", found=str(wrong))


@cache
def _ledger_keys(folder: Path) -> tuple[bytes, ...]:
    """The keys (DER) of the ledgers that trust lists among the cases name: no case brings a key of its own."""
    from parma_cose import envelope, keys
    from parma_cose.errors import CoseError

    found: set[bytes] = set()
    for path in sorted(folder.glob("*/endorsement.cose")):
        try:
            # The one that there is signs with ES384 and a P-256 key.
            signed = envelope.verify(path.read_bytes(), any_curve=True)
            ledgers = keys.read_trust_list(signed.payload) if signed.content_type == keys.TRUST_LIST_TYPE else {}
        except CoseError:
            continue
        found |= {keys.to_der(key) for ledger in ledgers.values() for key in ledger.values()}
    return tuple(sorted(found))


def _moment(case: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(case["verify_time"]) if case.get("verify_time") else datetime.now(UTC)


def _raising(replay: Callable[[Path, dict[str, Any]], None]) -> Callable[[Path, dict[str, Any]], list[str]]:
    def codes(folder: Path, case: dict[str, Any]) -> list[str]:
        try:
            replay(folder, case)
        except SnpError as error:
            return [error.code]
        return []

    return codes


CATEGORIES: Final[dict[str, Callable[[Path, dict[str, Any]], list[str]]]] = {
    "positive": _report_case,
    "negative": _report_case,
    "synthetic-positive": _report_case,
    "synthetic-negative": _report_case,
    "certtable": _raising(_certtable_case),
    "hostcert": _raising(_hostcert_case),
    "idblock": _raising(_idblock_case),
    "uvm": _raising(_uvm_case),
}


def complaint(folder: Path) -> Complaint:
    """Replay the case in a folder."""
    case = json.loads((folder / "case.json").read_text())
    replay = CATEGORIES.get(case.get("category", folder.parent.name))
    if replay is None:
        return f"unknown category {case.get('category')}"
    codes = replay(folder, case)
    if case["expect"] == "accept":
        return f"rejected: {', '.join(codes)}" if codes else None
    if not codes:
        return "accepted"
    # Which check fires first is ours to choose, among the true ones.
    acceptable = case.get("reasons")
    if acceptable and not set(codes) & set(acceptable):
        return f"rejected for {', '.join(codes)}, expected {' or '.join(acceptable)}"
    return None


def case_folders(root: Path) -> list[Path]:
    """The folders of all cases at or below ``root``, sorted."""
    return sorted(path.parent for path in root.rglob("case.json"))


def is_attestation(root: Path) -> bool:
    """Whether there are cases of this format at or below a folder."""
    return bool(case_folders(root)) or any(True for _ in _files(root))


def _files(root: Path) -> Iterator[tuple[Path, Callable[[Path], Iterator[tuple[str, Complaint]]]]]:
    for place, replay in FILES.items():
        folder, _, name = place.partition("/")
        for path in sorted(root.rglob(name)):
            if path.parent.name == folder:
                yield path, replay


def complaints(root: Path) -> Iterator[tuple[str, Complaint]]:
    """Every case at or below a folder, by name."""
    for folder in case_folders(root):
        try:
            found = complaint(folder)
        except Exception as error:  # noqa: BLE001 - an exception is a failed case, whatever it is
            found = f"{type(error).__name__}: {error}"
        yield f"{folder.parent.name}/{folder.name}", found
    for path, replay in _files(root):
        for name, found in replay(path):
            yield f"{path.parent.name}/{name}", found


def replay(root: Path) -> tuple[int, int]:
    """Replay all, print each failing case; how many passed and failed."""
    passed = failed = 0
    for name, found in complaints(root):
        if found is None:
            passed += 1
        else:
            failed += 1
            print(f"{name}: {found}")
    return passed, failed
