# SPDX-License-Identifier: Apache-2.0
"""What each failure code of a verification means to a relying party. docs/attestation.md has this as a table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """``says``: what is the case. ``wants``: what would be right. ``do``: what to do about it.

    The last two stand in for an error's ``expected`` and ``hint`` where it has nothing more precise to say.
    """

    says: str
    wants: str
    do: str


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
_NO_REPORT: Final = "ask for the report again; if it stays, it is from something else than an SEV-SNP guest"
_OTHER_KEY: Final = "take the certificates as AMD issues them (`parma certificates`); others are not trusted"
_REFUSE: Final = "do not trust this VM; ask its host why"
_LAUNCH: Final = "have the VM launched with the guest policy that Parma sets (0x30000)"
_BLOCK: Final = "have the VM launched with the ID block of your choice (`parma id-block`)"
_ENDORSE: Final = "take the endorsement from the image's issuer again (`parma image verify` checks one)"
_A_CHAIN: Final = "ARK, ASK or ASVK, and VCEK or VLEK as AMD issues them"
_COSE: Final = "a COSE_Sign1 whose protected headers have issuer, feed, algorithm and certificates"

CODES: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "evidence.format": Meaning(
            "not an evidence document of this version", "a document as `parma evidence` writes it", _OTHER_SENDER
        ),
        "evidence.unattested": Meaning(
            'the VM runs without a secure processor (`tee = "none"`); there is no report',
            'evidence of a VM with `tee = "snp"`',
            "have the container started on a host with SEV-SNP",
        ),
        "evidence.unavailable": Meaning(
            "the VM gave no evidence, or its host could not verify it (status only)",
            "a report from the guest",
            "see the message, and the log of the shim",
        ),
        "evidence.certificates": Meaning(
            "the host could not get its processor's certificate",
            "the certificate of the key that signed",
            _NEW_CERTIFICATE,
        ),
        "evidence.policy": Meaning(
            "the policy that came along is not the one whose hash is in HOST_DATA",
            "the policy that the VM was launched with",
            _OTHER_SENDER,
        ),
        "evidence.report_data": Meaning(
            "the document claims another REPORT_DATA than the report's", "the report's own", _OTHER_SENDER
        ),
        "evidence.permissive": Meaning(
            "the policy forbids nothing (`permissive := true`)",
            "a policy that forbids what it does not list",
            "for learning only: `--allow-permissive`",
        ),
        "evidence.tee": Meaning(
            "the document claims another kind of processor than its certificates show",
            "the kind that the certificates show",
            _OTHER_SENDER,
        ),
        "evidence.endorsement": Meaning(
            "an endorsed measurement is demanded and no endorsement came along",
            "an endorsement by the issuer you named",
            "add it with `--endorsement FILE`, or name the measurement",
        ),
        "format.size": Meaning(
            "not 1184 bytes", "1184 bytes", "strip the 32-byte response header if it is still there"
        ),
        "format.version": Meaning(
            "a report version that this software does not know", "version 2 to 5", "update this software"
        ),
        "format.sig_algo": Meaning(
            "a signature algorithm other than ECDSA P-384 with SHA-384", "1 (ECDSA P-384 with SHA-384)", _NO_REPORT
        ),
        "format.policy_bit17": Meaning("bit 17 of the guest policy, always one, is zero", "bit 17 set", _NO_REPORT),
        "format.reserved": Meaning(
            "a reserved field is not zero: changed, or newer than this software",
            "0",
            "update this software; if it stays, the report was changed",
        ),
        "format.signing_key": Meaning(
            "KEY_INFO names a signing key that does not exist", "0 (VCEK), 1 (VLEK) or 7 (none)", _NO_REPORT
        ),
        "cert.parse": Meaning("not a certificate or CRL, or not strict DER", "X.509 in DER", _NEW_CERTIFICATE),
        "cert.chain_signature": Meaning(
            "a certificate is not signed by the next one",
            "RSASSA-PSS with SHA-384 by the next certificate",
            "check that ASK and ARK are those of the same product",
        ),
        "cert.root_untrusted": Meaning(
            "the root is not one of AMD's (or not the one that was named)",
            "one of AMD's three roots, or the one you named",
            _OTHER_KEY,
        ),
        "cert.validity": Meaning(
            "a certificate is not valid at the time of verification",
            "certificates that are valid now",
            _NEW_CERTIFICATE,
        ),
        "cert.role": Meaning(
            "a certificate has a key or a role that does not fit its place in the chain", _A_CHAIN, _OTHER_KEY
        ),
        "cert.product": Meaning(
            "the certificates are of another processor product than expected",
            "certificates of the expected product",
            "check whose certificates these are, or name another `--product`",
        ),
        "cert.extensions": Meaning(
            "AMD's certificate extensions are missing, malformed or unknown and critical",
            "AMD's extensions, each once and well-formed, and no unknown critical one",
            _NEW_CERTIFICATE,
        ),
        "cert.revoked": Meaning(
            "AMD has revoked the ASK, ASVK or ARK", "certificates that the CRL does not list", _REFUSE
        ),
        "cert.crl_signature": Meaning(
            "the CRL is not signed by the chain's root", "a CRL of this product's ARK", "fetch it from AMD again"
        ),
        "cert.crl_stale": Meaning(
            "the CRL is not valid at the time of verification", "a current CRL", "fetch a new one"
        ),
        "cert.crl_missing": Meaning(
            "a CRL is required and none was given", "a CRL", "fetch it from AMD, and name it with `--crl`"
        ),
        "sig.absent": Meaning(
            "the report is not signed: the host masks its chip key",
            "a signature by the processor's key",
            "have the host set MASK_CHIP_KEY to 0",
        ),
        "sig.invalid": Meaning(
            "the key did not sign these bytes: changed report, or another chip or TCB's certificate",
            "the certified key's signature over the bytes as received",
            _NEW_CERTIFICATE,
        ),
        "bind.signing_key": Meaning(
            "signed by a VLEK where the certificate is a VCEK, or the reverse",
            "a certificate of the key that KEY_INFO names",
            _NEW_CERTIFICATE,
        ),
        "bind.product_fms": Meaning(
            "the processor's family and model are not the certificates' product",
            "a processor of the certificates' product",
            _NEW_CERTIFICATE,
        ),
        "bind.tcb": Meaning(
            "the certificate is for another TCB than REPORTED_TCB", "the certificate for REPORTED_TCB", _NEW_CERTIFICATE
        ),
        "bind.chip_id": Meaning(
            "the certificate is of another chip, or CHIP_ID is masked", "the certificate for CHIP_ID", _NEW_CERTIFICATE
        ),
        "bind.struct_version": Meaning(
            "the certificate's structure version is not that of the product",
            "0 for Milan and Genoa, 1 for Turin",
            _NEW_CERTIFICATE,
        ),
        "appraise.report_data": Meaning(
            "not the answer to this nonce: old evidence, or made for somebody else",
            "the answer to your nonce",
            "ask with a new nonce; if it stays, old evidence is replayed",
        ),
        "appraise.host_data": Meaning(
            "the VM was launched with another policy", "the SHA-256 of your policy", "compare with `parma policy hash`"
        ),
        "appraise.measurement": Meaning(
            "another firmware, kernel, initrd, command line, vCPU count or model",
            "a measurement that you named",
            "compare with the image's published table",
        ),
        "appraise.image_id": Meaning("IMAGE_ID of the ID block differs", "the IMAGE_ID you named", _BLOCK),
        "appraise.family_id": Meaning("FAMILY_ID of the ID block differs", "the FAMILY_ID you named", _BLOCK),
        "appraise.report_id": Meaning(
            "another VM than the one expected, or the same one restarted",
            "the REPORT_ID you named",
            "attest the VM that is there now, and take its REPORT_ID",
        ),
        "appraise.chip_id": Meaning(
            "another processor than the one expected", "the CHIP_ID you named", "ask which machine the VM runs on"
        ),
        "appraise.vmpl": Meaning(
            "asked for by the host, or at another privilege level of the guest",
            "a report asked for by the guest, at the VMPL you named",
            "take the enforcer's evidence (`parma evidence`), or name the level: `--vmpl`",
        ),
        "appraise.debug": Meaning(
            "the host may read and write the guest's memory: the guest has no secrets",
            "a guest policy without DEBUG",
            _LAUNCH,
        ),
        "appraise.migrate_ma": Meaning(
            "a migration agent of the host's choice may move the guest", "a guest policy without MIGRATE_MA", _LAUNCH
        ),
        "appraise.smt": Meaning(
            "the guest policy permits simultaneous multithreading",
            "a guest policy without SMT",
            "accept SMT: KVM launches no guest without it",
        ),
        "appraise.policy": Meaning(
            "the guest policy permits more than one socket",
            "a guest policy with SINGLE_SOCKET",
            "accept several sockets: KVM launches no guest with this bit",
        ),
        "appraise.abi": Meaning(
            "the guest policy permits firmware older than demanded",
            "the least firmware ABI you named",
            "have the VM launched with an ID block whose policy demands it",
        ),
        "appraise.min_tcb": Meaning(
            "a firmware patch level is too low, or no minimum is known for the product",
            "patch levels from your minimum on",
            _UPDATE,
        ),
        "appraise.min_launch_tcb": Meaning(
            "the firmware was too old when the VM was launched", "patch levels from your minimum on", _UPDATE
        ),
        "appraise.provisional": Meaning(
            "the firmware is not committed: the host can roll it back",
            "committed firmware",
            "have the host commit its firmware (SNP_COMMIT), or `--allow-provisional`",
        ),
        "appraise.platform_info": Meaning(
            "a platform property is not as demanded (SMT, ECC, alias check, ...)",
            "the properties you named",
            "have the host set its BIOS accordingly",
        ),
        "appraise.mit_vector": Meaning("a mitigation was not active at launch", "the mitigations you named", _UPDATE),
        "appraise.min_report_version": Meaning(
            "the report's version is lower than demanded", "the version you named, or later", _UPDATE
        ),
        "appraise.guest_svn": Meaning(
            "GUEST_SVN of the ID block is lower than demanded", "the version you named, or later", _BLOCK
        ),
        "appraise.id_key": Meaning(
            "the ID block is signed by a key that is not trusted", "one of the ID keys you named", _BLOCK
        ),
        "appraise.author_key": Meaning(
            "the ID key is not certified by a trusted author key",
            "an ID key certified by an author key you named",
            _BLOCK,
        ),
        "appraise.vlek_not_allowed": Meaning(
            "signed by a cloud provider's key, which is shared by its machines",
            "a VCEK, or a VLEK of a provider you named",
            "accept it with `--allow-csp ID`",
        ),
        "uvm.format": Meaning(
            "not an endorsement: malformed, contradictory, or headers that are not protected", _COSE, _ENDORSE
        ),
        "uvm.tag": Meaning("a COSE message, but not a COSE_Sign1", "tag 18", _ENDORSE),
        "uvm.crit": Meaning(
            "a header is marked critical that this software does not know",
            "critical headers that are there and known",
            "update this software",
        ),
        "uvm.alg": Meaning(
            "the signature algorithm is missing, not accepted, or does not fit the key",
            "ES256, ES384, ES512, PS256, PS384 or PS512, as fits the key",
            _ENDORSE,
        ),
        "uvm.x5t": Meaning(
            "the certificate's thumbprint is that of another certificate",
            "the thumbprint of the signer's certificate",
            _ENDORSE,
        ),
        "uvm.chain": Meaning(
            "the certificates do not lead from the signer to the root that came along",
            "the signer's certificate, then each issuer's",
            _ENDORSE,
        ),
        "uvm.signature": Meaning(
            "the endorsement is not signed by its certificate: changed on the way",
            "the signer's signature over headers and payload",
            _ENDORSE,
        ),
        "uvm.validity": Meaning(
            "a certificate was not valid when the endorsement was signed",
            "certificates that were valid at the signing, which is past",
            _ENDORSE,
        ),
        "uvm.issuer": Meaning(
            "the issuer is another than the one demanded, or its did:x509 does not fit its chain",
            "the issuer you named, proved by its certificates",
            "check `--endorser` against what `parma image sign` printed",
        ),
        "uvm.feed": Meaning(
            "an endorsement of another series of images", "the series you named", "name the series with `--feed`"
        ),
        "uvm.svn": Meaning(
            "the image's version is lower than demanded",
            "the version you named, or later",
            "have the host update the guest image",
        ),
        "uvm.measurement": Meaning(
            "an endorsement of another measurement than the report's",
            "the report's measurement",
            "take the endorsement of the image and number of vCPUs that the VM has",
        ),
        "uvm.receipt": Meaning(
            "a transparency receipt is missing, wrong, or for another document",
            "a receipt of a ledger you named, for this very document",
            "have the issuer register the endorsement, or check `--ledger-key`",
        ),
        "emulated.not_allowed": Meaning(
            "the evidence is of an emulated processor, which protects nothing",
            "evidence of a real processor",
            "in development: `--allow-emulated` and `--emulated-root`",
        ),
        "emulated.marker": Meaning(
            "emulated evidence, or its certificates, do not say that they are emulated",
            "the marks of emulation in all of it",
            _REFUSE,
        ),
        "emulated.storage": Meaning(
            "the emulated processor's keys cannot be used",
            "a private directory with keys that fit together",
            "see the message",
        ),
        "certtable.format": Meaning(
            "the certificate table is malformed",
            "entries of 24 bytes up to a zero one, each for data behind them",
            "take the certificates from elsewhere (`parma certificates`)",
        ),
        "certtable.no_key": Meaning("the certificate table has no VCEK or VLEK", "a VCEK or a VLEK", _NEW_CERTIFICATE),
        "hostcert.format": Meaning(
            "the host-amd-cert document is malformed",
            "vcekCert, certificateChain (ASK and ARK) and tcbm",
            _NEW_CERTIFICATE,
        ),
        "hostcert.tcbm": Meaning(
            "the document's certificate is for another TCB", "the certificate for REPORTED_TCB", _NEW_CERTIFICATE
        ),
        "kds.product": Meaning(
            "the report (version 2) does not say which product it is of",
            "Milan, Genoa or Turin",
            "name it: `--product`",
        ),
        "kds.vlek": Meaning(
            "signed by a VLEK, which AMD hands to the cloud provider only",
            "a report signed by a VCEK",
            "ask the provider",
        ),
        "kds.chip_id": Meaning(
            "CHIP_ID is masked, so that its certificate cannot be asked for",
            "a CHIP_ID that is not zero",
            "ask the host for its certificate",
        ),
        "kds.answer": Meaning(
            "the service refused the request", "a certificate", "see the message; 429: too many requests, wait"
        ),
        "kds.unreachable": Meaning(
            "the service cannot be reached",
            "an answer of the service",
            "check network and proxy, or use a mirror: `--service`",
        ),
    }
)
"""Every code of these families, in the order of the documentation."""
