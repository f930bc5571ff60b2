# SPDX-License-Identifier: Apache-2.0
"""``parma evidence``: from the command through a shim's socket to a made-up guest that has a real report."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ttrpc
from parma_shim import evidence_cli
from parma_shim.task.environment import Environment
from parma_shim.task.evidence import EvidenceService
from parma_snp import evidence as documents
from parma_snp.binding import report_data_for_nonce
from parma_snp.emulated import EmulatedAuthority, ensure_authority
from parma_snp.report import parse
from parma_wire import guest_pb2
from tests.shim.fakes import FakeGroup
from tests.shim.support import Log

POLICY = b"package policy\n"
NONCE = bytes(range(64))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmulatedAuthority, Path]:
    directory = tmp_path_factory.mktemp("authority") / "emulated"
    return ensure_authority(directory), directory


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch, authority: tuple[EmulatedAuthority, Path]) -> FakeGroup:
    """A group whose guest answers like the enforcer with the emulated processor."""
    group = FakeGroup()

    def evidence(nonce: bytes, *, deadline: float | None = None) -> bytes:
        return authority[0].sign_report(
            report_data=report_data_for_nonce(nonce),
            host_data=hashlib.sha256(POLICY).digest(),
            measurement=b"m" * 48,
            report_id=bytes(32),
        )

    monkeypatch.setattr(group.guest, "evidence", evidence)
    return group


@pytest.fixture
def state(tmp_path: Path, group: FakeGroup, authority: tuple[EmulatedAuthority, Path]) -> Iterator[Path]:
    """A state directory as the shim and its helper leave it, with the shim's socket listening."""
    directory = tmp_path / "state" / "vm"
    directory.mkdir(parents=True)
    environment = Environment(namespace="default", make_group=lambda: group, publish=lambda *_: None, log=Log())
    environment.group_for_creation(lambda: None)
    server = ttrpc.Server()
    server.register(guest_pb2.DESCRIPTOR.services_by_name["HostEvidence"], EvidenceService(environment))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    thread = threading.Thread(target=server.serve, args=(listener,))
    thread.start()
    document = {
        "namespace": "default",
        "group": "pod",
        "containers": ["c1"],
        "socket": str(tmp_path / "s"),
        "tee": "emulated",
        "certificates": "",
        "authority": str(authority[1]),
        "image_dir": str(tmp_path),
    }
    (directory / "group.json").write_text(json.dumps(document))
    (directory / "policy.rego").write_bytes(POLICY)
    (tmp_path / "config.toml").write_text(f'state_dir = "{tmp_path}/state"\n')
    yield tmp_path
    server.close()
    thread.join()
    listener.close()


def run(state: Path, identity: str = "c1", nonce: bytes = NONCE) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    evidence_cli.add_evidence_commands(parser.add_subparsers(required=True))
    arguments = ["evidence", identity, "--nonce", nonce.hex(), "--config", str(state / "config.toml")]
    options = parser.parse_args([*arguments, "--out", str(state / "evidence.json")])
    status: int = options.run(options)
    return status


def test_the_document_answers_the_nonce_and_is_complete(state: Path) -> None:
    assert run(state) == evidence_cli.WRITTEN
    evidence = documents.parse((state / "evidence.json").read_bytes())
    assert evidence.policy == POLICY
    assert evidence.certificates.count("BEGIN CERTIFICATE") == 3
    assert parse(evidence.report).report_data == evidence.report_data == report_data_for_nonce(NONCE)


def test_each_call_asks_the_guest_anew(state: Path) -> None:
    answers = set()
    for nonce in (NONCE, bytes(64)):
        assert run(state, nonce=nonce) == evidence_cli.WRITTEN
        answers.add(parse(documents.parse((state / "evidence.json").read_bytes()).report).report_data)
    assert answers == {report_data_for_nonce(NONCE), report_data_for_nonce(bytes(64))}


def test_an_unknown_container_is_named(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(state, "c9") == evidence_cli.UNKNOWN
    assert "c9" in capsys.readouterr().err


def test_a_shim_that_is_gone_is_an_error(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "s").unlink()
    assert run(state) == evidence_cli.REFUSED
    assert "does not answer" in capsys.readouterr().err


def test_a_short_nonce_is_a_usage_error(state: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run(state, nonce=bytes(32))
    assert caught.value.code == 2
