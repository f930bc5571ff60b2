# SPDX-License-Identifier: Apache-2.0
"""SNP evidence in the form that the attestation agent of Confidential Containers hands out.

``{"attestation_report": {...}, "cert_chain": [{"cert_type", "data"}] or null}``, the report field by field with byte
strings as lists of numbers, as the Rust crate ``sev`` (6.x) serializes it.
"""

from __future__ import annotations

from parma_guest.attest.certs import certificates
from parma_snp.errors import SnpError
from parma_snp.report import COMPONENT_SIZE, SIGNED_SIZE, FirmwareVersion, Product, Report, TcbName, parse, product_of
from parma_wire.errors import Unavailable


def snp_evidence(report: bytes, vcek: str) -> dict[str, object]:
    """The document for a report of 1184 bytes and the VCEK's certificate (PEM, or empty). Raises `Unavailable`."""
    try:
        parsed = parse(report)
    except SnpError as error:
        raise Unavailable("the secure processor gave no usable report") from error
    chain = [{"cert_type": "VCEK", "data": list(data)} for data in certificates(vcek)] or None
    return {"attestation_report": _report(parsed), "cert_chain": chain}


def _report(report: Report) -> dict[str, object]:
    cpuid = report.cpuid
    product = product_of(cpuid.family, cpuid.model) if cpuid else None
    signature = report.raw[SIGNED_SIZE:]
    return {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": report.policy,
        "family_id": list(report.family_id),
        "image_id": list(report.image_id),
        "vmpl": report.vmpl,
        "sig_algo": report.signature_algorithm,
        "current_tcb": _tcb(report, "current", product),
        "plat_info": report.platform_info,
        "key_info": report.key_info,
        "report_data": list(report.report_data),
        "measurement": list(report.measurement),
        "host_data": list(report.host_data),
        "id_key_digest": list(report.id_key_digest),
        "author_key_digest": list(report.author_key_digest),
        "report_id": list(report.report_id),
        "report_id_ma": list(report.report_id_ma),
        "reported_tcb": _tcb(report, "reported", product),
        "cpuid_fam_id": cpuid.family if cpuid else None,
        "cpuid_mod_id": cpuid.model if cpuid else None,
        "cpuid_step": cpuid.stepping if cpuid else None,
        "chip_id": list(report.chip_id),
        "committed_tcb": _tcb(report, "committed", product),
        "current": _version(report.current_version),
        "committed": _version(report.committed_version),
        "launch_tcb": _tcb(report, "launch", product),
        "launch_mit_vector": report.launch_mitigations,
        "current_mit_vector": report.current_mitigations,
        "signature": {
            "r": list(signature[:COMPONENT_SIZE]),
            "s": list(signature[COMPONENT_SIZE : 2 * COMPONENT_SIZE]),
        },
    }


def _tcb(report: Report, name: TcbName, product: Product | None) -> dict[str, int | None]:
    """Reports before version 3 name no processor; only Milan and Genoa make those."""
    tcb = report.tcb(name, product or "Milan")
    return {"fmc": tcb.fmc, "bootloader": tcb.bl, "tee": tcb.tee, "snp": tcb.snp, "microcode": tcb.ucode}


def _version(version: FirmwareVersion) -> dict[str, int]:
    return {"major": version.major, "minor": version.minor, "build": version.build}
