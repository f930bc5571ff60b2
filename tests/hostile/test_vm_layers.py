# SPDX-License-Identifier: Apache-2.0
"""Rows R15 to R26 in a booted guest: layers, disks, file systems and scratch space under a host that changes them."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, Malformed, ParmaError, Unavailable
from tests.hostile.stage import READ, SLEEP, Stage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BLOCK = 4096
MARKER = b"parma-plaintext-marker-0123456789"


@pytest.fixture
def victim(stage: Stage) -> Iterator[Path]:
    """The disk of a layer that is mounted nowhere yet; put right and unmounted afterwards."""
    path = stage.disk("victim")
    good = path.read_bytes()
    yield path
    path.write_bytes(good)
    with suppress(Denied):  # it never was
        stage.guest.call("UnmountDevice", pb.UnmountDeviceRequest(target=stage.target("victim")))


def mount(stage: Stage) -> None:
    stage.guest.mount_layer(stage.luns["victim"], stage.images["victim"])


def read(stage: Stage) -> int:
    """Exit code of reading the whole of the victim's file in a container; 1 as well where it does not come to that."""
    name = stage.new_id()
    stage.make_rootfs(name, "base", "victim")
    try:
        stage.guest.create(READ, name)
    except ParmaError as error:
        stage.remove_rootfs(name)
        return 1 if "Input/output error" in str(error) else 0
    stage.guest.start(name)
    printed = stage.guest.read_all(name)
    stage.guest.wait(name)
    stage.remove(name)
    return int(printed)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """In place, as the file is open in QEMU."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flip(path: Path, offset: int) -> None:
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0x40]))


def test_R15_no_other_selection_or_order_of_layers_is_mounted(stage: Stage) -> None:
    name = stage.new_id()
    stage.guest.call("MountScratch", pb.MountScratchRequest(container_id=name, memory_bytes=16 << 20))
    targets = [stage.target(layer) for layer in ("top", "middle", "base")]
    for count in range(4):
        for chosen in itertools.permutations(targets, count):
            if list(chosen) in (targets, targets[2:]):
                continue
            with pytest.raises(Denied):
                stage.guest.call("MountOverlay", pb.MountOverlayRequest(container_id=name, layer_targets=chosen))
    stage.guest.call("MountOverlay", pb.MountOverlayRequest(container_id=name, layer_targets=targets))
    stage.remove_rootfs(name)


def test_R19_a_disk_is_what_its_blocks_are_wherever_it_is_attached(stage: Stage) -> None:
    lun, image = stage.luns["other"], stage.images["other"]
    other = pb.MountDeviceRequest(
        lun=lun, target="/run/mounts/scsi/m9", device_hash=image.root_hash, data_blocks=image.data_blocks
    )
    with pytest.raises(Denied):
        stage.guest.call("MountDevice", other)
    listed = stage.images["victim"]
    pretended = pb.MountDeviceRequest(
        lun=lun, target="/run/mounts/scsi/m9", device_hash=listed.root_hash, data_blocks=image.data_blocks
    )
    with pytest.raises(ParmaError):
        stage.guest.call("MountDevice", pretended)  # another disk under the victim's name
    assert stage.run_once("hello") == ["hello"]


def test_R21_a_block_changed_before_verification_is_refused(stage: Stage, victim: Path) -> None:
    flip(victim, 1024 + 56)  # the magic number of ext4
    with pytest.raises(Unavailable, match="does not verify"):
        mount(stage)


def test_R21_a_block_changed_after_verification_reads_as_an_error_and_not_as_data(stage: Stage, victim: Path) -> None:
    mount(stage)
    good = victim.read_bytes()
    at = 2 * stage.images["victim"].data_blocks * BLOCK // 3  # in the middle of the file, read by nobody yet
    flip(victim, at)
    assert read(stage) == 1
    victim_bytes = bytearray(good)
    overwrite(victim, at, bytes(victim_bytes[at : at + 1]))
    assert read(stage) == 0  # the block is as it was: no error is remembered, and none was needed


def test_R21_another_disk_at_the_same_place_gives_errors_and_not_its_contents(stage: Stage, victim: Path) -> None:
    mount(stage)
    lun = stage.luns["victim"]
    deadline = time.monotonic() + 60
    with stage.guest.monitor() as monitor:
        monitor.execute("device_del", {"id": f"disk{lun}"}, deadline=deadline)
        monitor.wait_event("DEVICE_DELETED", device=f"disk{lun}", deadline=deadline)
        other = {"driver": "scsi-hd", "id": f"disk{lun}", "drive": f"d{stage.luns['other']}", "bus": "scsi0.0"}
        monitor.execute("device_del", {"id": f"disk{stage.luns['other']}"}, deadline=deadline)
        monitor.wait_event("DEVICE_DELETED", device=f"disk{stage.luns['other']}", deadline=deadline)
        monitor.execute("device_add", {**other, "scsi-id": 0, "lun": lun}, deadline=deadline)
        try:
            assert read(stage) == 1
        finally:
            stage.guest.call("UnmountDevice", pb.UnmountDeviceRequest(target=stage.target("victim")))
            monitor.execute("device_del", {"id": f"disk{lun}"}, deadline=deadline)
            monitor.wait_event("DEVICE_DELETED", device=f"disk{lun}", deadline=deadline)
            for name in ("victim", "other"):
                number = stage.luns[name]
                back = {"driver": "scsi-hd", "id": f"disk{number}", "drive": f"d{number}", "bus": "scsi0.0"}
                monitor.execute("device_add", {**back, "scsi-id": 0, "lun": number}, deadline=deadline)


def test_R22_metadata_of_the_hosts_making_is_never_replayed_or_repaired(stage: Stage, victim: Path) -> None:
    # Feature flag needs_recovery in the superblock, and a state that asks for a check.
    overwrite(victim, 1024 + 0x60, (0x46).to_bytes(4, "little"))
    overwrite(victim, 1024 + 0x3A, b"\2\0")
    before = victim.read_bytes()
    with pytest.raises(Unavailable, match="does not verify"):
        mount(stage)
    assert victim.read_bytes() == before  # nobody wrote to it either


def test_R23_the_superblock_of_dm_verity_is_never_looked_at(stage: Stage, victim: Path) -> None:
    at = stage.images["victim"].data_blocks * BLOCK
    assert victim.read_bytes()[at : at + 6] == b"verity"
    forged = b"verity\0\0" + (1).to_bytes(4, "little") + bytes(20) + b"crc32".ljust(32, b"\0")
    overwrite(victim, at, forged.ljust(BLOCK, b"\xee"))
    mount(stage)
    assert read(stage) == 0


def test_R23_a_changed_hash_tree_or_number_of_blocks_does_not_verify(stage: Stage, victim: Path) -> None:
    image = stage.images["victim"]
    for blocks in (image.data_blocks - 1, image.data_blocks + 1, 1):
        request = pb.MountDeviceRequest(
            lun=stage.luns["victim"], target=stage.target("victim"), device_hash=image.root_hash, data_blocks=blocks
        )
        with pytest.raises(ParmaError):
            stage.guest.call("MountDevice", request)
    flip(victim, (image.data_blocks + 1) * BLOCK)  # the root of the tree
    with pytest.raises(Unavailable, match="does not verify"):
        mount(stage)


def test_R24_what_is_on_a_scratch_disk_beforehand_means_nothing(stage: Stage) -> None:
    scratch = stage.disk("scratch")
    luks = b"LUKS\xba\xbe\0\2" + bytes(64) + b'{"keyslots":{},"segments":{"0":{"encryption":"cipher_null-ecb"}}}'
    integrity = b"integrt\0" + bytes([5, 0]) + bytes(500)
    for header in (luks, integrity, b"\0" * 1080 + b"\x53\xef", MARKER * 100):
        overwrite(scratch, 0, header.ljust(1 << 16, b"\0"))
        with stage.container(SLEEP, "base", scratch_lun=stage.scratch_lun) as name:
            assert stage.run(name, "secret") == [MARKER.decode()]
        assert MARKER not in scratch.read_bytes()


WORDS = 250_000


def words(stage: Stage, name: str) -> tuple[int, int]:
    """How many in the file are "one", how many "two", up to where it cannot be read; there is nothing else in it."""
    ones, twos, lines = (int(line) for line in stage.run(name, "words"))
    assert ones + twos == lines
    return ones, twos


def test_R25_altered_scratch_reads_as_an_error(stage: Stage) -> None:
    scratch = stage.disk("scratch")
    with stage.container(SLEEP, "base", scratch_lun=stage.scratch_lun) as name:
        assert stage.run(name, "one") == ["done"]
        assert words(stage, name) == (WORDS, 0)
        data = bytearray(scratch.read_bytes())
        for offset in range(4 << 20, len(data), BLOCK):
            if any(data[offset : offset + 64]):
                data[offset] ^= 1
        overwrite(scratch, 4 << 20, bytes(data[4 << 20 :]))
        assert words(stage, name) == (0, 0)


def test_R25_earlier_contents_put_back_are_what_was_there_or_an_error(stage: Stage) -> None:
    """The first is the documented rest; the second holds while the kernel remembers the sectors' tags."""
    scratch = stage.disk("scratch")
    with stage.container(SLEEP, "base", scratch_lun=stage.scratch_lun) as name:
        assert stage.run(name, "one") == ["done"]
        earlier = scratch.read_bytes()
        assert words(stage, name) == (WORDS, 0)
        assert stage.run(name, "two") == ["done"]
        assert words(stage, name) == (0, WORDS)
        later = scratch.read_bytes()
        overwrite(scratch, 0, earlier)
        assert words(stage, name)[1] == 0
        overwrite(scratch, 0, later)
        assert words(stage, name) == (0, WORDS)
    for page in ("SECURITY.md", "docs/threat-model.md"):
        text = " ".join((Path(__file__).parents[2] / page).read_text().split())
        assert re.search(r"(sector of scratch space may be put back to|keep) an (earlier|old) ciphertext", text), page


