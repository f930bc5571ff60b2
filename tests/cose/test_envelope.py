# SPDX-License-Identifier: Apache-2.0
"""Hostile envelopes: every header missing, twice, of another type; other keys, chains and times; every bit flipped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from parma_cose import algorithms, cbor, did, headers, sign1
from parma_cose.algorithms import BY_NAME
from parma_cose.cbor import Label, Tag, Value
from parma_cose.chain import verify_chain
from parma_cose.envelope import Signed, verify
from parma_cose.errors import CoseError
from parma_cose.signing import Document, Signer, sign, sign_map
from tests.cose.chains import (
    EKU,
    END,
    NOW,
    Authority,
    authority,
    certify,
    rsa_key,
    shared_authority,
    short_validity,
    usage,
)

PAYLOAD = b"package p\n"
FEED = "feed"
DROP = object()
CERTIFICATES: dict[str, Callable[[], Any]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "PS256": rsa_key,
    "PS384": rsa_key,
    "PS512": rsa_key,
}


@cache
def protected(by: Authority | None = None) -> dict[Label, Any]:
    """Good protected headers."""
    by = by or shared_authority()
    return {
        headers.ALG: -7,
        headers.CONTENT_TYPE: "text/plain",
        headers.CWT_CLAIMS: {
            headers.CLAIM_ISSUER: did.derive(verify_chain(by.ders), f"eku:{EKU}"),
            headers.CLAIM_SUBJECT: FEED,
            headers.CLAIM_ISSUED_AT: int(NOW.timestamp()),
            headers.CLAIM_SVN: 5,
        },
        headers.X5CHAIN: list(by.ders),
        headers.X5T: [-16, algorithms.digest(-16, by.leaf.der)],
    }


def changed(changes: dict[Label, Any], by: Authority | None = None) -> bytes:
    """A properly signed envelope whose headers are not as they should be."""
    by = by or shared_authority()
    members = {label: value for label, value in {**protected(by), **changes}.items() if value is not DROP}
    algorithm = BY_NAME["ES256" if isinstance(by.leaf.key, ec.EllipticCurvePrivateKey) else "PS256"]
    return sign_map(members, PAYLOAD, by.leaf.key, algorithm)


def claims(**changes: Any) -> dict[Label, Any]:
    names: dict[str, Label] = {"iss": 1, "sub": 2, "iat": 6, "svn": "svn"}
    members = {**protected()[headers.CWT_CLAIMS], **{names[name]: value for name, value in changes.items()}}
    return {headers.CWT_CLAIMS: {label: value for label, value in members.items() if value is not DROP}}


def code_of(data: bytes, **options: Any) -> str:
    with pytest.raises(CoseError) as refusal:
        verify(data, **options)
    assert str(refusal.value)
    return refusal.value.code


def test_a_good_envelope_says_who_signed_what_and_when() -> None:
    signed = verify(changed({}))
    assert (signed.feed, signed.svn, signed.payload, signed.judged_at) == (FEED, 5, PAYLOAD, NOW)
    assert signed.issuer == did.derive(shared_authority().signer.chain, f"eku:{EKU}")
    assert signed.chain == verify_chain(shared_authority().ders)


@pytest.mark.parametrize("name", CERTIFICATES)
def test_every_algorithm_signs_and_verifies(name: str) -> None:
    by = authority(CERTIFICATES[name]())
    document = Document(PAYLOAD, did.derive(by.signer.chain, f"eku:{EKU}"), FEED, "text/plain", 5, NOW)
    data = sign(document, by.signer, BY_NAME[name])
    assert verify(data).headers.algorithm == BY_NAME[name].number
    default = sign(document, by.signer)
    assert (
        verify(default).headers.algorithm
        == algorithms.algorithm_for(algorithms.accept_key(by.leaf.key.public_key())).number
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({headers.ALG: DROP}, "alg"),
        ({headers.ALG: "ES256"}, "alg"),
        ({headers.ALG: True}, "alg"),
        ({headers.ALG: 0}, "alg"),
        ({headers.ALG: -8}, "alg"),
        ({headers.ALG: -37}, "alg"),
        ({headers.ALG: -35}, "alg"),
        ({headers.CRIT: []}, "crit"),
        ({headers.CRIT: "x"}, "crit"),
        ({headers.CRIT: [99]}, "crit"),
        ({headers.CRIT: [99], 99: 1}, "crit"),
        ({headers.CRIT: ["x-new"], "x-new": 1}, "crit"),
        ({headers.CRIT: [headers.ALG, None]}, "crit"),
        ({headers.CONTENT_TYPE: b"x"}, "format"),
        ({headers.CONTENT_TYPE: ""}, "format"),
        ({headers.KID: "x"}, "format"),
        ({headers.CWT_CLAIMS: DROP}, "format"),
        ({headers.CWT_CLAIMS: []}, "format"),
        ({headers.CWT_CLAIMS: {}}, "format"),
        (claims(iss=DROP), "format"),
        (claims(iss=1), "format"),
        (claims(iss=""), "format"),
        (claims(iss="x\0"), "format"),
        (claims(iss="did:x509:0:sha256:AAAA::eku:1.2"), "issuer"),
        (claims(iss="https://issuer.example"), "issuer"),
        (claims(sub=DROP), "format"),
        (claims(sub=b"feed"), "format"),
        (claims(sub="x" * 5000), "format"),
        (claims(iat="2026"), "format"),
        (claims(iat=Tag(0, "2026-01-01T00:00:00Z")), "format"),
        (claims(iat=2**60), "format"),
        (claims(iat=1), "validity"),
        (claims(iat=int(END.timestamp()) + 1), "validity"),
        (claims(svn="5"), "format"),
        (claims(svn=-1), "format"),
        (claims(svn=True), "format"),
        (claims(svn=2**63), "format"),
        ({headers.X5CHAIN: DROP}, "format"),
        ({headers.X5CHAIN: "x"}, "format"),
        ({headers.X5CHAIN: []}, "format"),
        ({headers.X5CHAIN: [1]}, "format"),
        ({headers.X5CHAIN: [b""]}, "format"),
        ({headers.X5CHAIN: [b"x"] * 101}, "format"),
        ({headers.X5CHAIN: [bytes(70_000)]}, "format"),
        ({headers.X5CHAIN: [b"nonsense", b"nonsense"], headers.X5T: DROP}, "format"),
        ({headers.X5T: [-16]}, "format"),
        ({headers.X5T: ["SHA-256", b""]}, "format"),
        ({headers.X5T: [-16, bytes(32)]}, "x5t"),
        ({headers.X5T: [-15, bytes(8)]}, "x5t"),
        ({headers.LEGACY_ISSUER: "other"}, "format"),
        ({headers.LEGACY_FEED: "other"}, "format"),
        ({headers.LEGACY_FEED: 1}, "format"),
        ({headers.LEGACY_SIGNING_TIME: 1}, "format"),
        ({headers.PAYLOAD_HASH_ALG: "x"}, "format"),
    ],
    ids=str,
)
def test_a_signed_envelope_with_a_wrong_header_is_refused(changes: dict[Label, Any], code: str) -> None:
    assert code_of(changed(changes)) == code


@pytest.mark.parametrize(
    "changes",
    [
        {headers.X5T: DROP},
        {headers.X5T: [-43, algorithms.digest(-43, shared_authority().leaf.der)]},
        {headers.CRIT: [headers.ALG, headers.X5CHAIN]},
        {headers.CONTENT_TYPE: 60},
        {"x-unknown": [1, {2: 3}]},
        {headers.LEGACY_FEED: FEED},
        claims(iat=Tag(1, int(NOW.timestamp()))),
        claims(iat=DROP),
        claims(svn=DROP),
    ],
    ids=str,
)
def test_other_ways_to_say_it_are_accepted(changes: dict[Label, Any]) -> None:
    assert verify(changed(changes)).payload == PAYLOAD


def test_the_older_headers_stand_for_the_claims() -> None:
    found = protected()[headers.CWT_CLAIMS]
    legacy: dict[Label, Any] = {"iss": found[1], "feed": FEED, "signingtime": Tag(1, int(NOW.timestamp()))}
    signed = verify(changed({headers.CWT_CLAIMS: DROP, **legacy}))
    assert (signed.feed, signed.svn, signed.judged_at) == (FEED, None, NOW)


def outer(*elements: Value, tag: int | None = 18) -> bytes:
    return cbor.encode(list(elements) if tag is None else Tag(tag, list(elements)))


class Elements(NamedTuple):
    """Of a good envelope: protected headers, content, signature."""

    p: bytes
    c: bytes
    s: bytes


@pytest.mark.parametrize(
    ("rebuild", "code"),
    [
        (lambda e: outer(e.p, {}, e.c, e.s, tag=None), "format"),
        (lambda e: outer(e.p, {}, e.c, e.s, tag=17), "tag"),
        (lambda e: outer(e.p, {}, e.c, e.s, tag=98), "tag"),
        (lambda e: cbor.encode(Tag(18, Tag(18, [e.p, {}, e.c, e.s]))), "format"),
        (lambda e: outer(e.p, {}, e.c), "format"),
        (lambda e: outer(e.p, {}, e.c, e.s, e.s), "format"),
        (lambda e: outer({}, {}, e.c, e.s), "format"),
        (lambda e: outer(b"\x80", {}, e.c, e.s), "format"),
        (lambda e: outer(b"", {}, e.c, e.s), "alg"),
        (lambda e: outer(b"\xa0", {}, e.c, e.s), "alg"),
        (lambda e: outer(b"\xa2\x01\x26\x01\x26", {}, e.c, e.s), "format"),
        (lambda e: outer(e.p + b"\0", {}, e.c, e.s), "format"),
        (lambda e: outer(e.p, [], e.c, e.s), "format"),
        (lambda e: outer(e.p, {headers.ALG: -7}, e.c, e.s), "format"),
        (lambda e: outer(e.p, {}, None, e.s), "format"),
        (lambda e: outer(e.p, {}, "text", e.s), "format"),
        (lambda e: outer(e.p, {}, e.c + b" ", e.s), "signature"),
        (lambda e: outer(e.p, {}, b"", e.s), "signature"),
        (lambda e: outer(e.p, {}, e.c, b""), "signature"),
        (lambda e: outer(e.p, {}, e.c, bytes(64)), "signature"),
        (lambda e: outer(e.p, {}, e.c, b"\xff" * 64), "signature"),
        (lambda e: outer(e.p, {}, e.c, e.s + b"\0"), "signature"),
        (lambda e: outer(e.p, {}, e.c, e.s[32:] + e.s[:32]), "signature"),
        (lambda e: outer(e.p, {}, e.c, None), "format"),
        (lambda e: outer(e.p, {}, e.c, e.s) + b"\0", "format"),
        (lambda e: outer(e.p, {}, e.c, e.s)[:-1], "format"),
    ],
)
def test_a_rebuilt_envelope_is_refused(rebuild: Callable[[Elements], bytes], code: str) -> None:
    found = sign1.parse(changed({}))
    assert found.payload is not None
    assert code_of(rebuild(Elements(found.protected, found.payload, found.signature))) == code


def test_unprotected_headers_mean_nothing() -> None:
    found = sign1.parse(changed({headers.CWT_CLAIMS: DROP}))
    given: dict[Label, Value] = {headers.CWT_CLAIMS: protected()[headers.CWT_CLAIMS]}
    assert code_of(outer(found.protected, given, found.payload, found.signature)) == "format"
    found = sign1.parse(changed({}))
    extra: dict[Label, Value] = {"iss": "somebody", "svn": 99, "timestamp": b"token"}
    signed = verify(outer(found.protected, extra, found.payload, found.signature))
    assert (signed.issuer, signed.svn) == (protected()[headers.CWT_CLAIMS][1], 5)


@cache
def sample() -> bytes:
    return changed({})


@given(st.data())
def test_no_flipped_bit_is_overlooked(data: st.DataObject) -> None:
    """Tag, maps, payload and signature: one flipped bit anywhere, and it is refused with a documented error."""
    bit = data.draw(st.integers(0, len(sample()) * 8 - 1))
    flipped = bytearray(sample())
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CoseError):
        verify(bytes(flipped))


@given(st.binary(max_size=200), st.integers(0, 1500), st.integers(0, 40))
def test_spliced_bytes_raise_nothing_but_documented_errors(inserted: bytes, at: int, removed: int) -> None:
    spliced = sample()[:at] + inserted + sample()[at + removed :]
    try:
        assert verify(spliced).payload == PAYLOAD
    except CoseError:
        assert spliced != sample()


# Chains


def test_somebody_elses_key_under_a_trusted_chain_is_refused() -> None:
    by = shared_authority()
    data = sign_map(protected(), PAYLOAD, ec.generate_private_key(ec.SECP256R1()), BY_NAME["ES256"])
    assert code_of(data) == "signature"
    assert verify(changed({}, by)).issuer


def test_an_issuer_that_another_chain_fits_is_refused() -> None:
    trusted, attacker = shared_authority(), authority()
    data = changed({headers.CWT_CLAIMS: protected(trusted)[headers.CWT_CLAIMS]}, attacker)
    assert code_of(data) == "issuer"
    pasted = [attacker.leaf.der, attacker.intermediate.der, trusted.root.der]
    assert code_of(changed({**claims(), headers.X5CHAIN: pasted}, attacker)) == "chain"


def test_a_trusted_leaf_that_is_no_authority_cannot_issue() -> None:
    trusted = shared_authority()
    minted = certify("Signer", trusted.leaf, extensions=[(x509.ExtendedKeyUsage([x509.ObjectIdentifier(EKU)]), False)])
    members = {**protected(trusted), headers.X5CHAIN: [minted.der, *trusted.ders], headers.X5T: DROP}
    members = {label: value for label, value in members.items() if value is not DROP}
    assert code_of(sign_map(members, PAYLOAD, minted.key, BY_NAME["ES256"])) == "chain"


def test_validity_is_judged_when_it_was_signed_unless_somebody_has_a_clock() -> None:
    begin, end = short_validity()
    by = authority(begin=begin, end=end)
    assert verify(changed({}, by)).judged_at == NOW
    assert code_of(changed({}, by), at=datetime(2030, 1, 1, tzinfo=UTC)) == "validity"
    without = {**protected(by)[headers.CWT_CLAIMS]}
    del without[headers.CLAIM_ISSUED_AT]
    assert verify(changed({headers.CWT_CLAIMS: without}, by)).judged_at == end
    late = {**protected(by)[headers.CWT_CLAIMS], headers.CLAIM_ISSUED_AT: int(end.timestamp()) + 1}
    assert code_of(changed({headers.CWT_CLAIMS: late}, by)) == "validity"


def test_a_key_that_may_not_sign_is_refused() -> None:
    assert code_of(changed({}, authority(key_usage=usage(key_agreement=True)))) == "chain"


def test_weak_and_unusual_keys_are_refused() -> None:
    assert code_of(changed({headers.ALG: -37}, authority(rsa_key(1024)))) == "alg"
    with pytest.raises(CoseError, match="kind"):
        algorithms.accept_key(ed25519.Ed25519PrivateKey.generate().public_key())
    with pytest.raises(CoseError, match="kind"):
        algorithms.accept_key(ec.generate_private_key(ec.SECP256K1()).public_key())


def test_an_unusual_curve_is_accepted_only_where_the_reader_says_so() -> None:
    by = authority(ec.generate_private_key(ec.SECP256R1()))
    document = Document(PAYLOAD, did.derive(by.signer.chain, f"eku:{EKU}"), FEED, "text/plain")
    data = sign(document, by.signer, BY_NAME["ES384"])
    assert code_of(data) == "alg"
    assert isinstance(verify(data, any_curve=True), Signed)


def test_a_signer_needs_its_own_key() -> None:
    with pytest.raises(CoseError) as refusal:
        Signer.from_pem(authority().leaf.key_pem, shared_authority().chain_pem)
    assert refusal.value.code == "usage"


def test_a_detached_payload_must_come_from_elsewhere() -> None:
    found = sign1.parse(changed({}))
    with pytest.raises(CoseError, match="payload of its own"):
        found.to_be_signed(detached=b"x")
    detached = sign1.parse(outer(found.protected, {}, None, found.signature))
    assert detached.to_be_signed(detached=PAYLOAD) == found.to_be_signed()
    with pytest.raises(CoseError, match="missing"):
        detached.to_be_signed()
