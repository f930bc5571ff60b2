# SPDX-License-Identifier: Apache-2.0
"""The CPUID instruction from Python, without root and without a kernel module.

A dozen bytes of machine code on a page that is first written and then made executable. Where that is forbidden (SELinux
``execmem``), the kernel's ``cpuid`` device answers too, for root and with the module loaded.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from typing import Final

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

# void cpuid(uint32_t leaf /* edi */, uint32_t out[4] /* rsi */), subleaf 0. RBX belongs to the caller.
_CODE: Final = bytes.fromhex(
    "53"  # push %rbx
    "89f8"  # mov %edi, %eax
    "31c9"  # xor %ecx, %ecx
    "0fa2"  # cpuid
    "8906895e04894e0889560c"  # mov %eax, (%rsi); %ebx, 4(%rsi); %ecx, 8(%rsi); %edx, 12(%rsi)
    "5bc3"  # pop %rbx; ret
)
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4


def cpuid(leaf: int) -> Registers | None:
    """The leaf on whichever processor this runs on; None when CPUID cannot be had here."""
    if platform.machine() != "x86_64":
        return None
    return _by_instruction(leaf) or _by_device(leaf)


def _by_instruction(leaf: int) -> Registers | None:
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.write(_CODE)
    first = ctypes.c_char.from_buffer(page)
    address = ctypes.addressof(first)
    try:
        if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), _PROT_READ | _PROT_EXEC):
            return None
        answer = (ctypes.c_uint32 * 4)()
        ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(address)(leaf, ctypes.addressof(answer))
        return answer[0], answer[1], answer[2], answer[3]
    finally:
        libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), _PROT_READ | _PROT_WRITE)
        del first
        page.close()


def _by_device(leaf: int) -> Registers | None:
    # 16 bytes for a leaf, read at the leaf's number as file offset.
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
