# SPDX-License-Identifier: Apache-2.0
"""What untrusted documents are made of, read strictly: JSON members, DER values, certificate extensions, wishes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import pytest
from cryptography import x509

from parma_snp import der, oids
from parma_snp.errors import SnpError
from parma_snp.expected import UNCHECKED, Endorser, Expected, default_minimum_tcb, parse_levels
from parma_snp.extensions import KeyExtensions, read_extensions
from parma_snp.report import GENOA, MILAN, TURIN, Product, Tcb
from parma_snp.strict_json import Object

# -- JSON ------------------------------------------------------------------------------------------------------------


def document(text: str) -> Object:
    return Object.parse(text.encode(), code="evidence.format", limit=1000)


def refused(read: Callable[[], object], match: str, code: str = "evidence.format") -> SnpError:
    with pytest.raises(SnpError, match=match) as caught:
        read()
    assert caught.value.code == code
    return caught.value


def test_a_document_has_at_most_its_limit_of_bytes() -> None:
    assert Object.parse(b"{}", code="x.y", limit=2).fields == {}
    error = refused(lambda: Object.parse(b"{ }", code="x.y", limit=2), "too large", "x.y")
    assert (error.expected, error.found) == ("at most 2 bytes", "3")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not a JSON document"),
        (b"{", "not a JSON document"),
        (b'{"a":1,"a":1}', "appears twice"),
        (b'{"a":{"b":1,"b":2}}', "appears twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "Infinity is not JSON"),
        (b'{"a":"\xff"}', "not a JSON document"),
        (b'\xef\xbb\xbf{"a":1}', "not a JSON document"),
        (b'{"a":' * 100_000, "not a JSON document"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"{}"', "not a JSON object"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(data: bytes, match: str) -> None:
    refused(lambda: Object.parse(data, code="evidence.format", limit=1 << 20), match)


def test_keys_are_those_required_and_those_permitted() -> None:
    found = document('{"a": 1, "b": 2}')
    found.require_keys(["a", "b"])
    found.require_keys(["a"], ["b", "c"])
    error = refused(lambda: found.require_keys(["a"]), "wrong keys")
    assert (error.expected, error.found) == ("a", "unknown 'b'")
    error = refused(lambda: found.require_keys(["c", "a", "d"], ["e"]), "wrong keys")
    assert (error.expected, error.found) == ("c, a, d", "no c, no d, unknown 'b'")
    refused(lambda: found.require_keys(["a", "b", "c"]), "wrong keys")


VALUES = '{"t": "word", "n": 7, "f": 1.5, "y": true, "no": null, "o": {"a": 1}, "l": ["x", "y"], "ol": [{"a": 1}]}'
READERS: dict[str, tuple[Callable[[Object, str], object], dict[str, object]]] = {
    "is not a string": (Object.text, {"t": "word"}),
    "is not true or false": (Object.boolean, {"y": True}),
    "is not a whole number": (Object.number, {"n": 7}),
    "is not an array of strings": (Object.texts, {"l": ("x", "y")}),
}


@pytest.mark.parametrize("message", READERS)
def test_members_have_their_type_and_no_other(message: str) -> None:
    read, good = READERS[message]
    found = document(VALUES)
    for key in (*found.fields, "missing"):
        if key in good:
            assert read(found, key) == good[key]
        else:
            refused(partial(read, found, key), f"^evidence.format: {key} {message}")
    with pytest.raises(SnpError):
        document('{"l": ["x", 1]}').texts("l")


def test_an_array_of_objects_is_one_of_objects_only() -> None:
    (inner,) = document(VALUES).objects("ol")
    assert (inner.fields, inner.code) == ({"a": 1}, "evidence.format")
    assert document('{"a": []}').objects("a") == []
    for key in ("t", "l", "o", "missing"):
        refused(partial(document(VALUES).objects, key), "is not an array of objects")
    refused(lambda: document('{"a": [{}, 1]}').objects("a"), "is not an array of objects")


def test_what_may_be_missing_may_be_null_and_nothing_else_than_text() -> None:
    found = document(VALUES)
    assert (found.optional_text("t"), found.optional_text("no"), found.optional_text("missing")) == ("word", None, None)
    for key in ("n", "y", "l"):
        refused(partial(found.optional_text, key), "is not a string")
    assert document('{"a": ""}').optional_text("a") == ""
    refused(lambda: document('{"a": false}').optional_text("a"), "is not a string")


def test_a_choice_is_one_of_those_named() -> None:
    assert document(VALUES).one_of("t", ("other", "word")) == "word"
    error = refused(lambda: document(VALUES).one_of("t", ("other", "words")), "unknown t")
    assert (error.expected, error.found) == ("other or words", "word")
    long = Object({"t": "x" * 100}, "evidence.format")
    assert refused(lambda: long.one_of("t", ("a",)), "unknown t").found == "x" * 64


def test_bytes_have_one_spelling() -> None:
    assert document('{"a": "AAEC/w=="}').base64("a") == b"\0\1\2\xff"
    assert document('{"a": ""}').base64("a") == b""
    for text in ("AAEC_w==", "AAEC/w", "AAEC/w==\\n", " AAEC/w==", "AAEC/w=é"):
        refused(partial(document(f'{{"a": "{text}"}}').base64, "a"), "a is not base64")
    assert document('{"a": "00ff"}').hex("a") == b"\0\xff"
    for text in ("00FF", "0", "0x00", "0X00", "XX", "00 ff", "gg", "\u0660\u0660"):
        refused(partial(document(f'{{"a": "{text}"}}').hex, "a"), "a is not lower-case hex")


# -- DER -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "number"),
    [("020100", 0), ("02017f", 127), ("02020080", 128), ("020200ff", 255), ("02020100", 256), ("0203010000", 65536)],
)
def test_integers_are_read_and_written_in_their_shortest_form(data: str, number: int) -> None:
    assert der.unsigned_integer(bytes.fromhex(data)) == number
    assert der.encode_integer(number).hex() == data


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("", "not one short DER value"),
        ("02", "not one short DER value"),
        ("0200", "empty"),
        ("020180", "negative"),
        ("0202ff00", "negative"),
        ("02020001", "superfluous zero"),
        ("0202007f", "superfluous zero"),
        ("040101", "not one short DER value of tag 0x2"),
        ("0201", "not one short"),
        ("020101ff", "not one short"),
        ("028101" + "01", "not one short"),
        ("0280" + "01" * 128, "not one short"),
    ],
)
def test_other_integers_are_refused(data: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        der.unsigned_integer(bytes.fromhex(data))


def test_texts_are_ascii_of_three_kinds() -> None:
    for tag in (0x0C, 0x13, 0x16):
        assert der.text(bytes((tag, 5)) + b"Milan") == "Milan"
    assert der.text(bytes((0x16, 127)) + b"x" * 127) == "x" * 127
    assert der.text(b"\x16\0") == ""
    assert der.encode_ia5("Milan") == b"\x16\5Milan"
    for data in (b"\x04\5Milan", b"\x16\4Milan", b"\x16\6Milan", b"\x16\2\xc3\xa9", b"\x1e\2Mi", b"\x16"):
        with pytest.raises(ValueError, match=r"DER|ascii"):
            der.text(data)


def test_octets_are_raw_or_wrapped_once() -> None:
    assert der.octets(b"12345678", 8) == b"12345678"
    assert der.octets(b"\4\x0812345678", 8) == b"12345678"
    with pytest.raises(ValueError, match="expected 8 bytes, found 7"):
        der.octets(b"\4\x071234567", 8)
    for data in (b"1234567", b"\4\x0912345678", b"\2\x0812345678", b""):
        with pytest.raises(ValueError, match="DER"):
            der.octets(data, 8)


# -- certificate extensions ------------------------------------------------------------------------------------------


class FakeCertificate:
    """Nothing but extensions."""

    def __init__(self, values: dict[str, bytes]) -> None:
        known = x509.Extension(x509.BasicConstraints.oid, True, x509.BasicConstraints(ca=False, path_length=None))
        self.extensions: list[Any] = [known]
        for oid, value in values.items():
            identifier = x509.ObjectIdentifier(oid)
            unknown = x509.UnrecognizedExtension(identifier, value)
            self.extensions.append(x509.Extension(identifier, False, unknown))


CHIP = bytes(range(64))
CLOUD = der.encode_ia5("CN=cloud")


def values(product: Product = MILAN, role: str = "VCEK", **changes: bytes | None) -> dict[str, bytes]:
    """Extensions of a good leaf; those of ``changes`` by the names in `parma_snp.oids`, None: it is left out."""
    good: dict[str, bytes | None] = {
        "STRUCT_VERSION": der.encode_integer(1 if product == TURIN else 0),
        "PRODUCT_NAME": der.encode_ia5(f"{product}-B0"),
        "BL_SPL": der.encode_integer(1),
        "TEE_SPL": der.encode_integer(2),
        "SNP_SPL": der.encode_integer(3),
        "UCODE_SPL": der.encode_integer(255),
        "FMC_SPL": der.encode_integer(9) if product == TURIN else None,
        "HWID": None if role == "VLEK" else CHIP[:8] if product == TURIN else CHIP,
        "CSP_ID": CLOUD if role == "VLEK" else None,
        **changes,
    }
    return {getattr(oids, name): value for name, value in good.items() if value is not None}


def read(product: Product = MILAN, role: Literal["VCEK", "VLEK"] = "VCEK", **changes: bytes | None) -> KeyExtensions:
    certificate = cast("x509.Certificate", FakeCertificate(values(product, role, **changes)))
    return read_extensions(certificate, role, product)


def test_a_leaf_says_which_chip_or_provider_and_which_levels() -> None:
    levels = Tcb(None, 1, 2, 3, 255, bytes(4))
    assert read() == KeyExtensions("Milan-B0", levels, CHIP, None)
    assert read(GENOA) == KeyExtensions("Genoa-B0", levels, CHIP, None)
    assert read(MILAN, "VLEK") == KeyExtensions("Milan-B0", levels, None, "CN=cloud")
    assert read(TURIN) == KeyExtensions("Turin-B0", Tcb(9, 1, 2, 3, 255, bytes(3)), CHIP[:8] + bytes(56), None)


def test_spare_levels_are_kept_where_the_product_has_them() -> None:
    spare: dict[str, Any] = {f"SPL_{number}": der.encode_integer(number) for number in (4, 5, 6, 7)}
    assert read(**spare).tcb.reserved == bytes((4, 5, 6, 7))
    assert read(TURIN, **{**spare, "SPL_4": der.encode_integer(0)}).tcb.reserved == bytes((5, 6, 7))
    refused(lambda: read(TURIN, **spare), "a spare patch level that Turin does not have", "cert.extensions")


@pytest.mark.parametrize(
    ("role", "name"),
    [
        *(("VCEK", name) for name in ("STRUCT_VERSION", "PRODUCT_NAME", "BL_SPL", "TEE_SPL", "SNP_SPL", "UCODE_SPL")),
        ("VCEK", "HWID"),
        ("VLEK", "CSP_ID"),
    ],
)
def test_none_of_them_may_be_missing_or_malformed(role: Literal["VCEK", "VLEK"], name: str) -> None:
    missing: dict[str, Any] = {name: None}
    error = refused(lambda: read(MILAN, role, **missing), "lacks its", "cert.extensions")
    assert error.expected == getattr(oids, name)
    refused(lambda: read(MILAN, role, **{name: b"\xff"}), "malformed", "cert.extensions")


def test_numbers_are_of_one_byte_and_turin_has_one_more() -> None:
    error = refused(lambda: read(SNP_SPL=der.encode_integer(256)), "snp patch level .*out of range", "cert.extensions")
    assert (error.expected, error.found) == ("0..255", "256")
    refused(lambda: read(TURIN, FMC_SPL=None), "lacks its fmc", "cert.extensions")
    refused(lambda: read(MILAN, FMC_SPL=der.encode_integer(0)), "Milan has no fmc", "cert.extensions")


def test_the_structure_and_the_name_are_those_of_the_product() -> None:
    wrong: tuple[tuple[Product, int], ...] = ((MILAN, 1), (GENOA, 1), (TURIN, 0), (TURIN, 2))
    for product, other in wrong:
        version = der.encode_integer(other)
        error = refused(
            partial(read, product, STRUCT_VERSION=version),
            f"unknown certificate structure for {product}",
            "bind.struct_version",
        )
        assert error.found == str(other)
    assert read(PRODUCT_NAME=der.encode_ia5("Milan")).product_name == "Milan"
    for name in ("Genoa-B0", "MilanX-B0", "B0-Milan", ""):
        refused(partial(read, PRODUCT_NAME=der.encode_ia5(name)), "another product", "cert.product")


def test_a_chips_key_is_of_no_provider_and_a_providers_of_no_chip() -> None:
    refused(lambda: read(CSP_ID=CLOUD), "a VCEK must not carry a CSP_ID", "cert.extensions")
    refused(lambda: read(MILAN, "VLEK", HWID=CHIP), "a VLEK must not carry a HWID", "cert.extensions")
    refused(lambda: read(MILAN, "VLEK", CSP_ID=None), "lacks its CSP_ID extension", "cert.extensions")


# -- wishes ----------------------------------------------------------------------------------------------------------


def wish(**members: Any) -> Expected:
    return Expected(**{"host_data": UNCHECKED, "measurement": UNCHECKED, "report_data": UNCHECKED, **members})


SIZES = {
    "host_data": 32,
    "report_data": 64,
    "measurement": 48,
    "image_id": 16,
    "family_id": 16,
    "report_id": 32,
    "chip_id": 64,
}


@pytest.mark.parametrize("name", SIZES)
def test_what_is_wished_for_has_the_length_of_the_field(name: str) -> None:
    size = SIZES[name]
    wish(**{name: bytes(size)})
    for other in (0, size - 1, size + 1):
        error = refused(partial(wish, **{name: bytes(other)}), f"{name} has another length", "usage")
        assert (error.expected, error.found) == (f"{size} bytes", f"{other} bytes")


def test_a_chip_id_may_be_turins_short_one_and_no_other_id_may() -> None:
    wish(chip_id=bytes(8))
    for name in ("image_id", "family_id", "report_id"):
        refused(partial(wish, **{name: bytes(8)}), "another length", "usage")


def test_measurements_are_one_several_anybody_that_endorses_or_any() -> None:
    one, other = b"1" * 48, b"2" * 48
    endorser = Endorser("did:x509:0", "images", 3)
    assert (wish(measurement=one).measurements, wish(measurement=(one, other)).measurements) == ((one,), (one, other))
    assert (wish().measurements, wish(measurement=endorser).measurements) == (None, None)
    assert (wish(measurement=endorser).endorser, wish(measurement=one).endorser, wish().endorser) == (
        endorser,
        None,
        None,
    )
    refused(lambda: wish(measurement=()), "no acceptable measurement", "usage")
    refused(lambda: wish(measurement=(one, b"2")), "measurement has another length", "usage")
    assert str(endorser) == "endorsed by did:x509:0, feed images, SVN 3 or later"
    Endorser("i", "f", 1, require_receipt=True, ledger_keys=(b"key",))
    refused(lambda: Endorser("i", "f", 1, require_receipt=True), "no ledger's key", "usage")


def test_what_was_left_out_on_request_is_named() -> None:
    assert wish().unchecked == ("host_data", "measurement", "report_data")
    assert wish(vmpl=UNCHECKED, vlek_csp_ids=UNCHECKED, host_data=bytes(32)).unchecked == (
        *("measurement", "report_data"),
        *("vmpl", "vlek_csp_ids"),
    )


def test_without_a_word_the_strict_meaning_holds() -> None:
    plain = wish()
    assert (plain.vmpl, plain.vlek_csp_ids, plain.min_tcb, plain.min_report_version) == (0, (), None, 2)
    switches = ("debug", "migrate_ma", "provisional", "masked_chip_id", "permissive", "smt")
    assert [name for name in switches if getattr(plain, f"allow_{name}")] == ["smt"]
    assert (plain.require_single_socket, plain.require_author_key) == (False, False)


@pytest.mark.parametrize("name", ["min_tcb", "min_committed_tcb", "min_launch_tcb"])
def test_patch_levels_are_wished_for_by_their_names(name: str) -> None:
    every = dict.fromkeys(("fmc", "bl", "tee", "snp", "ucode"), 1)
    assert getattr(wish(**{name: every}), name) == every
    error = refused(lambda: wish(**{name: {"snp": 1, "b": 1, "a": 1}}), "unknown TCB component", "usage")
    assert (error.expected, error.found) == ("fmc, bl, tee, snp, ucode", "a, b")


def test_patch_levels_are_written_as_people_write_them() -> None:
    assert parse_levels("snp=24,ucode=219") == {"snp": 24, "ucode": 219}
    assert parse_levels(" fmc = 0 , bl=255") == {"fmc": 0, "bl": 255}
    for text in ("", "snp", "snp=", "snp=256", "snp=-1", "snp=1,snp=2", "cpu=1", "snp=1,", "snp=²", "snp=٣", "snp=1=2"):
        error = refused(partial(parse_levels, text), "not TCB components and levels", "usage")
        assert error.found == text


def test_the_table_of_minima_names_every_product_and_when_it_was_reviewed() -> None:
    table = default_minimum_tcb()
    assert set(table.products) == {MILAN, GENOA, TURIN}
    assert table.products[TURIN] is None
    assert len(table.reviewed.split("-")) == 3
    assert "AMD-SB" in table.source
