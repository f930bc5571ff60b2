# SPDX-License-Identifier: Apache-2.0
"""The protected headers that give a signed document its meaning, as typed values.

Sources: RFC 9052 (alg, crit, content type, kid), RFC 9360 (x5chain, x5t), RFC 9597 and 8392 (CWT claims),
draft-ietf-cose-hash-envelope (258 to 260), RFC 9942 (vds). "iss", "feed", "signingtime" with text labels are what the
first generation of policy fragments and UVM endorsements uses for CWT claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from parma_cose.cbor import Label, Tag, Value
from parma_cose.errors import CoseError

ALG: Final = 1
CRIT: Final = 2
CONTENT_TYPE: Final = 3
KID: Final = 4
CWT_CLAIMS: Final = 15
X5CHAIN: Final = 33
X5T: Final = 34
PAYLOAD_HASH_ALG: Final = 258
PREIMAGE_CONTENT_TYPE: Final = 259
PAYLOAD_LOCATION: Final = 260
RECEIPTS: Final = 394
VDS: Final = 395
VDP: Final = 396
LEGACY_ISSUER: Final = "iss"
LEGACY_FEED: Final = "feed"
LEGACY_SIGNING_TIME: Final = "signingtime"

CLAIM_ISSUER: Final = 1
CLAIM_SUBJECT: Final = 2
CLAIM_ISSUED_AT: Final = 6
CLAIM_SVN: Final = "svn"

MAX_CERTIFICATES: Final = 100
"""As the reference enforcer; real chains have three or four."""
MAX_CERTIFICATE_SIZE: Final = 64 * 1024
MAX_NAME: Final = 4096
"""Characters of an issuer, a feed or a content type."""
MAX_SVN: Final = 2**63 - 1

_UNDERSTOOD: Final = frozenset(
    {
        *(ALG, CRIT, CONTENT_TYPE, KID, CWT_CLAIMS, X5CHAIN, X5T),
        *(PAYLOAD_HASH_ALG, PREIMAGE_CONTENT_TYPE, PAYLOAD_LOCATION, VDS),
        *(LEGACY_ISSUER, LEGACY_FEED, LEGACY_SIGNING_TIME),
    }
)
_EPOCH_TIME: Final = 1  # CBOR tag
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Thumbprint:
    """x5t: the COSE algorithm of a hash, and the hash of the signer's certificate."""

    algorithm: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Claims:
    """CWT claims. What is not there is None."""

    issuer: str | None = None
    subject: str | None = None
    issued_at: datetime | None = None
    svn: int | None = None
    """A security version number; not registered, but what fragments and endorsements use."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Protected headers. What is not there is None or empty; labels that are not named here are not looked at."""

    algorithm: int
    content_type: str | int | None = None
    key_id: bytes | None = None
    chain: tuple[bytes, ...] = ()
    """Certificates, DER, the signer's first. Untrusted."""
    thumbprint: Thumbprint | None = None
    claims: Claims | None = None
    legacy_issuer: str | None = None
    legacy_feed: str | None = None
    legacy_signing_time: datetime | None = None
    payload_hash_algorithm: int | None = None
    """Present: the payload is this hash of something (258)."""
    preimage_content_type: str | int | None = None
    payload_location: str | None = None
    verifiable_data_structure: int | None = None
    """Present in receipts (395)."""

    @property
    def issuer(self) -> str | None:
        """The CWT claim, or the older header. Both, where they are given, are equal."""
        return self.claims.issuer if self.claims else self.legacy_issuer

    @property
    def feed(self) -> str | None:
        """What the document is about: the CWT claim ``sub``, or the older header ``feed``."""
        return self.claims.subject if self.claims else self.legacy_feed

    @property
    def svn(self) -> int | None:
        """The security version number, which only CWT claims can carry."""
        return self.claims.svn if self.claims else None

    @property
    def signing_time(self) -> datetime | None:
        """When the signer says that it signed."""
        return self.claims.issued_at if self.claims and self.claims.issued_at else self.legacy_signing_time


