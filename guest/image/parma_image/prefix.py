# SPDX-License-Identifier: Apache-2.0
"""Debian's QEMU, containerd and helpers unpacked into one folder, for developing and testing.

Nothing is installed on the machine: the folder can be moved away or removed. Programs that need libraries the host
may not have get a two-line launcher in ``bin`` that sets LD_LIBRARY_PATH for them alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parma_image.debian import Deb, DebianArchive, unpack
from parma_wire.errors import Unavailable, Unsupported

_HOST_SUITE: Final = {"bookworm": "bookworm-backports", "trixie": "trixie", "sid": "sid"}
"""Which suite has a QEMU with sev-snp-guest whose libraries fit the host's C library."""

_HOST_PACKAGES: Final = ("qemu-system-x86", "runc", "cryptsetup-bin", "e2fsprogs", "busybox-static", "zstd")
_SID_PACKAGES: Final = ("vhost-device-vsock", "ovmf-amdsev")
"""Rust and firmware; like sid's containerd they need nothing but a C library of Debian 12. (sid's runc needs more.)"""

_OWN_LIBRARY_PACKAGES: Final = ("erofs-utils",)
"""From trixie, with a C library of their own: what Debian 12 has is too old for containerd."""

# The host's own C library and compiler run time are used: the dynamic loader is the host's, and must match.
_EXCLUDED: Final = frozenset(
    ("libc6", "libc-bin", "libgcc-s1", "libstdc++6", "gcc-12-base", "gcc-14-base", "adduser", "passwd", "debconf")
)
_LAUNCHED: Final = (
    "usr/bin/qemu-system-x86_64",
    "usr/sbin/veritysetup",
    "usr/sbin/cryptsetup",
    "usr/sbin/mkfs.ext4",
    "usr/sbin/e2fsck",
    "usr/sbin/debugfs",
    "usr/bin/zstd",
)
_DATA_DIRECTORIES: Final = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
_LIBRARIES: Final = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_CONTAINERD: Final = ("containerd", "ctr", "containerd-shim-runc-v2")


@dataclass(frozen=True)
class Prefix:
    """Where things are below the unpacked folder."""

    directory: Path

    @property
    def bin(self) -> Path:
        """For PATH: QEMU, runc, vhost-device-vsock, veritysetup, mkfs.ext4, busybox, ..."""
        return self.directory / "bin"

    @property
    def qemu(self) -> Path:
        return self.bin / "qemu-system-x86_64"

    @property
    def qemu_data_dir(self) -> Path:
        """For QEMU's ``-L``: every firmware and option ROM in one folder."""
        return self.directory / "share/qemu"

    @property
    def vhost_device_vsock(self) -> Path:
        return self.bin / "vhost-device-vsock"

    @property
    def firmware(self) -> Path:
        """OVMF for SEV-SNP."""
        return self.directory / "share/OVMF.amdsev.fd"

    @property
    def containerd(self) -> Path:
        """Folder with containerd 2.1, its ctr and runc's shim."""
        return self.directory / "containerd-2.1"

    @property
    def containerd_1_7(self) -> Path:
        """Folder with containerd 1.7, its ctr and runc's shim."""
        return self.directory / "containerd-1.7"


