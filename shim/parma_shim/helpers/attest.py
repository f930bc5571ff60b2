# SPDX-License-Identifier: Apache-2.0
"""Helper: verify a VM's evidence, write the attested-policy status, label the containers.

Request: see ``parma_shim.attestation.Attester``; ``released`` gives a label to each container that has left the VM.
Answer: ``{"summary": {...}, "log": [lines]}``. In the VM's directory ``status.json`` becomes the status document
(``parma_snp.status``) and ``group.json`` what is no evidence: containers, boot times, sources.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from parma_shim.evidence import SOURCES, collect
from parma_shim.helpers.labels import ATTESTATION, PREFIX, VERIFIED_AT, Labels
from parma_shim.helpers.main import Document, run
from parma_shim.vm import files
from parma_snp import status as statuses
from parma_snp.errors import SnpError
from parma_snp.evidence import Evidence, verify_evidence
from parma_snp.permissive import is_permissive
from parma_wire.errors import Malformed

_LABEL_TIMEOUT: Final = 5.0
_GROUP_KEYS: Final = (
    "namespace",
    "group",
    "containers",
    "boot",
    "guest_version",
    "image_version",
    "vcpus",
    "memory_mib",
    "vsock_cid",
    "socket",
    *SOURCES,
)


def attest(request: Document) -> Document:
    """Do all of it. A verification that fails is a verdict, not an error."""
    directory = Path(request["directory"])
    status = verify(request, (directory / files.POLICY).read_bytes(), datetime.now(UTC))
    group = {key: request[key] for key in _GROUP_KEYS}
    write(directory / files.GROUP, json.dumps(group, indent=1) + "\n")
    write(directory / files.STATUS, status.dumps())
    return {"summary": summary(status), "log": label(request, status)}


def verify(request: Mapping[str, Any], policy: bytes, now: datetime) -> statuses.Status:
    """The status of the VM as its report, and nothing else, shows it."""
    tee, host_data = request["tee"], bytes.fromhex(request["host_data"])
    if "failure" in request:
        error = SnpError("evidence.unavailable", f"the VM gives no evidence: {request['failure']}")
        return statuses.failed(tee, host_data, [error], now=now)
    if tee == "none":
        return statuses.unattested(host_data, now=now, permissive=is_permissive(policy))
    report, nonce = base64.b64decode(request["report"], validate=True), bytes.fromhex(request["nonce"])
    evidence = None
    try:
        evidence = collect(request, report=report, nonce=nonce, policy=policy)
        return statuses.from_verdict(_verdict(request, evidence, now), evidence, now=now)
    except SnpError as error:
        return statuses.failed(tee, hashlib.sha256(policy).digest(), [error], now=now, evidence=evidence)


def _verdict(request: Mapping[str, Any], evidence: Evidence, now: datetime) -> Any:
    from parma_snp.anchors import AMD, emulated_root
    from parma_snp.certificates import load_root
    from parma_snp.expected import Expected, parse_levels

    expected = Expected(
        host_data=bytes.fromhex(request["host_data"]),
        measurement=bytes.fromhex(request["measurement"]),
        report_data=evidence.report_data,
        allow_permissive=True,  # the status has a word of its own for it
        min_tcb=parse_levels(request["minimum_tcb"]) if request["minimum_tcb"] else None,
    )
    if evidence.tee != "emulated":
        return verify_evidence(evidence, now=now, expected=expected, roots=AMD)
    root = (Path(request["authority"]) / "root.pem").read_bytes()
    return verify_evidence(
        evidence, now=now, expected=expected, roots=emulated_root(load_root(root)), allow_emulated=True
    )


def summary(status: statuses.Status) -> dict[str, object]:
    """What the daemon keeps and tells in events."""
    return {
        "verdict": status.verdict,
        "reason": "; ".join(str(failure) for failure in status.failures),
        "tee": status.tee,
        "emulated": status.emulated,
        "permissive": status.permissive,
        "verified_by": status.verified_by,
        "policy_sha256": status.policy_sha256,
        "measurement": status.measurement,
    }


def labels(status: statuses.Status) -> dict[str, str]:
    """The labels that each container of the group gets."""
    return {
        ATTESTATION: status.verdict,
        PREFIX + "emulated": "true" if status.emulated else "false",
        PREFIX + "permissive": "true" if status.permissive else "false",
        PREFIX + "policy-sha256": status.policy_sha256,
        PREFIX + "measurement": status.measurement,
        PREFIX + "verified-by": status.verified_by,
        VERIFIED_AT: status.verified_at,
    }


def label(request: Mapping[str, Any], status: statuses.Status) -> list[str]:
    """Set the labels of those that are in the VM and of those that have left it; what went wrong, a line each."""
    wanted = {name: labels(status) for name in request["containers"]}
    wanted |= {name: {ATTESTATION: word} for name, word in request["released"].items()}
    if not request["address"] or not wanted:
        return []
    failures = []
    with Labels(request["address"], request["namespace"]) as containerd:
        for container_id, its_labels in wanted.items():
            failures += containerd.set(container_id, its_labels, timeout=_LABEL_TIMEOUT)
    return failures


def write(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new. Raises OSError when the directory is gone."""
    temporary = path.with_name(f"{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w") as stream:
        stream.write(text)
    temporary.replace(path)


def serve(request: Document) -> Document:
    """One request; a document that lacks something is Malformed."""
    try:
        return attest(request)
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"the request makes no sense: {error!r}") from error


if __name__ == "__main__":
    sys.exit(run(serve))