def read_headers(protected: Mapping[Label, Value]) -> Headers:
    """The headers of the protected map. Raises CoseError ``format``, ``alg`` or ``crit``."""
    fields = _Fields(protected, "protected header")
    _check_critical(protected)
    algorithm = protected.get(ALG)
    if isinstance(algorithm, bool) or not isinstance(algorithm, int):
        raise CoseError("alg", "no signature algorithm in the protected headers")
    claims = _claims(protected[CWT_CLAIMS]) if CWT_CLAIMS in protected else None
    headers = Headers(
        algorithm=algorithm,
        content_type=fields.content_type(CONTENT_TYPE),
        key_id=fields.get(KID, bytes),
        chain=_chain(protected[X5CHAIN]) if X5CHAIN in protected else (),
        thumbprint=_thumbprint(protected[X5T]) if X5T in protected else None,
        claims=claims,
        legacy_issuer=fields.name(LEGACY_ISSUER),
        legacy_feed=fields.name(LEGACY_FEED),
        legacy_signing_time=fields.time(LEGACY_SIGNING_TIME),
        payload_hash_algorithm=fields.get(PAYLOAD_HASH_ALG, int),
        preimage_content_type=fields.content_type(PREIMAGE_CONTENT_TYPE),
        payload_location=fields.name(PAYLOAD_LOCATION),
        verifiable_data_structure=fields.get(VDS, int),
    )
    _check_agreement(headers)
    return headers


@dataclass(frozen=True, slots=True)
class _Fields:
    """Typed access to a map; ``what`` names it in messages."""

    values: Mapping[Label, Value]
    what: str

    def get(self, label: Label, kind: type[_T]) -> _T | None:
        if label not in self.values:
            return None
        value = self.values[label]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(label)
        return value

    def wrong(self, label: Label) -> CoseError:
        return CoseError("format", f"{self.what} {label!r} has the wrong type or size")

    def name(self, label: Label) -> str | None:
        value = self.get(label, str)
        if value is not None and (not 0 < len(value) <= MAX_NAME or "\0" in value):
            raise self.wrong(label)
        return value

    def content_type(self, label: Label) -> str | int | None:
        if isinstance(self.values.get(label), str):
            return self.name(label)
        return self.get(label, int)

    def time(self, label: Label) -> datetime | None:
        """Seconds since 1970, with or without the tag that says so."""
        if label not in self.values:
            return None
        value = self.values[label]
        if isinstance(value, Tag) and value.number == _EPOCH_TIME:
            value = value.value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(label)
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, ValueError, OSError):
            raise self.wrong(label) from None


def _check_critical(protected: Mapping[Label, Value]) -> None:
    """RFC 9052, section 3.1: not empty, each label present and understood."""
    if CRIT not in protected:
        return
    labels = protected[CRIT]
    if not isinstance(labels, list) or not labels:
        raise CoseError("crit", "the list of critical headers is malformed")
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, int | str) or label not in protected:
            raise CoseError("crit", "a header is marked critical and is not there")
        if label not in _UNDERSTOOD:
            raise CoseError("crit", "a critical header is not understood", found=repr(label)[:60])


def _chain(value: Value) -> tuple[bytes, ...]:
    chain = [value] if isinstance(value, bytes) else value
    if not isinstance(chain, list) or not 1 <= len(chain) <= MAX_CERTIFICATES:
        raise CoseError("format", "x5chain is malformed", expected=f"1 to {MAX_CERTIFICATES} certificates")
    certificates = tuple(item for item in chain if isinstance(item, bytes) and 0 < len(item) <= MAX_CERTIFICATE_SIZE)
    if len(certificates) != len(chain):
        raise CoseError("format", "a certificate of x5chain has the wrong type or size")
    return certificates


def _thumbprint(value: Value) -> Thumbprint:
    match value:
        case [int(algorithm), bytes(digest)] if not isinstance(algorithm, bool):
            return Thumbprint(algorithm, digest)
    raise CoseError("format", "x5t is malformed", expected="a hash algorithm's number and a digest")


def _claims(value: Value) -> Claims:
    if not isinstance(value, dict):
        raise CoseError("format", "the CWT claims are no map")
    fields = _Fields(value, "CWT claim")
    svn = fields.get(CLAIM_SVN, int)
    if svn is not None and not 0 <= svn <= MAX_SVN:
        raise fields.wrong(CLAIM_SVN)
    return Claims(fields.name(CLAIM_ISSUER), fields.name(CLAIM_SUBJECT), fields.time(CLAIM_ISSUED_AT), svn)


def _check_agreement(headers: Headers) -> None:
    """Two spellings of one thing may not differ: readers that prefer the one or the other would disagree."""
    claims = headers.claims
    if claims is None:
        return
    for claimed, legacy, what in (
        (claims.issuer, headers.legacy_issuer, "issuer"),
        (claims.subject, headers.legacy_feed, "feed"),
        (claims.issued_at, headers.legacy_signing_time, "signing time"),
    ):
        if legacy is not None and claimed != legacy:
            raise CoseError("format", f"the envelope names two different values for its {what}")
