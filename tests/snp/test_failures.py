# SPDX-License-Identifier: Apache-2.0
"""Known messages of failed launches are explained; those that QEMU can be made to utter here, from its own mouth."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_snp.failures import FAILURES, explain
from parma_snp.launch import SnpLaunch
from tests.snp.kvm_fake import FakeKvm
from tests.snp.test_qemu_launch import fake, launch, needs_qemu, start

__all__ = ["fake", "launch"]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.pattern[:30])
def test_each_example_is_found_by_its_own_pattern(failure: object) -> None:
    known = next(entry for entry in FAILURES if entry is failure)
    noise = "qemu-system-x86_64: warning: something\n"
    assert explain(
        f"{noise}qemu-system-x86_64: {known.message}\nfailed to initialize kvm: Operation not permitted"
    ) == (known)


def test_unknown_messages_are_left_alone() -> None:
    assert explain("qemu-system-x86_64: failed to initialize kvm: Operation not permitted") is None
    assert explain("") is None
    assert explain("fw_error=110 ret=-22") is None


# From the kernel's and the firmware's point of view: command, errno, firmware error.
CAUSES = {
    "0:1:0": "vm-type SEV-SNP not supported by KVM",
    "22:16:0": "sev_common_kvm_init: failed to initialize ret=-16 fw_error=0 ''",
    "22:25:0": "sev_common_kvm_init: failed to initialize ret=-25 fw_error=0 ''",
    "100:22:0": "SNP_LAUNCH_START ret=-22 fw_error=0 ''",
    "100:25:0": "SNP_LAUNCH_START ret=-25",
    "100:5:7": "SNP_LAUNCH_START ret=-5 fw_error=7 'Policy is not allowed'",
    "102:5:10": "SNP_LAUNCH_FINISH ret=-5 fw_error=10 'Bad signature'",
    "102:5:11": "SNP_LAUNCH_FINISH ret=-5 fw_error=11 'Bad measurement'",
    "102:5:22": "SNP_LAUNCH_FINISH ret=-5 fw_error=22 'Invalid parameter'",
    "102:5:39": "SNP_LAUNCH_FINISH ret=-5 fw_error=39 'Invalid key'",
}


@needs_qemu
@pytest.mark.parametrize("cause", CAUSES)
def test_what_qemu_says_of_a_failed_launch_is_explained(
    fake: FakeKvm, launch: SnpLaunch, tmp_path: Path, cause: str
) -> None:
    done = start(fake, launch, tmp_path / "record", fail=cause)
    assert done.returncode != 0
    known = explain(done.stderr)
    assert known is not None, done.stderr
    assert known.message == CAUSES[cause], done.stderr
