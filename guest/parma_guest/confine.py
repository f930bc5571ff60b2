# SPDX-License-Identifier: Apache-2.0
"""A seccomp filter for everything that process 1 ever starts: no vsock sockets, and no io_uring to make them with.

vsock knows no namespaces. A container with such a socket could talk to the host past its policy (which may allow it
neither stdio nor network), listen for the host, or dial the enforcer. So the enforcer gives up the right to make them,
for itself and all its children, as soon as it has the ones that it listens on; accepting needs no new right. Filters
stack and the strictest answer counts (seccomp(2)), so a profile of the policy's, no profile, or an elevated container
changes nothing about it, and there is no switch for it.

The answers are those of a kernel that has neither: EAFNOSUPPORT and ENOSYS. The filter covers all three ABIs of the
processor. One call of the oldest, i386's ``socketcall``, hides its arguments in memory where no filter can look: making
any socket with it is refused, as the direct ``socket`` call has replaced it.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final, NamedTuple

AF_VSOCK: Final = 40

_ARCH_X86_64: Final = 0xC000003E  # AUDIT_ARCH_*, linux/audit.h
_ARCH_I386: Final = 0x40000003
_X32_BIT: Final = 0x40000000

_X86_64_SOCKET: Final = 41
_I386_SOCKET: Final = 359
_I386_SOCKETCALL: Final = 102
_SYS_SOCKET: Final = 1  # the first argument of socketcall, linux/net.h
_IO_URING_SETUP: Final = 425  # on all of them

_NUMBER: Final = 0  # offsets in struct seccomp_data, linux/seccomp.h
_ARCH: Final = 4
_ARGUMENT: Final = 16  # the first one's lower half; a socket's family is an int

_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_SYS_SECCOMP: Final = 317
_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1

_FILTER: Final = (
    # label, instruction, operand, where to go on if equal, and if not; "" is the next line
    ("", _LOAD, _ARCH, "", ""),
    ("", _EQUAL, _ARCH_X86_64, "x86-64", ""),
    ("", _EQUAL, _ARCH_I386, "i386", ""),
    ("", _RETURN, _KILL_PROCESS, "", ""),  # there is no other
    ("x86-64", _LOAD, _NUMBER, "", ""),
    ("", _AND, ~_X32_BIT & 0xFFFFFFFF, "", ""),  # x32 has the same numbers, with one bit more
    ("", _EQUAL, _X86_64_SOCKET, "socket", ""),
    ("", _EQUAL, _IO_URING_SETUP, "no such call", "allowed"),
    ("i386", _LOAD, _NUMBER, "", ""),
    ("", _EQUAL, _I386_SOCKET, "socket", ""),
    ("", _EQUAL, _I386_SOCKETCALL, "socketcall", ""),
    ("", _EQUAL, _IO_URING_SETUP, "no such call", "allowed"),
    ("socketcall", _LOAD, _ARGUMENT, "", ""),
    ("", _EQUAL, _SYS_SOCKET, "no such family", "allowed"),
    ("socket", _LOAD, _ARGUMENT, "", ""),
    ("", _EQUAL, AF_VSOCK, "no such family", "allowed"),
    ("allowed", _RETURN, _ALLOW, "", ""),
    ("no such call", _RETURN, _ERRNO | errno.ENOSYS, "", ""),
    ("no such family", _RETURN, _ERRNO | errno.EAFNOSUPPORT, "", ""),
)


class Instruction(NamedTuple):
    """One of classic BPF (``struct sock_filter``, linux/filter.h); jumps count from the next one."""

    code: int
    if_equal: int
    if_not: int
    operand: int


def program() -> list[Instruction]:
    """The filter, with its labels resolved."""
    places = {label: place for place, (label, *_) in enumerate(_FILTER) if label}

    def jump(place: int, label: str) -> int:
        return places[label] - place - 1 if label else 0

    return [
        Instruction(code, jump(place, if_equal), jump(place, if_not), operand)
        for place, (_, code, operand, if_equal, if_not) in enumerate(_FILTER)
    ]


def give_up_vsock() -> None:
    """Installs the filter on every thread of the process; what it starts inherits it. Raises OSError."""

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program())
    buffer = ctypes.create_string_buffer(code, len(code))
    argument = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(
        ctypes.c_long(_SYS_SECCOMP), ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_FLAG_TSYNC), ctypes.byref(argument)
    )
    if result != 0:  # with TSYNC a positive number is a thread that could not follow
        number = ctypes.get_errno() if result < 0 else errno.EBUSY
        raise OSError(number, "cannot install the seccomp filter")
