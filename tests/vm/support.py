# SPDX-License-Identifier: Apache-2.0
"""Things that several tests of the virtual machine need."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from parma_shim.vm.command import VmSpec
from parma_shim.vm.image import GuestImage, ImageFile, load_image

ROOT = Path(__file__).resolve().parents[2]
PREFIX = ROOT / ".dev/prefix"
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


class Settings:
    """What the VM code needs of a configuration, writable."""

    def __init__(self, directory: Path) -> None:
        self.qemu = PREFIX / "bin/qemu-system-x86_64"
        self.qemu_data_dir: Path | None = PREFIX / "share/qemu"
        self.vhost_device_vsock: Path | None = PREFIX / "bin/vhost-device-vsock"
        self.id_block: Path | None = None
        self.emulated_on_snp = "refused"
        self.setpriv = Path("/usr/bin/setpriv")
        self.python = Path(sys.executable)
        self.accelerator = "tcg"
        self.state_dir = directory / "state"
        self.data_dir = directory / "data"


def soon(seconds: float = 60.0) -> float:
    """A deadline that is only reached when something is broken."""
    return time.monotonic() + seconds


def image(directory: Path) -> GuestImage:
    """A guest image that exists in name only."""
    names = ("vmlinuz", "initrd.img", "OVMF.amdsev.fd")
    kernel, initrd, firmware = (ImageFile(directory / name, "00" * 32, 1) for name in names)
    command_lines = {tee: f"console=ttyS0 parma.tee={tee}" for tee in ("snp", "emulated", "none")}
    measurements = {(tee, vcpus): bytes([vcpus]) * 48 for tee in ("snp", "emulated") for vcpus in (1, 2, 4)}
    return GuestImage("1", kernel, initrd, firmware, command_lines, measurements)


def spec(directory: Path, **changes: Any) -> VmSpec:
    """A VM to be."""
    values: dict[str, Any] = {
        "name": "parma-default-c1",
        "directory": directory / "vm",
        "vcpus": 2,
        "memory_mib": 512,
        "host_data": bytes(32),
        "image": image(directory),
        "tee": "emulated",
    }
    return VmSpec(**{**values, **changes})


def write_image(directory: Path, **changes: Any) -> GuestImage:
    """An image directory whose files are small and whose manifest is right but for ``changes``."""
    directory.mkdir(exist_ok=True)
    document: dict[str, Any] = {
        "format": 1,
        "version": "1.2.3",
        "cmdline": {"emulated": "console=ttyS0 parma.tee=emulated"},
        "measurements": [{"tee": "emulated", "vcpu_type": "EPYC-v4", "vcpus": 1, "measurement": "ab" * 48}],
    }
    for key, name in (("kernel", "vmlinuz"), ("initrd", "initrd.img"), ("firmware", "OVMF.amdsev.fd")):
        data = key.encode() * 100
        (directory / name).write_bytes(data)
        document[key] = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (directory / "manifest.json").write_text(json.dumps({**document, **changes}))
    return load_image(directory)
