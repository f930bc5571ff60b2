# SPDX-License-Identifier: Apache-2.0
"""The launch helper on a FAKE host: a machine that meets every requirement of SEV-SNP, but for QEMU, which is real.

Stands in for the interpreter that the shim runs its helper with, in tests of a launch without the hardware.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from parma_shim.helpers.main import Document, run
from parma_shim.helpers.snp import launch_arguments
from parma_snp.host import ThisHost
from tests.snp.test_probes import FakeHost


def launch_on_fake_host(request: Document) -> Document:
    """Everything but the machine is as the shim asked for."""
    qemu = ThisHost(Path(request["qemu"])).qemu()
    host = replace(FakeHost(), asked=qemu, bios=Path(request["firmware"]))
    answer = launch_arguments(request, host)
    # QEMU compares the C-bit with what the real processor answers.
    real = f'"cbitpos":{os.environ["PARMA_TEST_CBIT"]}'
    return {"arguments": [word.replace('"cbitpos":51', real) for word in answer["arguments"]]}


if __name__ == "__main__":
    sys.exit(run(launch_on_fake_host))
