# SPDX-License-Identifier: Apache-2.0
"""`parma measure` and `parma id-block`, as used in a terminal."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from parma_snp import idblock, idblock_file
from parma_snp.errors import SnpError
from parma_snp.measure import VCPU_COUNTS, launch_digest
from parma_snp.measure_cli import add_measure_commands
from tests.snp import firmware

CMDLINE = "console=ttyS0 parma.tee=snp"
Capture = pytest.CaptureFixture[str]


def parma(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="parma")
    add_measure_commands(parser.add_subparsers(required=True))
    options = parser.parse_args([str(argument) for argument in arguments])
    status: int = options.run(options)
    return status


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A guest image whose manifest tells the truth."""
    directory = tmp_path / "image"
    directory.mkdir()
    paths = {name: directory / file for name, file in (("firmware", "OVMF.fd"), ("kernel", "k"), ("initrd", "i"))}
    paths["firmware"].write_bytes(firmware.build())
    paths["kernel"].write_bytes(b"kernel")
    paths["initrd"].write_bytes(b"initrd")
    manifest = {name: {"file": path.name, "sha256": "00" * 32, "size": 1} for name, path in paths.items()} | {
        "format": 1,
        "cmdline": {"snp": CMDLINE, "emulated": "console=ttyS0 parma.tee=emulated"},
        "measurements": [
            {"tee": "snp", "vcpu_type": "EPYC-v4", "vcpus": count, "measurement": digest(directory, count).hex()}
            for count in VCPU_COUNTS
        ],
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def digest(image: Path, vcpus: int = 1, model: str = "EPYC-v4") -> bytes:
    return launch_digest(image / "OVMF.fd", image / "k", image / "i", CMDLINE, vcpus, model)


def parts(image: Path) -> tuple[str | Path, ...]:
    return "--firmware", image / "OVMF.fd", "--kernel", image / "k", "--initrd", image / "i", "--cmdline", CMDLINE


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "id.pem", ec.generate_private_key(ec.SECP384R1()))


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def test_an_image_and_its_files_measure_the_same(image: Path, capsys: Capture) -> None:
    assert parma("measure", "--image", image) == 0
    assert parma("measure", *parts(image)) == 0
    assert capsys.readouterr().out == f"{digest(image).hex()}\n" * 2


def test_shape_enters_the_measurement(image: Path, capsys: Capture) -> None:
    assert parma("measure", "--image", image, "--vcpus", "4", "--vcpu-type", "EPYC-Genoa") == 0
    assert capsys.readouterr().out == f"{digest(image, 4, 'EPYC-Genoa').hex()}\n"


def test_table_lists_every_supported_shape(image: Path, capsys: Capture) -> None:
    assert parma("measure", "--image", image, "--table") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["EPYC-v4", str(count), digest(image, count).hex()] for count in VCPU_COUNTS]
    assert parma("measure", "--image", image, "--table", "--json") == 0
    assert [row["measurement"] for row in json.loads(capsys.readouterr().out)] == [row[2] for row in rows]


def test_manifest_that_publishes_another_measurement_is_found_out(image: Path, capsys: Capture) -> None:
    (image / "k").write_bytes(b"another kernel")
    assert parma("measure", "--image", image) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{digest(image).hex()}\n"
    assert "publishes another measurement for EPYC-v4, 1 vCPUs" in captured.err


def test_older_kernels_features_are_measured_when_asked_for(image: Path, capsys: Capture) -> None:
    assert parma("measure", "--image", image, "--sev-features", "0x21") == 0
    assert capsys.readouterr().out != f"{digest(image).hex()}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --image, or"),
        (("--image", "/nonexistent"), "no guest image"),
        (("--image", "/nonexistent", "--cmdline", "quiet"), "has its own"),
        (("--firmware", "/f", "--kernel", "/k", "--initrd", "/i", "--cmdline", "quiet"), "measure.file"),
    ],
)
def test_what_cannot_be_measured_is_an_error(arguments: tuple[str, ...], words: str, capsys: Capture) -> None:
    assert parma("measure", *arguments) == 2
    assert words in capsys.readouterr().err


def test_table_and_one_shape_contradict_each_other(image: Path, capsys: Capture) -> None:
    assert parma("measure", "--image", image, "--table", "--vcpus", "2") == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"cmdline": {}},
        {"cmdline": "quiet"},
        {"kernel": {"file": "../k"}},
        {"kernel": {"file": ""}},
        {"measurements": 1},
        {"firmware": None},
    ],
)
def test_manifest_that_makes_no_sense_is_an_error(image: Path, change: dict[str, object], capsys: Capture) -> None:
    path = image / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert parma("measure", "--image", image) == 2
    assert "measure.image" in capsys.readouterr().err


