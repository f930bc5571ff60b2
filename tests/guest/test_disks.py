# SPDX-License-Identifier: Apache-2.0
"""dm-verity and dm-crypt tables, the ioctl's bytes, finding disks."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_guest import devicemapper, scratch, verity
from parma_guest.devicemapper import DeviceMapper, Target
from parma_guest.devices import ScsiDevices
from parma_guest.requests import MountScratch
from parma_guest.values import RootHash
from parma_wire.errors import DeadlineExceeded, Malformed, NotFound, Unavailable
from tests.guest.fakes import CONTAINER, DISK_BYTES, HASH, FakeDevices, FakeDisk, FakeKernel, FakeMapper, Rig


def test_the_verity_table_is_fixed_but_for_hash_and_size() -> None:
    target = verity.verity_target("/dev/sda", RootHash(HASH), 508)
    assert target == Target(508 * 8, "verity", f"1 /dev/sda /dev/sda 4096 4096 508 509 sha256 {HASH} {'00' * 32}")
    for word in ("check_at_most_once", "ignore_corruption", "ignore_zero_blocks", "restart_on_corruption"):
        assert word not in target.parameters


@pytest.mark.parametrize(("data", "blocks"), [(1, 1), (128, 1), (129, 3), (128 * 128, 129), (128 * 128 + 1, 132)])
def test_the_size_of_the_hash_tree(data: int, blocks: int) -> None:
    assert verity.tree_blocks(data) == blocks


@given(st.integers(1, 2**25))
def test_the_hash_tree_has_the_size_that_converting_a_layer_gives_it(data: int) -> None:
    levels, level = 0, data
    while level > 1 or levels == 0:
        level = -(-level // 128)
        levels += level
    assert verity.tree_blocks(data) == levels
    assert verity.device_bytes(data) == (data + 1 + levels) * 4096


def test_scratch_is_authenticated_encryption_with_a_fresh_key_each_time(tmp_path: Path) -> None:
    keys = itertools.count(1)
    mapper, kernel, disk = FakeMapper(), FakeKernel(), FakeDisk()
    programs: list[list[str]] = []
    target = scratch.Scratches(
        FakeDevices(),
        mapper,
        kernel,
        disk,
        lambda arguments, _timeout: programs.append([*arguments]),
        random=lambda size: bytes([next(keys)]) * size,
    )
    for number in (1, 2):
        target.attach(MountScratch(CONTAINER, 3, None))
        integrity = mapper.devices[f"integrity-{CONTAINER}"]
        crypt = mapper.devices[f"crypt-{CONTAINER}"]
        assert integrity.parameters == "/dev/sd3 0 32 D 3 block_size:4096 fix_padding journal_sectors:1024"
        assert integrity.length == crypt.length == scratch.usable_sectors(DISK_BYTES)
        assert crypt.type == "crypt"
        cipher, key, *_ = crypt.parameters.split()
        assert cipher == "capi:authenc(hmac(sha256),xts(aes))-plain64"
        assert bytes.fromhex(key) == bytes([number]) * 96
        assert crypt.parameters.endswith("2 integrity:32:aead sector_size:4096")
        assert key not in repr(crypt)
        target.detach(CONTAINER)
        assert mapper.devices == {}
        assert kernel.mounts == []
    assert disk.zeroed[0] == ("/dev/sd3", 0, 64 << 10)
    assert programs[0][0] == "/usr/sbin/mkfs.ext4"
    assert "lazy_itable_init=0" in programs[0][programs[0].index("-E") + 1]


@pytest.mark.parametrize(
    ("disk_bytes", "inodes"),
    [(16 << 20, 1024), (256 << 20, 16_384), (1 << 30, 16_384), (4 << 30, 65_536), (10 << 30, 163_840)],
)
def test_there_is_an_inode_for_each_64_kib_and_more_on_small_disks(disk_bytes: int, inodes: int) -> None:
    command = scratch.mkfs_command("/dev/dm-1", disk_bytes)
    assert command[command.index("-N") + 1] == str(inodes)


@given(st.integers(16 << 20, 1 << 44))
def test_dm_integrity_has_room_for_what_is_asked_of_it(disk_bytes: int) -> None:
    first = 4096 + (1 << 20)  # superblock; journal, rounded up to its sections
    run, tags = 16 << 20, 128 << 10
    runs, rest = divmod(disk_bytes - first, run + tags)
    room = runs * run + max(0, rest - tags)
    usable = scratch.usable_sectors(disk_bytes) * 512
    assert room - disk_bytes // 4096 - (4 << 20) < usable <= room
    assert usable % 4096 == 0


@pytest.mark.parametrize("status", ["", "0", "0 x -", "0 0 -", "0 999999999999 -"])
def test_an_integrity_superblock_of_the_hosts_making_is_refused(
    status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    monkeypatch.setattr(rig.mapper, "status", lambda _name: status)
    with pytest.raises(Unavailable):
        rig.scratches.attach(MountScratch(CONTAINER, 3, None))
    assert rig.mapper.devices == {}


def test_a_scratch_disk_has_a_least_size(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.devices.bytes = 1 << 20
    with pytest.raises(Malformed, match="too small"):
        rig.scratches.attach(MountScratch(CONTAINER, 3, None))


def test_scratch_in_memory_is_a_tmpfs_of_that_size(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.scratches.attach(MountScratch(CONTAINER, None, 12345678))
    assert rig.kernel.mounts == [
        ("tmpfs", f"/run/gcs/c/{CONTAINER}", "tmpfs", 4, "size=12345678,mode=711"),
    ]


class Ioctl:
    """Takes the place of fcntl.ioctl on the control device."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.buffers: list[bytearray] = []
        self.fail: set[int] = set()

    def __call__(self, _descriptor: int, request: int, buffer: bytearray, _mutate: bool) -> int:
        self.requests.append((request, bytes(buffer)))
        self.buffers.append(buffer)
        if request & 0xFF in self.fail:
            raise OSError(22, "Invalid argument")
        struct.pack_into("=Q", buffer, 40, (253 << 8) | 7 | (1 << 20))
        return 0


