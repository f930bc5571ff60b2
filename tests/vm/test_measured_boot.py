# SPDX-License-Identifier: Apache-2.0
"""Measured boot without SNP: the production firmware holds kernel, initrd and command line to the measured hashes.

Under SNP, QEMU writes the hash table into a page that is part of the launch digest. For other VMs it writes none, and
this firmware then boots nothing; but the code that checks the hashes does not ask what kind of VM it runs in. So
the test puts the table where QEMU would, by ``-device loader``, and the very same check runs under TCG.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from sevsnpmeasure.ovmf import OVMF
from sevsnpmeasure.sev_hashes import SevHashes

from parma_guest.cmdline import command_line
from parma_shim.vm.image import GuestImage, load_image
from parma_snp.host import ThisHost
from parma_snp.launch import machine
from parma_wire.limits import READY_LINE
from tests.vm.support import PREFIX, ROOT

IMAGE = ROOT / ".dev/image"
TEE: Final = "emulated"  # under "snp" the enforcer would end the VM at once, for want of a secure processor
BOOT_SECONDS: Final = 240.0
# EDK2's CpuDeadLoop ends in "pause; jmp back": where a firmware that refuses to go on stays for ever.
DEAD_LOOP: Final = re.compile(rb"\xf3\x90\xeb[\x80-\xff]")
SAMPLES: Final = 40
SNP_ONLY: Final = ("accel=", "kernel-irqchip=", "confidential-guest-support=", "memory-backend=")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (PREFIX / "bin/qemu-system-x86_64").exists(), reason="no QEMU in .dev: run ./dev setup"),
    pytest.mark.skipif(not (IMAGE / "manifest.json").exists(), reason="no guest image in .dev: run ./dev setup"),
]


class Boot:
    """A VM that boots, watched from outside: its console, and where its processor is."""

    def __init__(self, process: subprocess.Popen[bytes], monitor: socket.socket) -> None:
        assert process.stdout is not None
        self.process = process
        self.console = b""
        self._output = process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._monitor = monitor.makefile("rw")
        self._monitor.readline()
        self._command("qmp_capabilities")

    def _command(self, name: str, **arguments: str) -> Any:
        self._monitor.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._monitor.flush()
        while True:
            answer = json.loads(self._monitor.readline())
            if "return" in answer:
                return answer["return"]

    def _human(self, line: str) -> str:
        return str(self._command("human-monitor-command", **{"command-line": line}))

    def _in_dead_loop(self) -> bool:
        """Whether the processor is at a ``pause; jmp back`` of firmware, which runs at its physical addresses."""
        found = re.search(r"RIP=([0-9a-f]{16})", self._human("info registers"))
        if found is None or int(found[1], 16) >= 1 << 32:
            return False
        dump = self._human(f"xp /48xb {int(found[1], 16) - 24:#x}")
        code = bytes(int(byte, 16) for byte in re.findall(r" 0x([0-9a-f]{2})\b", dump))
        return len(code) == 48 and DEAD_LOOP.search(code) is not None

    def outcome(self) -> str:
        """ "ready", "dead loop" or "no bootable device"; an error if none of them comes in time."""
        end = time.monotonic() + BOOT_SECONDS
        recent: list[bool] = []
        while time.monotonic() < end:
            # The console is what we wait for; the samples are taken in between.
            if select.select([self._output], [], [], 0.05)[0]:
                self.console += os.read(self._output, 65536)
            if READY_LINE.encode() in self.console:
                return "ready"
            if re.search(rb"No bootable option .*found", self.console):
                return "no bootable device"
            # Timer interrupts are still served, so now and then the processor is elsewhere.
            recent = [*recent[-SAMPLES + 1 :], self._in_dead_loop()]
            if sum(recent) >= SAMPLES * 3 // 4:
                return "dead loop"
        raise AssertionError(f"nothing decided within {BOOT_SECONDS} s; console: {self.console[-500:]!r}")


@contextmanager
def boot(
    directory: Path, image: GuestImage, *, hashes: bytes | None, kernel: Path, initrd: Path, cmdline: str
) -> Iterator[Boot]:
    """QEMU as for an SNP guest but for the accelerator, the SNP object and the way the hash table gets there."""
    binary = PREFIX / "bin/qemu-system-x86_64"
    qemu = ThisHost(binary).qemu()
    assert qemu is not None
    options = [word for word in machine(qemu).split(",") if not word.startswith(SNP_ONLY)]
    arguments = [str(binary), "-L", str(PREFIX / "share/qemu")]
    arguments += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none"]
    arguments += [
        "-machine",
        ",".join([*options, "accel=tcg"]),
        "-cpu",
        "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+cx16",
    ]
    arguments += ["-smp", "1", "-m", "512M", "-bios", str(image.firmware.path), "-serial", "stdio"]
    arguments += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", cmdline]
    if hashes is not None:
        table = directory / "hashes.bin"
        table.write_bytes(hashes)
        address = OVMF(str(image.firmware.path)).sev_hashes_table_gpa()
        arguments += ["-device", f"loader,file={table},addr={address:#x},force-raw=on"]
    ours, theirs = socket.socketpair()
    arguments += ["-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control"]
    keep = [theirs.fileno()]
    with ours, subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=keep) as process:
        theirs.close()
        try:
            yield Boot(process, ours)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def image() -> GuestImage:
    return load_image(IMAGE)


def hash_table(image: GuestImage) -> bytes:
    """What QEMU measures with kernel-hashes=on."""
    hashes = SevHashes(str(image.kernel.path), str(image.initrd.path), image.command_line(TEE))
    return bytes(hashes.construct_table())


def flipped(path: Path, directory: Path) -> Path:
    """A copy with the last bit changed: far from every header that a loader looks at."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    copy = directory / path.name
    copy.write_bytes(data)
    return copy


