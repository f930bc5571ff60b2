# SPDX-License-Identifier: Apache-2.0
"""Endorsements of guest images: an issuer's signature over a launch measurement, with a version.

A relying party that trusts the issuer pins its name and a lowest version instead of a digest for each release. Both
generations of what clouds call UVM endorsements are read, each a COSE_Sign1:

* a JSON payload with ``x-ms-sevsnpvm-launchmeasurement`` and ``x-ms-sevsnpvm-guestsvn``
* a hash envelope (SCITT): the payload is the 48 bytes of the measurement, the version is a CWT claim, and the
  unprotected headers may carry receipts of a transparency ledger

The second is what :func:`sign` makes. The version has nothing to do with GUEST_SVN of the report.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from parma_cose import algorithms, did, envelope, headers, receipts, sign1, signing
from parma_cose.cbor import Label, Value
from parma_cose.did import DidX509
from parma_cose.errors import CoseError
from parma_cose.keys import KeySet
from parma_cose.signing import Signer as Signer
from parma_snp.errors import SnpError
from parma_snp.expected import Endorser
from parma_snp.report import MEASUREMENT_SIZE
from parma_snp.strict_json import Object

FEED: Final = "parma-uvm"
EMULATED_SUFFIX: Final = "-emulated"
EMULATED_FEED: Final = FEED + EMULATED_SUFFIX
"""Images started for the emulated processor have a series of their own: nobody's real one."""
MAX_SIZE: Final = 256 * 1024
MAX_SVN: Final = 2**63 - 1

_SHA384: Final = -43
_SHA256: Final = -16
_PREIMAGE: Final = "application/octet-stream"
_JSON: Final = "application/json"
_SVN_TEXT: Final = "x-ms-sevsnpvm-guestsvn"
_SVN_NUMBER: Final = "x-ms-sevsnpvm-guestsvn-int"
_MEASUREMENT: Final = "x-ms-sevsnpvm-launchmeasurement"
_HEX_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{96}", re.ASCII)
_FORMAT: Final = "uvm.format"
_CLOCK_SKEW: Final = timedelta(minutes=10)

Generation = Literal["json", "hash-envelope"]


@dataclass(frozen=True)
class Endorsement:
    """What an issuer has signed. Whether issuer, feed and version are the wanted ones is :func:`verify`'s business.

    ``ledgers`` names those whose receipt was verified.
    """

    generation: Generation
    issuer: str
    feed: str
    svn: int
    measurement: bytes
    signed_at: datetime
    ledgers: tuple[str, ...] = ()


def read(unverified: bytes, *, now: datetime, ledger_keys: tuple[bytes, ...] = ()) -> Endorsement:
    """Verify signature, chain, issuer and receipts of an untrusted endorsement, and read it.

    The certificates' validity is judged at the time of signing, which must be before ``now`` (aware): endorsements
    outlive the certificates they were signed with. A receipt, where there is one, must be for this document;
    ``ledger_keys`` (DER SubjectPublicKeyInfo) decide which ledgers are believed. Raises SnpError of the ``uvm`` family.
    """
    try:
        signed = envelope.verify(unverified, limit=MAX_SIZE)
        ledgers = _verified_ledgers(signed, ledger_keys)
    except CoseError as error:
        raise _from_cose(error) from None
    signed_at = signed.headers.signing_time
    if signed_at is None:
        raise SnpError(_FORMAT, "the endorsement does not say when it was signed")
    if signed_at > now + _CLOCK_SKEW:
        raise SnpError(
            "uvm.validity", "the endorsement is signed in the future", expected=now.isoformat(), found=str(signed_at)
        )
    generation, svn, measurement = _content(signed)
    return Endorsement(generation, signed.issuer, signed.feed, svn, measurement, signed_at, ledgers)


def verify(unverified: bytes, endorser: Endorser, measurement: bytes, *, now: datetime) -> Endorsement:
    """An endorsement of this measurement (48 bytes) as the relying party demands it.

    Raises SnpError ``evidence.endorsement`` when there is none, or of the ``uvm`` family.
    """
    if not unverified:
        raise SnpError("evidence.endorsement", "an endorsed measurement is demanded and there is no endorsement")
    found = read(unverified, now=now, ledger_keys=endorser.ledger_keys)
    if found.issuer != endorser.issuer:
        raise SnpError("uvm.issuer", "endorsed by somebody else", expected=endorser.issuer, found=found.issuer)
    if found.feed != endorser.feed:
        raise SnpError("uvm.feed", "an endorsement of another series", expected=endorser.feed, found=found.feed[:100])
    if found.svn < endorser.min_svn:
        raise SnpError(
            "uvm.svn", "the image's version is too old", expected=f"{endorser.min_svn} or later", found=str(found.svn)
        )
    if found.measurement != measurement:
        raise SnpError(
            "uvm.measurement",
            "the endorsement is of another measurement",
            expected=measurement.hex(),
            found=found.measurement.hex(),
        )
    if endorser.require_receipt and not found.ledgers:
        raise SnpError("uvm.receipt", "no receipt of a ledger that is trusted")
    return found


def load_signer(key: bytes, chain: bytes, password: bytes | None = None) -> Signer:
    """A signer from PEM: its private key, and its certificate followed by those of its issuers.

    Raises SnpError ``usage``, ``uvm.format``, ``uvm.alg`` or ``uvm.chain``.
    """
    try:
        return Signer.from_pem(key, chain, password)
    except CoseError as error:
        raise _from_cose(error) from None


def issuer_of(signer: Signer, predicate: str) -> str:
    """The did:x509 of a signer: its root and a predicate (``subject:CN``, ``eku:OID``). Raises SnpError ``usage``."""
    try:
        return did.derive(signer.chain, predicate)
    except CoseError as error:
        raise _from_cose(error) from None


