# SPDX-License-Identifier: Apache-2.0
"""What a host hands over beside reports: certificate tables, host-amd-cert, ID blocks."""

from __future__ import annotations

import base64
import json
import struct
import uuid
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from parma_snp import certtable, hostcert, idblock
from parma_snp.errors import SnpError
from parma_snp.idblock import Identity
from parma_snp.launch import IdBlock
from parma_snp.report import parse
from tests.snp.conftest import MEASUREMENT, Emulated


def table(*entries: tuple[str, bytes]) -> bytes:
    offset = 24 * (len(entries) + 1)
    header, data = b"", b""
    for guid, content in entries:
        header += struct.pack("<16sII", uuid.UUID(guid).bytes, offset + len(data), len(content))
        data += content
    return header + bytes(24) + data


def test_table_gives_its_entries_in_order() -> None:
    entries = certtable.parse(table((certtable.VCEK, b"key"), (certtable.ASK, b"ask")))
    assert [(entry.name, entry.data) for entry in entries] == [("VCEK", b"key"), ("ASK", b"ask")]


@pytest.mark.parametrize("empty", [b"", bytes(24), bytes(4096)])
def test_table_of_todays_kvm_is_empty(empty: bytes) -> None:
    assert certtable.parse(empty) == ()


@pytest.mark.parametrize(
    "data",
    [
        table((certtable.VCEK, b"")),
        table((certtable.VCEK, b"1"), (certtable.VCEK, b"2")),
        table((certtable.VCEK, b"key"))[:-1],
        b"\1" * 24,
        bytes(20) + b"\1\0\0\0",
        bytes(16) + b"\1" + bytes(7),
        bytes(23),
        bytes(128 * 1024),
    ],
    ids=[
        "empty entry",
        "twice",
        "beyond the end",
        "no end",
        "end with a length",
        "end with an offset",
        "short",
        "huge",
    ],
)
def test_malformed_table_is_refused(data: bytes) -> None:
    with pytest.raises(SnpError) as caught:
        certtable.parse(data)
    assert caught.value.code == "certtable.format"


NAMES = {
    "63da758d-e664-4564-adc5-f4b93be8accd": "VCEK",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "VLEK",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ASK",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ARK",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea": "CRL",
}
"""As AMD's publication 56421 has them."""


def test_entries_have_the_names_that_amd_gives_them() -> None:
    entries = certtable.parse(table(*((guid, name.encode()) for guid, name in NAMES.items())))
    assert [entry.name.encode() for entry in entries] == [entry.data for entry in entries]
    assert [entry.guid for entry in entries] == list(NAMES)


def test_entries_of_others_may_come_again_and_have_any_guid() -> None:
    for other in ("00000000-0000-0000-0000-000000000001", "01000000-0000-0000-0000-000000000000"):
        entries = certtable.parse(table((other, b"1"), (other, b"2")))
        assert [(entry.name, entry.data) for entry in entries] == [(other, b"1"), (other, b"2")]


def test_certificates_begin_behind_the_entries_and_end_within_the_table() -> None:
    def of_one_byte(offset: int) -> bytes:
        return struct.pack("<16sII", uuid.UUID(certtable.VCEK).bytes, offset, 1) + bytes(24) + b"x"

    assert certtable.parse(of_one_byte(48))[0].data == b"x"
    for offset in (0, 24, 47, 49):
        with pytest.raises(SnpError, match="does not lie within") as caught:
            certtable.parse(of_one_byte(offset))
        assert (caught.value.expected, caught.value.found) == ("bytes 48..49", f"{offset}..{offset + 1}")


@given(st.binary(max_size=47))
def test_table_parser_raises_only_the_documented_error(data: bytes) -> None:
    # One entry and the terminator fit, and then there is no room for a certificate.
    with pytest.raises(SnpError) as caught:
        certtable.parse(b"\1" + data)
    assert caught.value.code == "certtable.format"


def test_a_table_may_have_its_greatest_size_and_no_more() -> None:
    most = 64 * 1024
    assert certtable.parse(bytes(most)) == ()
    with pytest.raises(SnpError, match="too large") as caught:
        certtable.parse(bytes(most + 1))
    assert caught.value.expected == "at most 65536 bytes"


