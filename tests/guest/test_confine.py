# SPDX-License-Identifier: Apache-2.0
"""The filter against vsock sockets: by an interpreter for every ABI, and in a process of this machine."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from parma_guest import confine
from parma_guest.confine import Instruction

X86_64, I386, ARM = 0xC000003E, 0x40000003, 0xC00000B7
X32 = 0x40000000
ALLOW, KILL = 0x7FFF0000, 0x80000000
NO_FAMILY = 0x50000 | errno.EAFNOSUPPORT
NO_CALL = 0x50000 | errno.ENOSYS
AF_UNIX, AF_INET, AF_VSOCK = 1, 2, 40


def run(program: list[Instruction], arch: int, number: int, argument: int) -> int:
    """What the kernel would answer (classic BPF over ``struct seccomp_data``)."""
    data = {0: number, 4: arch, 16: argument & 0xFFFFFFFF}
    place = accumulator = 0
    while True:
        instruction = program[place]
        place += 1
        match instruction.code:
            case 0x20:
                accumulator = data[instruction.operand]
            case 0x54:
                accumulator &= instruction.operand
            case 0x15:
                place += instruction.if_equal if accumulator == instruction.operand else instruction.if_not
            case 0x06:
                return instruction.operand


@pytest.mark.parametrize(
    ("arch", "number", "argument", "answer"),
    [
        (X86_64, 41, AF_VSOCK, NO_FAMILY),
        (X86_64, 41, AF_VSOCK | 7 << 32, NO_FAMILY),  # the kernel looks at the lower half only
        (X86_64, 41, AF_UNIX, ALLOW),
        (X86_64, 41, AF_INET, ALLOW),
        (X86_64, 0, AF_VSOCK, ALLOW),
        (X86_64, 425, 8, NO_CALL),
        (X86_64, X32 | 41, AF_VSOCK, NO_FAMILY),
        (X86_64, X32 | 41, AF_INET, ALLOW),
        (X86_64, X32 | 425, 8, NO_CALL),
        (X86_64, 359, AF_VSOCK, ALLOW),  # means something else there
        (I386, 359, AF_VSOCK, NO_FAMILY),
        (I386, 359, AF_INET, ALLOW),
        (I386, 102, 1, NO_FAMILY),
        (I386, 102, 3, ALLOW),  # socketcall(connect)
        (I386, 41, AF_VSOCK, ALLOW),  # dup
        (I386, 425, 8, NO_CALL),
        (ARM, 198, AF_INET, KILL),
    ],
)
def test_the_filters_answer(arch: int, number: int, argument: int, answer: int) -> None:
    assert run(confine.program(), arch, number, argument) == answer


CHILD = """
import ctypes, errno, os, socket, subprocess, sys, threading
from parma_guest.confine import give_up_vsock

def outcome(act):
    try:
        act().close()
        return "made"
    except OSError as error:
        return errno.errorcode[error.errno]

go = threading.Event()
late = []
thread = threading.Thread(target=lambda: (go.wait(), late.append(outcome(lambda: socket.socket(socket.AF_VSOCK)))))
thread.start()
give_up_vsock()
go.set()
thread.join()
print(outcome(lambda: socket.socket(socket.AF_VSOCK)), *late, outcome(lambda: socket.socket(socket.AF_UNIX)))
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(425, 8, 0), errno.errorcode[ctypes.get_errno()])
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "import socket; socket.socket(socket.AF_VSOCK)"], stderr=sys.stdout)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a filter without no_new_privs needs root")
def test_it_holds_for_every_thread_and_is_inherited() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:2] == ["EAFNOSUPPORT EAFNOSUPPORT made", "-1 ENOSYS"]
    assert lines[-1].startswith("OSError: [Errno 97]")
