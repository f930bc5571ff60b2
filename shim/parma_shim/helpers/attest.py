# SPDX-License-Identifier: Apache-2.0
"""Helper: verify a VM's evidence, write the attested-policy status, label the containers.

Request: see ``parma_shim.attestation.Attester``; ``released`` gives a label to each container that has left the VM, and
without ``directory`` nothing else is done. Answer: ``{"summary": {...}, "log": [lines]}``. In the VM's directory
``status.json`` becomes the status document (``parma_snp.status``) and ``group.json`` what is no evidence: containers,
boot times, sources.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from parma_shim.evidence import SOURCES, collect
from parma_shim.helpers.main import Document, run
from parma_shim.vm import files
from parma_snp import status as statuses
from parma_snp.errors import SnpError
from parma_snp.evidence import Evidence, verify_evidence
from parma_snp.permissive import is_permissive
from parma_wire.errors import Malformed

LABEL: Final = "io.parma."
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
    left: dict[str, str] = request.get("released", {})
    released = []
    for word in sorted(set(left.values())):
        names = [name for name, its_word in left.items() if its_word == word]
        released += label(request, names, {LABEL + "attestation": word})
    if "directory" not in request:
        return {"log": released}
    directory = Path(request["directory"])
    status = verify(request, (directory / files.POLICY).read_bytes(), datetime.now(UTC))
    group = {key: request[key] for key in _GROUP_KEYS}
    write(directory / files.GROUP, json.dumps(group, indent=1) + "\n")
    write(directory / files.STATUS, status.dumps())
    return {"summary": summary(status), "log": released + label(request, request["containers"], labels(status))}


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
        LABEL + "attestation": status.verdict,
        LABEL + "emulated": "true" if status.emulated else "false",
        LABEL + "permissive": "true" if status.permissive else "false",
        LABEL + "policy-sha256": status.policy_sha256,
        LABEL + "measurement": status.measurement,
        LABEL + "verified-by": status.verified_by,
        LABEL + "verified-at": status.verified_at,
    }


def label(request: Mapping[str, Any], containers: Sequence[str], wanted: Mapping[str, str]) -> list[str]:
    """Set labels through containerd's API; returns what went wrong, a line each.

    Only the labels named in the mask are touched, so nobody else's change is lost.
    """
    if not request["address"] or not containers:
        return []
    import grpc
    from google.protobuf.field_mask_pb2 import FieldMask

    from parma_shim.api import containers_pb2 as pb

    mask = FieldMask(paths=[f"labels.{key}" for key in wanted])
    failures = []
    with grpc.insecure_channel("unix://" + request["address"].removeprefix("unix://")) as channel:
        update = channel.unary_unary(
            "/containerd.services.containers.v1.Containers/Update",
            request_serializer=pb.UpdateContainerRequest.SerializeToString,
            response_deserializer=pb.UpdateContainerResponse.FromString,
        )
        for container_id in containers:
            message = pb.UpdateContainerRequest(
                container=pb.Container(id=container_id, labels=wanted), update_mask=mask
            )
            try:
                update(message, timeout=_LABEL_TIMEOUT, metadata=(("containerd-namespace", request["namespace"]),))
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:  # deleted meanwhile
                    failures.append(f"cannot label container {container_id}: {error.details()}")
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
