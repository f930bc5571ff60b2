# SPDX-License-Identifier: Apache-2.0
"""Runs as process 1 in a test VM; the test reads what it prints, one ``key value`` a line."""

import ctypes
import dataclasses
import os
import socket
import subprocess
import time
from pathlib import Path

import re2

from parma_guest import cmdline, modules
from parma_wire import guest_pb2
from parma_wire.limits import GUEST_PORT

_POWER_OFF = 0x4321FEDC


def _say(key: str, value: object) -> None:
    print(f"{key} {value}", flush=True)


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _say("seconds-to-python", f"{time.clock_gettime(time.CLOCK_BOOTTIME):.2f}")
    for kind, place in ((b"proc", b"/proc"), (b"sysfs", b"/sys"), (b"devtmpfs", b"/dev")):
        libc.mount(kind, place, kind, 0, None)
    Path("/proc/sys/kernel/modprobe").write_text("")
    _say("tee", cmdline.booted_tee())
    _say("unused-modules", ",".join(modules.load_modules(cmdline.booted_tee())))
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, GUEST_PORT))
    listener.listen()
    _say("seconds-to-listening", f"{time.clock_gettime(time.CLOCK_BOOTTIME):.2f}")
    _say("message", guest_pb2.HelloResponse(version="x").SerializeToString().hex())
    _say("regex", bool(re2.fullmatch("a+", "aaa")))
    _say("frozen", dataclasses.is_dataclass(os.stat_result))
    _say("crun", subprocess.run(["/usr/bin/crun", "--version"], capture_output=True, check=False).returncode)
    Path("/tmp/disk").write_bytes(bytes(8 << 20))
    _say("mkfs.ext4", subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "/tmp/disk"], check=False).returncode)
    _say("shells", [name for name in ("sh", "bash", "dash", "busybox") if Path("/usr/bin", name).exists()])
    _say("done", "yes")
    libc.reboot(ctypes.c_int(_POWER_OFF))
