# SPDX-License-Identifier: Apache-2.0
"""The files of a guest image by its manifest, as far as its measurement depends on them.

A relying party has the image and this package, not the builder's. What the manifest says of measurements is not
trusted: they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parma_snp.errors import SnpError
from parma_snp.strict_json import Object

_CODE: Final = "measure.image"
_MAX_SIZE: Final = 16 << 20


@dataclass(frozen=True)
class ImageFiles:
    """What a guest image boots for one tee, and what its manifest publishes: hex digests by number of vCPUs."""

    firmware: Path
    kernel: Path
    initrd: Path
    cmdline: str
    published: dict[tuple[str, int], str]


def load(directory: Path, tee: str) -> ImageFiles:
    """Read ``manifest.json``. Raises SnpError ``measure.image``."""
    path = directory / "manifest.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnpError(_CODE, f"no guest image in {directory}: {error.strerror}", hint="parma image build") from None
    manifest = Object.parse(data, code=_CODE, limit=_MAX_SIZE)
    cmdline = _object(manifest, "cmdline").text(tee)
    published = {
        (entry.text("vcpu_type"), entry.number("vcpus")): entry.text("measurement")
        for entry in manifest.objects("measurements")
        if entry.text("tee") == tee
    }
    firmware, kernel, initrd = (_file(directory, manifest, key) for key in ("firmware", "kernel", "initrd"))
    return ImageFiles(firmware, kernel, initrd, cmdline, published)


def _object(parent: Object, key: str) -> Object:
    value = parent.fields.get(key)
    if not isinstance(value, dict):
        raise SnpError(_CODE, f"{key} is not an object")
    return Object(value, _CODE)


def _file(directory: Path, manifest: Object, key: str) -> Path:
    name = _object(manifest, key).text("file")
    if not name or "/" in name or name in {".", ".."}:
        raise SnpError(_CODE, f"{key} is not a file name", found=name)
    return directory / name
