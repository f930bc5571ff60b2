# SPDX-License-Identifier: Apache-2.0
"""What a host says of its own processor, by the ioctls of /dev/sev; a preloaded library stands in for the device."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from parma_snp import platform
from parma_snp.errors import SnpError
from tests.snp import kvm_fake
from tests.snp.kvm_fake import FakeKvm
from tests.snp.test_qemu_launch import fake

__all__ = ["fake"]

CHIP_ID = bytes(range(1, 65))


def parma(fake: FakeKvm, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parma_shim.cli", *arguments],
        env={**os.environ, "LD_PRELOAD": str(fake.library)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif(bool(kvm_fake.missing()), reason=kvm_fake.missing() or "-")
@pytest.mark.parametrize(
    ("product", "address"),
    [
        ("Milan", f"Milan/{CHIP_ID.hex()}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"),
        ("Genoa", f"Genoa/{CHIP_ID.hex()}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"),
        ("Turin", f"Turin/{CHIP_ID[:8].hex()}?fmcSPL=04&blSPL=00&teeSPL=00&snpSPL=00&ucodeSPL=219"),
    ],
)
def test_address_of_this_hosts_certificate(fake: FakeKvm, product: str, address: str) -> None:
    done = parma(fake, "certificates", "--this-host", "--product", product)
    assert (done.stdout, done.stderr) == (f"https://kdsintf.amd.com/vcek/v1/{address}\n", "")


def test_host_without_a_secure_processor_says_so(tmp_path: Path) -> None:
    with pytest.raises(SnpError, match="does not answer GET_ID2") as caught:
        platform.read_chip_id(tmp_path / "sev")
    assert caught.value.code == "host.platform"
    (tmp_path / "sev").write_bytes(b"")
    with pytest.raises(SnpError, match="SNP_PLATFORM_STATUS"):
        platform.read_status(tmp_path / "sev")


def test_platform_status_is_taken_apart() -> None:
    data = struct.pack("<BBBBIIIQ8s", 1, 55, 1, 1, 40, 0, 3, 0, bytes([4, 0, 0, 0, 0, 0, 24, 219]))
    status = platform.decode_status(data)
    assert (status.api, status.build, status.guests) == ((1, 55), 40, 3)
    assert str(status.tcb("Milan")) == "bl=4 tee=0 snp=24 ucode=219"
    with pytest.raises(SnpError):
        platform.decode_status(data[:-1])
