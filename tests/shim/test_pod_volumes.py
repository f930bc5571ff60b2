# SPDX-License-Identifier: Apache-2.0
"""emptyDirs by kubelet's paths, and how large they are made."""

from __future__ import annotations

import pytest

from parma_shim import pod_volumes
from parma_shim.pod_volumes import EmptyDir
from parma_wire.errors import Malformed

PODS = "/var/lib/kubelet/pods/3f0c/volumes"
CACHE = f"{PODS}/kubernetes.io~empty-dir/cache"


def test_empty_dirs_are_recognised_by_kubelets_path_wherever_its_root_is() -> None:
    snap = "/var/snap/microk8s/common/var/lib/kubelet/pods/3f0c/volumes/kubernetes.io~empty-dir/tmp"
    mounts = [{"source": CACHE}, {"source": snap}, {"source": CACHE}, {"destination": "/proc"}]
    assert pod_volumes.empty_dirs(mounts) == [EmptyDir("cache", CACHE), EmptyDir("tmp", snap)]


@pytest.mark.parametrize(
    "source",
    [
        f"{PODS}/kubernetes.io~configmap/cache",
        f"{CACHE}/below",
        f"{PODS}/kubernetes.io~empty-dir/..",
        f"{PODS}/kubernetes.io~empty-dir/Upper",
        "/home/pods/x/volumes/kubernetes.io~empty-dir/",
        "volumes/kubernetes.io~empty-dir/cache",
        "",
    ],
)
def test_nothing_else_is_one(source: str) -> None:
    assert pod_volumes.empty_dir_name(source) == ""


def test_limits_are_quantities_by_name() -> None:
    text = "cache=512Mi, tmp=1G,raw=4096,kilo=3k"
    found = pod_volumes.limits({"io.parma.volume-limits": text})
    assert found == {"cache": 512 << 20, "tmp": 10**9, "raw": 4096, "kilo": 3000}
    assert pod_volumes.limits({}) == {}


@pytest.mark.parametrize(
    "text", ["cache", "cache=", "cache=0", "=1Mi", "cache=1Mi,", "cache=1m", "cache=-1", "a=9999T"]
)
def test_limits_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(Malformed, match="volume-limits is malformed"):
        pod_volumes.limits({"io.parma.volume-limits": text})


@pytest.mark.parametrize("limit", [1, 1 << 20, 100 << 20, 10 << 30])
def test_a_disk_has_room_for_the_limit_and_not_much_more(limit: int) -> None:
    disk = pod_volumes.disk_bytes(limit)
    assert limit + pod_volumes.MIN_BYTES <= disk <= limit * 9 // 8 + 2 * pod_volumes.MIN_BYTES
    assert disk % (1 << 20) == 0


def test_a_tmpfs_says_its_size_in_the_mount_table() -> None:
    table = (
        f"tmpfs {CACHE} tmpfs rw,relatime,size=65536k,inode64 0 0\n"
        f"/dev/sda1 {PODS}/kubernetes.io~empty-dir/disk ext4 rw 0 0\n"
        f"tmpfs {CACHE}2 tmpfs rw,relatime 0 0\n"
    )
    assert pod_volumes.tmpfs_bytes(CACHE, table) == 64 << 20
    assert pod_volumes.tmpfs_bytes(f"{PODS}/kubernetes.io~empty-dir/disk", table) == 0
    assert pod_volumes.tmpfs_bytes("/elsewhere", table) == 0
    assert pod_volumes.tmpfs_bytes(f"{CACHE}2", table) == 1 << 40  # no limit of its own: the VM's memory is one
