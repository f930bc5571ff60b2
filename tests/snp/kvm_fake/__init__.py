# SPDX-License-Identifier: Apache-2.0
"""QEMU's SEV-SNP launch without the hardware: builds the preload library ``kvm_fake.c`` and reads what it wrote down.

EMULATED: the library is a stand-in for /dev/kvm and /dev/sev that runs no guest and encrypts nothing.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import struct
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

SOURCE: Final = Path(__file__).with_name("kvm_fake.c")
NORMAL, VMSA = 1, 2
_VMSA_GPA: Final = 0xFFFFFFFFF000
_PAGE: Final = 4096


def missing() -> str:
    """Why the library cannot be built here; "" when it can."""
    return "" if shutil.which("gcc") else "no C compiler (gcc) to build the fake KVM with"


@dataclass(frozen=True)
class FakeKvm:
    """The built library."""

    library: Path

    @property
    def cbitpos(self) -> int:
        """What QEMU will find when it asks this machine's processor for the C-bit: 0 where it knows none."""
        found: int = ctypes.CDLL(str(self.library)).kvm_fake_cbit()
        return found

    def environment(self, record: Path, *, fail: str = "") -> dict[str, str]:
        """For QEMU. ``fail``: see ``PARMA_FAKE_KVM_FAIL`` in the source."""
        values = {"LD_PRELOAD": str(self.library), "PARMA_FAKE_KVM_RECORD": str(record)}
        return {**values, "PARMA_FAKE_KVM_FAIL": fail} if fail else values


def build(directory: Path) -> FakeKvm:
    """Compile the library; a warning is an error."""
    library = directory / "kvm_fake.so"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return FakeKvm(library)


class Update(NamedTuple):
    """One SNP_LAUNCH_UPDATE: what firmware would have been handed."""

    type: int
    gpa: int
    content: bytes


class Vcpu(NamedTuple):
    """What goes into a vCPU's VMSA page and differs between vCPUs and models."""

    rip: int
    cs_base: int
    rdx: int


class Recording:
    """What QEMU told the fake KVM, in order."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory
        text = (directory / "events.jsonl").read_text()
        self.events: Final[list[dict[str, Any]]] = [json.loads(line) for line in text.splitlines()]

    def one(self, name: str) -> dict[str, Any]:
        """The event of this name, of which there must be exactly one; without the name."""
        (found,) = (event for event in self.events if event["event"] == name)
        return {key: value for key, value in found.items() if key != "event"}

    def all(self, name: str) -> list[dict[str, Any]]:
        """Every event of this name."""
        return [event for event in self.events if event["event"] == name]

    @cached_property
    def updates(self) -> list[Update]:
        """Every page range given to firmware, in order."""
        return [
            Update(event["type"], event["gpa"], (self._directory / event["file"]).read_bytes())
            for event in self.all("update")
        ]

    @property
    def vcpus(self) -> list[Vcpu]:
        """Each vCPU as it stood at the end of the launch."""
        return [Vcpu(event["rip"], event["cs_base"], event["rdx"]) for event in self.all("vcpu")]


def digest(updates: list[Update], vmsas: list[bytes]) -> bytes:
    """The launch digest of these pages (48 bytes), as AMD publication 56860 defines it, SNP_LAUNCH_UPDATE.

    ``vmsas``: the page that KVM makes of each vCPU at the launch's end.
    """
    current = bytes(48)
    for update in updates:
        for offset in range(0, len(update.content), _PAGE):
            page = update.content[offset : offset + _PAGE]
            current = _extend(current, update.type, update.gpa + offset, page if update.type == NORMAL else None)
    for page in vmsas:
        current = _extend(current, VMSA, _VMSA_GPA, page)
    return current


def _extend(current: bytes, kind: int, gpa: int, page: bytes | None) -> bytes:
    """PAGE_INFO: digest, contents, length 0x70, type, IMI, three VMPL permissions, reserved, address."""
    contents = bytes(48) if page is None else hashlib.sha384(page).digest()
    return hashlib.sha384(current + contents + struct.pack("<HBBBBBBQ", 0x70, kind, 0, 0, 0, 0, 0, gpa)).digest()
