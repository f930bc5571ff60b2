# SPDX-License-Identifier: Apache-2.0
"""Certificates by themselves: reading and writing them, completing a chain, what each of the three must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from parma_snp import certificates, oids
from parma_snp.anchors import AMD, bundled, emulated_root, fingerprint, other_roots
from parma_snp.certificates import (
    MAX_CERTIFICATE_SIZE,
    MAX_CRL_SIZE,
    CertificateChain,
    check_revocation,
    complete_chain,
    load_root,
    verify_chain,
)
from parma_snp.codes import CODES
from parma_snp.endorsement import load_ledger_key
from parma_snp.errors import SnpError
from parma_snp.report import GENOA, MILAN, PRODUCTS, TURIN, Product
from tests.snp.amd import BEGIN, CHIP_ID, END, NOW, PSS, Amd, serial
from tests.snp.conftest import Emulated

every_product = pytest.mark.parametrize("product", PRODUCTS)
GARBAGE = b"\x30\x03\x02\x01\x01"


def refused(read: Callable[[], object], code: str, match: str | None = None) -> SnpError:
    with pytest.raises(SnpError, match=match) as caught:
        read()
    assert caught.value.code == code
    return caught.value


def pem(*ders: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


@every_product
@pytest.mark.parametrize("role", ["VCEK", "VLEK"])
def test_what_a_key_of_amds_lacks_comes_with_this_package(amd: Amd, product: Product, role: str) -> None:
    chain = amd.chain(product, role)
    authority, root = bundled("ask" if role == "VCEK" else "asvk", product), bundled("ark", product)
    assert complete_chain(chain.leaf) == CertificateChain(chain.leaf, authority, root)
    assert complete_chain(chain.leaf, b"given") == CertificateChain(chain.leaf, b"given", root)
    assert complete_chain(chain.leaf, None, b"given") == CertificateChain(chain.leaf, authority, b"given")
    assert complete_chain(b"anything", b"given", b"too") == CertificateChain(b"anything", b"given", b"too")
    assert CertificateChain.from_pem(pem(chain.leaf)) == complete_chain(chain.leaf)


@every_product
def test_the_roots_in_this_package_are_the_pinned_ones(product: Product) -> None:
    assert AMD.product(bundled("ark", product)) == product
    assert not AMD.emulated
    assert AMD.product(bundled("ask", product)) is None


def test_nothing_completes_the_chain_of_somebody_elses_key(amd: Amd) -> None:
    leaf = amd.leaf(MILAN, "VCEK", "SEV-Venice", {})
    error = refused(lambda: complete_chain(leaf), "cert.chain_signature", "issuer is not AMD's")
    assert error.found == "SEV-Venice"
    refused(lambda: complete_chain(GARBAGE), "cert.parse", "the VCEK or VLEK is not a certificate")


def test_a_chain_is_written_and_read_as_pem(amd: Amd) -> None:
    chain = amd.chain(GENOA)
    assert CertificateChain.from_pem(chain.to_pem().encode()) == chain
    assert chain.to_pem().encode() == pem(chain.leaf, chain.intermediate, chain.root)
    two = pem(chain.leaf, chain.intermediate)
    error = refused(lambda: CertificateChain.from_pem(two), "cert.parse", "incomplete chain")
    assert (error.expected, error.found) == ("3 certificates (leaf, ASK, ARK) or the leaf alone", "2")
    refused(lambda: CertificateChain.from_pem(pem(*[chain.leaf] * 4)), "cert.parse", "incomplete chain")
    refused(lambda: CertificateChain.from_pem(b"garbage"), "cert.parse", "not a PEM certificate chain")
    refused(lambda: replace(chain, root=GARBAGE).to_pem(), "cert.parse", "a certificate is not a certificate")


def test_a_root_is_read_from_pem_or_der(amd: Amd) -> None:
    root = amd.chain(MILAN).root
    assert load_root(root) == load_root(pem(root)) == load_root(b"a comment\n" + pem(root)) == root
    refused(lambda: load_root(b"-----BEGIN CERTIFICATE-----\nx\n"), "cert.parse", "not a PEM certificate")
    refused(lambda: load_root(GARBAGE), "cert.parse", "the root is not a certificate")
    refused(lambda: load_root(root + b"\0"), "cert.parse", "the root is not a certificate")


def test_sizes_are_limited_before_anything_is_parsed(amd: Amd) -> None:
    at_most = bytes(MAX_CERTIFICATE_SIZE)
    refused(lambda: load_root(at_most), "cert.parse", "the root is not a certificate")
    error = refused(lambda: load_root(at_most + b"\0"), "cert.parse", "the root is too large")
    assert error.expected == "at most 16384 bytes"
    chain = amd.chain(MILAN)
    listed = replace(chain, crl=bytes(MAX_CRL_SIZE))
    refused(lambda: check_revocation(listed, NOW, "require"), "cert.parse", "not a CRL")
    listed = replace(chain, crl=bytes(MAX_CRL_SIZE + 1))
    error = refused(lambda: check_revocation(listed, NOW, "require"), "cert.parse", "the CRL is too large")
    assert error.expected == "at most 1048576 bytes"


def test_a_signature_with_unused_bits_is_not_der(amd: Amd) -> None:
    # Every other signature ends with a bit that is zero. That one, said to be unused, is good DER to parsers.
    root = next(der for der in iter(lambda: authority(amd, "ARK-Milan", "ARK-Milan"), b"") if not der[-1] & 1)
    place = len(root) - 512 - 1
    assert root[place] == 0  # the number of unused bits in the BIT STRING that ends the certificate
    changed = root[:place] + b"\1" + root[place + 1 :]
    assert load_root(root) == root
    refused(lambda: load_root(changed), "cert.parse", "the root is not DER: its signature has unused bits")


# -- what each of the three must be ----------------------------------------------------------------------------------


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def authority(amd: Amd, common: str, issuer: str, **changes: Any) -> bytes:
    """An authority that is signed by ``amd`` and differs from a good one in ``changes``."""
    key = changes.get("key", amd.key)
    builder = x509.CertificateBuilder(name(issuer), name(common), key.public_key(), serial(common), BEGIN, END)
    usage = {"key_cert_sign": changes.get("signs", True), "crl_sign": True, "encipher_only": False}
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(changes.get("ca", True), None), True),
        (x509.KeyUsage(*(False,) * 5, **usage, decipher_only=False), True),
        *changes.get("extensions", ()),
    ]
    for extension, critical in extensions:
        if type(extension) is not changes.get("without"):
            builder = builder.add_extension(extension, critical)
    digest, options = changes.get("digest", hashes.SHA384()), {"rsa_padding": changes.get("padding", PSS)}
    return builder.sign(amd.key, digest, **options).public_bytes(Encoding.DER)


def verified(amd: Amd, chain: CertificateChain, product: Product = MILAN) -> Any:
    return verify_chain(chain, other_roots({product: chain.root}), NOW)


def intermediate(amd: Amd, **changes: Any) -> CertificateChain:
    changed = authority(amd, "SEV-Milan", "ARK-Milan", **changes)
    return replace(amd.chain(MILAN), intermediate=changed)


@every_product
@pytest.mark.parametrize("role", ["VCEK", "VLEK"])
def test_a_good_chain_says_whose_key_it_is(amd: Amd, product: Product, role: str) -> None:
    key = verified(amd, amd.chain(product, role), product)
    assert (key.role, key.product, key.emulated) == (role, product, False)
    assert key.public_key.public_numbers() == amd.chip.public_key().public_numbers()
    assert key.extensions.chip_id == (CHIP_ID[product].ljust(64, b"\0") if role == "VCEK" else None)
    assert key.extensions.csp_id == (None if role == "VCEK" else "CN=cloud")


@pytest.mark.parametrize(
    ("changes", "code", "match"),
    [
        ({"ca": False}, "cert.role", "the ASK or ASVK may not issue certificates"),
        ({"signs": False}, "cert.role", "the ASK or ASVK may not issue certificates"),
        ({"without": x509.BasicConstraints}, "cert.role", "the ASK or ASVK may not issue certificates"),
        ({"without": x509.KeyUsage}, "cert.role", "the ASK or ASVK may not issue certificates"),
        ({"digest": hashes.SHA256()}, "cert.chain_signature", "the signature of the ASK or ASVK"),
        ({"padding": padding.PKCS1v15()}, "cert.chain_signature", "the ASK or ASVK is signed with another algorithm"),
        (
            {"extensions": [(x509.InhibitAnyPolicy(0), True)]},
            "cert.extensions",
            "the ASK or ASVK has an unknown critical extension",
        ),
    ],
    ids=str,
)
def test_an_intermediate_that_is_none_is_refused(amd: Amd, changes: dict[str, Any], code: str, match: str) -> None:
    assert verified(amd, intermediate(amd)).role == "VCEK"
    refused(lambda: verified(amd, intermediate(amd, **changes)), code, match)


def test_an_extension_that_is_not_critical_may_be_unknown(amd: Amd) -> None:
    assert verified(amd, intermediate(amd, extensions=[(x509.InhibitAnyPolicy(0), False)])).role == "VCEK"


def test_an_unknown_extension_says_nothing_of_emulation(amd: Amd) -> None:
    chain = intermediate(amd, extensions=[(x509.InhibitAnyPolicy(0), True)])
    error = refused(lambda: verified(amd, chain), "cert.extensions")
    assert (error.found, error.hint) == ("2.5.29.54", CODES["cert.extensions"].do)


def check_marker(amd: Amd, value: bytes, *, critical: bool) -> None:
    marker = x509.UnrecognizedExtension(x509.ObjectIdentifier(oids.EMULATION_MARKER), value)
    root = authority(amd, "ARK-Milan", "ARK-Milan", extensions=[(marker, critical)])
    certificates._check_extensions(x509.load_der_x509_certificate(root), "the ARK", emulated=True)


def test_the_marker_of_emulation_is_critical_and_has_its_value(amd: Amd) -> None:
    value = oids.EMULATION_MARKER_VALUE
    check_marker(amd, value, critical=True)
    for other, critical in ((value, False), (value + b"\0", True), (b"", True)):
        refused(
            partial(check_marker, amd, other, critical=critical),
            "emulated.marker",
            "the ARK does not carry the critical emulation marker",
        )


def test_authorities_have_rsa_keys_of_4096_bits(amd: Amd) -> None:
    small = rsa.generate_private_key(65537, 2048)
    leaf = amd.chain(MILAN).leaf
    chain = intermediate(amd, key=small)
    # The leaf is not signed by that key, so it is refused for that before its size is looked at.
    refused(lambda: verified(amd, chain), "cert.chain_signature", "the signature of the VCEK or VLEK")
    certificate = x509.load_der_x509_certificate(chain.intermediate)
    refused(lambda: certificates._check_authority(certificate, "the ASK"), "cert.role", "no RSA key of 4096 bits")
    curve = ec.generate_private_key(ec.SECP384R1())
    chain = replace(intermediate(amd, key=curve), leaf=leaf)
    refused(lambda: verified(amd, chain), "cert.role", "the issuer of the VCEK or VLEK has no RSA key")


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()], ids=["P-256", "Ed25519"]
)
def test_a_leaf_has_a_key_of_p384(amd: Amd, key: Any) -> None:
    other = replace(amd, chip=key, _issued={})
    refused(lambda: verified(amd, other.chain(MILAN)), "cert.role", "has no P-384 key")


def test_each_names_the_next_as_its_issuer(amd: Amd) -> None:
    chain = amd.chain(MILAN)
    stranger = replace(chain, leaf=amd.leaf(MILAN, "VCEK", "SEV-Genoa", {}))
    error = refused(lambda: verified(amd, stranger), "cert.chain_signature", "the VCEK or VLEK names another issuer")
    assert (error.expected, error.found) == ("CN=SEV-Milan", "CN=SEV-Genoa")
    refused(
        lambda: verified(amd, replace(chain, intermediate=amd.authority("SEV-Milan", "ARK-Genoa"))),
        "cert.chain_signature",
        "the ASK or ASVK names another issuer",
    )
    root = amd.authority("ARK-Milan", "ARK-Genoa")
    refused(lambda: verified(amd, replace(chain, root=root)), "cert.chain_signature", "the ARK names another issuer")


def test_names_say_one_thing(amd: Amd) -> None:
    neither = replace(
        amd.chain(MILAN),
        leaf=amd.leaf(MILAN, "VCEK", "SEV-Venice", {}),
        intermediate=amd.authority("SEV-Venice", "ARK-Milan"),
    )
    error = refused(lambda: verified(amd, neither), "cert.role", "neither an ASK nor an ASVK")
    assert error.found == "SEV-Venice"
    mixed = replace(amd.chain(MILAN), intermediate=amd.authority("SEV-Milan", "ARK-Genoa"), root=amd.chain(GENOA).root)
    error = refused(lambda: verified(amd, mixed), "cert.product", "root and intermediate are of different products")
    assert error.found == "ARK-Genoa"
    error = refused(lambda: verified(amd, amd.chain(MILAN), TURIN), "cert.product", "the names are of another product")
    assert (error.expected, error.found) == ("Turin", "Milan")


def test_a_root_that_is_not_trusted_is_named_with_its_digest(amd: Amd, emulated: Emulated) -> None:
    chain = amd.chain(MILAN)
    error = refused(lambda: verify_chain(chain, AMD, NOW), "cert.root_untrusted", r"the root \(ARK-Milan\)")
    assert (error.found, error.hint) == (f"sha256 {fingerprint(chain.root)}", "names prove nothing")
    error = refused(lambda: verify_chain(emulated.chain, AMD, NOW), "cert.root_untrusted")
    assert error.hint.startswith("this is evidence of an emulated processor")


def test_a_chain_of_an_emulated_processor_is_marked_throughout(amd: Amd, emulated: Emulated) -> None:
    key = verify_chain(emulated.chain, emulated_root(emulated.root), NOW)
    assert (key.role, key.emulated) == ("VCEK", True)
    # As if it were a real one's: the marker is critical, so whoever does not know it must refuse.
    real = other_roots({MILAN: emulated.root})
    error = refused(lambda: verify_chain(emulated.chain, real, NOW), "cert.extensions", "unknown critical extension")
    assert error.hint.startswith("this is evidence of an emulated processor")
    refused(
        lambda: verify_chain(amd.chain(MILAN), emulated_root(amd.chain(MILAN).root), NOW),
        "emulated.marker",
        "does not carry the critical emulation marker",
    )


def test_each_of_the_three_must_be_valid_now(amd: Amd) -> None:
    chain, roots = amd.chain(MILAN), other_roots({MILAN: amd.chain(MILAN).root})
    for now in (BEGIN, END):
        assert verify_chain(chain, roots, now).role == "VCEK"
    late, early = END + timedelta(seconds=1), BEGIN - timedelta(seconds=1)
    error = refused(lambda: verify_chain(chain, roots, late), "cert.validity", "the VCEK or VLEK is not valid")
    assert (error.expected, error.found) == (f"{BEGIN.isoformat()} to {END.isoformat()}", late.isoformat())
    assert error.hint == "fetch a new certificate"
    assert refused(lambda: verify_chain(chain, roots, early), "cert.validity").hint == "check the clock"


# -- revocation ------------------------------------------------------------------------------------------------------


def test_whether_a_list_is_consulted_is_said(amd: Amd) -> None:
    with_list, without = amd.chain(MILAN, crl=amd.crl(MILAN)), amd.chain(MILAN)
    assert check_revocation(with_list, NOW, "require")
    assert check_revocation(with_list, NOW, "use-if-present")
    assert not check_revocation(with_list, NOW, "off")
    assert not check_revocation(without, NOW, "off")
    assert not check_revocation(without, NOW, "use-if-present")
    refused(lambda: check_revocation(without, NOW, "require"), "cert.crl_missing")


def test_a_list_counts_between_its_two_dates(amd: Amd) -> None:
    chain = amd.chain(MILAN, crl=amd.crl(MILAN))
    for now in (BEGIN, END):
        assert check_revocation(chain, now, "require")
    for now in (BEGIN - timedelta(seconds=1), END + timedelta(seconds=1)):
        error = refused(partial(check_revocation, chain, now, "require"), "cert.crl_stale")
        assert (error.expected, error.found) == (f"{BEGIN.isoformat()} to {END.isoformat()}", now.isoformat())


def without_its_end(amd: Amd, crl: bytes) -> bytes:
    """The list without the date until which it holds, signed again: no library makes such a one."""
    told = x509.load_der_x509_crl(crl).tbs_certlist_bytes
    end = b"\x17\x0d" + END.strftime("%y%m%d%H%M%SZ").encode()
    assert end in told
    algorithm = crl[crl.index(told) + len(told) : -(5 + 512)]  # before a BIT STRING of 4096 bits
    tbs = sequence(content_of(told).replace(end, b""))
    signature = amd.key.sign(tbs, PSS, hashes.SHA384())
    return sequence(tbs + algorithm + b"\x03\x82\x02\x01\0" + signature)


def content_of(sequence: bytes) -> bytes:
    return sequence[2 + (sequence[1] & 0x7F if sequence[1] & 0x80 else 0) :]


def sequence(content: bytes) -> bytes:
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return b"\x30" + (bytes((0x80 | len(size),)) if len(content) > 0x7F else b"") + size + content


def test_a_list_without_an_end_is_never_current(amd: Amd) -> None:
    endless = without_its_end(amd, amd.crl(MILAN))
    assert x509.load_der_x509_crl(endless).next_update_utc is None
    error = refused(lambda: check_revocation(amd.chain(MILAN, crl=endless), NOW, "require"), "cert.crl_stale")
    assert error.expected == f"{BEGIN.isoformat()} to None"


def test_root_and_intermediate_may_be_revoked_and_a_list_is_of_the_root(amd: Amd) -> None:
    for revoked in ("SEV-Milan", "ARK-Milan"):
        chain = amd.chain(MILAN, crl=amd.crl(MILAN, revoked))
        refused(partial(check_revocation, chain, NOW, "require"), "cert.revoked", f"{revoked} is revoked")
    other = amd.chain(MILAN, crl=amd.crl(GENOA))
    refused(lambda: check_revocation(other, NOW, "require"), "cert.crl_signature")


# -- ledgers ---------------------------------------------------------------------------------------------------------


def test_a_ledgers_key_is_read_from_pem_or_der() -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert load_ledger_key(encoded) == load_ledger_key(text) == load_ledger_key(b"\n " + text) == encoded
    for garbage in (b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nx\n", encoded[:-1]):
        with pytest.raises(SnpError, match="not a public key") as caught:
            load_ledger_key(garbage)
        assert caught.value.code == "usage"
