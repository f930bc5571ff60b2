# SPDX-License-Identifier: Apache-2.0
"""What each failure code of a verification means to a relying party. docs/attestation.md has this as a table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """``says``: what is the case. ``do``: what to do about it, empty when there is nothing but to refuse."""

    says: str
    do: str = ""


FAMILIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "evidence": "the evidence document",
        "format": "the bytes are not a well-formed report",
        "cert": "the certificates do not lead from a pinned root to the key",
        "sig": "the report's signature",
        "bind": "report and certificate are both genuine but do not belong together",
        "appraise": "the report is genuine but not what was asked for",
        "uvm": "the endorsement of the guest image",
        "emulated": "emulated evidence where real is wanted, or the reverse",
        "certtable": "the certificate table that a host hands to its guest",
        "hostcert": "the cloud's host-amd-cert document",
        "kds": "fetching certificates from AMD's key distribution service",
    }
)
"""The families of codes that a verification can give."""

_OTHER_SENDER: Final = "ask for the evidence again; if it stays, somebody changes it on the way"
_NEW_CERTIFICATE: Final = "fetch the certificate for this chip and REPORTED_TCB (`parma certificates`)"
_UPDATE: Final = "have the host update its firmware, or lower the minimum knowingly"

CODES: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "evidence.format": Meaning("not an evidence document of this version", _OTHER_SENDER),
        "evidence.unattested": Meaning('the VM runs without a secure processor (`tee = "none"`); there is no report'),
        "evidence.unavailable": Meaning("the VM gave no evidence, or its host could not verify it (status only)"),
        "evidence.certificates": Meaning("the host could not get its processor's certificate", _NEW_CERTIFICATE),
        "evidence.policy": Meaning("the policy that came along is not the one whose hash is in HOST_DATA"),
        "evidence.report_data": Meaning("the document claims another REPORT_DATA than the report's"),
        "evidence.permissive": Meaning(
            "the policy forbids nothing (`permissive := true`)", "for learning only: `--allow-permissive`"
        ),
        "evidence.tee": Meaning("the document claims another kind of processor than its certificates show"),
        "evidence.endorsement": Meaning(
            "an endorsed measurement is demanded and no endorsement came along",
            "add it with `--endorsement FILE`, or name the measurement",
        ),
        "format.size": Meaning("not 1184 bytes", "strip the 32-byte response header if it is still there"),
        "format.version": Meaning("a report version that this software does not know", "update this software"),
        "format.sig_algo": Meaning("a signature algorithm other than ECDSA P-384 with SHA-384"),
        "format.policy_bit17": Meaning("bit 17 of the guest policy, always one, is zero"),
        "format.reserved": Meaning("a reserved field is not zero: changed, or newer than this software"),
        "format.signing_key": Meaning("KEY_INFO names a signing key that does not exist"),
        "cert.parse": Meaning("not a certificate or CRL, or not strict DER", _NEW_CERTIFICATE),
        "cert.chain_signature": Meaning(
            "a certificate is not signed by the next one", "check that ASK and ARK are those of the same product"
        ),
        "cert.root_untrusted": Meaning("the root is not one of AMD's (or not the one that was named)"),
        "cert.validity": Meaning("a certificate is not valid at the time of verification", _NEW_CERTIFICATE),
        "cert.role": Meaning("a certificate has a key or a role that does not fit its place in the chain"),
        "cert.product": Meaning("the certificates are of another processor product than expected"),
        "cert.extensions": Meaning("AMD's certificate extensions are missing, malformed or unknown and critical"),
        "cert.revoked": Meaning("AMD has revoked the ASK, ASVK or ARK"),
        "cert.crl_signature": Meaning("the CRL is not signed by the chain's root", "fetch it from AMD again"),
        "cert.crl_stale": Meaning("the CRL is not valid at the time of verification", "fetch a new one"),
        "cert.crl_missing": Meaning("a CRL is required and none was given"),
        "sig.absent": Meaning("the report is not signed: the host masks its chip key"),
        "sig.invalid": Meaning(
            "the key did not sign these bytes: changed report, or another chip or TCB's certificate"
        ),
        "bind.signing_key": Meaning("signed by a VLEK where the certificate is a VCEK, or the reverse"),
        "bind.product_fms": Meaning("the processor's family and model are not the certificates' product"),
        "bind.tcb": Meaning("the certificate is for another TCB than REPORTED_TCB", _NEW_CERTIFICATE),
        "bind.chip_id": Meaning("the certificate is of another chip, or CHIP_ID is masked"),
        "bind.struct_version": Meaning("the certificate's structure version is not that of the product"),
        "appraise.report_data": Meaning("not the answer to this nonce: old evidence, or made for somebody else"),
        "appraise.host_data": Meaning("the VM was launched with another policy", "compare with `parma policy hash`"),
        "appraise.measurement": Meaning(
            "another firmware, kernel, initrd, command line, vCPU count or model",
            "compare with the image's published table",
        ),
        "appraise.image_id": Meaning("IMAGE_ID of the ID block differs"),
        "appraise.family_id": Meaning("FAMILY_ID of the ID block differs"),
        "appraise.report_id": Meaning("another VM than the one expected, or the same one restarted"),
        "appraise.chip_id": Meaning("another processor than the one expected"),
        "appraise.vmpl": Meaning("asked for by the host, or at another privilege level of the guest"),
        "appraise.debug": Meaning("the host may read and write the guest's memory: the guest has no secrets"),
        "appraise.migrate_ma": Meaning("a migration agent of the host's choice may move the guest"),
        "appraise.smt": Meaning("the guest policy permits simultaneous multithreading"),
        "appraise.policy": Meaning("the guest policy permits more than one socket"),
        "appraise.abi": Meaning("the guest policy permits firmware older than demanded"),
        "appraise.min_tcb": Meaning(
            "a firmware patch level is too low, or no minimum is known for the product", _UPDATE
        ),
        "appraise.min_launch_tcb": Meaning("the firmware was too old when the VM was launched", _UPDATE),
        "appraise.provisional": Meaning("the firmware is not committed: the host can roll it back", _UPDATE),
        "appraise.platform_info": Meaning("a platform property is not as demanded (SMT, ECC, alias check, ...)"),
        "appraise.mit_vector": Meaning("a mitigation was not active at launch", _UPDATE),
        "appraise.min_report_version": Meaning("the report's version is lower than demanded", _UPDATE),
        "appraise.guest_svn": Meaning("GUEST_SVN of the ID block is lower than demanded"),
        "appraise.id_key": Meaning("the ID block is signed by a key that is not trusted"),
        "appraise.author_key": Meaning("the ID key is not certified by a trusted author key"),
        "appraise.vlek_not_allowed": Meaning(
            "signed by a cloud provider's key, which is shared by its machines", "accept it with `--allow-csp ID`"
        ),
        "uvm.format": Meaning("not an endorsement: malformed, contradictory, or headers that are not protected"),
        "uvm.tag": Meaning("a COSE message, but not a COSE_Sign1"),
        "uvm.crit": Meaning("a header is marked critical that this software does not know", "update this software"),
        "uvm.alg": Meaning("the signature algorithm is missing, not accepted, or does not fit the key"),
        "uvm.x5t": Meaning("the certificate's thumbprint is that of another certificate"),
        "uvm.chain": Meaning("the certificates do not lead from the signer to the root that came along"),
        "uvm.signature": Meaning("the endorsement is not signed by its certificate: changed on the way"),
        "uvm.validity": Meaning("a certificate was not valid when the endorsement was signed"),
        "uvm.issuer": Meaning("the issuer is another than the one demanded, or its did:x509 does not fit its chain"),
        "uvm.feed": Meaning("an endorsement of another series of images", "name the series with `--feed`"),
        "uvm.svn": Meaning("the image's version is lower than demanded", "have the host update the guest image"),
        "uvm.measurement": Meaning("an endorsement of another measurement than the report's"),
        "uvm.receipt": Meaning("a transparency receipt is missing, wrong, or for another document"),
        "emulated.not_allowed": Meaning(
            "the evidence is of an emulated processor, which protects nothing",
            "in development: `--allow-emulated` and `--emulated-root`",
        ),
        "emulated.marker": Meaning("emulated evidence, or its certificates, do not say that they are emulated"),
        "emulated.storage": Meaning("the emulated processor's keys cannot be used", "see the message"),
        "certtable.format": Meaning("the certificate table is malformed"),
        "certtable.no_key": Meaning("the certificate table has no VCEK or VLEK", _NEW_CERTIFICATE),
        "hostcert.format": Meaning("the host-amd-cert document is malformed"),
        "hostcert.tcbm": Meaning("the document's certificate is for another TCB", _NEW_CERTIFICATE),
        "kds.product": Meaning("the report (version 2) does not say which product it is of", "name it: `--product`"),
        "kds.vlek": Meaning("signed by a VLEK, which AMD hands to the cloud provider only", "ask the provider"),
        "kds.chip_id": Meaning("CHIP_ID is masked, so that its certificate cannot be asked for"),
        "kds.answer": Meaning("the service refused the request", "see the message; 429: too many requests, wait"),
        "kds.unreachable": Meaning(
            "the service cannot be reached", "check network and proxy, or use a mirror: `--service`"
        ),
    }
)
"""Every code of these families, in the order of the documentation."""
