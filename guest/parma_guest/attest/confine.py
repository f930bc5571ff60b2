# SPDX-License-Identifier: Apache-2.0
"""Takes away from an agent what it does not need, before it reads the first byte of a container.

What remains: the descriptors that it has, memory, time and random numbers. It has no user of its own in the image, no
capabilities, an empty root directory, namespaces without a network, and a list of system calls that opens, connects
and executes nothing; other calls fail with EPERM.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from typing import Final

USER: Final = 65534
"""User and group; nothing in the guest belongs to it."""

MEMORY: Final = 192 << 20
"""Bytes of address space; the interpreter needs a third of it."""
DESCRIPTORS: Final = 64

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUTS: Final = 0x04000000
_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWNET: Final = 0x40000000
_NAMESPACES: Final = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWNET

_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2

_SYSTEM_CALLS: Final = (
    # x86-64, by number: what the interpreter does between two requests, and what serving one takes.
    0,  # read
    1,  # write
    3,  # close
    5,  # fstat
    7,  # poll
    9,  # mmap
    10,  # mprotect
    11,  # munmap
    12,  # brk
    13,  # rt_sigaction
    14,  # rt_sigprocmask
    15,  # rt_sigreturn
    16,  # ioctl: FIONBIO
    24,  # sched_yield
    25,  # mremap
    28,  # madvise
    35,  # nanosleep
    44,  # sendto
    45,  # recvfrom
    48,  # shutdown
    51,  # getsockname
    54,  # setsockopt
    55,  # getsockopt
    60,  # exit
    72,  # fcntl
    186,  # gettid
    202,  # futex
    228,  # clock_gettime
    231,  # exit_group
    232,  # epoll_wait
    233,  # epoll_ctl
    281,  # epoll_pwait
    288,  # accept4
    318,  # getrandom
)

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_ABOVE: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF0000
_ERRNO_EPERM: Final = 0x00050001
_KILL: Final = 0x80000000
_X86_64: Final = 0xC000003E
_X32_BIT: Final = 0x40000000


def confine(root: str) -> None:
    """All of it, for the calling process; ``root`` is an empty directory. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(ctypes.c_int(_NAMESPACES)))
    _check(libc.prctl(ctypes.c_int(_PR_SET_NO_NEW_PRIVS), *_words(1, 0, 0, 0)))
    os.chroot(root)
    os.chdir("/")
    for limit, value in _limits():
        resource.setrlimit(limit, (value, value))
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)  # takes the capabilities along
    _check(libc.prctl(ctypes.c_int(_PR_SET_DUMPABLE), *_words(0, 0, 0, 0)))
    program = filter_program()
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    _check(libc.prctl(ctypes.c_int(_PR_SET_SECCOMP), ctypes.c_ulong(_SECCOMP_MODE_FILTER), fprog, *_words(0, 0)))


def filter_program() -> bytes:
    """The classic BPF program over ``struct seccomp_data``: another architecture is killed, an unlisted call fails."""
    count = len(_SYSTEM_CALLS)
    instructions = [
        (_LOAD, 0, 0, 4),  # arch
        (_JUMP_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # nr
        (_JUMP_ABOVE, count, 0, _X32_BIT),
        *((_JUMP_EQUAL, count - place, 0, number) for place, number in enumerate(_SYSTEM_CALLS)),
        (_RETURN, 0, 0, _ERRNO_EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


def _limits() -> tuple[tuple[int, int], ...]:
    return (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    )


def _words(*values: int) -> tuple[ctypes.c_ulong, ...]:
    return tuple(map(ctypes.c_ulong, values))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
