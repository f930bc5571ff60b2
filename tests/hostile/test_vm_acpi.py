# SPDX-License-Identifier: Apache-2.0
"""Row R64 in a booted guest: what a table of the host's making does there. It is the way in that is known and open."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

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


def test_R64_the_kernel_runs_what_an_acpi_table_says(tmp_path: Path) -> None:
    """When this fails, the guest's kernel or firmware confines AML: then SECURITY.md has one way in less to tell of."""
    (tmp_path / "table").write_bytes(table(CODE))
    memory = tmp_path / "memory"
    with vm.running(tmp_path / "vm", extra=["-acpitable", f"file={tmp_path / 'table'}"]) as guest:
        assert SPOKEN.decode() in guest.console().partition(READY_LINE)[0]
        with guest.monitor() as monitor:
            arguments = {"val": SOMEWHERE, "size": len(WRITTEN), "filename": str(memory)}
            monitor.execute("pmemsave", arguments, deadline=time.monotonic() + 60)
        assert memory.read_bytes() == WRITTEN
