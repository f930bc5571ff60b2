# SPDX-License-Identifier: Apache-2.0
"""What the host probes read, behind one small interface, so that the judgement on it is pure."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import Final, Protocol

CPUID_MEMORY_ENCRYPTION: Final = 0x8000001F
CPUID_EXTENDED_MAXIMUM: Final = 0x80000000
_KVM_CHECK_EXTENSION: Final = 0xAE03
_KVM_CAP_VM_TYPES: Final = 235
_QEMU_TIMEOUT: Final = 20.0


class Host(Protocol):
    """Read-only access to a machine. Every method returns None when the thing is not there or may not be read."""

    def text(self, path: str) -> str | None:
        """A small text file."""

    def names(self, path: str) -> list[str] | None:
        """The names in a directory."""

    def openable(self, path: str) -> str | None:
        """Empty if a device can be opened for reading and writing, else the reason; None if it does not exist."""

    def cpuid(self, leaf: int) -> tuple[int, int, int, int] | None:
        """EAX, EBX, ECX, EDX of a CPUID leaf on the first processor."""

    def kvm_vm_types(self) -> int | None:
        """Bit mask of KVM's VM types."""

    def qemu(self, *arguments: str) -> str | None:
        """What QEMU prints when run with these arguments."""

    def kernel_release(self) -> str:
        """As of uname."""


class ThisHost:
    """The machine we run on. ``qemu`` is the QEMU binary to ask."""

    def __init__(self, qemu: Path | None = None) -> None:
        self._qemu = qemu

    def text(self, path: str) -> str | None:
        try:
            return Path(path).read_text(errors="replace")
        except OSError:
            return None

    def names(self, path: str) -> list[str] | None:
        try:
            return sorted(entry.name for entry in Path(path).iterdir())
        except OSError:
            return None

    def openable(self, path: str) -> str | None:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            return None
        except OSError as error:
            return error.strerror or "cannot be opened"
        return ""

    def cpuid(self, leaf: int) -> tuple[int, int, int, int] | None:
        # The cpuid module gives 16 bytes for a leaf, read at the leaf's number as file offset.
        try:
            descriptor = os.open("/dev/cpu/0/cpuid", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = os.pread(descriptor, 16, leaf)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if len(data) != 16:
            return None
        eax, ebx, ecx, edx = (int.from_bytes(data[i : i + 4], "little") for i in range(0, 16, 4))
        return eax, ebx, ecx, edx

    def kvm_vm_types(self) -> int | None:
        try:
            descriptor = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return fcntl.ioctl(descriptor, _KVM_CHECK_EXTENSION, _KVM_CAP_VM_TYPES)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def qemu(self, *arguments: str) -> str | None:
        if self._qemu is None:
            return None
        try:
            done = subprocess.run(
                [str(self._qemu), *arguments], capture_output=True, text=True, timeout=_QEMU_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout + done.stderr

    def kernel_release(self) -> str:
        return os.uname().release
