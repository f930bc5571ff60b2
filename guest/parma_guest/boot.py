# SPDX-License-Identifier: Apache-2.0
"""What process 1 does to the guest before it serves anyone. Every failure here ends the VM."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from parma_guest import paths
from parma_guest.syscalls import (
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    MS_STRICTATIME,
    Kernel,
)

_PSEUDO: Final = MS_NOSUID | MS_NODEV | MS_NOEXEC

_MOUNTS: Final = (
    ("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_STRICTATIME, "mode=0755"),
    ("proc", "/proc", "proc", _PSEUDO, ""),
    ("sysfs", "/sys", "sysfs", _PSEUDO, ""),
    ("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"),
    ("cgroup2", paths.CGROUP_ROOT, "cgroup2", _PSEUDO, ""),
)
_LATE_MOUNTS: Final = (("configfs", "/sys/kernel/config", "configfs", _PSEUDO, ""),)  # may be a module

_CONTROLLERS: Final = ("cpuset", "cpu", "io", "memory", "pids")

_SYSCTLS: Final = (
    ("kernel/printk", "1 4 1 7"),  # the console is the host's: only emergencies go there
    ("kernel/pid_max", "4194304"),  # the kernel's largest: numbers of processes are used again as late as can be
    ("kernel/sysrq", "0"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/core_pattern", "core"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/suid_dumpable", "0"),
)
_SYSCTLS_AFTER_MODULES: Final = (
    # Nothing calls a program in the guest's root, and no module ever follows.
    ("kernel/modprobe", "\n"),
    ("kernel/hotplug", "\n"),
    ("kernel/modules_disabled", "1"),
    ("kernel/kexec_load_disabled", "1"),
)

_OPEN_FILES: Final = (1024, 524288)


def leave_initial_root(kernel: Kernel) -> None:
    """Puts a mount over the kernel's first root: pivot_root, which crun needs, refuses to leave that one itself."""
    Path("/root").mkdir(mode=0o700, exist_ok=True)
    kernel.mount("/", "/root", "", MS_BIND)
    os.chdir("/root")
    kernel.mount(".", "/", "", MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def mount_all(kernel: Kernel) -> None:
    """The file systems of the guest's own root, which no container sees."""
    for source, target, fstype, flags, data in _MOUNTS:
        Path(target).mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress_busy(target):
            kernel.mount(source, target, fstype, flags, data)
    kernel.mount("none", "/", "", MS_REC | MS_PRIVATE)
    for directory in (paths.PRIVATE, paths.RUNTIME_ROOT, paths.LAYERS):
        kernel.make_directory(directory, 0o700)
    kernel.make_directory(paths.CONTAINERS, 0o711)


class suppress_busy(suppress):  # noqa: N801  # reads as a statement
    """EBUSY: the kernel has mounted it already (devtmpfs)."""

    def __init__(self, target: str) -> None:
        super().__init__(*((OSError,) if target == "/dev" else ()))


def mount_late(kernel: Kernel) -> None:
    """What needs modules. configfs exists only to ask for reports, so its absence shows there."""
    for source, target, fstype, flags, data in _LATE_MOUNTS:
        with suppress(OSError):
            kernel.mount(source, target, fstype, flags, data)


def quiet(proc: Path = Path("/proc/sys")) -> None:
    """Kernel settings that need no modules."""
    _write_sysctls(proc, _SYSCTLS)


def raise_limits() -> None:
    """What containers have that ask for nothing: systemd's limits of open files, not the kernel's 4,096 at most."""
    resource.setrlimit(resource.RLIMIT_NOFILE, _OPEN_FILES)


def lock_down(proc: Path = Path("/proc/sys")) -> None:
    """No module, no helper program, no other kernel from here on."""
    _write_sysctls(proc, _SYSCTLS_AFTER_MODULES)


def enable_controllers(root: Path = Path(paths.CGROUP_ROOT)) -> None:
    """Lets containers have limits."""
    available = (root / "cgroup.controllers").read_text().split()
    wanted = [f"+{name}" for name in _CONTROLLERS if name in available]
    (root / "cgroup.subtree_control").write_text(" ".join(wanted))
    group = root / "parma"
    group.mkdir(exist_ok=True)
    (group / "cgroup.subtree_control").write_text(" ".join(wanted))


def kernel_ready_us(text: str) -> int:
    """When the kernel started process 1, in microseconds since boot, from its log (/dev/kmsg); 0 when not found."""
    for record in text.splitlines():
        prefix, _, message = record.partition(";")
        if message.startswith("Run ") and message.endswith(" as init process"):
            fields = prefix.split(",")
            return int(fields[2]) if len(fields) > 2 and fields[2].isdigit() else 0
    return 0


def read_kernel_log() -> str:
    """All records so far."""
    records = []
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            records.append(os.read(descriptor, 8192))
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
    return b"".join(records).decode(errors="replace")


def _write_sysctls(proc: Path, settings: tuple[tuple[str, str], ...]) -> None:
    for name, value in settings:
        path = proc / name
        if path.exists():  # not every kernel has every switch; what it lacks need not be turned off
            path.write_text(value)
