# SPDX-License-Identifier: Apache-2.0
"""The attested-policy status: made by the helper from evidence, shown by ``parma status``."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from parma_shim import status_cli
from parma_shim.evidence import collect
from parma_shim.helpers import attest
from parma_snp import evidence as documents
from parma_snp import status as statuses
from parma_snp.binding import report_data_for_nonce
from parma_snp.emulated import EmulatedAuthority, ensure_authority
from parma_wire.errors import Malformed

POLICY = b"package policy\n"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmulatedAuthority, Path]:
    directory = tmp_path_factory.mktemp("authority") / "emulated"
    return ensure_authority(directory), directory


@pytest.fixture
def request_document(authority: tuple[EmulatedAuthority, Path], tmp_path: Path) -> dict[str, Any]:
    """What the daemon sends for a good VM."""
    directory = tmp_path / "state" / "vm"
    directory.mkdir(parents=True)
    (directory / "policy.rego").write_bytes(POLICY)
    nonce = os.urandom(64)
    host_data = hashlib.sha256(POLICY).digest()
    report = authority[0].sign_report(
        report_data=report_data_for_nonce(nonce), host_data=host_data, measurement=b"m" * 48, report_id=bytes(32)
    )
    return {
        "tee": "emulated",
        "report": base64.b64encode(report).decode(),
        "nonce": nonce.hex(),
        "host_data": host_data.hex(),
        "measurement": (b"m" * 48).hex(),
        "authority": str(authority[1]),
        "certificates": "",
        "minimum_tcb": "",
        "image_dir": str(tmp_path / "image"),
        "socket": "/run/containerd/s/1",
        "released": {},
        "directory": str(directory),
        "address": "",
        "namespace": "default",
        "group": "pod",
        "containers": ["c1", "c2"],
        "boot": {"qemu": 100.0, "kernel": 300.0},
        "guest_version": "1",
        "image_version": "2",
        "vcpus": 1,
        "memory_mib": 512,
        "vsock_cid": 0,
    }


def test_good_evidence_is_attested_and_says_emulated(request_document: dict[str, Any]) -> None:
    answer = attest.serve(request_document)
    assert answer["log"] == []
    assert answer["summary"] == {
        "verdict": "attested",
        "reason": "",
        "tee": "emulated",
        "emulated": True,
        "permissive": False,
        "verified_by": "shim",
        "policy_sha256": request_document["host_data"],
        "measurement": request_document["measurement"],
    }


def test_the_document_carries_evidence_that_anyone_can_verify_again(request_document: dict[str, Any]) -> None:
    attest.serve(request_document)
    status = statuses.parse((Path(request_document["directory"]) / "status.json").read_bytes())
    assert status.evidence is not None
    assert status.evidence.policy == POLICY
    assert documents.parse(status.evidence.dumps().encode()) == status.evidence


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"measurement": "11" * 48}, "measurement"),
        ({"nonce": "22" * 64}, "REPORT_DATA"),
        ({"host_data": "33" * 32}, "HOST_DATA"),
    ],
)
def test_evidence_of_something_else_fails(
    request_document: dict[str, Any], change: dict[str, str], reason: str
) -> None:
    summary = attest.serve({**request_document, **change})["summary"]
    assert summary["verdict"] == "failed"
    assert reason.lower() in summary["reason"].lower()


def test_a_changed_report_fails(request_document: dict[str, Any]) -> None:
    report = bytearray(base64.b64decode(request_document["report"]))
    report[0x90] ^= 1
    summary = attest.serve({**request_document, "report": base64.b64encode(report).decode()})["summary"]
    assert summary["verdict"] == "failed"


def test_another_policy_in_the_evidence_fails(request_document: dict[str, Any]) -> None:
    (Path(request_document["directory"]) / "policy.rego").write_bytes(b"package other\n")
    assert attest.serve(request_document)["summary"]["verdict"] == "failed"


def test_without_a_secure_processor_nothing_is_attested(request_document: dict[str, Any]) -> None:
    document = {**request_document, "tee": "none", "report": "", "measurement": ""}
    assert attest.serve(document)["summary"]["verdict"] == "unattested"


def test_emulated_evidence_does_not_pass_for_real(request_document: dict[str, Any]) -> None:
    summary = attest.serve({**request_document, "tee": "snp"})["summary"]
    assert summary["verdict"] == "failed"
    assert summary["emulated"] is False


@pytest.mark.parametrize("missing", ["tee", "report", "host_data", "containers"])
def test_a_request_that_lacks_something_is_malformed(request_document: dict[str, Any], missing: str) -> None:
    del request_document[missing]
    with pytest.raises(Malformed):
        attest.serve(request_document)


def test_labels_are_few_and_short(request_document: dict[str, Any]) -> None:
    status = attest.verify(request_document, POLICY, NOW)
    assert attest.labels(status) == {
        "io.parma.attestation": "attested",
        "io.parma.emulated": "true",
        "io.parma.permissive": "false",
        "io.parma.policy-sha256": request_document["host_data"],
        "io.parma.measurement": request_document["measurement"],
        "io.parma.verified-by": "shim",
        "io.parma.verified-at": NOW.isoformat(timespec="seconds"),
    }


def run_cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    config = tmp_path / "config.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n')
    code = status_cli.main(["status", "--config", str(config), *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_shows_verdict_and_emulation_in_plain_sight(
    request_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attest.serve(request_document)
    code, out, _ = run_cli(capsys, tmp_path, "c2")
    assert code == status_cli.ATTESTED
    assert out.splitlines()[0].startswith("Verdict:        attested")
    assert "Emulated:       YES" in out
    assert "Containers:     c1, c2" in out
    assert "400 ms (qemu 100, kernel 300)" in out


def test_before_the_first_container_is_there_the_command_says_so(
    request_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attest.serve({**request_document, "containers": []})
    _, out, _ = run_cli(capsys, tmp_path, "pod")
    assert "Containers:     none yet\n" in out


def test_json_has_status_evidence_and_boot_times(
    request_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attest.serve(request_document)
    code, out, _ = run_cli(capsys, tmp_path, "--json", "pod")
    document = json.loads(out)
    assert (code, document["verdict"], document["emulated"]) == (0, "attested", True)
    assert document["boot"] == {"qemu": 100.0, "kernel": 300.0}
    assert document["evidence"]["report"] == request_document["report"]


def test_the_evidence_alone_is_what_verify_reads(
    request_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attest.serve(request_document)
    _, out, _ = run_cli(capsys, tmp_path, "--evidence", "c1")
    assert documents.parse(out.encode()).policy == POLICY


def test_a_failed_vm_is_no_success(
    request_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attest.serve({**request_document, "measurement": "11" * 48})
    code, out, _ = run_cli(capsys, tmp_path, "c1")
    assert code == status_cli.NOT_ATTESTED
    assert "failed" in out


@pytest.mark.parametrize("arguments", [("c9",), ("-n", "other", "c1"), ("--wait", "0.2", "c9")])
def test_an_unknown_container_is_named(
    request_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    attest.serve(request_document)
    code, _, err = run_cli(capsys, tmp_path, *arguments)
    assert code == status_cli.UNKNOWN
    assert arguments[-1] in err


def test_a_damaged_status_is_an_error_and_not_a_verdict(
    request_document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attest.serve(request_document)
    (Path(request_document["directory"]) / "status.json").write_text('{"verdict": "attested"}')
    assert run_cli(capsys, tmp_path, "c1")[0] == status_cli.UNKNOWN


def test_a_host_without_vms_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_cli(capsys, tmp_path, "c1")
    assert code == status_cli.UNKNOWN
    assert "state_dir" in err


VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp" / "positive" / "milan-v2-aci-parma"


@pytest.mark.skipif(not VECTORS.is_dir(), reason="no shared vectors beside the checkout")
@pytest.mark.parametrize("form", ["host-amd-cert.json", "vek.der", ""])
def test_with_real_hardware_the_certificates_are_the_file_that_the_host_names(tmp_path: Path, form: str) -> None:
    report = (VECTORS / "report.bin").read_bytes()
    named = str(VECTORS / form) if form else ""
    sources = {"tee": "snp", "certificates": named, "image_dir": str(tmp_path), "authority": ""}
    found = collect(sources, report=report, nonce=bytes(64), policy=POLICY).certificates
    assert found.count("BEGIN CERTIFICATE") == (3 if form else 0)


def test_the_images_endorsement_of_this_measurement_comes_along(request_document: dict[str, Any]) -> None:
    folder = Path(request_document["image_dir"]) / "endorsements"
    folder.mkdir(parents=True)
    (folder / f"{request_document['measurement']}.cose").write_bytes(b"signed")
    (folder / f"{'11' * 48}.cose").write_bytes(b"of another one")
    attest.serve(request_document)
    status = statuses.parse((Path(request_document["directory"]) / "status.json").read_bytes())
    assert status.evidence is not None
    assert status.evidence.endorsement == b"signed"


def test_a_vm_that_gives_no_evidence_has_failed(request_document: dict[str, Any]) -> None:
    for key in ("report", "nonce"):
        del request_document[key]
    summary = attest.serve({**request_document, "failure": "the guest does not answer"})["summary"]
    assert summary["verdict"] == "failed"
    assert "the guest does not answer" in summary["reason"]


def test_a_report_that_is_none_has_failed_too(request_document: dict[str, Any]) -> None:
    assert attest.serve({**request_document, "report": ""})["summary"]["verdict"] == "failed"
