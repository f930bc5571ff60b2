# SPDX-License-Identifier: Apache-2.0
"""What the shim hands to a guest whose containers may pass it on; and the host's end of the emulated processor."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import ttrpc
from parma_guest.attest import endorsements
from parma_shim.config import Config
from parma_shim.endorsements import Endorsing
from parma_shim.helpers.endorse import endorse
from parma_shim.vm.machine import VirtualMachine
from parma_shim.vm.secure_processor import EmulatedSigner, SecureProcessor
from parma_shim.vm.session import Session
from parma_snp import hostcert
from parma_snp.emulated import EmulatedAuthority, ensure_authority
from parma_snp.report import parse
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed, ParmaError, Unavailable
from tests.vm.fake_guest import FakeGuest
from tests.vm.support import spec

COSE = b"\xd2\x84endorsement"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> EmulatedAuthority:
    return ensure_authority(tmp_path_factory.mktemp("data") / "emulated")


def report_of(authority: EmulatedAuthority) -> bytes:
    return authority.sign_report(report_data=bytes(64), host_data=bytes(32), measurement=b"m" * 48, report_id=bytes(32))


def request(authority: EmulatedAuthority, image_dir: Path, **changes: str) -> dict[str, str]:
    return {
        "tee": "emulated",
        "report": base64.b64encode(report_of(authority)).decode(),
        "certificates": "",
        "authority": str(authority.root_file.parent),
        "image_dir": str(image_dir),
        **changes,
    }


def decoded(answer: dict[str, Any]) -> tuple[bytes, bytes]:
    return base64.b64decode(answer["host_amd_cert"]), base64.b64decode(answer["reference_info"])


def test_what_the_helper_finds_is_what_the_guest_accepts(authority: EmulatedAuthority, tmp_path: Path) -> None:
    (tmp_path / "endorsements").mkdir()
    (tmp_path / "endorsements" / f"{(b'm' * 48).hex()}.cose").write_bytes(COSE)
    answer = endorse(request(authority, tmp_path))
    assert answer["log"] == []
    accepted = endorsements.parse(*decoded(answer))
    assert base64.b64decode(accepted.reference_info) == COSE
    found = hostcert.parse(accepted.host_amd_cert.encode())
    found.check_report(parse(report_of(authority)))
    assert found.chain.to_pem() == authority.certificate_chain


def test_a_host_that_has_nothing_gives_nothing(authority: EmulatedAuthority, tmp_path: Path) -> None:
    answer = endorse(request(authority, tmp_path, tee="snp"))
    assert (decoded(answer), answer["log"]) == ((b"", b""), [])


def test_certificates_that_cannot_be_used_are_a_line_in_the_log(authority: EmulatedAuthority, tmp_path: Path) -> None:
    (tmp_path / "vcek.pem").write_text("nothing of the kind")
    for path in ("vcek.pem", "absent.pem"):
        answer = endorse(request(authority, tmp_path, tee="snp", certificates=str(tmp_path / path)))
        assert decoded(answer)[0] == b""
        (line,) = answer["log"]
        assert "no certificates" in line


def test_a_report_that_is_none_is_malformed(authority: EmulatedAuthority, tmp_path: Path) -> None:
    for report in ("", "not base64", "AAAA"):
        with pytest.raises(Malformed):
            endorse(request(authority, tmp_path, report=report))


class FakeMachine:
    """Alive, and nothing else."""

    alive = True

    def on_exit(self, callback: object) -> None:
        del callback


class Delivery:
    """The daemon's side, with a guest that records."""

    def __init__(self, authority: EmulatedAuthority, directory: Path) -> None:
        self.guest = FakeGuest()
        self.guest.answers["Evidence"] = pb.EvidenceResponse(report=report_of(authority))
        self.log: list[str] = []
        self._client = ttrpc.Client(self.guest.connect())
        self._session = Session(cast("VirtualMachine", FakeMachine()), self._client, call_timeout=10)
        data = authority.root_file.parent.parent
        self._config = Config(
            tee="emulated", image_dir=directory, data_dir=data, python=Path(sys.executable), policy_dirs=()
        )

    def run(self) -> list[Any]:
        Endorsing(self._config, self._session, log=self.log.append).wait(time.monotonic() + 60)
        return [message for name, message in self.guest.requests if name == "PutEndorsements"]

    def close(self) -> None:
        self._client.close()
        self.guest.close()


@pytest.fixture
def delivery(authority: EmulatedAuthority, tmp_path: Path) -> Iterator[Delivery]:
    made = Delivery(authority, tmp_path)
    yield made
    made.close()


def test_the_guest_gets_them_over_the_control_connection(delivery: Delivery) -> None:
    (message,) = delivery.run()
    assert endorsements.parse(message.host_amd_cert, message.reference_info).host_amd_cert
    assert delivery.log == []


def test_a_failure_is_said_and_stops_no_container(delivery: Delivery) -> None:
    delivery.guest.failures["Evidence"] = Unavailable("no report")
    assert delivery.run() == []
    (line,) = delivery.log
    assert "no report" in line


# The emulated processor


class FakeSigner:
    """Answers, or fails."""

    def __init__(self) -> None:
        self.fails = False
        self.asked: list[object] = []

    def prepare(self, deadline: float) -> None:
        del deadline

    def sign(self, report_data: bytes, vmpl: int) -> bytes:
        return self._answer((report_data, vmpl))

    def derive_key(self, fields: int) -> bytes:
        return self._answer(fields)

    def _answer(self, asked: object) -> bytes:
        self.asked.append(asked)
        if self.fails:
            raise Unavailable("no signature")
        return b"answer"


class DeadMachine(FakeMachine):
    """No guest ever listens."""

    alive = False


def test_the_processor_answers_what_makes_sense() -> None:
    signer, log = FakeSigner(), list[str]()
    machine = cast("VirtualMachine", DeadMachine())
    processor = SecureProcessor(machine, signer, boot_deadline=time.monotonic(), log=log.append)
    context = cast("ttrpc.Context", None)
    assert processor.GetReport(pb.GetReportRequest(report_data=bytes(64), vmpl=3), context).report == b"answer"
    assert processor.GetDerivedKey(pb.GetDerivedKeyRequest(guest_field_select=9), context).key == b"answer"
    assert signer.asked == [(bytes(64), 3), 9]
    for wrong in (pb.GetReportRequest(report_data=bytes(63)), pb.GetReportRequest(report_data=bytes(64), vmpl=4)):
        with pytest.raises(Malformed):
            processor.GetReport(wrong, context)
    signer.fails = True
    with pytest.raises(ParmaError):
        processor.GetDerivedKey(pb.GetDerivedKeyRequest(guest_field_select=9), context)
    assert log == ["the emulated secure processor failed: no signature"]


def test_a_helper_process_signs_and_derives_with_the_launch_values(
    authority: EmulatedAuthority, tmp_path: Path
) -> None:
    vm_spec = spec(tmp_path, host_data=b"h" * 32)
    signer = EmulatedSigner(Path(sys.executable), authority.root_file.parent, vm_spec, timeout=60)
    data = os.urandom(64)
    report = parse(signer.sign(data, 2))
    measurement = vm_spec.image.measurement("emulated", vm_spec.vcpus)
    assert (report.report_data, report.host_data, report.measurement, report.vmpl) == (data, b"h" * 32, measurement, 2)
    assert signer.derive_key(9) == authority.derive_key(fields=9, measurement=measurement)
