# SPDX-License-Identifier: Apache-2.0
"""Where things are in a developer's checkout. Everything that ``./dev`` makes is below ``.dev/``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DEV: Final = ROOT / ".dev"
VENV: Final = DEV / "venv"
PREFIX: Final = DEV / "prefix"
"""Debian's QEMU, containerd, runc, ... unpacked, so that the host's own stay untouched."""
IMAGE: Final = DEV / "image"
"""The guest image: kernel, initrd, firmware, manifest."""
ARCHIVE: Final = DEV / "archive"
"""Downloaded Debian packages."""
GO: Final = DEV / "go"
"""Programs that tests use and that are built with Go."""
CNI: Final = DEV / "cni"
"""Debian's CNI plugins, unpacked."""
REGO_ENGINE: Final = DEV / "rego-engine"
"""The engine of the ``rego`` image variant, a program."""
REGO_IMAGE: Final = DEV / "image-rego"
"""That variant."""
