# SPDX-License-Identifier: Apache-2.0
"""A container's writable space: a host disk encrypted and authenticated with a key of this boot, or guest memory.

There is no header: every parameter is fixed here and the key exists only in the kernel's table of this boot, so there
is nothing on the disk that the host could use to choose a weaker setting. dm-crypt computes an HMAC over each
4096-byte sector with its number and keeps it through dm-integrity, whose own superblock is made fresh from zeroes.
What is not protected against is the host putting an *earlier* ciphertext of the same sector of this boot back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from parma_guest import paths, syscalls
from parma_guest.devicemapper import Target
from parma_guest.devices import Devices
from parma_guest.requests import MountScratch
from parma_guest.undo import Undo
from parma_guest.values import ContainerId
from parma_guest.verity import Mapper, Mounter
from parma_wire.errors import FailedPrecondition, Malformed, NotFound, Unavailable

SECTOR: Final = 4096
TAG_BYTES: Final = 32
CIPHER: Final = "capi:authenc(hmac(sha256),xts(aes))-plain64"
KEY_BYTES: Final = 32 + 64  # HMAC-SHA-256, AES-256-XTS
MIN_DISK_BYTES: Final = 16 * 2**20
_FEATURES: Final = (
    # No journal, and no checksums of its own: every sector is authenticated below, and nothing survives a crash.
    *("ext_attr", "dir_index", "filetype", "extent", "flex_bg", "sparse_super2", "large_file", "huge_file"),
    *("dir_nlink", "extra_isize", "uninit_bg"),
)
_SUPERBLOCK_BYTES: Final = 64 << 10
"""Zeroed where dm-integrity keeps its superblock (of 4096 bytes), for it to make a new one."""

_READABLE_START: Final = 256 << 10
_READABLE_END: Final = 64 << 10
"""Written before mkfs runs: it looks at the first sector and clears both ends, and the kernel reads ahead."""

_JOURNAL_SECTORS: Final = 1024
"""The least that makes sense: without journalling it is memory, and zeroes to be written, for nothing."""

_MIN_INODES: Final = 16_384
_WIPE_BYTES: Final = 1 << 20
_MKFS_TIMEOUT: Final = 120.0


class Disk(Protocol):
    """Raw access to block devices."""

    def write_zeroes(self, device: str, offset: int, length: int) -> None:
        """Overwrites; all arguments are multiples of 4096."""


class RawDisk:
    """`Disk` of the running kernel."""

    def write_zeroes(self, device: str, offset: int, length: int) -> None:
        """See `Disk`. Flushed when it returns."""
        descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            end = offset + length
            while offset < end:
                offset += os.pwrite(descriptor, bytes(min(_WIPE_BYTES, end - offset)), offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


Run = Callable[[Sequence[str], float], None]
"""Runs a program to its end; raises `Unavailable` when it fails or takes more than the given seconds."""


class Scratches:
    """The scratch spaces. Not thread-safe: the enforcer calls it under its lock."""

    def __init__(
        self,
        devices: Devices,
        mapper: Mapper,
        kernel: Mounter,
        disk: Disk,
        run: Run,
        *,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._devices = devices
        self._mapper = mapper
        self._kernel = kernel
        self._disk = disk
        self._run = run
        self._random = random
        self._mounted: dict[ContainerId, int | None] = {}
        self._devices_of: dict[ContainerId, str] = {}

    def attach(self, request: MountScratch) -> None:
        """Makes and mounts it, with ``scratch/<id>`` inside. All undone when it fails."""
        if request.container in self._mounted:
            raise FailedPrecondition("the container has scratch space already")
        directory = paths.container_directory(request.container)
        with Undo() as undo:
            self._kernel.make_directory(directory, 0o711)
            if request.lun is not None:
                self._mount_disk(request.container, request.lun, directory, undo)
            else:
                self._kernel.mount(
                    "tmpfs", directory, "tmpfs", syscalls.MS_NODEV, f"size={request.memory_bytes},mode=711"
                )
            undo.add(lambda: self._kernel.unmount(directory))
            self._kernel.make_directory(paths.scratch_directory(request.container), 0o755)
        self._mounted[request.container] = request.lun

    def detach(self, container: ContainerId) -> None:
        """Raises `NotFound`; any other error means that something is left."""
        if container not in self._mounted:
            raise NotFound("the container has no scratch space")
        self._kernel.unmount(paths.container_directory(container))
        if self._mounted[container] is not None:
            self._mapper.remove(_crypt_name(container))
            self._mapper.remove(_integrity_name(container))
            self._devices.forget(self._devices_of.pop(container))
        del self._mounted[container]

    def exists(self, container: ContainerId) -> bool:
        """True while the container has scratch space."""
        return container in self._mounted

    def uses(self, lun: int) -> bool:
        """True while the disk at this LUN backs scratch space."""
        return lun in self._mounted.values()

    def _mount_disk(self, container: ContainerId, lun: int, directory: str, undo: Undo) -> None:
        device = self._devices.find(lun)
        size = self._devices.size(device)
        if size < MIN_DISK_BYTES:
            raise Malformed("the scratch disk is too small", expected=f"at least {MIN_DISK_BYTES} bytes")
        self._disk.write_zeroes(device, 0, _SUPERBLOCK_BYTES)
        sectors = usable_sectors(size)
        integrity = self._mapper.create(_integrity_name(container), [integrity_target(device, sectors)], readonly=False)
        undo.add(lambda: self._mapper.remove(_integrity_name(container)))
        _check_provided(self._mapper.status(_integrity_name(container)), sectors, size)
        encrypted = self._mapper.create(
            _crypt_name(container), [crypt_target(integrity, sectors, self._random(KEY_BYTES))], readonly=False
        )
        undo.add(lambda: self._mapper.remove(_crypt_name(container)))
        # Sectors that were never written have no valid tag and cannot be read: give mkfs readable ends to look at.
        end = sectors * 512
        self._disk.write_zeroes(encrypted, 0, _READABLE_START)
        self._disk.write_zeroes(encrypted, end - _READABLE_END, _READABLE_END)
        self._run(mkfs_command(encrypted, end), _MKFS_TIMEOUT)
        try:
            self._kernel.mount(encrypted, directory, "ext4", syscalls.MS_NODEV, "errors=remount-ro")
        except OSError as error:
            raise Unavailable("the scratch file system cannot be mounted") from error
        self._devices_of[container] = device


def usable_sectors(disk_bytes: int) -> int:
    """Sectors of 512 bytes that dm-integrity has room for on a disk, a little less than it would find out itself.

    It puts a superblock and the journal first, then runs of 16 MiB, each after 128 KiB of tags: 1/129 of the rest.
    The kernel refuses a table that is longer than what fits.
    """
    return (disk_bytes - disk_bytes // 128 - 2 * 2**20) // SECTOR * (SECTOR // 512)


def integrity_target(device: str, sectors: int) -> Target:
    """Tags only, no hash of its own; written directly, as a crash of the VM ends the life of the scratch anyway."""
    options = f"block_size:{SECTOR} fix_padding journal_sectors:{_JOURNAL_SECTORS}"
    return Target(sectors, "integrity", f"{device} 0 {TAG_BYTES} D 3 {options}")


def crypt_target(device: str, sectors: int, key: bytes) -> Target:
    """Authenticated encryption of ``device``; sectors of 512 bytes."""
    options = f"2 integrity:{TAG_BYTES}:aead sector_size:{SECTOR}"
    return Target(sectors, "crypt", f"{CIPHER} {key.hex()} 0 {device} 0 {options}")


def mkfs_command(device: str, size: int) -> list[str]:
    """ext4 without a journal, everything written at once: an unwritten sector could not be read later.

    No backup superblocks either: they are smaller than a sector, so writing one reads the unwritten rest of it.
    """
    # Inode tables are most of what is written, and all of it is encrypted: one inode for 64 KiB, more on small disks.
    inodes = min(max(size // 65_536, _MIN_INODES), size // 16_384)
    return [
        *(paths.MKFS_EXT4, "-q", "-F", "-b", str(SECTOR), "-I", "256", "-N", str(inodes), "-m", "0"),
        *("-O", ",".join(("none", *_FEATURES)), "-E", "num_backup_sb=0,lazy_itable_init=0,nodiscard", device),
    ]


def _check_provided(status: str, sectors: int, device_bytes: int) -> None:
    """The second word of dm-integrity's status: how many sectors its superblock says there are."""
    words = status.split()
    if len(words) < 2 or not words[1].isdigit():
        raise Unavailable("dm-integrity's status is not understood")
    if not sectors <= int(words[1]) < device_bytes // 512:
        raise Unavailable("dm-integrity's superblock is not the one that was written")


def _integrity_name(container: ContainerId) -> str:
    return f"integrity-{container}"


def _crypt_name(container: ContainerId) -> str:
    return f"crypt-{container}"