@pytest.mark.parametrize("acpi", [True, False], ids=["acpi", "no-acpi"])
def test_what_was_measured_boots_to_the_enforcer(image: GuestImage, tmp_path: Path, acpi: bool) -> None:
    image = image._replace(command_lines={TEE: command_line(TEE, acpi=acpi)})
    with boot(
        tmp_path,
        image,
        hashes=hash_table(image),
        kernel=image.kernel.path,
        initrd=image.initrd.path,
        cmdline=image.command_line(TEE),
    ) as running:
        assert running.outcome() == "ready"


@pytest.mark.parametrize("changed", ["kernel", "initrd", "cmdline"])
def test_firmware_refuses_what_was_not_measured(image: GuestImage, tmp_path: Path, changed: str) -> None:
    files = {"kernel": image.kernel.path, "initrd": image.initrd.path}
    cmdline = image.command_line(TEE)
    if changed == "cmdline":
        cmdline = cmdline[:-1] + chr(ord(cmdline[-1]) ^ 1)
    else:
        files[changed] = flipped(files[changed], tmp_path)
    with boot(tmp_path, image, hashes=hash_table(image), cmdline=cmdline, **files) as running:
        assert running.outcome() == "dead loop"
        assert b"BdsDxe" not in running.console, "it went on to look for something else to boot"


@pytest.mark.parametrize("entry", ["cmdline", "initrd", "kernel"])
def test_firmware_refuses_one_bit_changed_in_the_table(image: GuestImage, tmp_path: Path, entry: str) -> None:
    hashes = SevHashes(str(image.kernel.path), str(image.initrd.path), image.command_line(TEE))
    name = f"{entry}_hash"
    digest = bytearray(getattr(hashes, name))
    digest[0] ^= 1
    setattr(hashes, name, bytes(digest))
    with boot(
        tmp_path,
        image,
        hashes=hashes.construct_table(),
        kernel=image.kernel.path,
        initrd=image.initrd.path,
        cmdline=image.command_line(TEE),
    ) as running:
        assert running.outcome() == "dead loop"


def test_firmware_boots_nothing_without_a_table(image: GuestImage, tmp_path: Path) -> None:
    """So a VM of this firmware that is no SNP guest cannot be mistaken for a measured one."""
    with boot(
        tmp_path,
        image,
        hashes=None,
        kernel=image.kernel.path,
        initrd=image.initrd.path,
        cmdline=image.command_line(TEE),
    ) as running:
        assert running.outcome() == "no bootable device"
