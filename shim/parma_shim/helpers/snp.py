# SPDX-License-Identifier: Apache-2.0
"""Helper: check that this host can launch SEV-SNP guests, and make the machine part of QEMU's command line.

Request: ``{"qemu", "firmware", "kernel", "initrd", "cmdline", "host_data", "vcpus", "memory_mib"}``. Answer:
``{"arguments": [...]}``, or an error that names every requirement that is not met. There is no fallback.
"""

from __future__ import annotations

import sys
from pathlib import Path

from parma_shim.helpers.main import Document, run
from parma_snp.errors import SnpError
from parma_snp.launch import SnpLaunch, check_firmware_size, qemu_arguments
from parma_snp.probes import cbitpos, probe_host, require_snp_host
from parma_wire.errors import Unavailable


def launch_arguments(request: Document) -> Document:
    """Probe, then build."""
    firmware = Path(request["firmware"])
    try:
        require_snp_host(probe_host(qemu=Path(request["qemu"]), firmware=firmware))
        check_firmware_size(firmware.stat().st_size)
        launch = SnpLaunch(
            firmware=firmware,
            kernel=Path(request["kernel"]),
            initrd=Path(request["initrd"]),
            cmdline=request["cmdline"],
            host_data=bytes.fromhex(request["host_data"]),
            cbitpos=cbitpos(),
            vcpus=request["vcpus"],
            memory_mib=request["memory_mib"],
        )
        return {"arguments": qemu_arguments(launch)}
    except SnpError as error:
        raise Unavailable(str(error)) from error


if __name__ == "__main__":
    sys.exit(run(launch_arguments))
