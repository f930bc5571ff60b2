# SPDX-License-Identifier: Apache-2.0
"""Replay a folder of attestation cases in the format of the shared vectors: one folder per case, with a case.json.

A case may carry its own trust anchors, named relative to a folder ``roots`` beside the categories.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from parma_snp import certtable, hostcert, idblock
from parma_snp.anchors import AMD, TrustAnchors, other_roots
from parma_snp.appraise import UNCHECKED, Expected
from parma_snp.certificates import CertificateChain
from parma_snp.errors import SnpError
from parma_snp.launch import IdBlock
from parma_snp.measure import digest_of
from parma_snp.report import parse
from parma_snp.verify import verify

# How the words of the cases map to ours; the cases' defaults are laxer than ours (see `expected_of`).
_SAME_NAME = (
    "allow_debug",
    "allow_migrate_ma",
    "allow_smt",
    "allow_provisional",
    "allow_masked_chip_id",
    "require_single_socket",
    "require_author_key",
    "min_guest_svn",
    "min_report_version",
    "min_committed_tcb",
    "min_launch_tcb",
    "vmpl",
)
_BYTES = ("host_data", "report_data", "measurement", "image_id", "family_id", "report_id", "chip_id")
_MASKS = {
    "platform_info_require": "platform_info_required",
    "platform_info_forbid": "platform_info_forbidden",
    "launch_mit_require": "launch_mitigations_required",
}
_DIGESTS = ("id_key_digests", "author_key_digests")


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
        if key in _SAME_NAME or key == "min_tcb":
            fields[key] = value
        elif key in _BYTES:
            fields[key] = bytes.fromhex(value)
        elif key in _MASKS:
            fields[_MASKS[key]] = int(value, 0) if isinstance(value, str) else value
        elif key in _DIGESTS:
            fields[key] = tuple(bytes.fromhex(digest) for digest in value)
        elif key == "deny_vlek":
            fields["vlek_csp_ids"] = () if value else UNCHECKED
        elif key == "min_abi":
            fields[key] = tuple(int(part) for part in value.split(".")) if isinstance(value, str) else tuple(value)
        else:
            raise ValueError(f"unknown policy key {key}")
    return Expected(**fields)


def _anchors(case: dict[str, Any], folder: Path) -> TrustAnchors:
    named = case["trust_anchors"]
    if named == "amd":
        return AMD
    roots = next(parent / "roots" for parent in folder.parents if (parent / "roots").is_dir())
    return other_roots({product: (roots / file).read_bytes() for product, file in named.items()})


def report_case(folder: Path, case: dict[str, Any]) -> list[str]:
    """Verify one report; the codes of all failures, none when accepted."""
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
        expected=expected_of(case["policy"]),
        roots=_anchors(case, folder),
        product=case.get("product"),
    )
    return [failure.code for failure in verdict.failures]


def certtable_case(folder: Path, case: dict[str, Any]) -> None:
    entries = certtable.parse((folder / "table.bin").read_bytes())
    found = [
        {"name": e.name, "guid": e.guid, "length": len(e.data), "sha256": hashlib.sha256(e.data).hexdigest()}
        for e in entries
    ]
    if "entries" in case and found != case["entries"]:
        raise SnpError("replay", "other entries", expected=str(case["entries"]), found=str(found))


def hostcert_case(folder: Path, case: dict[str, Any]) -> None:
    data = (folder / "report.bin").read_bytes()
    certificates = hostcert.parse((folder / "host-amd-cert-base64").read_bytes())
    certificates.check_report(parse(data))
    now = datetime.fromisoformat(case["verify_time"])
    verify(data, certificates.chain, now=now, expected=expected_of(case.get("policy", {}))).require()


def idblock_case(folder: Path, case: dict[str, Any]) -> None:
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


def _raising(replay: Callable[[Path, dict[str, Any]], None]) -> Callable[[Path, dict[str, Any]], list[str]]:
    def codes(folder: Path, case: dict[str, Any]) -> list[str]:
        try:
            replay(folder, case)
        except SnpError as error:
            return [error.code]
        return []

    return codes


REPLAYERS: dict[str, Callable[[Path, dict[str, Any]], list[str]]] = {
    "positive": report_case,
    "negative": report_case,
    "synthetic-positive": report_case,
    "synthetic-negative": report_case,
    "certtable": _raising(certtable_case),
    "hostcert": _raising(hostcert_case),
    "idblock": _raising(idblock_case),
}


def complaint(folder: Path) -> str | None:
    """What is wrong with our answer to one case; None when it is as the case wants it."""
    case = json.loads((folder / "case.json").read_text())
    codes = REPLAYERS[case["category"]](folder, case)
    if case["expect"] == "accept":
        return f"rejected: {', '.join(codes)}" if codes else None
    if not codes:
        return "accepted"
    # Which check fires first is ours to choose, among the true ones.
    acceptable = case.get("reasons")
    if acceptable and codes[0] not in acceptable:
        return f"rejected for {codes[0]}, expected {' or '.join(acceptable)}"
    return None


def cases(root: Path) -> Iterator[Path]:
    """The folders of all cases below ``root`` that this module can replay, sorted."""
    for path in sorted(root.rglob("case.json")):
        if json.loads(path.read_text()).get("category") in REPLAYERS:
            yield path.parent


def measurement_complaints(file: Path) -> Iterator[tuple[str, str | None]]:
    """Each entry of a ``vectors.json`` of launch measurements: its description and what is wrong with our answer."""
    for vector in json.loads(file.read_text()):
        kernel, initrd = (None if vector[key] is None else file.parent / vector[key] for key in ("kernel", "initrd"))
        name = f"{vector['ovmf']} {vector['vcpu_type']} x{vector['vcpus']} {vector['kernel']} {vector['append']}"
        try:
            found: str | None = digest_of(
                file.parent / vector["ovmf"],
                kernel,
                initrd,
                vector["append"] or "",
                vector["vcpus"],
                vector["vcpu_type"],
                guest_features=vector["guest_features"],
            ).hex()
        except SnpError:
            found = None
        yield name, None if found == vector["expected"] else f"found {found}"
