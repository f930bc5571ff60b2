# SPDX-License-Identifier: Apache-2.0
"""How fast layers are read and scratch space is written in a guest, beside plain disks in the same guest.

No container can open a plain disk, so the guest has another process 1, which uses the enforcer's own code.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from devtool import images, paths
from parma_image import build
from parma_policy.layers.convert import LayerImage, layer_to_image
from parma_shim.config import Config
from parma_shim.vm import accelerator

PROBE = Path(__file__).with_name("disk_probe")
SIZE_MIB = 64
SCRATCH_MIB = 256


def measure() -> None:
    """Prints MiB/s: a layer with dm-verity and encrypted scratch, each beside a plain disk."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        build.build_image(
            directory,
            workdir=paths.ARCHIVE,
            relock_if_gone=True,
            entry="disk_probe.init",
            packages={"disk_probe": PROBE},
            measurements=False,
        )
        said = _boot(directory, _layer(directory / "layer"))
    if "failed" in said:
        raise RuntimeError(f"the disks' probe: {said['failed']}")
    for name, key, beside in (
        ("read of a verified layer", "read-verity", "read-plain"),
        ("write to encrypted scratch", "write-scratch", "write-plain"),
    ):
        guarded, plain = float(said[key]), float(said[beside])
        print(f"{name:44} {guarded:10.2f} {plain:10.2f} MiB/s x{guarded / plain:.2f} of a plain disk, more is better")


def _accelerator(directory: Path) -> str:
    """KVM where it works."""
    settings = Config(tee="none", qemu=paths.PREFIX / "bin/qemu-system-x86_64", state_dir=directory, data_dir=directory)
    return accelerator.choose(
        settings, directory / build.KERNEL, tee="none", environment={}, deadline=time.monotonic() + 60, log=print
    )


def _layer(path: Path) -> LayerImage:
    builder = images.LayerBuilder()
    builder.file("big", os.urandom(SIZE_MIB << 20))
    builder.tar.close()
    with path.open("w+b") as out:
        return layer_to_image(io.BytesIO(builder.buffer.getvalue()), out)


def _boot(directory: Path, layer: LayerImage) -> dict[str, str]:
    """What the probe printed; the VM powers off by itself."""
    manifest = json.loads((paths.IMAGE / "manifest.json").read_text())
    disks = [(directory / "layer", "on")] * 2
    for name in ("writable", "scratch"):
        with (directory / name).open("wb") as empty:
            empty.truncate(SCRATCH_MIB << 20)
        disks.append((directory / name, "off"))
    command: list[str | Path] = [
        *(paths.PREFIX / "bin/qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-m", "512", "-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+cx16,+aes"),
        *("-accel", _accelerator(directory)),
        *("-serial", "stdio", "-kernel", directory / build.KERNEL, "-initrd", directory / build.INITRD),
        "-append",
        f"{manifest['cmdline']['none']} bench.root={layer.root_hash} bench.blocks={layer.data_blocks}",
        *("-device", "virtio-scsi-pci,id=scsi0"),
    ]
    for lun, (path, read_only) in enumerate(disks):
        file = f"file.driver=file,file.locking=off,file.filename={path}"
        command += ["-blockdev", f"driver=raw,node-name=d{lun},read-only={read_only},{file}"]
        command += ["-device", f"scsi-hd,drive=d{lun},bus=scsi0.0,channel=0,scsi-id=0,lun={lun}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    lines = (line.strip().partition(" ") for line in done.stdout.splitlines())
    return {key: value for key, _, value in lines}
