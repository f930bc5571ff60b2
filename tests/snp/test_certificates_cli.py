# SPDX-License-Identifier: Apache-2.0
"""``parma certificates`` against a service of our own: what is fetched is checked before it is kept."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from parma_snp import anchors
from parma_snp.certificates import CertificateChain
from parma_snp.cli import add_snp_commands
from tests.fuzz.targets.snp_report import SEEDS
from tests.snp.conftest import Emulated

REAL = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp" / "positive"
WITH_VECTORS = pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
CHIP = bytes(range(1, 65))


class Service:
    """AMD's service, as far as a test wants it to be there."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, data = service.answers.get(self.path, (404, b""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Tests are quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    yield found
    found.server.shutdown()
    found.server.server_close()


def parma(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_snp_commands(parser.add_subparsers())
    options = parser.parse_args(["certificates", *map(str, arguments)])
    status: int = options.run(options)
    return status


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A well-formed report of version 3, of a Milan processor; nobody signed it."""
    data = bytearray(SEEDS[1])
    data[0x1A0:0x1E0] = CHIP
    path = tmp_path / "report.bin"
    path.write_bytes(data)
    return path


VCEK = f"/vcek/v1/Milan/{CHIP.hex()}?blSPL=00&teeSPL=00&snpSPL=00&ucodeSPL=00"
CRL = "/vcek/v1/Milan/crl"


def test_the_addresses_are_printed_and_nothing_is_fetched(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(report) == 0
    assert parma(report, "--crl") == 0
    assert parma("--this-host", "--product", "Turin", "--crl") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"https://kdsintf.amd.com{VCEK}",
        f"https://kdsintf.amd.com{CRL}",
        "https://kdsintf.amd.com/vcek/v1/Turin/crl",
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b""), "right product"),
        ((429, b""), "too many requests"),
        ((200, b"<html>"), "cert.parse"),
        ((200, b"0" * 100_000), "too large"),
    ],
    ids=["unknown", "too often", "no certificate", "endless"],
)
def test_what_is_no_certificate_is_not_kept(
    service: Service,
    report: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answer: tuple[int, bytes],
    words: str,
) -> None:
    service.answers[VCEK] = answer
    assert parma(report, "--service", service.url, "--fetch", tmp_path / "chain.pem") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "chain.pem").exists()


def test_a_service_that_is_not_there_is_unreachable(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = Service()
    closed.server.server_close()
    assert parma(report, "--service", closed.url, "--fetch", tmp_path / "chain.pem") == 1
    assert "kds.unreachable" in capsys.readouterr().err


@WITH_VECTORS
def test_the_certificate_of_a_real_report_is_written_as_a_chain(service: Service, tmp_path: Path) -> None:
    folder = REAL / "turin-v5-aci"
    chip = (folder / "report.bin").read_bytes()[0x1A0:0x1A8].hex()
    path = f"/vcek/v1/Turin/{chip}?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81"
    service.answers[path] = (200, (folder / "vek.der").read_bytes())
    arguments: list[str | Path] = [
        folder / "report.bin",
        "--service",
        service.url + "/",
        "--fetch",
        tmp_path / "chain.pem",
    ]
    assert parma(*arguments) == 0
    wanted = [(folder / f"{name}.der").read_bytes() for name in ("vek", "ask", "ark")]
    assert CertificateChain.from_pem((tmp_path / "chain.pem").read_bytes()) == CertificateChain(*wanted)


@WITH_VECTORS
def test_another_chips_certificate_is_not_kept(
    service: Service, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers[VCEK] = (200, (REAL / "milan-v3-aci/vek.der").read_bytes())
    assert parma(report, "--service", service.url, "--fetch", tmp_path / "chain.pem") == 1
    assert "sig." in capsys.readouterr().err
    assert not (tmp_path / "chain.pem").exists()


def crl(key: rsa.RSAPrivateKey, issuer: x509.Certificate, *revoked: int) -> bytes:
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(issuer.subject, now - timedelta(days=1), now + timedelta(days=1))
    for number in revoked:
        entry = x509.RevokedCertificateBuilder(number, now - timedelta(days=1)).build()
        builder = builder.add_revoked_certificate(entry)
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    return builder.sign(key, hashes.SHA384(), rsa_padding=scheme).public_bytes(Encoding.DER)


@pytest.fixture
def authority(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch
) -> tuple[rsa.RSAPrivateKey, x509.Certificate, x509.Certificate]:
    """A key that stands in for AMD's, with the certificates of root and intermediate."""
    parts = {"ask": emulated.chain.intermediate, "ark": emulated.chain.root}
    monkeypatch.setattr(anchors, "bundled", lambda kind, _product: parts[kind])
    ask, ark = (x509.load_der_x509_certificate(parts[name]) for name in ("ask", "ark"))
    key = rsa.generate_private_key(65537, 4096)
    name = ark.subject
    now = datetime.now(UTC)
    root = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    parts["ark"] = root.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)
    return key, ark, ask


def test_a_current_list_of_the_root_is_kept_also_when_it_revokes(
    service: Service,
    report: Path,
    tmp_path: Path,
    authority: tuple[rsa.RSAPrivateKey, x509.Certificate, x509.Certificate],
) -> None:
    key, ark, ask = authority
    for revoked in ((), (ask.serial_number,)):
        service.answers[CRL] = (200, crl(key, ark, *revoked))
        assert parma(report, "--crl", "--service", service.url, "--fetch", tmp_path / "crl.der") == 0
        assert (tmp_path / "crl.der").read_bytes() == service.answers[CRL][1]


def test_somebody_elses_list_is_not_kept(
    service: Service, report: Path, tmp_path: Path, emulated: Emulated, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    service.answers[CRL] = (200, crl(stranger, x509.load_der_x509_certificate(anchors.bundled("ark", "Milan"))))
    assert parma(report, "--crl", "--service", service.url, "--fetch", tmp_path / "crl.der") == 1
    assert "cert.crl_signature" in capsys.readouterr().err
    assert not (tmp_path / "crl.der").exists()