@pytest.fixture
def ioctl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ioctl:
    (tmp_path / "control").touch()
    fake = Ioctl()
    monkeypatch.setattr(devicemapper, "CONTROL", str(tmp_path / "control"))
    monkeypatch.setattr("parma_guest.devicemapper.fcntl.ioctl", fake)
    return fake


def test_a_mapping_is_created_loaded_and_resumed(ioctl: Ioctl) -> None:
    path = DeviceMapper().create("layer-1", [Target(16, "verity", "parameters")], readonly=True)
    assert path == f"/dev/dm-{256 + 7}"
    assert [request for request, _ in ioctl.requests] == [0xC138FD03, 0xC138FD09, 0xC138FD06]
    load = ioctl.requests[1][1]
    version, _, _, _size, start, count, _, flags = struct.unpack_from("=IIIIIIiI", load)
    assert (version, start, count) == (4, 312, 1)
    assert flags & 1  # read-only
    assert load[48:56] == b"layer-1\0"
    begin, length, _status, following, kind = struct.unpack_from("=QQiI16s", load, 312)
    assert (begin, length, kind.rstrip(b"\0")) == (0, 16, b"verity")
    assert load[352:363] == b"parameters\0"
    assert following == 56
    assert all(not any(buffer) for buffer in ioctl.buffers)  # no table, hence no key, is left in memory


def test_a_mapping_that_cannot_be_loaded_is_removed(ioctl: Ioctl) -> None:
    ioctl.fail.add(9)
    with pytest.raises(Unavailable, match="Invalid argument"):
        DeviceMapper().create("layer-1", [Target(16, "verity", "x")], readonly=True)
    assert [request & 0xFF for request, _ in ioctl.requests] == [3, 9, 4]


def sysfs(tmp_path: Path, *devices: str) -> Path:
    for device in devices:
        (tmp_path / "bus/scsi/devices" / device).mkdir(parents=True)
    return tmp_path


def scsi(root: Path) -> ScsiDevices:
    ticks = itertools.count()
    return ScsiDevices(lambda _: 1, sysfs=root, clock=lambda: float(next(ticks)), sleep=lambda _: None)


def test_a_disk_is_found_by_its_lun(tmp_path: Path) -> None:
    root = sysfs(tmp_path, "2:0:0:1/block/sdb", "2:0:0:11/block/sdc")
    assert scsi(root).find(1) == "/dev/sdb"


def test_a_disk_may_appear_after_a_scan_and_not_for_ever(tmp_path: Path) -> None:
    (tmp_path / "class/scsi_host/host2").mkdir(parents=True)
    (tmp_path / "class/scsi_host/host2/scan").touch()
    with pytest.raises(DeadlineExceeded, match="LUN 4"):
        scsi(tmp_path).find(4)
    assert (tmp_path / "class/scsi_host/host2/scan").read_text() == "0 0 4"


def test_an_ambiguous_lun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="ambiguous"):
        scsi(sysfs(tmp_path, "2:0:0:1/block/sdb", "3:0:0:1/block/sdc")).find(1)


def test_a_disk_that_has_gone_is_no_error_to_forget_but_one_to_measure(tmp_path: Path) -> None:
    def gone(_path: str) -> int:
        raise OSError(6, "No such device")

    devices = ScsiDevices(gone, sysfs=tmp_path)
    devices.forget("/dev/sdz")
    with pytest.raises(NotFound):
        devices.size("/dev/sdz")
