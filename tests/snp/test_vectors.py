# SPDX-License-Identifier: Apache-2.0
"""The shared attestation cases, where they are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from devtool import snp_cases, vectors
from devtool.snp_case_files import FILES
from parma_cose import sign1

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp"
pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="no shared vectors beside the checkout")
CASES = snp_cases.case_folders(VECTORS) if VECTORS.is_dir() else []


@pytest.mark.parametrize("folder", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_case_is_judged_as_expected(folder: Path) -> None:
    assert snp_cases.complaint(folder) is None


LEAST = {"didx509": 30, "vectors": 30, "debian-ovmf-amdsev": 16, "qemu-launch-trace": 3}
"""Entries of each file, by folder or name."""


@pytest.mark.parametrize("place", FILES)
def test_files_of_cases_are_answered_as_others_do(place: str) -> None:
    complaints = dict(FILES[place](VECTORS / place))
    if not complaints:
        pytest.skip("another version of the firmware than the recorded one")
    assert len(complaints) >= next(least for word, least in LEAST.items() if word in place)
    assert {name: wrong for name, wrong in complaints.items() if wrong} == {}


def case_in(tmp_path: Path, name: str, **changes: object) -> Path:
    """A copy of one case with other demands, in a folder of cases of its own."""
    folder = tmp_path / "cases" / name
    shutil.copytree(VECTORS / name, folder)
    case = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(case | changes))
    return tmp_path / "cases"


def test_the_task_counts_and_names_failing_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case_in(tmp_path, "positive/turin-v5-aci")
    root = case_in(tmp_path, "positive/genoa-v3-azvm", verify_time="2019-01-01T00:00:00Z")
    assert vectors.main([str(root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "positive/genoa-v3-azvm: rejected: cert.validity",
        "1 passed, 1 failed",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"expect": "reject", "reasons": ["sig.invalid"]},
        {"policy": {"nonsense": True}},
        {"category": "nonsense"},
        {"fields": {"guest_svn": 77}},
        {"fields": {"tcb_layout": "legacy"}},
        {"fields": {"launch_tcb": {"fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81, "r4": 1, "r5": 0, "r6": 0}}},
    ],
    ids=str,
)
def test_a_case_that_is_not_answered_as_wanted_fails(tmp_path: Path, changes: dict[str, object]) -> None:
    root = case_in(tmp_path, "positive/turin-v5-aci", **changes)
    assert vectors.replay(root) == (0, 1)


@pytest.mark.parametrize("form", ["0.31", [0, 31], {"major": 0, "minor": 31}, 31, "0x1f"], ids=str)
def test_every_form_of_a_least_firmware_interface_is_read(tmp_path: Path, form: object) -> None:
    root = case_in(tmp_path, "positive/turin-v5-aci", policy={"min_abi": form})
    assert vectors.replay(root) == (1, 0)
    assert snp_cases.expected_of({"min_abi": form}).min_abi == (0, 31)


def test_what_comes_along_with_a_report_must_belong_to_it(tmp_path: Path) -> None:
    root = case_in(tmp_path, "positive/milan-v2-aci-parma")
    assert vectors.replay(root) == (1, 0)
    (root / "positive/milan-v2-aci-parma/security-policy-base64").write_bytes(b"AAAA")
    assert vectors.replay(root) == (0, 1)


def test_the_product_that_a_host_certificate_case_names_counts(tmp_path: Path) -> None:
    assert vectors.replay(case_in(tmp_path, "hostcert/aci-ok", product="Genoa")) == (0, 1)


RECEIPTED = "uvm/ms-hash-envelope-svn104"
TRUST_LIST = "uvm/ms-other-document-type"


def require_receipt(tmp_path: Path) -> Path:
    policy = json.loads((VECTORS / RECEIPTED / "case.json").read_text())["policy"]
    root = case_in(tmp_path, RECEIPTED, policy=policy | {"require_receipt": True})
    case_in(tmp_path, TRUST_LIST)
    return root


def test_a_required_receipt_is_verified_with_the_keys_of_a_trust_list_among_the_cases(tmp_path: Path) -> None:
    root = require_receipt(tmp_path)
    assert vectors.replay(root) == (2, 0)
    path = root / RECEIPTED / "endorsement.cose"
    receipt = sign1.parse(path.read_bytes()).unverified_receipts[0]
    signature = sign1.parse(receipt).signature
    changed = signature[:-1] + bytes([signature[-1] ^ 1])
    path.write_bytes(path.read_bytes().replace(signature, changed))
    assert snp_cases.complaint(path.parent) == "rejected: uvm.receipt"
