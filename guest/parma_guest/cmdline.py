# SPDX-License-Identifier: Apache-2.0
"""The kernel command lines of the guest: the only ones there are.

They are measured at launch. The image builder publishes them in the manifest, the host passes one of them to QEMU,
and the enforcer accepts nothing else, so that no kernel option can be slipped in where nothing is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from parma_wire.errors import Malformed

TEES: Final = ("snp", "emulated", "none")

# quiet: under software emulation each line on the serial port costs milliseconds.
# panic=-1: a crashed guest ends its VM at once, instead of waiting for someone to look at it.
# cryptomgr.notests and the initcalls left out: self-tests of ciphers and of a random generator and a key derivation
# that nothing here uses, and the certificates of Debian's module signatures, which no module in the image carries;
# together 1.3 s of the start under software emulation.
_SKIPPED_INITCALLS: Final = "jent_mod_init,crypto_kdf108_init,load_system_certificate_list"
_COMMON: Final = f"console=ttyS0 quiet panic=-1 cryptomgr.notests initcall_blacklist={_SKIPPED_INITCALLS}"

# ACPI tables come from the host, unmeasured, with code that the kernel would run. Without them it finds one processor,
# and no way to restart the machine but a triple fault.
_WITHOUT_ACPI: Final = " acpi=off reboot=triple"

# OVMF starts the kernel through its EFI stub, which puts the initrd's name in front.
_EFI_STUB_PREFIX: Final = "initrd=initrd "


def command_line(tee: str, *, acpi: bool = True) -> str:
    """The exact command line for ``tee`` (one of TEES); Malformed for any other name."""
    if tee not in TEES:
        raise Malformed(f"unknown tee {tee!r}", expected=", ".join(TEES))
    return f"{_COMMON} parma.tee={tee}{'' if acpi else _WITHOUT_ACPI}"


def tee_of(text: str) -> str:
    """Which tee the kernel was started for, from the text of /proc/cmdline. Malformed when it is not one of ours."""
    line = text.removesuffix("\n").removeprefix(_EFI_STUB_PREFIX)
    for tee in TEES:
        if line in (command_line(tee), command_line(tee, acpi=False)):
            return tee
    raise Malformed("the kernel command line is not one of the guest image's", expected="as in the image's manifest")


def booted_tee(path: Path = Path("/proc/cmdline")) -> str:
    """``tee_of`` the running kernel."""
    return tee_of(path.read_text(encoding="ascii", errors="replace"))
