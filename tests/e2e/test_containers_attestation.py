# SPDX-License-Identifier: Apache-2.0
"""Attestation from inside a container that ``ctr`` runs: what the host's shim hands in arrives, and keys come again."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtool import paths
from parma_image.sign import sign_image
from parma_snp import hostcert
from parma_snp.anchors import emulated_root
from parma_snp.certificates import load_root
from parma_snp.endorsement import FEED
from parma_snp.evidence import Evidence, verify_evidence
from parma_snp.expected import Expected
from parma_snp.report import parse
from tests.e2e.test_attestation import host_with
from tests.snp.pki import SIGNED_AT, make_issuer

pytestmark = pytest.mark.e2e

POST = "wget -q -O- --post-data '{}' http://127.0.0.1:8080{}; echo"
SCRIPT = "; ".join(
    (
        "cd $UVM_SECURITY_CONTEXT_DIR",
        "for f in security-policy-base64 host-amd-cert-base64 reference-info-base64; do cat $f; echo; done",
        POST.format(json.dumps({"runtime_data": base64.b64encode(b"a key").decode()}), "/attest/combined"),
        POST.format(json.dumps({"context": base64.b64encode(b"disk").decode()}), "/key/derive"),
    )
)
COMMAND = ("/bin/sh", "-c", SCRIPT)
REPORT_DATA = hashlib.sha256(b"a key").digest() + bytes(32)


def test_a_container_attests_itself_and_gets_its_key_again(archives: dict[str, Path], tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    for path in paths.IMAGE.iterdir():
        (image / path.name).symlink_to(path)
    sign_image(image, make_issuer().signer, predicate="subject:CN", svn=1, feed=FEED, signed_at=SIGNED_AT)
    names = ("UVM_SECURITY_CONTEXT_DIR", "/attest/combined", "/key/derive")
    keys = []
    with host_with(archives, image_dir=str(image)) as host:
        policy = host.policy(COMMAND, extra=[word for name in names for word in ("--attestation", name)])
        for name in ("first", "second"):
            done = host.run(name, COMMAND, "--rm", policy=policy)
            assert done.returncode == 0, done.stderr
            policy_text, certificates, endorsement, combined, key = done.stdout.splitlines()
            keys.append(json.loads(key)["key"])
        root = emulated_root(load_root((host.daemon.data / "emulated/root.pem").read_bytes()))
        enforced = policy.read_bytes()
    assert base64.b64decode(policy_text) == enforced
    answer = json.loads(combined)
    report = parse(base64.b64decode(answer["evidence"]))
    assert base64.b64decode(endorsement) == (image / "endorsements" / f"{report.measurement.hex()}.cose").read_bytes()
    assert answer["uvm_endorsements"] == endorsement
    hostcert.parse(certificates.encode()).check_report(report)
    evidence = Evidence(
        "emulated",
        policy=enforced,
        report=report.raw,
        certificates=base64.b64decode(answer["endorsements"]).decode(),
        report_data=REPORT_DATA,
    )
    expected = Expected(
        host_data=hashlib.sha256(enforced).digest(),
        measurement=report.measurement,
        report_data=REPORT_DATA,
    )
    verdict = verify_evidence(evidence, now=datetime.now(UTC), expected=expected, roots=root, allow_emulated=True)
    assert verdict.accepted, verdict
    # Another VM, another container id: the same image, policy and definition.
    assert keys[0] == keys[1]
    assert len(base64.b64decode(keys[0])) == 32
