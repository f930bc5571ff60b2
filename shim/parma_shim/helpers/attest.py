# SPDX-License-Identifier: Apache-2.0
"""Helper: verify a VM's evidence, write the attested-policy status, label the containers.

Request: see ``parma_shim.attestation.Attester``. Answer: ``{"summary": {...}, "log": [lines]}``. In the VM's directory
``status.json`` becomes the status document (``parma_snp.status``) and ``group.json`` what belongs to it but is no
evidence: containers and boot times.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from parma_shim.helpers.main import Document, run
from parma_shim.vm import files
from parma_snp import status as statuses
from parma_snp.binding import report_data_for_nonce
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
    tee = request["tee"]
    if tee == "none":
        return statuses.unattested(bytes.fromhex(request["host_data"]), now=now, permissive=is_permissive(policy))
    evidence = Evidence(tee=tee, policy=policy, report=base64.b64decode(request["report"], validate=True))
    try:
        evidence = Evidence(
            tee=tee,
            policy=policy,
            report=evidence.report,
            certificates=certificates(request),
            report_data=report_data_for_nonce(bytes.fromhex(request["nonce"])),
        )
        return statuses.from_verdict(_verdict(request, evidence, now), evidence, now=now)
    except SnpError as error:
        return statuses.denied(tee, evidence.policy_sha256, [error], now=now, evidence=evidence)


def _verdict(request: Mapping[str, Any], evidence: Evidence, now: datetime) -> Any:
    from parma_snp.anchors import AMD, emulated_root
    from parma_snp.appraise import Expected
    from parma_snp.certificates import load_root

    expected = Expected(
        host_data=bytes.fromhex(request["host_data"]),
        measurement=bytes.fromhex(request["measurement"]),
        report_data=evidence.report_data,
    )
    if evidence.tee != "emulated":
        return verify_evidence(evidence, now=now, expected=expected, roots=AMD)
    root = (Path(request["authority"]) / "root.pem").read_bytes()
    return verify_evidence(
        evidence, now=now, expected=expected, roots=emulated_root(load_root(root)), allow_emulated=True
    )


def certificates(request: Mapping[str, Any]) -> str:
    """The chain for the report's signing key: the emulated processor's own, or what the host keeps of AMD's.

    Raises SnpError for the former; "" when the host has none, which the verdict then says.
    """
    if request["tee"] == "emulated":
        from parma_snp.emulated import ensure_authority

        return ensure_authority(Path(request["authority"])).certificate_chain
    path = Path(request.get("certificates") or "/nonexistent")
    return path.read_text() if path.is_file() else ""


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
    }


def label(request: Mapping[str, Any], status: statuses.Status) -> list[str]:
    """Set the labels through containerd's API; returns what went wrong, a line each.

    Only the labels named in the mask are touched, so nobody else's change is lost.
    """
    if not request["address"] or not request["containers"]:
        return []
    import grpc
    from google.protobuf.field_mask_pb2 import FieldMask

    from parma_shim.api import containers_pb2 as pb

    wanted = labels(status)
    mask = FieldMask(paths=[f"labels.{key}" for key in wanted])
    failures = []
    with grpc.insecure_channel("unix://" + request["address"].removeprefix("unix://")) as channel:
        update = channel.unary_unary(
            "/containerd.services.containers.v1.Containers/Update",
            request_serializer=pb.UpdateContainerRequest.SerializeToString,
            response_deserializer=pb.UpdateContainerResponse.FromString,
        )
        for container_id in request["containers"]:
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
