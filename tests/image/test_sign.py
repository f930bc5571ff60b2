# SPDX-License-Identifier: Apache-2.0
"""``parma image sign`` and what relying parties make of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from parma_image.cli import main
from parma_image.manifest import Artefact, Manifest, Measurement
from parma_image.sign import FOLDER, sign_image, verify_endorsements
from parma_snp import endorsement
from parma_snp.expected import Endorser
from parma_wire.errors import Malformed, Unverified
from tests.snp.pki import SIGNED_AT, Issuer, make_issuer

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGESTS = {"snp": b"\1" * 48, "emulated": b"\2" * 48, "none": b"\3" * 48}
FILE = Artefact("vmlinuz", "00" * 32, 1)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return make_issuer()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path)


def write_image(directory: Path, variant: str = "default") -> Path:
    """An image of which there is only the manifest."""
    rows = tuple(Measurement(tee, "EPYC-v4", 1, digest.hex()) for tee, digest in DIGESTS.items())
    manifest = Manifest("1", variant, FILE, FILE, FILE, {}, (), (), rows)
    (directory / "manifest.json").write_text(manifest.dump())
    return directory


def sign(image: Path, issuer: Issuer, svn: int = 3) -> str:
    signed = sign_image(image, issuer.signer, predicate="subject:CN", svn=svn, feed="parma-uvm", signed_at=SIGNED_AT)
    assert signed.feeds == {"parma-uvm": 1, "parma-uvm-emulated": 1}
    return signed.issuer


def test_each_measurement_is_endorsed_in_its_series(image: Path, issuer: Issuer) -> None:
    did = sign(image, issuer)
    assert did == issuer.did
    for tee, feed in (("snp", endorsement.FEED), ("emulated", endorsement.EMULATED_FEED)):
        data = (image / FOLDER / f"{DIGESTS[tee].hex()}.cose").read_bytes()
        assert endorsement.verify(data, Endorser(did, feed, 3), DIGESTS[tee], now=NOW).svn == 3
    assert len(list((image / FOLDER).iterdir())) == 2


@pytest.mark.parametrize("variant", ["rego", "no-acpi", "rego-no-acpi"])
def test_a_variant_is_a_series_of_its_own(variant: str, tmp_path: Path, issuer: Issuer) -> None:
    """Who pins the issuer's plain images has not agreed to a larger trusted base; who wants less, does not get more."""
    image = write_image(tmp_path, variant)
    signed = sign_image(image, issuer.signer, predicate="subject:CN", svn=3, feed="parma-uvm", signed_at=SIGNED_AT)
    assert signed.feeds == {f"parma-uvm-{variant}": 1, f"parma-uvm-{variant}-emulated": 1}


def test_signing_again_replaces_what_was_there(image: Path, issuer: Issuer) -> None:
    sign(image, issuer)
    (image / FOLDER / f"{'44' * 48}.cose").write_bytes(b"of an older image")
    did = sign(image, issuer, svn=4)
    assert len(list((image / FOLDER).iterdir())) == 2
    assert verify_endorsements(image, issuer=did, min_svn=4, feed="parma-uvm", now=NOW) == 2


def test_a_missing_or_wrong_endorsement_is_named(image: Path, issuer: Issuer) -> None:
    did = sign(image, issuer)
    with pytest.raises(Unverified, match=r"uvm\.svn"):
        verify_endorsements(image, issuer=did, min_svn=4, feed="parma-uvm", now=NOW)
    (image / FOLDER / f"{DIGESTS['snp'].hex()}.cose").unlink()
    with pytest.raises(Unverified, match=DIGESTS["snp"].hex()):
        verify_endorsements(image, issuer=did, min_svn=3, feed="parma-uvm", now=NOW)


def test_an_image_without_measurements_is_not_signed(image: Path, issuer: Issuer) -> None:
    document = json.loads((image / "manifest.json").read_text())
    (image / "manifest.json").write_text(json.dumps({**document, "measurements": []}))
    with pytest.raises(Malformed, match="no measurements"):
        sign(image, issuer)


def test_a_predicate_that_does_not_hold_is_refused(image: Path, issuer: Issuer) -> None:
    with pytest.raises(Malformed):
        sign_image(image, issuer.signer, predicate="eku:1.2.3", svn=1, feed="parma-uvm", signed_at=SIGNED_AT)
    assert not (image / FOLDER).exists()


def test_the_command_prints_the_did_to_pin(image: Path, issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    (image / "key.pem").write_bytes(issuer.key)
    (image / "chain.pem").write_bytes(issuer.chain)
    arguments = ["image", "sign", str(image), "--key", str(image / "key.pem"), "--chain", str(image / "chain.pem")]
    assert main([*arguments, "--svn", "5"]) == 0
    assert capsys.readouterr().out.strip() == issuer.did


def test_a_key_of_somebody_else_is_refused(image: Path, issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    (image / "key.pem").write_bytes(make_issuer().key)
    (image / "chain.pem").write_bytes(issuer.chain)
    arguments = ["image", "sign", str(image), "--key", str(image / "key.pem"), "--chain", str(image / "chain.pem")]
    assert main([*arguments, "--svn", "5"]) == 1
    assert "does not belong" in capsys.readouterr().err