def test_chain_of_a_table_needs_a_key(emulated: Emulated) -> None:
    chain = emulated.chain
    parts = ((certtable.ASK, chain.intermediate), (certtable.ARK, chain.root))
    entries = certtable.parse(table((certtable.VCEK, chain.leaf), *parts))
    assert certtable.chain_of(entries) == chain
    with pytest.raises(SnpError) as caught:
        certtable.chain_of(entries[1:])
    assert caught.value.code == "certtable.no_key"
    other = certtable.parse(table((certtable.VLEK, chain.leaf), *parts, (certtable.CRL, b"list")))
    assert certtable.chain_of(other) == replace(chain, crl=b"list")
    with pytest.raises(SnpError) as caught:
        certtable.chain_of((*entries, *other))
    assert (caught.value.code, caught.value.found) == ("certtable.no_key", "2")


def test_host_certificate_document_survives_writing_and_reading(emulated: Emulated) -> None:
    report = parse(emulated.report)
    found = hostcert.parse(hostcert.encode(emulated.chain, report))
    assert found.chain == emulated.chain
    found.check_report(report)


def test_host_certificates_for_another_tcb_are_refused(emulated: Emulated) -> None:
    report = parse(emulated.report)
    found = replace(hostcert.parse(hostcert.encode(emulated.chain, report)), tcbm=b"\1" + bytes(7))
    with pytest.raises(SnpError) as caught:
        found.check_report(report)
    assert caught.value.code == "hostcert.tcbm"


def changed(document: bytes, **members: str) -> bytes:
    return base64.b64encode(json.dumps(json.loads(base64.b64decode(document)) | members).encode())


def test_host_certificate_document_is_a_key_and_its_two_authorities(emulated: Emulated) -> None:
    document = hostcert.encode(emulated.chain, parse(emulated.report))
    for other in (
        changed(document, certificateChain=""),
        changed(document, vcekCert=emulated.chain.to_pem(), certificateChain=""),
        changed(document, certificateChain=emulated.chain.to_pem()),
    ):
        with pytest.raises(SnpError) as caught:
            hostcert.parse(other)
        assert caught.value.code == "hostcert.format"


def test_line_breaks_in_the_base64_of_a_host_certificate_document_mean_nothing(emulated: Emulated) -> None:
    document = hostcert.encode(emulated.chain, parse(emulated.report))
    assert hostcert.parse(base64.encodebytes(base64.b64decode(document))) == hostcert.parse(document)


@given(st.binary(max_size=200))
def test_host_certificate_parser_raises_only_the_documented_error(data: bytes) -> None:
    with pytest.raises(SnpError):
        hostcert.parse(data)


IDENTITY = Identity(MEASUREMENT, b"F" * 16, b"I" * 16, guest_svn=7)


@pytest.fixture(scope="module")
def keys() -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey]:
    return ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize("certified", [False, True])
def test_id_block_is_what_its_check_expects(
    keys: tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey], certified: bool
) -> None:
    id_key, author_key = keys
    checked = idblock.check(idblock.make(IDENTITY, id_key, author_key if certified else None))
    assert checked.identity == IDENTITY
    assert checked.id_key_digest == idblock.key_digest(id_key.public_key())
    assert checked.author_key_digest == (idblock.key_digest(author_key.public_key()) if certified else bytes(48))


@pytest.mark.parametrize("position", [0, 60, 88])
def test_changed_id_block_is_refused(
    keys: tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey], position: int
) -> None:
    signed = idblock.make(IDENTITY, *keys)
    block = bytearray(signed.block)
    block[position] ^= 1
    with pytest.raises(SnpError) as caught:
        idblock.check(IdBlock(bytes(block), signed.auth, signed.author_key))
    assert caught.value.code == "idblock.signature"


def test_id_key_of_another_author_is_refused(
    keys: tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey],
) -> None:
    signed = idblock.make(IDENTITY, *keys)
    other = idblock.make(IDENTITY, keys[0], ec.generate_private_key(ec.SECP384R1()))
    auth = signed.auth[:0x880] + other.auth[0x880:]
    with pytest.raises(SnpError) as caught:
        idblock.check(IdBlock(signed.block, auth, author_key=True))
    assert caught.value.code == "idblock.signature"


@pytest.mark.parametrize("offset", [0, 4, 0x240, 0x244, 0x40 + 144, 0x680 + 511])
def test_id_auth_without_sense_is_refused(
    keys: tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey], offset: int
) -> None:
    signed = idblock.make(IDENTITY, *keys)
    auth = signed.auth[:offset] + b"\x77" + signed.auth[offset + 1 :]
    with pytest.raises(SnpError) as caught:
        idblock.check(IdBlock(signed.block, auth, signed.author_key))
    assert caught.value.code == "idblock.format"
