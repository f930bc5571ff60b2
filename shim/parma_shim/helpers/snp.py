# SPDX-License-Identifier: Apache-2.0
"""Helper: check that this host can launch SEV-SNP guests, and make the machine part of QEMU's command line.

Request: ``{"qemu", "firmware", "kernel", "initrd", "cmdline", "host_data", "measurement", "id_block", "vcpus",
"memory_mib"}``; ``id_block`` is a file name or empty. Answer: ``{"arguments": [...]}``, or an error that names the
first requirement that is not met. There is no fallback.
"""

from __future__ import annotations

import sys
from pathlib import Path

from parma_shim.helpers.main import Document, run
from parma_snp.errors import SnpError
from parma_snp.host import Host, ThisHost
from parma_snp.launch import DEFAULT_POLICY, IdBlock, SnpLaunch, check_firmware_size, qemu_arguments
from parma_snp.probes import cbitpos, require_snp_host
from parma_wire.errors import Unavailable


def launch_arguments(request: Document, host: Host | None = None) -> Document:
    """Probe, then build. ``host`` is another than this one, for tests."""
    firmware = Path(request["firmware"])
    machine = host or ThisHost(Path(request["qemu"]), firmware)
    try:
        require_snp_host(machine)
        check_firmware_size(firmware.stat().st_size)
        id_block = _id_block(request["id_block"], bytes.fromhex(request["measurement"]))
        launch = SnpLaunch(
            firmware=firmware,
            kernel=Path(request["kernel"]),
            initrd=Path(request["initrd"]),
            cmdline=request["cmdline"],
            host_data=bytes.fromhex(request["host_data"]),
            cbitpos=cbitpos(machine),
            vcpus=request["vcpus"],
            memory_mib=request["memory_mib"],
            policy=id_block.policy if id_block else DEFAULT_POLICY,
            id_block=id_block,
        )
        qemu = machine.qemu()
        if qemu is None:
            raise Unavailable("QEMU cannot be asked what it can do")
        return {"arguments": qemu_arguments(launch, qemu)}
    except (SnpError, OSError) as error:
        raise Unavailable(str(error)) from error


def _id_block(file: str, measurement: bytes) -> IdBlock | None:
    """The ID block for a VM with this measurement, where there is a file of them."""
    if not file:
        return None
    from parma_snp.idblock_file import select

    return select(Path(file).read_bytes(), measurement)


if __name__ == "__main__":
    sys.exit(run(launch_arguments))
