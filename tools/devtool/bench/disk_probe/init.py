# SPDX-License-Identifier: Apache-2.0
"""Runs as process 1 of a VM; prints one ``key MiB/s`` a line. The disks, by LUN, are those of `devtool.bench.disks`.

What is measured is the enforcer's own code: its dm-verity and dm-crypt tables, its mount options.
"""

import os
import time
from pathlib import Path

from parma_guest import boot, paths, syscalls
from parma_guest.devicemapper import DeviceMapper
from parma_guest.devices import ScsiDevices
from parma_guest.modules import load_modules
from parma_guest.reaper import Reaper
from parma_guest.requests import MountDevice, MountScratch
from parma_guest.runtime import run
from parma_guest.scratch import RawDisk, Scratches
from parma_guest.syscalls import Kernel
from parma_guest.values import ContainerId, LayerTarget, RootHash
from parma_guest.verity import Layers

VERIFIED, PLAIN, WRITABLE, SCRATCH = range(4)
MIB = 1 << 20
ROUNDS = 3
CONTAINER = ContainerId("c0" * 32)


def main() -> None:
    kernel = Kernel()
    try:
        _measure(kernel)
        print("done yes", flush=True)
    except BaseException as error:  # noqa: BLE001 - process 1 has nobody to tell
        print(f"failed {type(error).__name__}: {error}", flush=True)
    kernel.power_off()


def _measure(kernel: Kernel) -> None:
    boot.leave_initial_root(kernel)
    boot.mount_all(kernel)
    load_modules("none")
    words = dict(word.split("=", 1) for word in Path("/proc/cmdline").read_text().split() if "=" in word)
    reaper = Reaper()
    reaper.start()
    devices, mapper = ScsiDevices(kernel.block_device_size), DeviceMapper()
    target = LayerTarget("/run/mounts/scsi/m0")
    blocks = int(words["bench.blocks"])
    Layers(devices, mapper, kernel).attach(MountDevice(VERIFIED, target, RootHash(words["bench.root"]), blocks))
    plain, writable = "/run/plain", "/run/writable"
    kernel.make_directory(plain, 0o700)
    kernel.mount(devices.find(PLAIN), plain, "ext4", syscalls.MS_RDONLY | syscalls.MS_NODEV, "noload")
    kernel.make_directory(writable, 0o700)
    run(reaper)(["/usr/sbin/mkfs.ext4", "-q", devices.find(WRITABLE)], 60)
    kernel.mount(devices.find(WRITABLE), writable, "ext4", syscalls.MS_NODEV, "")
    Scratches(devices, mapper, kernel, RawDisk(), run(reaper)).attach(MountScratch(CONTAINER, SCRATCH, None))
    for key, measure, directory in (
        ("read-plain", _read, plain),
        ("read-verity", _read, target),
        ("write-plain", _write, writable),
        ("write-scratch", _write, paths.scratch_directory(CONTAINER)),
    ):
        print(key, f"{max(measure(f'{directory}/big') for _ in range(ROUNDS)):.2f}", flush=True)


def _read(path: str) -> float:
    """MiB/s of a file that is not in memory."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    began = time.monotonic()
    size = 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(MIB):
            size += len(piece)
    return size / MIB / (time.monotonic() - began)


def _write(path: str) -> float:
    """MiB/s, until it is on the disk."""
    piece, mib = os.urandom(MIB), 32
    began = time.monotonic()
    with open(path, "wb", buffering=0) as file:
        for _ in range(mib):
            file.write(piece)
        os.fsync(file.fileno())
    return mib / (time.monotonic() - began)


if __name__ == "__main__":
    main()
