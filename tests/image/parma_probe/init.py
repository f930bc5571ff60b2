# SPDX-License-Identifier: Apache-2.0
"""Runs as process 1 in a test VM; every line that it prints is read by the test."""

import ctypes
import os
import socket
import time
from pathlib import Path

from parma_guest import cmdline, modules
from parma_wire.limits import GUEST_PORT

_POWER_OFF = 0x4321FEDC
_IMPORTS = ("subprocess", "dataclasses", "json", "google.protobuf", "parma_wire.guest_pb2", "re2")


def _say(text: str) -> None:
    print(f"[{time.clock_gettime(time.CLOCK_BOOTTIME):.3f}] {text}", flush=True)


def _imported_late() -> None:
    """For the image builder, which looks for import statements."""
    import dataclasses
    import json
    import subprocess

    import parma_wire.guest_pb2
    import re2  # noqa: F401


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _say("python")
    for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")):
        if libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None):
            _say(f"cannot mount {place}: {os.strerror(ctypes.get_errno())}")
    Path("/proc/sys/kernel/modprobe").write_text("")
    _say(Path("/proc/cmdline").read_text())
    timings = []
    for path, optional in modules.parse(modules.MODULES_LIST.read_text()):
        begin = time.monotonic()
        error = modules._load(libc, modules.MODULES_DIRECTORY / path)
        timings.append(f"{Path(path).stem}{'?' if optional else ''} {1000 * (time.monotonic() - begin):.0f}ms e{error}")
    _say("modules " + ", ".join(timings))
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, GUEST_PORT))
    listener.listen()
    _say("listening")
    for name in _IMPORTS:
        begin = time.monotonic()
        __import__(name)
        _say(f"import {name} {1000 * (time.monotonic() - begin):.0f}ms")
    for program in ("/usr/bin/crun --version", "/usr/sbin/dmsetup --version", "/usr/sbin/mkfs.ext4 -V"):
        begin = time.monotonic()
        status = os.waitstatus_to_exitcode(os.spawnv(os.P_WAIT, program.split()[0], program.split()) << 8)
        _say(f"program {program.split()[0]} exit {status} {1000 * (time.monotonic() - begin):.0f}ms")
    _say("memory " + " ".join(line for line in Path("/proc/meminfo").read_text().splitlines()[:3]))
    _say("done")
    os.sync()
    libc.reboot(ctypes.c_int(_POWER_OFF))
