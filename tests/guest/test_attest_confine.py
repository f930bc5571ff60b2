# SPDX-License-Identifier: Apache-2.0
"""The agent's confinement: in a process of this machine, and its filter by an interpreter."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from parma_guest.attest import confine

CONFINED = """
import errno, os, socket, sys
from parma_guest.attest import confine
inherited = socket.socket()
confine.confine(sys.argv[1])
def tried(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "worked"
os.write(1, (" ".join([
    tried(lambda: os.open("/", os.O_RDONLY)),
    tried(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    tried(lambda: socket.socket(socket.AF_INET)),
    tried(lambda: socket.socket(40)),
    tried(lambda: inherited.connect(("127.0.0.1", 9))),
    tried(lambda: os.execv("/bin/true", ["true"])),
    tried(lambda: os.kill(os.getppid(), 0)),
    tried(lambda: os.setuid(0)),
]) + "\\n").encode())
os.read(0, 1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights takes having them")
def test_a_confined_process_opens_connects_executes_and_signals_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(tmp_path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        input=b"x",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout.split() == [b"EPERM"] * 8
    assert done.returncode == 0


def run_filter(program: bytes, number: int, arch: int = 0xC000003E) -> int:
    """The filter's verdict on a system call, by a model of classic BPF."""
    data = struct.pack("<II", number & 0xFFFFFFFF, arch) + bytes(56)
    at, accumulator = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x15:
            at += yes if accumulator == value else no
        elif code == 0x35:
            at += yes if accumulator >= value else no
        else:
            assert code == 0x06
            return int(value)


def test_the_filter_allows_its_list_and_nothing_else() -> None:
    program = confine.filter_program()
    allowed = {number for number in range(1000) if run_filter(program, number) == 0x7FFF0000}
    assert allowed == set(confine._SYSTEM_CALLS)
    assert run_filter(program, 257) == 0x00050001  # openat: EPERM
    assert run_filter(program, 0x40000000) == 0x00050001  # x32's read
    assert run_filter(program, 0, arch=0x40000003) == 0x80000000  # i386: killed
