# SPDX-License-Identifier: Apache-2.0
"""Debian's cloud kernel: the modules that the guest needs, and the order in which to load them."""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parma_image import elf
from parma_wire.errors import Malformed, NotFound

REQUIRED: Final = (
    "vmw_vsock_virtio_transport",  # the only way in
    "virtio_scsi",
    "sd_mod",
    "dm-mod",
    "dm-verity",
    "dm-crypt",
    "dm-integrity",
    "overlay",
    "erofs",  # layers that containerd has made itself
    # Scratch encryption, authenc(hmac(sha256),xts(aes)): with no modprobe in the guest the kernel cannot fetch
    # an algorithm by itself, and waits a minute before it gives up.
    "xts",
    "authenc",
    "essiv",
    "configfs",
    "tsm",
    "cuse",  # /dev/sev-guest for containers
)
# The fast ciphers and hashes are for real CPUs: under software emulation SHA-256 by SSSE3 runs at half the speed of
# plain C, and CRC-32C at a third. Every CPU with SEV-SNP has both flags.
CONDITIONAL: Final = {
    "aesni-intel": "cpu:aes",
    "crc32c-intel": "cpu:aes",
    "sha256-ssse3": "cpu:sha_ni",
    "sev-guest": "optional",  # SEV-SNP guests only
    "virtio_net": "pci:1af4:1041",  # VMs with a network card
    "bridge": "tee:none",  # containers that may make networks of their own; no policy has a use for it yet
}
"""Modules with the condition, as ``parma_guest.modules`` understands it, on which they are loaded."""

_SIGNATURE_MAGIC: Final = b"~Module signature appended~\n"
_SIGNATURE_INFORMATION: Final = 12


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    vmlinuz: Path
    release: str
    modules: Path

    @classmethod
    def find(cls, root: Path) -> Kernel:
        """The one kernel below ``root``. NotFound when there is none, Malformed when there are several."""
        found = sorted((root / "boot").glob("vmlinuz-*"))
        if not found:
            raise NotFound(f"no kernel below {root}")
        if len(found) > 1:
            raise Malformed(f"several kernels below {root}")
        release = found[0].name.removeprefix("vmlinuz-")
        return cls(found[0], release, root / "usr/lib/modules" / release)


@dataclass(frozen=True)
class Module:
    """A kernel module; ``data`` is not compressed. ``condition`` is empty for those that must always load."""

    name: str
    path: str
    data: bytes
    condition: str


def ordered_modules(kernel: Kernel) -> list[Module]:
    """What to load, each module after everything that it depends on, which is loaded on the same condition."""
    files = _module_files(kernel.modules)
    builtin = {_name(line) for line in (kernel.modules / "modules.builtin").read_text().split()}
    builtin |= builtin_aliases((kernel.modules / "modules.builtin.modinfo").read_bytes())
    data: dict[str, bytes] = {}
    depends: dict[str, tuple[str, ...]] = {}

    def read(name: str) -> tuple[str, ...]:
        if name not in files:
            raise NotFound(f"kernel {kernel.release} has no module {name}")
        data[name] = _read_module(files[name])
        depends[name] = dependencies(elf.modinfo(data[name]), builtin)
        return depends[name]

    conditions: dict[str, str] = {}
    for name, condition in [*((name, "") for name in REQUIRED), *CONDITIONAL.items()]:
        if _name(name) not in builtin:
            for needed in load_order([_name(name)], read):
                conditions.setdefault(needed, condition)
    return [
        Module(name, _plain_path(files[name], kernel.modules), data[name], condition)
        for name, condition in conditions.items()
    ]


def builtin_aliases(modinfo: bytes) -> set[str]:
    """Other names of what is built in, from ``modules.builtin.modinfo``: a module may ask for an algorithm by name."""
    fields = (entry.partition(b"=") for entry in modinfo.split(b"\0"))
    return {_name(value.decode()) for key, _, value in fields if key.endswith(b".alias")}


def dependencies(information: Mapping[str, list[str]], builtin: Iterable[str]) -> tuple[str, ...]:
    """Modules to load before one with this modinfo: its symbols' owners, then what it asks to have first."""
    names = [name for value in information.get("depends", []) for name in value.split(",") if name]
    for value in information.get("softdep", []):
        # "pre: a b post: c": words up to the next label.
        _, _, before = value.partition("pre:")
        names += before.partition("post:")[0].split()
    present = set(builtin)
    return tuple(dict.fromkeys(_name(name) for name in names if _name(name) not in present))


def load_order(names: Iterable[str], depends: Callable[[str], tuple[str, ...]]) -> list[str]:
    """Depth first: dependencies, then the module; in the given order otherwise. Malformed for a cycle."""
    order: list[str] = []
    entered: set[str] = set()

    def visit(name: str) -> None:
        if name in order:
            return
        if name in entered:
            raise Malformed(f"kernel module {name} depends on itself")
        entered.add(name)
        for dependency in depends(name):
            visit(dependency)
        order.append(name)

    for name in names:
        visit(name)
    return order


def modules_list(modules: Iterable[Module]) -> str:
    """The text that ``parma_guest.modules`` reads."""
    return "".join(f"{module.path} {module.condition}".rstrip() + "\n" for module in modules)


def _name(path: str) -> str:
    """A module's name as the kernel has it: file names may have a dash where the kernel has an underscore."""
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def _module_files(directory: Path) -> dict[str, Path]:
    return {_name(path.name): path for path in sorted((directory / "kernel").rglob("*.ko*"))}


def _plain_path(path: Path, modules: Path) -> str:
    """``RELEASE/kernel/.../NAME.ko``"""
    return str(path.relative_to(modules.parent)).removesuffix(".xz")


def _read_module(path: Path) -> bytes:
    data = path.read_bytes()
    return without_signature(lzma.decompress(data) if path.suffix == ".xz" else data)


def without_signature(data: bytes) -> bytes:
    """A module without its appended signature (struct module_signature, 12 bytes, its last 4 the length).

    The initrd is measured as a whole, so the signature adds nothing; checking it costs as much as loading.
    """
    if not data.endswith(_SIGNATURE_MAGIC):
        return data
    end = len(data) - len(_SIGNATURE_MAGIC) - _SIGNATURE_INFORMATION
    length = int.from_bytes(data[end + 8 : end + _SIGNATURE_INFORMATION], "big")
    if not 0 < length <= end:
        raise Malformed("kernel module with a broken signature")
    return data[: end - length]
