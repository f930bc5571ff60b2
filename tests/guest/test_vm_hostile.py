# SPDX-License-Identifier: Apache-2.0
"""Real VMs whose host lies about layers, the command line or the policy. Each boots its own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from parma_snp import report as snp_report
from parma_snp.binding import report_data_for_nonce
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Unavailable
from tests.guest import vm_harness as vm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]


def test_an_altered_byte_of_a_layer_reads_as_an_error(tmp_path: Path) -> None:
    content = bytes(range(256)) * 64
    layer = vm.write_layer(tmp_path / "layer", vm.layer_tar({"data": content}, busybox=True))
    image = bytearray((tmp_path / "layer").read_bytes())
    at = image.index(content) + 5000
    image[at] ^= 1
    (tmp_path / "layer").write_bytes(image)
    other = bytearray((tmp_path / "layer").read_bytes())
    other[1024 + 56] ^= 1  # the ext4 magic itself
    (tmp_path / "other").write_bytes(other)
    command = ["/bin/sh", "-c", "wc -c < /data; cat /data > /dev/null; echo $?"]
    with vm.running(tmp_path / "vm", [tmp_path / "layer", tmp_path / "other"]) as guest:
        guest.set_policy(vm.policy_text(vm.container_object([layer], command)))
        with pytest.raises(Unavailable, match="does not verify"):
            guest.mount_layer(1, layer)
        guest.prepare([(0, layer)])
        guest.create(command)
        guest.start()
        assert guest.read_all(vm.CONTAINER) == b"4096\n1\n"  # the blocks before the altered one
        assert b"Input/output error" in guest.read_all(vm.CONTAINER, pb.STDERR)
        guest.call("PowerOff", pb.PowerOffRequest())
        assert guest.qemu.wait(60) == 0


def test_a_changed_kernel_command_line_ends_the_vm(tmp_path: Path) -> None:
    with vm.boot(tmp_path / "vm", append=" parma.tee=emulated") as guest:
        guest.qemu.wait(vm.BOOT_TIMEOUT)
        assert "parma: ready" not in guest.console()
    with vm.boot(tmp_path / "vm2", append=" parma.debug=1") as guest:
        guest.qemu.wait(vm.BOOT_TIMEOUT)
        assert "parma: the enforcer ended (Malformed at cmdline.py:" in guest.console()


def test_an_emulated_vm_launched_for_no_policy_at_all_opens_no_door(tmp_path: Path) -> None:
    with vm.running(tmp_path / "vm", tee="emulated") as guest:
        processor = vm.SecureProcessor(tmp_path / "keys", hashlib.sha256(b"").digest())
        processor.serve(guest)
        with pytest.raises(Denied, match="the execution policy is empty"):
            guest.set_policy(b"")
        with pytest.raises(FailedPrecondition, match="no execution policy"):
            guest.call("MountScratch", pb.MountScratchRequest(container_id=vm.CONTAINER, memory_bytes=16 << 20))
        assert processor.reports == 0


def test_an_emulated_vm_accepts_the_policy_of_its_host_data_and_no_other(tmp_path: Path) -> None:
    policy = vm.policy_text()
    with vm.running(tmp_path / "vm", tee="emulated") as guest:
        assert guest.call("Hello", pb.HelloRequest()).tee == "emulated"
        with pytest.raises(Denied, match="the execution policy is empty"):  # before any report is asked for
            guest.set_policy(b"")
        vm.SecureProcessor(tmp_path / "keys", hashlib.sha256(policy).digest()).serve(guest)
        with pytest.raises(Denied, match="launched for"):
            guest.set_policy(policy + b"\n")
        with pytest.raises(FailedPrecondition, match="no execution policy"):
            guest.call("Evidence", pb.EvidenceRequest(nonce=bytes(64)))
        assert guest.set_policy(policy) == hashlib.sha256(policy).digest()
        with pytest.raises(FailedPrecondition, match="already"):
            guest.set_policy(policy)
        nonce = os.urandom(64)
        report = guest.call("Evidence", pb.EvidenceRequest(nonce=nonce)).report
        assert snp_report.parse(report).report_data == report_data_for_nonce(nonce)
        assert snp_report.parse(report).host_data == hashlib.sha256(policy).digest()
        with pytest.raises(Denied):  # this policy has no containers
            guest.call(
                "MountDevice",
                pb.MountDeviceRequest(lun=0, target="/run/mounts/scsi/m0", device_hash="ab" * 32, data_blocks=1),
            )
