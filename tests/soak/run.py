# SPDX-License-Identifier: Apache-2.0
"""``./dev soak [--short]``: hundreds of containers, thousands of execs, kill -9 in between; then compares inventories.

Containers are created, started, entered, stopped and deleted in the VM of a pod that goes on, one after the other and
many at once; VMs likewise, with kill -9 of QEMU, of the shim and of containerd. In the end there must be exactly what
there was before: processes, sockets, network devices and namespaces, mounts, cgroups, files, descriptors, memory of
containerd and of the shim, disks and memory of the guest.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

from devtool import images, paths
from devtool.containerd import PrivateContainerd
from tests.e2e.host import BUSYBOX, Host
from tests.soak.soak import LONG, SHORT, Amounts, Soak

SETTINGS = {"scratch_mib": 64, "boot_timeout": 900, "call_timeout": 600}
"""Many containers at once wait for each other."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="./dev soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="what the tests do")
    parser.add_argument("--containerd", default="2.1", choices=("1.7", "2.1"))
    for field in fields(Amounts):
        default = getattr(LONG, field.name)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, help=f"default: {default}")
    options = parser.parse_args(arguments)
    chosen = {f.name: value for f in fields(Amounts) if (value := getattr(options, f.name)) is not None}
    amounts = replace(SHORT if options.short else LONG, **chosen)
    if amounts.pods < 1:
        parser.error("--pods must be at least 1: containers live in the first one")
    with (
        tempfile.TemporaryDirectory() as directory,
        PrivateContainerd(paths.PREFIX / f"containerd-{options.containerd}", parma_config=SETTINGS) as daemon,
    ):
        archive = Path(directory) / "busybox.tar"
        images.write_busybox_image(archive, paths.PREFIX / "bin/busybox", BUSYBOX)
        if (imported := daemon.ctr("image", "import", archive)).returncode:
            print(imported.stderr, file=sys.stderr)
            return 1
        try:
            Soak(Host(daemon, {BUSYBOX: archive}), amounts, lambda line: print(line, flush=True)).run()
        except BaseException:
            print(f"containerd's log, with what the shims said: {_keep(daemon.log)}", file=sys.stderr)
            raise
    return 0


def _keep(log: Path) -> Path:
    """Hours went into what it tells."""
    kept = paths.DEV / "soak.log"
    shutil.copyfile(log, kept)
    return kept


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
