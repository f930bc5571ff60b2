# SPDX-License-Identifier: Apache-2.0
"""What the host probes read, behind one small interface, so that the judgement on it is pure."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from parma_snp.cpuid import Registers, cpuid
from parma_snp.errors import SnpError
from parma_snp.platform import PlatformStatus, read_status
from parma_snp.qemu import ARGUMENTS, QUESTIONS, Qemu, understand

CPUID_MEMORY_ENCRYPTION: Final = 0x8000001F
CPUID_EXTENDED_MAXIMUM: Final = 0x80000000
_KVM_CHECK_EXTENSION: Final = 0xAE03
_KVM_CAP_VM_TYPES: Final = 235
_MAX_RECORD: Final = 8192
_PROGRAM_TIMEOUT: Final = 20.0


class Host(Protocol):
    """Read-only access to a machine. Every method returns None when the thing is not there or may not be read."""

    def text(self, path: str) -> str | None:
        """A small text file."""

    def data(self, path: str) -> bytes | None:
        """A small binary file."""

    def names(self, path: str) -> list[str] | None:
        """The names in a directory."""

    def openable(self, path: str) -> str | None:
        """Empty if a device can be opened for reading and writing, else the reason; None if it does not exist."""

    def cpuid(self, leaf: int) -> Registers | None:
        """EAX, EBX, ECX, EDX of a CPUID leaf."""

    def msr(self, register: int) -> int | None:
        """A model-specific register of the first processor."""

    def kernel_log(self) -> str | None:
        """The kernel's messages, as far as they are still there."""

    def kernel_release(self) -> str:
        """As of uname."""

    def kvm_vm_types(self) -> int | None:
        """Bit mask of KVM's VM types."""

    def snp_platform_status(self) -> PlatformStatus | None:
        """What the secure processor says of itself."""

    def qemu(self) -> Qemu | None:
        """The QEMU that would be used."""

    def firmware(self) -> Path | None:
        """The guest firmware that would be used."""


class ThisHost:
    """The machine we run on. ``root`` is another directory to read files below, for tests."""

    def __init__(self, qemu: Path | None = None, firmware: Path | None = None, *, root: Path = Path("/")) -> None:
        self._qemu = qemu
        self._firmware = firmware
        self._root = root
        self._described: list[Qemu | None] = []

    def _path(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def text(self, path: str) -> str | None:
        data = self.data(path)
        return None if data is None else data.decode("utf-8", "replace")

    def data(self, path: str) -> bytes | None:
        try:
            return self._path(path).read_bytes()
        except OSError:
            return None

    def names(self, path: str) -> list[str] | None:
        try:
            return sorted(entry.name for entry in self._path(path).iterdir())
        except OSError:
            return None

    def openable(self, path: str) -> str | None:
        try:
            os.close(os.open(self._path(path), os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            return None
        except OSError as error:
            return error.strerror or "cannot be opened"
        return ""

    def cpuid(self, leaf: int) -> Registers | None:
        return cpuid(leaf)

    def msr(self, register: int) -> int | None:
        with self._device("/dev/cpu/0/msr", os.O_RDONLY) as descriptor:
            if descriptor is None:
                return None
            try:
                data = os.pread(descriptor, 8, register)
            except OSError:
                return None
        return int.from_bytes(data, "little") if len(data) == 8 else None

    def kernel_log(self) -> str | None:
        lines: list[str] = []
        with self._device("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            if descriptor is None:
                return None
            while True:
                try:
                    record = os.read(descriptor, _MAX_RECORD)
                except BlockingIOError:
                    break  # no more for now
                except BrokenPipeError:
                    continue  # overwritten while we read: the next one is still there
                except OSError:
                    return None
                if not record:
                    break
                lines.append(record.decode("utf-8", "replace").partition(";")[2].partition("\n")[0])
        return "\n".join(lines)

    def kernel_release(self) -> str:
        return os.uname().release

    def kvm_vm_types(self) -> int | None:
        with self._device("/dev/kvm", os.O_RDWR) as descriptor:
            if descriptor is None:
                return None
            try:
                return fcntl.ioctl(descriptor, _KVM_CHECK_EXTENSION, _KVM_CAP_VM_TYPES)
            except OSError:
                return None

    def snp_platform_status(self) -> PlatformStatus | None:
        try:
            return read_status(self._path("/dev/sev"))
        except SnpError:
            return None

    def qemu(self) -> Qemu | None:
        if not self._described:
            self._described.append(self._ask_qemu())
        return self._described[0]

    def _ask_qemu(self) -> Qemu | None:
        if self._qemu is None:
            return None
        try:
            done = subprocess.run(
                [str(self._qemu), *ARGUMENTS],
                input=QUESTIONS,
                capture_output=True,
                text=True,
                timeout=_PROGRAM_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return understand(done.stdout)

    def firmware(self) -> Path | None:
        return self._firmware

    @contextmanager
    def _device(self, path: str, flags: int) -> Iterator[int | None]:
        """A device, open; None when it cannot be opened."""
        try:
            descriptor = os.open(self._path(path), flags | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)
