# SPDX-License-Identifier: Apache-2.0
"""Programs of one system call, for what no shell can ask: their exit status is the call's errno, modulo 256."""

from __future__ import annotations

import struct

_BASE = 0x400000


def amd64(number: int, first: int, second: int = 0, third: int = 0) -> bytes:
    """An x86-64 program."""
    code = (
        b"\xb8" + struct.pack("<I", number)  # mov eax, number
        + b"\xbf" + struct.pack("<I", first)  # mov edi, first
        + b"\xbe" + struct.pack("<I", second)  # mov esi, second
        + b"\xba" + struct.pack("<I", third)  # mov edx, third
        + b"\x0f\x05\xf7\xd8\x89\xc7"  # syscall; neg eax; mov edi, eax
        + b"\xb8\x3c\x00\x00\x00\x0f\x05"  # exit(edi)
    )  # fmt: skip
    header, entry = 64 + 56, _BASE + 64 + 56
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = header + len(code)
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000) + code


def i386(number: int, first: int, second: int = 0, third: int = 0) -> bytes:
    """A 32-bit program for the same processor."""
    code = (
        b"\xb8" + struct.pack("<I", number)  # mov eax, number
        + b"\xbb" + struct.pack("<I", first)  # mov ebx, first
        + b"\xb9" + struct.pack("<I", second)  # mov ecx, second
        + b"\xba" + struct.pack("<I", third)  # mov edx, third
        + b"\xcd\x80\xf7\xd8\x89\xc3"  # int 0x80; neg eax; mov ebx, eax
        + b"\xb8\x01\x00\x00\x00\xcd\x80"  # exit(ebx)
    )  # fmt: skip
    header, entry = 52 + 32, _BASE + 52 + 32
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    elf = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    size = header + len(code)
    return elf + struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000) + code
