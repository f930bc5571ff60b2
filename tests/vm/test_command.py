# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line: the whole of it, as it must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_shim.vm.command import Wiring, qemu_arguments
from parma_wire.errors import Malformed, NotFound
from tests.vm.support import spec

WIRING = Wiring(monitor=7, console=8, vsock=["-device", "vhost-vsock-pci,guest-cid=5,vhostfd=9"])
IMAGE = Path("/image")

COMMON = [
    *("-name", "guest=parma-default-c1"),
    *("-display", "none", "-vga", "none"),
    *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    *("-run-with", "chroot=/proc/tty/ldisc"),
    *("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
    *("-chardev", "socket,id=monitor,fd=7", "-mon", "chardev=monitor,mode=control"),
    *("-chardev", "socket,id=console,fd=8", "-serial", "chardev:console"),
    *("-device", "virtio-scsi-pci,id=scsi0"),
    *("-device", "vhost-vsock-pci,guest-cid=5,vhostfd=9"),
]
MEMORY_AND_KERNEL = [
    *("-m", "512M", "-smp", "2,maxcpus=2"),
    "-object",
    '{"qom-type":"memory-backend-memfd","id":"ram1","size":536870912,"share":true,"prealloc":false}',
    *("-kernel", "/image/vmlinuz", "-initrd", "/image/initrd.img"),
    *("-append", "console=ttyS0 parma.tee=emulated"),
]
UNUSED = "vmport=off,smm=off,sata=off,smbus=off,usb=off,i8042=off,graphics=off"


def test_software_emulation() -> None:
    assert qemu_arguments(spec(IMAGE), WIRING, accelerator="tcg", data_dir=None) == [
        *COMMON,
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-machine", f"q35,accel=tcg,memory-backend=ram1,{UNUSED}"),
        *("-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+cx16"),
        *MEMORY_AND_KERNEL,
    ]


def test_kvm_without_snp() -> None:
    assert qemu_arguments(spec(IMAGE), WIRING, accelerator="kvm", data_dir=Path("/data")) == [
        *COMMON,
        *("-L", "/data"),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-machine", f"q35,accel=kvm,memory-backend=ram1,{UNUSED},kernel-irqchip=split"),
        *("-cpu", "host,migratable=off"),
        *MEMORY_AND_KERNEL,
    ]


def test_snp_puts_its_own_machine_in_place_of_ours() -> None:
    snp = ["-machine", "q35,confidential-guest-support=sev0", "-append", "console=ttyS0 parma.tee=snp"]
    shared = ",iommu_platform=on,disable-legacy=on"
    devices = [f"virtio-scsi-pci,id=scsi0{shared}", f"vhost-vsock-pci,guest-cid=5,vhostfd=9{shared}"]
    assert qemu_arguments(spec(IMAGE, tee="snp"), WIRING, accelerator="kvm", data_dir=None, snp=snp) == [
        *COMMON[:-4],
        *("-device", devices[0], "-device", devices[1]),
        *snp,
    ]


@pytest.mark.parametrize(("tee", "snp"), [("snp", []), ("emulated", ["-machine", "x"]), ("none", ["-machine", "x"])])
def test_snp_options_and_tee_cannot_disagree(tee: str, snp: list[str]) -> None:
    with pytest.raises(Malformed):
        qemu_arguments(spec(IMAGE, tee=tee), WIRING, accelerator="kvm", data_dir=None, snp=snp)


def test_a_tee_that_the_image_has_no_command_line_for_is_refused() -> None:
    with pytest.raises(NotFound, match="command line"):
        qemu_arguments(spec(IMAGE, tee="other"), WIRING, accelerator="tcg", data_dir=None)


def test_a_name_cannot_add_options() -> None:
    arguments = qemu_arguments(spec(IMAGE, name="a,debug-threads=on"), WIRING, accelerator="tcg", data_dir=None)
    assert arguments[1] == "guest=a,,debug-threads=on"
