# SPDX-License-Identifier: Apache-2.0
"""What the virtual machine code needs from the host's configuration (``parma_shim.config.Config`` has all of it)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class VmSettings(Protocol):
    """Read-only view of the configuration. Paths are absolute."""

    @property
    def qemu(self) -> Path:
        """The QEMU system emulator."""

    @property
    def qemu_data_dir(self) -> Path | None:
        """Directory of QEMU's firmware files (``-L``), or None for its built-in path."""

    @property
    def vhost_device_vsock(self) -> Path | None:
        """The vhost-user vsock device, for hosts without /dev/vhost-vsock."""

    @property
    def id_block(self) -> Path | None:
        """File of signed ID blocks for tee = "snp", or None to launch without."""

    @property
    def emulated_on_snp(self) -> str:
        """Whether tee = "emulated" is "refused" or "allowed" on a machine with SEV-SNP."""

    @property
    def setpriv(self) -> Path:
        """util-linux's setpriv, which sets the parent-death signal."""

    @property
    def python(self) -> Path:
        """The interpreter for helper processes."""

    @property
    def accelerator(self) -> str:
        """ "auto", "kvm" or "tcg"."""

    @property
    def state_dir(self) -> Path:
        """Root-only directory that does not survive a reboot; caches of probes live here."""

    @property
    def data_dir(self) -> Path:
        """Directory on a real disk; scratch space is taken from its file system."""