def install_prefix(archive: DebianArchive, directory: Path) -> Prefix:
    """Makes ``directory`` unless it is there and was made by this very code on this release.

    Raises Unsupported on a host that is not Debian 12 or 13, and what ``DebianArchive.fetch`` raises.
    """
    codename = host_codename()
    suite = _HOST_SUITE.get(codename)
    if suite is None:
        raise Unsupported(f"this machine runs {codename or 'an unknown system'}", expected="Debian 12 or 13")
    prefix = Prefix(directory.absolute())
    stamp = directory / "made-by"
    wanted = f"{codename} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return prefix
    new = directory.with_name(directory.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    debs = _unpack_all(archive, suite, new)
    _link_programs(new, prefix.directory)
    (new / "packages.txt").write_text("".join(f"{deb.name} {deb.version} {deb.sha256}\n" for deb in debs))
    (new / "made-by").write_text(wanted)
    shutil.rmtree(directory, ignore_errors=True)
    new.rename(directory)
    archive.log(f"host tools are in {directory}")
    return prefix


def host_codename(os_release: Path = Path("/etc/os-release")) -> str:
    """VERSION_CODENAME of a Debian machine; empty for anything else."""
    try:
        lines = os_release.read_text().splitlines()
    except OSError:
        return ""
    values = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    return values.get("VERSION_CODENAME", "") if values.get("ID") == "debian" else ""


def _unpack_all(archive: DebianArchive, suite: str, new: Path) -> list[Deb]:
    host = archive.fetch(suite, _HOST_PACKAGES, with_dependencies=True, exclude=_EXCLUDED)
    sid = archive.fetch("sid", _SID_PACKAGES)
    containerd = archive.fetch("sid", ["containerd"])
    containerd_1_7 = archive.fetch("trixie", ["containerd"])
    own_library = archive.fetch("trixie", _OWN_LIBRARY_PACKAGES, with_dependencies=True)
    archive.log("unpacking the host tools")
    unpack(host, new / "host")
    unpack(sid, new / "sid")
    unpack(containerd, new / "containerd-2")
    unpack(containerd_1_7, new / "containerd-1")
    unpack(own_library, new / "own-library")
    return [*host, *sid, *containerd, *containerd_1_7, *own_library]


def _link_programs(new: Path, final: Path) -> None:
    """Fills ``bin``, ``share`` and the two containerd folders; launchers name the ``final`` place."""
    for name in ("bin", "share/qemu", "containerd-2.1", "containerd-1.7"):
        (new / name).mkdir(parents=True)
    libraries = ":".join(str(final / "host" / folder) for folder in _LIBRARIES)
    for program in _LAUNCHED:
        _launcher(new, final, program, libraries)
    _link(new, "bin/busybox", "host/usr/bin/busybox", "host/bin/busybox")
    if any(Path("/", folder, "libseccomp.so.2").exists() for folder in _LIBRARIES):
        # No launcher if avoidable: runc is what we are measured against.
        _link(new, "bin/runc", "host/usr/sbin/runc")
    else:
        _launcher(new, final, "usr/sbin/runc", libraries)
    _link(new, "bin/vhost-device-vsock", "sid/usr/bin/vhost-device-vsock", "sid/usr/libexec/vhost-device-vsock")
    _launcher_with_own_library(new, final / "own-library", "mkfs.erofs")
    _link(new, "share/OVMF.amdsev.fd", *_found(new, "sid", "OVMF.amdsev.fd"))
    for name in _CONTAINERD:
        _link(new, f"containerd-2.1/{name}", f"containerd-2/usr/bin/{name}")
        _link(new, f"containerd-1.7/{name}", f"containerd-1/usr/bin/{name}")
    for folder in _DATA_DIRECTORIES:
        for path in sorted((new / "host" / folder).glob("*")):
            link = new / "share/qemu" / path.name
            if path.exists() and not link.exists():
                link.symlink_to(os.path.relpath(path, link.parent))


def _launcher(new: Path, final: Path, program: str, libraries: str) -> None:
    # A merged /usr moved /sbin and /lib in Debian 13: accept both places.
    real = next((p for p in (program, program.removeprefix("usr/")) if (new / "host" / p).exists()), None)
    if real is None:
        raise Unavailable(f"the unpacked packages have no {program}")
    path = new / "bin" / Path(program).name
    # QEMU looks for its firmware where it was configured to be installed, whatever -L adds.
    arguments = f"-L {final}/share/qemu " if path.name.startswith("qemu-system") else ""
    path.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {final / "host" / real} {arguments}"$@"\n')
    path.chmod(0o755)


def _launcher_with_own_library(new: Path, root: Path, program: str) -> None:
    libraries = ":".join(str(root / folder) for folder in _LIBRARIES)
    loader = root / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    path = new / "bin" / program
    path.write_text(f'#!/bin/sh\nexec {loader} --library-path {libraries} {root / "usr/bin" / program} "$@"\n')
    path.chmod(0o755)


def _link(new: Path, link: str, *candidates: str) -> None:
    for candidate in candidates:
        if (new / candidate).exists():
            (new / link).symlink_to(os.path.relpath(new / candidate, (new / link).parent))
            return
    raise Unavailable(f"the unpacked packages have no {Path(link).name}")


def _found(new: Path, folder: str, name: str) -> list[str]:
    return [str(path.relative_to(new)) for path in sorted((new / folder).rglob(name))]
