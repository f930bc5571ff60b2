# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line as a pure function of what is to run.

No device is there that is not needed: each is code the guest talks to and a surface the host can lie through. Disks
are added later on the SCSI bus (a virtio event, no PCI or ACPI hot-plug).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from parma_shim.vm.image import GuestImage
from parma_wire.errors import Malformed

SCSI_CONTROLLER: Final = "scsi0"
# An SNP guest's devices may only reach the memory that it shares on purpose. QEMU has this as its default for
# confidential guests; said aloud, it cannot be otherwise.
_SHARED_MEMORY_ONLY: Final = ",iommu_platform=on,disable-legacy=on"

# AES-NI is left out: QEMU emulates it slowly, and the guest's generic code is faster under TCG.
_TCG_CPU: Final = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+cx16"
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# An empty directory of every Linux kernel, in which nothing can be made, by root neither. QEMU opens no file by its
# name once it runs, and whoever takes its process id for the container's (`nerdctl cp` goes by /proc/<pid>/root) must
# neither read nor write the host's files.
_NOTHING: Final = "/proc/tty/ldisc"
# What q35 brings unasked and a Linux guest without a screen does not use.
_UNUSED: Final = "vmport=off,smm=off,sata=off,smbus=off,usb=off,i8042=off,graphics=off"


class Card(NamedTuple):
    """A network card: its hardware address, and the descriptor of the tap behind it."""

    mac: str
    tap: int


class VmSpec(NamedTuple):
    """What is to be run. ``directory`` is private (0700), below the state directory, and removed with the VM."""

    name: str
    directory: Path
    vcpus: int
    memory_mib: int
    host_data: bytes  # 32 bytes: SHA-256 of the policy
    image: GuestImage
    tee: str  # "snp", "emulated" or "none"
    cgroups_path: str = ""  # on the host, as the OCI specification has it; empty: where the shim is
    shim_goes_there: bool = False  # so that the host accounts for it with the VM
    oom_score_adj: int | None = None  # of QEMU; None: the shim's
    network_descriptor: int = -1  # of that namespace, where it has no path of its own
    network_namespace: str = ""  # on the host, for QEMU to be in; empty: one of its own, with nothing in it
    cards: tuple[Card, ...] = ()
    network_record: str = ""  # what is to be removed again (``netns``), where there are cards


class Wiring(NamedTuple):
    """Descriptors and device arguments that exist only at run time."""

    monitor: int
    console: int
    vsock: Sequence[str]


def qemu_arguments(
    spec: VmSpec, wiring: Wiring, *, accelerator: str, data_dir: Path | None, snp: Sequence[str] = ()
) -> list[str]:
    """Everything after QEMU's own path.

    ``snp`` is what ``parma_snp.launch`` made for tee = "snp": machine, processor, memory, launch object and direct
    boot, in place of ours.
    """
    if (spec.tee == "snp") != bool(snp):
        raise Malformed("SNP launch options go with tee = 'snp' and with nothing else")
    arguments = [
        *("-name", f"guest={_escape(spec.name)}"),
        *("-display", "none", "-vga", "none"),
        *("-sandbox", _SANDBOX, "-run-with", f"chroot={_NOTHING}"),
        *("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
        *("-chardev", f"socket,id=monitor,fd={wiring.monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=console,fd={wiring.console}", "-serial", "chardev:console"),
        *_devices(_virtio(spec, wiring), spec.tee),
    ]
    if data_dir is not None:
        arguments += ["-L", str(data_dir)]
    return [*arguments, *(snp or _machine(spec, accelerator))]


def _virtio(spec: VmSpec, wiring: Wiring) -> list[str]:
    arguments = ["-device", f"virtio-scsi-pci,id={SCSI_CONTROLLER}", *wiring.vsock]
    for number, card in enumerate(spec.cards):
        # No boot ROM, and the device's number of virtio 1, by which the guest knows that it needs the driver.
        modern = "" if spec.tee == "snp" else ",disable-legacy=on"
        arguments += ["-netdev", f"tap,id=net{number},fd={card.tap}"]
        arguments += ["-device", f"virtio-net-pci,netdev=net{number},mac={card.mac},romfile={modern}"]
    return arguments


def _devices(words: Sequence[str], tee: str) -> list[str]:
    """Options, of which every ``-device`` is a virtio device."""
    if tee != "snp":
        return list(words)
    return [
        word + _SHARED_MEMORY_ONLY if before == "-device" else word
        for before, word in zip(("", *words), words, strict=False)
    ]


def _machine(spec: VmSpec, accelerator: str) -> list[str]:
    """Machine, processor, memory and direct boot without a secure processor."""
    size = spec.memory_mib * 1024 * 1024
    memory = {"qom-type": "memory-backend-memfd", "id": "ram1", "size": size, "share": True, "prealloc": False}
    cpu = "host,migratable=off" if accelerator == "kvm" else _TCG_CPU
    machine = f"q35,accel={accelerator},memory-backend=ram1,{_UNUSED}"
    if accelerator == "kvm":
        machine += ",kernel-irqchip=split"
    image = spec.image
    return [
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-machine", machine, "-cpu", cpu),
        # Without slots and maxmem, and with as many vCPUs as may ever be: nothing can be plugged in.
        *("-m", f"{spec.memory_mib}M", "-smp", f"{spec.vcpus},maxcpus={spec.vcpus}"),
        *("-object", json.dumps(memory, separators=(",", ":"))),
        *("-kernel", str(image.kernel.path), "-initrd", str(image.initrd.path)),
        *("-append", image.command_line(spec.tee)),
    ]


def _escape(value: str) -> str:
    """A value inside a comma-separated option."""
    return value.replace(",", ",,")