def sign(measurement: bytes, *, svn: int, feed: str, issuer: str, signer: Signer, signed_at: datetime) -> bytes:
    """An endorsement as a hash envelope. ``signed_at`` is aware, ``issuer`` a did:x509 that holds for the signer.

    Raises SnpError ``usage``, ``uvm.alg``, ``uvm.issuer``.
    """
    if len(measurement) != MEASUREMENT_SIZE or not 0 <= svn <= MAX_SVN or not feed:
        raise SnpError("usage", "a measurement of 48 bytes, a version and a feed are needed")
    try:
        DidX509.parse(issuer).check(signer.chain)
        public = algorithms.accept_key(signer.key.public_key())
        algorithm = algorithms.check_fit(algorithms.algorithm_for(public).number, public)
        claims: dict[Label, Value] = {
            headers.CLAIM_ISSUER: issuer,
            headers.CLAIM_SUBJECT: feed,
            headers.CLAIM_ISSUED_AT: int(signed_at.timestamp()),
            headers.CLAIM_SVN: svn,
        }
        protected: dict[Label, Value] = {
            headers.ALG: algorithm.number,
            headers.CWT_CLAIMS: claims,
            headers.X5CHAIN: list(signer.ders),
            headers.X5T: [_SHA256, algorithms.digest(_SHA256, signer.ders[0])],
            headers.PAYLOAD_HASH_ALG: _SHA384,
            headers.PREIMAGE_CONTENT_TYPE: _PREIMAGE,
        }
        return signing.sign_map(protected, measurement, signer.key, algorithm)
    except CoseError as error:
        raise _from_cose(error) from None


def load_ledger_key(data: bytes) -> bytes:
    """A ledger's public key, PEM or DER, as DER. Raises SnpError ``usage``."""
    try:
        key = load_pem_public_key(data) if data.lstrip().startswith(b"-----BEGIN") else load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SnpError("usage", f"not a public key: {error}") from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def claimed_ledgers(unverified: bytes) -> tuple[str, ...]:
    """The ledgers that the receipts of an endorsement claim to be of; nothing is verified. Raises SnpError ``uvm``."""
    try:
        return tuple(receipts.Receipt.parse(data).ledger for data in sign1.parse(unverified).unverified_receipts)
    except CoseError as error:
        raise _from_cose(error) from None


def _from_cose(error: CoseError) -> SnpError:
    code = error.code if error.code == "usage" else f"uvm.{error.code}"
    return SnpError(code, error.message, expected=error.expected, found=error.found, hint=error.hint)


def _content(signed: envelope.Signed) -> tuple[Generation, int, bytes]:
    if signed.headers.payload_hash_algorithm is not None:
        return "hash-envelope", *_hash_envelope(signed)
    if signed.content_type != _JSON:
        raise SnpError(
            _FORMAT, "not an endorsement", expected=f"{_JSON} or a hash envelope", found=str(signed.content_type)[:100]
        )
    return "json", *_json(signed)


def _hash_envelope(signed: envelope.Signed) -> tuple[int, bytes]:
    if signed.headers.payload_hash_algorithm != _SHA384 or len(signed.payload) != MEASUREMENT_SIZE:
        raise SnpError(_FORMAT, "the hash envelope does not carry a launch measurement", expected="SHA-384, 48 bytes")
    if signed.svn is None:
        raise SnpError(_FORMAT, "the endorsement has no version", expected="the CWT claim svn")
    return signed.svn, signed.payload


def _json(signed: envelope.Signed) -> tuple[int, bytes]:
    document = Object.parse(signed.payload, code=_FORMAT, limit=MAX_SIZE)
    text = document.text(_SVN_TEXT)
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(MAX_SVN)):
        raise SnpError(_FORMAT, f"{_SVN_TEXT} is not a number", found=text[:32])
    numbers = {int(text)}
    if _SVN_NUMBER in document.fields:
        numbers.add(document.number(_SVN_NUMBER))
    if signed.svn is not None:
        numbers.add(signed.svn)
    if len(numbers) != 1:
        raise SnpError(_FORMAT, "the endorsement gives two versions", found=", ".join(map(str, sorted(numbers))))
    measurement = document.text(_MEASUREMENT)
    if not _HEX_DIGEST.fullmatch(measurement):
        raise SnpError(_FORMAT, f"{_MEASUREMENT} is not a digest", expected="96 hex digits", found=measurement[:100])
    return numbers.pop(), bytes.fromhex(measurement)


def _verified_ledgers(signed: envelope.Signed, ledger_keys: tuple[bytes, ...]) -> tuple[str, ...]:
    """The ledgers whose receipt is right. A receipt that is not for this document is refused, wanted or not."""
    registered = signed.envelope.without_unprotected()
    keys = _key_set(ledger_keys)
    ledgers = []
    for unverified in signed.envelope.unverified_receipts:
        receipt = receipts.Receipt.parse(unverified)
        if any(proof.data_hash != hashlib.sha256(registered).digest() for proof in receipt.proofs):
            raise CoseError("receipt", "the receipt is for another document")
        if receipt.key_id in keys:
            receipt.verify(registered, keys)
            ledgers.append(receipt.ledger)
    return tuple(ledgers)


def _key_set(ledger_keys: tuple[bytes, ...]) -> KeySet:
    """By key id, which is the hex SHA-256 of the key in CCF's ledgers."""
    keys: dict[bytes, ec.EllipticCurvePublicKey] = {}
    for der in ledger_keys:
        key = load_der_public_key(der)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise SnpError("usage", "a ledger's key is an elliptic-curve key")
        keys[hashlib.sha256(der).hexdigest().encode()] = key
    return keys
