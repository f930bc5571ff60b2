# SPDX-License-Identifier: Apache-2.0
"""Image layers: dm-verity over a disk of the host, and the file system on it.

The file system is what the verified contents say: erofs, or else ext4.

Every parameter is fixed here or comes from the policy (root hash) or from the request (number of data blocks, which
the root hash covers: with a wrong number the first read of the tree fails). The superblock that the host's disk
carries between data and tree is never read. A block that does not verify reads as EIO, each time it is read.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from parma_guest import syscalls
from parma_guest.devicemapper import Target
from parma_guest.devices import Devices
from parma_guest.requests import MountDevice
from parma_guest.undo import Undo
from parma_guest.values import LayerTarget, RootHash
from parma_wire.errors import FailedPrecondition, Malformed, NotFound, Unavailable

BLOCK: Final = 4096
SALT: Final = bytes(32)
_HASHES_PER_BLOCK: Final = BLOCK // 32
_SECTORS_PER_BLOCK: Final = BLOCK // 512


class Mapper(Protocol):
    """What is needed of `parma_guest.devicemapper.DeviceMapper`."""

    def create(self, name: str, targets: list[Target], *, readonly: bool) -> str:
        """Makes a device; its path."""

    def status(self, name: str) -> str:
        """Status text."""

    def remove(self, name: str) -> None:
        """Removes it."""


class Mounter(Protocol):
    """What is needed of `parma_guest.syscalls.Kernel`."""

    def mount(self, source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
        """mount(2)."""

    def read_head(self, device: str, size: int) -> bytes:
        """The first bytes of a block device."""

    def unmount(self, target: str) -> None:
        """umount2(2)."""

    def make_directory(self, path: str, mode: int) -> None:
        """With its parents; nothing happens when it exists."""


def tree_blocks(data_blocks: int) -> int:
    """Blocks of the hash tree over ``data_blocks`` blocks: at least one level, up to a single top block."""
    total = 0
    level = data_blocks
    while True:
        level = -(-level // _HASHES_PER_BLOCK)
        total += level
        if level == 1:
            return total


def device_bytes(data_blocks: int) -> int:
    """Data, one superblock (unused), tree."""
    return (data_blocks + 1 + tree_blocks(data_blocks)) * BLOCK


class FileSystem(NamedTuple):
    """How to mount a layer."""

    name: str
    data: str


EXT4: Final = FileSystem("ext4", "noload")
EROFS: Final = FileSystem("erofs", "")

_EROFS_MAGIC: Final = (1024, bytes.fromhex("e2e1f5e0"))
"""Where it is, and what: EROFS_SUPER_OFFSET and EROFS_SUPER_MAGIC_V1, little endian. ext4's superblock begins at the
same place, with a number of inodes; its own magic is elsewhere, so at most one of the two can be mounted."""


def file_system(head: bytes) -> FileSystem:
    """What a layer is, by the first block of its verified contents."""
    offset, magic = _EROFS_MAGIC
    return EROFS if head[offset : offset + len(magic)] == magic else EXT4


def verity_target(device: str, root_hash: RootHash, data_blocks: int) -> Target:
    """The table line. No optional arguments: an I/O error on corruption, and every read checked, not only the first."""
    hash_start = data_blocks + 1
    parameters = f"1 {device} {device} {BLOCK} {BLOCK} {data_blocks} {hash_start} sha256 {root_hash} {SALT.hex()}"
    return Target(data_blocks * _SECTORS_PER_BLOCK, "verity", parameters)


class _Attached(NamedTuple):
    lun: int
    device: str
    name: str


class Layers:
    """The mounted layers. Not thread-safe: the enforcer calls it under its lock."""

    def __init__(self, devices: Devices, mapper: Mapper, kernel: Mounter) -> None:
        self._devices = devices
        self._mapper = mapper
        self._kernel = kernel
        self._attached: dict[LayerTarget, _Attached] = {}

    def attach(self, request: MountDevice) -> None:
        """Verifies and mounts. Raises `FailedPrecondition`, `Malformed`, `NotFound`, `Unavailable`; all undone then."""
        if request.target in self._attached:
            raise FailedPrecondition("a layer is mounted there already")
        if any(attached.lun == request.lun for attached in self._attached.values()):
            raise FailedPrecondition(f"the disk at LUN {request.lun} is in use already")
        device = self._devices.find(request.lun)
        needed = device_bytes(request.data_blocks)
        if self._devices.size(device) < needed:
            raise Malformed("the disk is too small for the layer", expected=f"{needed} bytes")
        name = f"layer-{request.target.number}"
        with Undo() as undo:
            table = [verity_target(device, request.root_hash, request.data_blocks)]
            verified = self._mapper.create(name, table, readonly=True)
            undo.add(lambda: self._mapper.remove(name))
            self._kernel.make_directory(request.target, 0o700)
            try:
                flags = syscalls.MS_RDONLY | syscalls.MS_NODEV
                found = file_system(self._kernel.read_head(verified, BLOCK))
                self._kernel.mount(verified, request.target, found.name, flags, found.data)
            except OSError as error:
                raise Unavailable(
                    f"dm-verity: layer {request.root_hash} does not verify, or is no ext4 or erofs file system",
                    expected="a disk whose contents have the root hash that the policy names",
                ) from error
        self._attached[request.target] = _Attached(request.lun, device, name)

    def detach(self, target: LayerTarget) -> None:
        """Raises `NotFound`; any other error means that something is left."""
        attached = self._attached.get(target)
        if attached is None:
            raise NotFound("no layer is mounted there")
        self._kernel.unmount(target)
        self._mapper.remove(attached.name)
        self._devices.forget(attached.device)
        del self._attached[target]

    def uses(self, lun: int) -> bool:
        """True while the disk at this LUN backs a layer."""
        return any(attached.lun == lun for attached in self._attached.values())
