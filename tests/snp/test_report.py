# SPDX-License-Identifier: Apache-2.0
"""The report parser: every field where the specification puts it, and nothing else let through."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_snp.codes import CODES
from parma_snp.errors import SnpError
from parma_snp.report import GENOA, MILAN, REPORT_SIZE, TURIN, decode_tcb, parse, product_of


def make(version: int = 3, **fields: bytes) -> bytearray:
    """An unsigned report that is well-formed; ``fields`` are named by their hex offset: ``x90=...``."""
    data = bytearray(REPORT_SIZE)
    data[0:4] = version.to_bytes(4, "little")
    data[0x08:0x10] = (0x30000).to_bytes(8, "little")
    data[0x34] = 1
    for name, value in fields.items():
        offset = int(name[1:], 16)
        data[offset : offset + len(value)] = value
    return data


def code_of(data: bytes) -> str:
    with pytest.raises(SnpError) as caught:
        parse(data)
    return caught.value.code


def test_fields_are_where_the_specification_puts_them() -> None:
    report = parse(
        bytes(
            make(
                5,
                x4=b"\7",
                x8=bytes.fromhex("1f00030000000000"),
                x10=b"F" * 16,
                x20=b"I" * 16,
                x30=b"\1",
                x40=b"\x65",
                x48=b"\5",
                x50=b"R" * 64,
                x90=b"M" * 48,
                xC0=b"H" * 32,
                xE0=b"K" * 48,
                x110=b"A" * 48,
                x140=b"r" * 32,
                x160=b"m" * 32,
                x180=b"\1\2\3\4\0\0\0\5",
                x188=b"\x1a\x02\x01",
                x1A0=b"C" * 64,
                x1E8=b"\x41\x37\x01",
                x1EC=b"\x40\x37\x01",
                x1F8=b"\x3f",
                x200=b"\x7f",
                x2A0=b"\2",
                x2E8=b"\3",
            )
        )
    )
    assert (report.version, report.guest_svn, report.vmpl, report.platform_info) == (5, 7, 1, 0x65)
    assert (report.policy, report.policy_abi) == (0x3001F, (0, 0x1F))
    assert (report.family_id, report.image_id) == (b"F" * 16, b"I" * 16)
    assert (report.author_key_enabled, report.chip_key_masked, report.signing_key) == (True, False, 1)
    assert (report.report_data, report.measurement, report.host_data) == (b"R" * 64, b"M" * 48, b"H" * 32)
    assert (report.id_key_digest, report.author_key_digest) == (b"K" * 48, b"A" * 48)
    assert (report.report_id, report.report_id_ma, report.chip_id) == (b"r" * 32, b"m" * 32, b"C" * 64)
    assert report.cpuid == (0x1A, 2, 1)
    assert str(report.tcb("reported", TURIN)) == "fmc=1 bl=2 tee=3 snp=4 ucode=5"
    assert (str(report.current_version), str(report.committed_version)) == ("1.55.65", "1.55.64")
    assert (report.launch_mitigations, report.current_mitigations) == (0x3F, 0x7F)
    assert report.signature == (2, 3)
    assert len(report.signed_bytes) == 0x2A0


def test_tcb_layout_follows_the_product() -> None:
    raw = bytes((1, 2, 3, 4, 5, 6, 7, 8))
    assert decode_tcb(raw, TURIN) == (1, 2, 3, 4, 8, bytes((5, 6, 7)))
    assert decode_tcb(raw, MILAN) == decode_tcb(raw, GENOA) == (None, 1, 2, 7, 8, bytes((3, 4, 5, 6)))


@pytest.mark.parametrize(
    ("family", "model", "product"),
    [
        (0x19, 0x01, MILAN),
        (0x19, 0x0F, MILAN),
        (0x19, 0x10, GENOA),
        (0x19, 0x1F, GENOA),
        (0x19, 0xA0, GENOA),
        (0x19, 0xAF, GENOA),
        (0x1A, 0x11, TURIN),
        (0x19, 0x20, None),
        (0x19, 0xB0, None),
        (0x1A, 0x12, None),
        (0x1A, 0x50, None),
        (0x17, 0x01, None),
        (0, 0, None),
    ],
)
def test_product_by_family_and_model(family: int, model: int, product: str | None) -> None:
    assert product_of(family, model) == product


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_known_versions_are_read(version: int) -> None:
    report = parse(bytes(make(version)))
    assert (report.cpuid is None) == (version < 3)
    assert (report.launch_mitigations is None) == (version < 5)
    assert (report.current_mitigations is None) == (version < 5)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (make(1), "format.version"),
        (make(6), "format.version"),
        (make(x34=b"\2"), "format.sig_algo"),
        (make(x8=bytes(8)), "format.policy_bit17"),
        (make(x8=b"\0\0\3\4"), "format.reserved"),
        (make(x48=b"\x20"), "format.reserved"),
        (make(x48=b"\x08"), "format.signing_key"),
        (make(x4C=b"\1"), "format.reserved"),
        (make(x18B=b"\1"), "format.reserved"),
        (make(x1EB=b"\1"), "format.reserved"),
        (make(x1EF=b"\1"), "format.reserved"),
        (make(x208=b"\1"), "format.reserved"),
        (make(x29F=b"\1"), "format.reserved"),
        (make(x330=b"\1"), "format.reserved"),
        (make(x49F=b"\1"), "format.reserved"),
        (make(2, x188=b"\x19"), "format.reserved"),
        (make(4, x1F8=b"\1"), "format.reserved"),
    ],
    ids=str,
)
def test_what_does_not_belong_there_is_refused(data: bytearray, code: str) -> None:
    assert code_of(bytes(data)) == code


@pytest.mark.parametrize("size", [0, 1, 1183, 1185, 1216, 4000])
def test_other_sizes_are_refused(size: int) -> None:
    assert code_of(bytes(size)) == "format.size"


def test_response_header_left_on_is_hinted_at() -> None:
    for data in (bytes(32) + make(), bytes(4000)):
        with pytest.raises(SnpError) as caught:
            parse(data)
        assert caught.value.hint == "strip the 32-byte response header first"


@pytest.mark.parametrize("size", [0, REPORT_SIZE - 32, REPORT_SIZE + 31, REPORT_SIZE + 33, 3999, 4001])
def test_of_another_size_nothing_is_claimed_to_be_known(size: int) -> None:
    with pytest.raises(SnpError) as caught:
        parse(bytes(size))
    assert caught.value.hint == CODES["format.size"].do


@pytest.mark.parametrize("place", [0x4C, 0x4D, 0x4F, 0x19A, 0x29F])
def test_a_reserved_byte_is_named_by_its_place(place: int) -> None:
    data = make()
    data[place] = 0xA5
    with pytest.raises(SnpError, match=f"reserved byte {place:#x} of the report is set") as caught:
        parse(bytes(data))
    assert caught.value.found == "0xa5"


@given(st.binary(max_size=1300))
def test_garbage_raises_only_the_documented_error(data: bytes) -> None:
    with pytest.raises(SnpError):
        parse(data)


def test_parser_loads_little() -> None:
    """The guest pays for every module in memory that is never given back."""
    code = "import sys, parma_snp.report; print(*sorted(sys.modules))"
    snp = Path(__file__).resolve().parents[2] / "snp"
    done = subprocess.run(
        [sys.executable, "-ISc", f"import sys; sys.path.insert(0, {str(snp)!r}); {code}"], capture_output=True
    )
    loaded = set(done.stdout.decode().split())
    assert "parma_snp.report" in loaded
    assert not loaded & {"cryptography", "dataclasses", "json", "inspect", "sevsnpmeasure"}