def test_R25_contents_of_an_earlier_container_are_never_read_again(stage: Stage) -> None:
    scratch = stage.disk("scratch")
    with stage.container(SLEEP, "base", scratch_lun=stage.scratch_lun) as first:
        assert stage.run(first, "one") == ["done"]
        earlier = scratch.read_bytes()
    with stage.container(SLEEP, "base", scratch_lun=stage.scratch_lun) as second:
        assert stage.run(second, "one") == ["done"]
        later = scratch.read_bytes()
        overwrite(scratch, 0, earlier)  # the same steps, so the same places and the same words; but another key
        assert words(stage, second) == (0, 0)
        overwrite(scratch, 0, later)
        assert words(stage, second) == (WORDS, 0)


def test_R05_no_request_says_how_a_layer_is_mounted(stage: Stage) -> None:
    with stage.container() as name:
        root = next(line for line in stage.run(name, "mounts") if " / / " in line)
    assert "nodev" not in root.split(" - ")[0].split(" ")[:4]
    assert "lowerdir=/run/mounts/scsi/m0" in root
    for target in ("/run/mounts/scsi/m1,ro", "/run/mounts/scsi/m1:/", "/run/mounts/scsi/m1\0", "/etc"):
        request = pb.MountDeviceRequest(lun=9, target=target, device_hash="ab" * 32, data_blocks=1)
        with pytest.raises(Malformed):
            stage.guest.call("MountDevice", request)
