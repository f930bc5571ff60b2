# SPDX-License-Identifier: Apache-2.0
"""Row R64 in booted guests: what a table of the host's making does there.

With ACPI it is a way in; an image built without it (`parma image build --without-acpi`) is closed to it.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from parma_guest.cmdline import command_line
from parma_wire import guest_pb2 as pb
from parma_wire.limits import READY_LINE
from tests.guest import vm_harness as vm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]

SYSTEM_MEMORY, SYSTEM_IO = 0, 1
SERIAL_PORT = 0x3F8
SOMEWHERE = 0x30000
"""In the guest's memory: the kernel reserves the first MiB and uses little of it."""

WITHOUT_ACPI = command_line("none", acpi=False).removeprefix(command_line("none"))

SPOKEN = b"<aml>"
WRITTEN = b"AML!"


def region(name: bytes, space: int, address: int, length: int) -> bytes:
    """OperationRegion(name, space, address, length): ACPI 6.5, 20.2.5.2."""
    return b"\x5b\x80" + name + bytes([space]) + b"\x0c" + address.to_bytes(4, "little") + b"\x0a" + bytes([length])


def field(of: bytes, *names: bytes) -> bytes:
    """Field(of, ByteAcc, NoLock, Preserve) {name, 8, ...}."""
    body = of + b"\x01" + b"".join(name + b"\x08" for name in names)
    return b"\x5b\x81" + bytes([len(body) + 1]) + body


def store(value: int, name: bytes) -> bytes:
    """Store(value, name)."""
    return b"\x70\x0a" + bytes([value]) + name


def table(code: bytes) -> bytes:
    """An SSDT that does this when it is loaded."""
    head = b"SSDT" + (36 + len(code)).to_bytes(4, "little") + b"\x02\0" + b"HOST  " + b"HOSTILE " + bytes(4)
    whole = bytearray(head + b"HOST" + bytes(4) + code)
    whole[9] = -sum(whole) % 256
    return bytes(whole)


CODE = (
    region(b"SERI", SYSTEM_IO, SERIAL_PORT, 1)
    + field(b"SERI", b"TXD_")
    + region(b"SOME", SYSTEM_MEMORY, SOMEWHERE, len(WRITTEN))
    + field(b"SOME", *(b"BYT%d" % number for number in range(len(WRITTEN))))
    + b"".join(store(value, b"TXD_") for value in SPOKEN)
    + b"".join(store(value, b"BYT%d" % number) for number, value in enumerate(WRITTEN))
)


def write_table(directory: Path) -> list[str]:
    """QEMU's arguments for it."""
    (directory / "table").write_bytes(table(CODE))
    return ["-acpitable", f"file={directory / 'table'}"]


def memory_of(guest: vm.Guest) -> bytes:
    """What lies where the code writes."""
    dump = guest.directory / "memory"
    with guest.monitor() as monitor:
        arguments = {"val": SOMEWHERE, "size": len(WRITTEN), "filename": str(dump)}
        monitor.execute("pmemsave", arguments, deadline=time.monotonic() + 60)
    return dump.read_bytes()


def test_R64_a_kernel_with_acpi_runs_what_a_table_says(tmp_path: Path) -> None:
    """When this fails, the guest's kernel or firmware confines AML: then SECURITY.md has one way in less to tell of."""
    with vm.running(tmp_path / "vm", extra=write_table(tmp_path)) as guest:
        assert SPOKEN.decode() in guest.console().partition(READY_LINE)[0]
        assert memory_of(guest) == WRITTEN


def test_R64_a_kernel_without_acpi_looks_at_no_table_and_its_vm_ends_all_the_same(tmp_path: Path) -> None:
    """The same table; the same image but for its command line."""
    with vm.running(tmp_path / "vm", append=WITHOUT_ACPI, extra=write_table(tmp_path)) as guest:
        assert SPOKEN.decode() not in guest.console()
        assert memory_of(guest) != WRITTEN
        guest.call("PowerOff", pb.PowerOffRequest())
        assert guest.qemu.wait(60) == 0
