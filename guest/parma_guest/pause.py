# SPDX-License-Identifier: Apache-2.0
"""What keeps a pod's namespaces: a process without rights that does nothing.

A few bytes of x86-64 code in an ELF file (System V ABI, AMD64 supplement): it costs no memory, and has nothing that
anybody could turn against the guest, neither a library nor a shell nor a file::

    rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8)    children that nobody waits for leave no zombies (sigaction(2))
    for (;;) pause()

Process 1 of a pid namespace ignores every signal from inside that it has no handler for, and from outside all but
SIGKILL and SIGSTOP (pid_namespaces(7)).
"""

from __future__ import annotations

import struct
from typing import Any, Final

from parma_guest import paths
from parma_guest.requests import CreateSandbox

NAMESPACES: Final = ("ipc", "uts", "pid", "mount", "cgroup")
SHARED: Final = ("ipc", "uts")
"""Those that all containers of the pod join, besides the group's network."""

PROGRAM: Final = "/pause"

_NOBODY: Final = 65534
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56
"""ELF header, one program header."""

_SYS_RT_SIGACTION: Final = 13
_SYS_PAUSE: Final = 34
_SIGCHLD: Final = 17
_SIG_IGN: Final = 1
_SIGSET_BYTES: Final = 8

_AMD64: Final = 62
_EXECUTABLE: Final = 2
_LOAD: Final = 1
_READ_EXECUTE: Final = 5


def program() -> bytes:
    """The ELF file."""
    code_bytes = 36
    action = _BASE + _HEADERS + code_bytes
    code = (
        b"\xb8" + struct.pack("<I", _SYS_RT_SIGACTION)  # mov eax, rt_sigaction
        + b"\xbf" + struct.pack("<I", _SIGCHLD)  # mov edi, SIGCHLD
        + b"\xbe" + struct.pack("<I", action)  # mov esi, action
        + b"\x31\xd2"  # xor edx, edx
        + b"\x41\xba" + struct.pack("<I", _SIGSET_BYTES)  # mov r10d, 8
        + b"\x0f\x05"  # syscall
        + b"\xb8" + struct.pack("<I", _SYS_PAUSE)  # pause: mov eax, pause
        + b"\x0f\x05"  # syscall
        + b"\xeb\xf7"  # jmp pause
    )  # fmt: skip
    code = code.ljust(code_bytes, b"\x90") + struct.pack("<QQQQ", _SIG_IGN, 0, 0, 0)  # handler, flags, restorer, mask
    size = _HEADERS + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", _EXECUTABLE, _AMD64, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", _LOAD, _READ_EXECUTE, 0, _BASE, _BASE, size, size, 0x1000)
    return ident + header + segment + code


def container(request: CreateSandbox, network: str) -> dict[str, Any]:
    """Its ``config.json``: nothing of the host's in it but the pod's host name and its harmless sysctls."""
    no_capabilities: dict[str, list[str]] = {
        name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    linux: dict[str, Any] = {
        "namespaces": [*({"type": name} for name in NAMESPACES), {"type": "network", "path": network}],
        "cgroupsPath": paths.cgroup(request.sandbox),
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    }
    if request.sysctls:
        linux["sysctl"] = dict(request.sysctls)
    return {
        "ociVersion": "1.0.2",
        "root": {"path": paths.PAUSE_ROOT, "readonly": True},
        "hostname": str(request.hostname) or "localhost",
        "process": {
            "terminal": False,
            "args": [PROGRAM],
            "env": [],
            "cwd": "/",
            "user": {"uid": _NOBODY, "gid": _NOBODY},
            "capabilities": no_capabilities,
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "size=64k"]},
        ],
        "linux": linux,
    }
