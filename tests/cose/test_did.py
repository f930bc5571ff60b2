# SPDX-License-Identifier: Apache-2.0
"""did:x509: its grammar, and what of a chain it holds for."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from parma_cose import did
from parma_cose.chain import Chain, verify_chain
from parma_cose.did import DidX509
from parma_cose.errors import CoseError
from tests.cose.chains import EKU, certify, name, shared_authority, usage

FULCIO = "1.3.6.1.4.1.57264.1.1"
ROOT = certify("Root", ca=True)


def chain_of(*extensions: x509.ExtensionType, subject: x509.Name | None = None) -> Chain:
    leaf = certify(subject or name((NameOID.COMMON_NAME, "Leaf")), ROOT, extensions=[(e, False) for e in extensions])
    return verify_chain([leaf.der, ROOT.der])


def did_of(chain: Chain, *predicates: str, algorithm: str = "sha256") -> str:
    print_ = did.fingerprint(chain.authorities[-1], algorithm)
    return "::".join([f"did:x509:0:{algorithm}:{print_}", *predicates])


def holds(text: str, chain: Chain) -> bool:
    try:
        DidX509.parse(text).check(chain)
    except CoseError as error:
        assert error.code in ("issuer", "format")  # noqa: PT017
        return False
    return True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:x509:0",
        "did:x509:0:sha256",
        "did:x509:0:sha256:AAAA",
        "did:x509:1:sha256:AAAA::eku:1.2",
        "did:x509:00:sha256:AAAA::eku:1.2",
        "DID:x509:0:sha256:AAAA::eku:1.2",
        "did:x509:0:sha1:AAAA::eku:1.2",
        "did:x509:0:SHA256:AAAA::eku:1.2",
        "did:x509:0:sha256:::eku:1.2",
        "did:x509:0:sha256:AA=:x::eku:1.2",
        "did:x509:0:sha256:AA+/::eku:1.2",
        "did:x509:0:sha256:AAAA::",
        "did:x509:0:sha256:AAAA::eku",
        "did:x509:0:sha256:AAAA::eku:",
        "did:x509:0:sha256:AAAA::eku:1.2:3",
        "did:x509:0:sha256:AAAA::eku:1..2",
        "did:x509:0:sha256:AAAA::eku:x",
        "did:x509:0:sha256:AAAA::other:1.2",
        "did:x509:0:sha256:AAAA::eku:1.2::",
        "did:x509:0:sha256:AAAA::eku:1.2::other:x",
        "did:x509:0:sha256:AAAA::subject:CN",
        "did:x509:0:sha256:AAAA::subject:CN:",
        "did:x509:0:sha256:AAAA::subject:cn:x",
        "did:x509:0:sha256:AAAA::subject:CN:x:CN:y",
        "did:x509:0:sha256:AAAA::subject:CN:x:O",
        "did:x509:0:sha256:AAAA::subject:CN:a b",
        "did:x509:0:sha256:AAAA::subject:CN:a+b",
        "did:x509:0:sha256:AAAA::subject:CN:%",
        "did:x509:0:sha256:AAAA::subject:CN:%zz",
        "did:x509:0:sha256:AAAA::subject:CN:%ff",
        "did:x509:0:sha256:AAAA::subject:CN:ä",
        "did:x509:0:sha256:AAAA::san:dn:x",
        "did:x509:0:sha256:AAAA::san:dns",
        "did:x509:0:sha256:AAAA::san:dns:a:b",
        "did:x509:0:sha256:AAAA::fulcio-issuer:a:b",
        "did:x509:0:sha256:AAAA::eku:1.2/path",
        "did:x509:0:sha256:AAAA::eku:1.2?query",
        "did:x509:0:sha256:AAAA::eku:1.2#0",
        "did:x509:0:sha256:AAAA::eku:1.2\n",
        "did:x509:0:sha256:AAAA::subject:CN:" + "x" * 5000,
    ],
)
def test_what_is_no_did_is_refused(text: str) -> None:
    with pytest.raises(CoseError) as refusal:
        DidX509.parse(text)
    assert refusal.value.code == "issuer"


@given(st.text(max_size=60))
def test_any_text_is_a_did_or_refused(text: str) -> None:
    for candidate in (text, f"did:x509:0:sha256:AAAA::{text}"):
        try:
            assert DidX509.parse(candidate).predicates
        except CoseError as error:
            assert error.code == "issuer"  # noqa: PT017


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()))
def test_every_value_can_be_named(value: str) -> None:
    encoded = did.percent_encode(value)
    parsed = DidX509.parse(f"did:x509:0:sha256:AAAA::san:uri:{encoded}")
    assert parsed.predicates[0].values == ("uri", value)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_fingerprint_of_any_authority_counts_and_the_leafs_does_not(algorithm: str) -> None:
    chain = verify_chain(shared_authority().ders)
    for authority in chain.authorities:
        assert holds(f"did:x509:0:{algorithm}:{did.fingerprint(authority, algorithm)}::eku:{EKU}", chain)
    assert not holds(f"did:x509:0:{algorithm}:{did.fingerprint(chain.leaf, algorithm)}::eku:{EKU}", chain)
    assert not holds(f"did:x509:0:{algorithm}:{did.fingerprint(ROOT.certificate, algorithm)}::eku:{EKU}", chain)
    assert not holds(f"did:x509:0:sha256:{did.fingerprint(chain.authorities[0], 'sha384')}::eku:{EKU}", chain)


def test_every_predicate_must_hold() -> None:
    subject = name(
        (NameOID.COMMON_NAME, "Ünï 1"), (NameOID.ORGANIZATION_NAME, "Org: A"), (ObjectIdentifier("1.2.3.4"), "x")
    )
    names = x509.SubjectAlternativeName(
        [x509.DNSName("a.example"), x509.RFC822Name("a@b.example"), x509.UniformResourceIdentifier("https://u/")]
    )
    fulcio = x509.UnrecognizedExtension(ObjectIdentifier(FULCIO), b"https://issuer.example/a")
    purposes = x509.ExtendedKeyUsage([ObjectIdentifier("1.2.3"), ObjectIdentifier("1.2.4")])
    chain = chain_of(names, fulcio, purposes, subject=subject)
    right = [
        "eku:1.2.3",
        "eku:1.2.4",
        "subject:CN:%C3%9Cn%C3%AF%201",
        "subject:O:Org%3A%20A:CN:%C3%9Cn%C3%AF%201",
        "subject:1.2.3.4:x",
        "san:dns:a.example",
        "san:email:a%40b.example",
        "san:uri:https%3A%2F%2Fu%2F",
        "fulcio-issuer:issuer.example%2Fa",
    ]
    wrong = [
        "eku:1.2",
        "subject:CN:x",
        "subject:L:x",
        "subject:CN:%C3%9Cn%C3%AF%201:O:x",
        "san:dns:example",
        "san:uri:a.example",
        "fulcio-issuer:issuer.example",
    ]
    assert holds(did_of(chain, *right), chain)
    for predicate in right:
        assert holds(did_of(chain, predicate), chain)
    for predicate in wrong:
        assert not holds(did_of(chain, predicate), chain)
        assert not holds(did_of(chain, *right, predicate), chain)


def test_absent_extensions_satisfy_nothing() -> None:
    chain = chain_of()
    for predicate in ("eku:1.2.3", "san:dns:a.example", "fulcio-issuer:x"):
        assert not holds(did_of(chain, predicate), chain)


def test_names_that_cannot_be_compared_are_refused() -> None:
    twice = name((NameOID.COMMON_NAME, "Leaf"), (NameOID.COMMON_NAME, "Other"))
    strange = x509.SubjectAlternativeName([x509.RegisteredID(ObjectIdentifier("1.2.3"))])
    not_text = x509.UnrecognizedExtension(ObjectIdentifier(FULCIO), b"\xff")
    inner = x509.SubjectAlternativeName([x509.DirectoryName(twice)])
    for chain in (chain_of(subject=twice), chain_of(strange), chain_of(not_text), chain_of(inner)):
        assert not holds(did_of(chain, "subject:CN:Leaf"), chain)


def test_dids_are_derived_from_chains() -> None:
    chain = verify_chain(shared_authority().ders)
    assert did.derive(chain, "subject:CN") == did_of(chain, "subject:CN:Signer")
    assert did.derive(chain, f"eku:{EKU}") == did_of(chain, f"eku:{EKU}")
    intermediate = did.fingerprint(chain.authorities[0])
    assert did.derive(chain, f"eku:{EKU}", authority=0) == f"did:x509:0:sha256:{intermediate}::eku:{EKU}"
    for predicate in ("eku:1.2.3", "subject:O", "subject:CN:Other", "nonsense", ""):
        with pytest.raises(CoseError) as refusal:
            did.derive(chain, predicate)
        assert refusal.value.code == "usage"


def test_a_fragment_is_not_part_of_the_did() -> None:
    chain = verify_chain(shared_authority().ders)
    text = did_of(chain, f"eku:{EKU}")
    assert did.resolve(f"{text}#0", chain)["id"] == text
    with pytest.raises(CoseError):
        did.resolve(f"{text}?x#0", chain)


def test_key_usage_decides_what_the_document_offers() -> None:
    for bits, members in (
        ({"digital_signature": True}, {"authentication", "assertionMethod"}),
        ({"key_agreement": True}, {"keyAgreement"}),
    ):
        leaf = certify("Leaf", ROOT, key_usage=usage(**bits))
        chain = verify_chain([leaf.der, ROOT.der])
        document = did.resolve(did_of(chain, "subject:CN:Leaf"), chain)
        assert document.keys() - {"@context", "id", "verificationMethod"} == members
    leaf = certify("Leaf", ROOT, key_usage=usage(content_commitment=True))
    chain = verify_chain([leaf.der, ROOT.der])
    with pytest.raises(CoseError):
        did.resolve(did_of(chain, "subject:CN:Leaf"), chain)
