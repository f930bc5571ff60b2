# SPDX-License-Identifier: Apache-2.0
"""The launch measurements of an image, for every shape of VM that the shim starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from parma_image.manifest import Measurement
from parma_snp.errors import SnpError
from parma_snp.measure import measurement_table
from parma_wire.errors import Unavailable


def table(firmware: Path, kernel: Path, initrd: Path, cmdlines: Mapping[str, str]) -> tuple[Measurement, ...]:
    """One measurement for each tee and shape. Raises Unavailable when they cannot be computed."""
    try:
        return tuple(
            Measurement(tee, row.vcpu_type, row.vcpus, row.digest.hex())
            for tee, cmdline in cmdlines.items()
            for row in measurement_table(firmware, kernel, initrd, cmdline)
        )
    except SnpError as error:
        raise Unavailable(f"the image cannot be measured: {error}") from error
