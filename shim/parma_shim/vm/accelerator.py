# SPDX-License-Identifier: Apache-2.0
"""KVM where it works, found out by using it.

``/dev/kvm`` can exist, make VMs and run a few instructions, and still fail on a stock kernel (some nested and patched
hypervisors). So the guest's own kernel is started once per boot of the host; only its first words count as proof.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from parma_shim.vm.settings import VmSettings
from parma_shim.vm.spawn import Running
from parma_wire.errors import DeadlineExceeded, Malformed, ParmaError, Unavailable

KVM: Final = Path("/dev/kvm")
PROBE_SECONDS: Final = 5.0
"""A kernel under working KVM speaks within 0.3 s."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SIGN_OF_LIFE: Final = b"Linux version"
_SIGNS_OF_FAILURE: Final = (b"KVM internal error", b"Assertion", b"failed to initialize")
_POLL: Final = 0.05


def choose(
    settings: VmSettings,
    kernel: Path,
    *,
    tee: str,
    environment: Mapping[str, str],
    deadline: float,
    log: Callable[[str], None],
    probe: Callable[[VmSettings, Path, Mapping[str, str], float], str] | None = None,
) -> str:
    """ "kvm" or "tcg". ``probe`` (for tests) returns "" when KVM works, else why not.

    Raises Unavailable for tee = "snp" without KVM: there is no falling back from real protection.
    """
    wanted = settings.accelerator
    if wanted not in {"auto", "kvm", "tcg"}:
        raise Malformed(f"unknown accelerator {wanted!r}", expected="auto, kvm or tcg")
    if tee == "snp":
        if wanted == "tcg":
            raise Unavailable("tee = 'snp' needs KVM", expected="accelerator = 'auto' or 'kvm'")
        return "kvm"  # whether it works is for the probes of parma_snp, which name what is missing
    if wanted != "auto":
        return wanted
    if not _usable():
        log(f"no usable {KVM}: QEMU emulates the processor (tcg), which is slow")
        return "tcg"
    reason = _cached(settings, kernel, environment, deadline, probe or _probe)
    if reason:
        log(f"KVM does not run the guest's kernel ({reason}): QEMU emulates the processor (tcg), which is slow")
        return "tcg"
    return "kvm"


def _usable() -> bool:
    return os.access(KVM, os.R_OK | os.W_OK)


def _cached(
    settings: VmSettings,
    kernel: Path,
    environment: Mapping[str, str],
    deadline: float,
    probe: Callable[[VmSettings, Path, Mapping[str, str], float], str],
) -> str:
    """The result of the probe, made once per boot, QEMU and kernel however many shims start at once."""
    key = f"{_BOOT_ID.read_text().strip()} {_identity(settings.qemu)} {_identity(kernel)}"
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(settings.state_dir / "accelerator", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd, deadline)
        found, _, reason = os.pread(fd, 4096, 0).decode("utf-8", "replace").partition("\n")
        if found == key:
            return reason
        reason = probe(settings, kernel, environment, min(deadline, time.monotonic() + PROBE_SECONDS))
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{key}\n{reason}".encode(), 0)
        return reason
    finally:
        os.close(fd)


def _lock(fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DeadlineExceeded("another shim has been probing KVM for too long") from None
            time.sleep(_POLL)
        else:
            return


def _probe(settings: VmSettings, kernel: Path, environment: Mapping[str, str], deadline: float) -> str:
    """Start the kernel with nothing else; "" when it speaks, else one line saying what came instead."""
    argv = [str(settings.setpriv), "--pdeathsig", "KILL", str(settings.qemu), "-nodefaults", "-no-user-config"]
    argv += ["-no-reboot", "-display", "none", "-vga", "none", "-machine", "q35,accel=kvm,graphics=off", "-m", "256M"]
    argv += ["-cpu", "host,migratable=off", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
    argv += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    if settings.qemu_data_dir is not None:
        argv += ["-L", str(settings.qemu_data_dir)]
    process = Running(argv, environment=environment)
    try:
        stdout, stderr = process.communicate(b"", deadline=deadline, maximum=256 * 1024, until=_decided)
    except DeadlineExceeded:
        return "the kernel stayed silent"
    except ParmaError as error:
        return error.message
    finally:
        process.kill()
    if _SIGN_OF_LIFE in stdout:
        return ""
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if "warning:" not in line]
    return " ".join(lines[0].split())[:200] if lines else "QEMU ended without a word"


def _decided(stdout: bytes, stderr: bytes) -> bool:
    return _SIGN_OF_LIFE in stdout or any(sign in stderr for sign in _SIGNS_OF_FAILURE)


def _identity(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise Unavailable(f"cannot find {path}: {error.strerror}") from error
    return f"{path}:{found.st_dev}:{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"
