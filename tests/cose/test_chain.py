# SPDX-License-Identifier: Apache-2.0
"""Certificate chains: order, authority, path length, critical extensions, name constraints, policies, time."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID, ObjectIdentifier

from parma_cose import certificates
from parma_cose.chain import verify_chain
from parma_cose.errors import CoseError
from tests.cose.chains import (
    BEGIN,
    END,
    NOW,
    Certified,
    authority,
    certify,
    common_name,
    name,
    rsa_key,
    shared_authority,
    usage,
)

POLICY, OTHER_POLICY, ANY_POLICY = (ObjectIdentifier(oid) for oid in ("1.2.3.4", "1.2.3.5", "2.5.29.32.0"))


def code_of(chain: Sequence[Certified | bytes], **options: Any) -> str:
    with pytest.raises(CoseError) as refusal:
        verify_chain([part if isinstance(part, bytes) else part.der for part in chain], **options)
    return refusal.value.code


def accepted(*chain: Certified) -> bool:
    return len(verify_chain([part.der for part in chain]).certificates) == len(chain)


def test_a_chain_leads_from_the_leaf_to_the_root() -> None:
    chain = verify_chain(shared_authority().ders, NOW)
    assert chain.leaf == shared_authority().leaf.certificate
    assert [part.subject.rfc4514_string() for part in chain.authorities] == ["CN=Intermediate", "CN=Root"]


def test_it_may_end_at_an_authority_that_is_no_root() -> None:
    assert accepted(shared_authority().leaf, shared_authority().intermediate)


@pytest.mark.parametrize(
    "order", [(), (0,), (2, 1, 0), (1, 0, 2), (0, 2, 1), (0, 2), (0, 1, 1, 2), (0, 1, 2, 2), (0, 0, 1, 2)]
)
def test_another_order_is_refused(order: tuple[int, ...]) -> None:
    ders = shared_authority().ders
    assert code_of([ders[index] for index in order]) == "chain"


def test_a_signature_that_is_changed_is_refused() -> None:
    leaf = bytearray(shared_authority().leaf.der)
    leaf[-1] ^= 1
    assert code_of([bytes(leaf), *shared_authority().ders[1:]]) in ("chain", "format")


def test_an_authority_of_the_same_name_and_another_key_is_refused() -> None:
    assert code_of([shared_authority().leaf, *authority().ders[1:]]) == "chain"


def test_a_root_whose_own_signature_is_wrong_is_refused() -> None:
    root = bytearray(shared_authority().root.der)
    root[-1] ^= 1
    assert code_of([*shared_authority().ders[:2], bytes(root)]) in ("chain", "format")


@pytest.mark.parametrize(
    "options", [{"ca": False}, {"constraints": False}, {"key_usage": usage(digital_signature=True)}]
)
def test_who_may_not_issue_certificates_does_not(options: dict[str, Any]) -> None:
    root = certify("Root", ca=True)
    intermediate = certify("Intermediate", root, **{"ca": True, **options})
    assert code_of([certify("Leaf", intermediate), intermediate, root]) == "chain"


def test_path_lengths_hold() -> None:
    root = certify("Root", ca=True, path_length=1)
    one = certify("One", root, ca=True)
    two = certify("Two", one, ca=True)
    assert accepted(certify("Leaf", one), one, root)
    assert code_of([certify("Leaf", two), two, one, root]) == "chain"


def test_a_self_issued_authority_does_not_count_for_the_path_length() -> None:
    root = certify("Root", ca=True, path_length=1)
    one = certify("One", root, ca=True)
    renewed = certify("One", one, ca=True)
    assert accepted(certify("Leaf", renewed), renewed, one, root)


def test_unknown_critical_extensions_are_refused() -> None:
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\0")
    root = certify("Root", ca=True)
    assert accepted(certify("Leaf", root, extensions=[(unknown, False)]), root)
    assert code_of([certify("Leaf", root, extensions=[(unknown, True)]), root]) == "chain"
    marked = certify("Root", ca=True, extensions=[(unknown, True)])
    assert code_of([certify("Leaf", marked), marked]) == "chain"


def test_every_certificate_must_be_valid_at_the_moment() -> None:
    root = certify("Root", ca=True, end=NOW)
    chain = [certify("Leaf", root), root]
    ders = [part.der for part in chain]
    for moment in (BEGIN, NOW):
        assert verify_chain(ders, moment)
    for moment in (BEGIN - timedelta(seconds=1), NOW + timedelta(seconds=1), END):
        assert code_of(chain, at=moment) == "validity"


def test_weak_keys_and_hashes_do_not_certify() -> None:
    weak = certify("Root", ca=True, key=rsa_key(1024))
    assert code_of([certify("Leaf", weak), weak]) == "alg"
    root = certify("Root", ca=True)
    old = certify("Leaf", root, hash_algorithm=hashes.SHA224())
    assert code_of([old, root]) == "chain"


def test_edwards_keys_may_certify() -> None:
    key: Any = ed25519.Ed25519PrivateKey.generate()
    builder = (
        x509.CertificateBuilder()
        .subject_name(common_name("Root"))
        .issuer_name(common_name("Root"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
    )
    root = Certified(key, builder.sign(key, None))
    leaf = (
        x509.CertificateBuilder()
        .subject_name(common_name("Leaf"))
        .issuer_name(common_name("Root"))
        .public_key(shared_authority().leaf.key.public_key())
        .serial_number(2)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .sign(key, None)
    )
    assert accepted(Certified(key, leaf), root)


@pytest.mark.parametrize("data", [b"", b"x", shared_authority().leaf.der[:-1], shared_authority().leaf.der + b"\0"])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    assert code_of([data, shared_authority().root]) == "format"


def test_pem_files_are_read_and_written() -> None:
    text = certificates.to_pem(shared_authority().ders)
    assert certificates.load_pem(text.encode()) == shared_authority().ders
    with pytest.raises(CoseError):
        certificates.load_pem(b"no certificates here")


# Names


def constrained(*, permitted: Any = None, excluded: Any = None) -> Certified:
    return certify("Root", ca=True, extensions=[(x509.NameConstraints(permitted, excluded), True)])


def named(issuer: Certified, *names: x509.GeneralName, subject: x509.Name | None = None) -> list[Certified]:
    extensions = [(x509.SubjectAlternativeName(names), False)] if names else []
    return [certify(subject or x509.Name([]), issuer, extensions=extensions), issuer]


DNS, MAIL, URI, ADDRESS = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier, x509.IPAddress


@pytest.mark.parametrize(
    ("tree", "inside", "outside"),
    [
        (DNS("example.com"), [DNS("example.com"), DNS("a.EXAMPLE.com")], [DNS("badexample.com"), DNS("example.org")]),
        (DNS(".example.com"), [DNS("a.example.com")], [DNS("example.com")]),
        (DNS(""), [DNS("anything.example")], []),
        (MAIL("example.com"), [MAIL("a@example.com")], [MAIL("a@sub.example.com"), MAIL("a@example.org")]),
        (MAIL(".example.com"), [MAIL("a@sub.example.com")], [MAIL("a@example.com")]),
        (MAIL("a@example.com"), [MAIL("a@EXAMPLE.com")], [MAIL("A@example.com"), MAIL("b@example.com")]),
        (
            URI("example.com"),
            [URI("https://example.com/x")],
            [URI("https://a.example.com/"), URI("https://example.com.evil/")],
        ),
        (URI(".example.com"), [URI("https://u@a.example.com:8443/x?y#z")], [URI("https://example.com/")]),
        (
            URI("example.com"),
            [],
            [URI("https://evil@other.org/@example.com"), URI("urn:example.com"), URI("https://[::1]/")],
        ),
        (
            ADDRESS(ipaddress.ip_network("10.0.0.0/8")),
            [ADDRESS(ipaddress.ip_address("10.1.2.3"))],
            [ADDRESS(ipaddress.ip_address("11.0.0.1")), ADDRESS(ipaddress.ip_address("::1"))],
        ),
    ],
    ids=str,
)
def test_names_keep_to_subtrees(tree: Any, inside: list[Any], outside: list[Any]) -> None:
    permitting, excluding = constrained(permitted=[tree]), constrained(excluded=[tree])
    for item in inside:
        assert accepted(*named(permitting, item))
        assert code_of(named(excluding, item)) == "chain"
    for item in outside:
        assert code_of(named(permitting, item)) == "chain"


def test_names_of_other_kinds_are_not_constrained() -> None:
    assert accepted(*named(constrained(permitted=[DNS("example.com")]), MAIL("a@example.org")))


def test_directory_names_are_compared_from_the_front() -> None:
    base = name((NameOID.ORGANIZATION_NAME, "Example Org"))
    inside = name((NameOID.ORGANIZATION_NAME, "example  org"), (NameOID.COMMON_NAME, "Leaf"))
    outside = name((NameOID.ORGANIZATION_NAME, "Other"), (NameOID.COMMON_NAME, "Leaf"))
    root = constrained(permitted=[x509.DirectoryName(base)])
    assert accepted(*named(root, subject=inside))
    assert code_of(named(root, subject=outside)) == "chain"
    assert code_of(named(root, x509.DirectoryName(outside), subject=inside)) == "chain"


def test_an_address_in_the_subject_counts_where_there_are_no_alternative_names() -> None:
    root = constrained(permitted=[MAIL("example.com")])
    assert accepted(*named(root, subject=name((NameOID.EMAIL_ADDRESS, "a@example.com"))))
    assert code_of(named(root, subject=name((NameOID.EMAIL_ADDRESS, "a@example.org")))) == "chain"


def test_kinds_that_cannot_be_compared_count_as_outside() -> None:
    kind = x509.RegisteredID(ObjectIdentifier("1.2.3"))
    assert code_of(named(constrained(excluded=[kind]), x509.RegisteredID(ObjectIdentifier("1.2.4")))) == "chain"


def test_constraints_of_every_authority_above_count() -> None:
    root = constrained(permitted=[DNS("example.com")])
    intermediate = certify("Intermediate", root, ca=True)
    leaf = certify("Leaf", intermediate, extensions=[(x509.SubjectAlternativeName([DNS("example.org")]), False)])
    assert code_of([leaf, intermediate, root]) == "chain"


# Policies


def policies(*oids: ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return x509.CertificatePolicies([x509.PolicyInformation(oid, None) for oid in oids]), False


DEMANDED = (x509.PolicyConstraints(require_explicit_policy=0, inhibit_policy_mapping=None), True)


@pytest.mark.parametrize(
    ("of_authority", "of_leaf", "holds"),
    [
        ((POLICY,), (POLICY,), True),
        ((POLICY, OTHER_POLICY), (OTHER_POLICY,), True),
        ((POLICY,), (OTHER_POLICY,), False),
        ((POLICY,), (), False),
        ((ANY_POLICY,), (POLICY,), True),
        ((POLICY,), (ANY_POLICY,), True),
        ((), (POLICY,), False),
    ],
)
def test_a_demanded_policy_must_hold_for_the_whole_chain(
    of_authority: tuple[ObjectIdentifier, ...], of_leaf: tuple[ObjectIdentifier, ...], *, holds: bool
) -> None:
    root = certify("Root", ca=True)
    above = [policies(*of_authority)] if of_authority else []
    intermediate = certify("Intermediate", root, ca=True, extensions=[DEMANDED, *above])
    leaf = certify("Leaf", intermediate, extensions=[policies(*of_leaf)] if of_leaf else [])
    if holds:
        assert accepted(leaf, intermediate, root)
    else:
        assert code_of([leaf, intermediate, root]) == "chain"


def test_without_a_demand_policies_do_not_matter() -> None:
    root = certify("Root", ca=True)
    intermediate = certify("Intermediate", root, ca=True, extensions=[policies(POLICY)])
    assert accepted(certify("Leaf", intermediate, extensions=[policies(OTHER_POLICY)]), intermediate, root)


def test_an_inhibited_any_policy_is_no_policy() -> None:
    root = certify("Root", ca=True)
    extensions = [DEMANDED, policies(POLICY), (x509.InhibitAnyPolicy(0), True)]
    intermediate = certify("Intermediate", root, ca=True, extensions=extensions)
    assert code_of([certify("Leaf", intermediate, extensions=[policies(ANY_POLICY)]), intermediate, root]) == "chain"


def test_mappings_are_refused_where_a_policy_is_demanded() -> None:
    mapping = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.33"), bytes.fromhex("300c300a06032a030406032a0305"))
    root = certify("Root", ca=True)
    free = certify("Intermediate", root, ca=True, extensions=[(mapping, False)])
    assert accepted(certify("Leaf", free), free, root)
    demanding = certify("Intermediate", root, ca=True, extensions=[(mapping, False), DEMANDED, policies(POLICY)])
    assert code_of([certify("Leaf", demanding, extensions=[policies(POLICY)]), demanding, root]) == "chain"