def make(image: Path, key: Path, out: Path, *more: str | Path) -> int:
    return parma("id-block", "make", "--image", image, "--id-key", key, "--out", out, *more)


def test_one_block_for_each_shape_and_all_are_good(image: Path, key: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "blocks.json"
    assert make(image, key, out, "--table", "--guest-svn", "3", "--family-id", "ab" * 16) == 0
    assert "7 ID blocks" in capsys.readouterr().out
    assert parma("id-block", "check", out, "--image", image, "--id-key", key) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "good"
    assert text.count("guest_svn          3") == len(VCPU_COUNTS)
    chosen = idblock_file.select(out.read_bytes(), digest(image, 8))
    assert chosen.measurement == digest(image, 8)
    assert chosen.policy == 0x30000


def test_a_shape_that_is_not_covered_is_named(image: Path, key: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "blocks.json"
    assert make(image, key, out, "--vcpus", "2") == 0
    capsys.readouterr()
    assert parma("id-block", "check", out, "--image", image, "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["good"] is False
    assert len(answer["problems"]) == len(VCPU_COUNTS) - 1
    with pytest.raises(SnpError) as caught:
        idblock_file.select(out.read_bytes(), digest(image, 1))
    assert caught.value.code == "idblock.missing"


def test_another_key_is_found_out(image: Path, key: Path, tmp_path: Path, capsys: Capture) -> None:
    out, author = tmp_path / "blocks.json", write_key(tmp_path / "a.pem", ec.generate_private_key(ec.SECP384R1()))
    assert make(image, key, out, "--author-key", author) == 0
    assert parma("id-block", "check", out, "--id-key", key, "--author-key", author) == 0
    assert parma("id-block", "check", out, "--id-key", author) == 1
    assert "not every block is by this ID key" in capsys.readouterr().out


def test_raw_files_are_what_the_vectors_hold(image: Path, key: Path, tmp_path: Path) -> None:
    assert make(image, key, tmp_path / "blocks.json", "--raw", tmp_path) == 0
    assert len((tmp_path / "id_block.bin").read_bytes()) == 96
    assert len((tmp_path / "id_auth.bin").read_bytes()) == 4096
    assert make(image, key, tmp_path / "blocks.json", "--raw", tmp_path, "--table") == 2


def test_measurements_can_be_given(key: Path, tmp_path: Path) -> None:
    out = tmp_path / "blocks.json"
    wanted = ["aa" * 48, "bb" * 48]
    arguments = [word for value in wanted for word in ("--measurement", value)]
    assert parma("id-block", "make", *arguments, "--id-key", key, "--out", out) == 0
    assert [value.hex() for value in idblock_file.loads(out.read_bytes())] == wanted


def test_files_that_lie_are_refused(key: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "blocks.json"
    assert parma("id-block", "make", "--measurement", "aa" * 48, "--id-key", key, "--out", out) == 0
    document = json.loads(out.read_text())
    entry = document["id_blocks"][0]
    for changed in (
        [{**entry, "measurement": "bb" * 48}],
        [entry, entry],
        [{**entry, "author_key": True}],
        [{**entry, "id_block": entry["id_block"][:64] + "BBBB" + entry["id_block"][68:]}],
        [{**entry, "more": 1}],
        [{key: value for key, value in entry.items() if key != "id_auth"}],
    ):
        out.write_text(json.dumps({**document, "id_blocks": changed}))
        assert parma("id-block", "check", out) == 1
    out.write_text("{}")
    assert parma("id-block", "check", out) == 1
    assert parma("id-block", "check", tmp_path / "missing") == 2


def test_only_p384_keys_sign(tmp_path: Path, capsys: Capture) -> None:
    other = write_key(tmp_path / "k.pem", ec.generate_private_key(ec.SECP256R1()))
    arguments = ("--measurement", "aa" * 48, "--out", tmp_path / "o.json")
    assert parma("id-block", "make", *arguments, "--id-key", other) == 2
    assert "P-384" in capsys.readouterr().err
    (tmp_path / "k.pem").write_text("no key")
    assert parma("id-block", "make", *arguments, "--id-key", other) == 2
    with pytest.raises(SnpError, match="P-384"):
        idblock.make(idblock.Identity(bytes(48)), ec.generate_private_key(ec.SECP256R1()))


def test_debug_policy_is_not_signed(key: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = ("--measurement", "aa" * 48, "--out", tmp_path / "o.json", "--id-key", key)
    assert parma("id-block", "make", *arguments, "--policy", "0xb0000") == 2
    assert "DEBUG" in capsys.readouterr().err
