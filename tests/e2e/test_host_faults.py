# SPDX-License-Identifier: Apache-2.0
"""A host that lacks something: one clear error to the user of ``ctr``, and a clean roll-back. Little boots here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

HELLO = ("/bin/echo", "hello")


def damaged_image(directory: Path) -> str:
    """A copy of the guest image with one bit of its initrd changed."""
    shutil.copytree(paths.IMAGE, directory)
    initrd = directory / "initrd.img"
    content = bytearray(initrd.read_bytes())
    content[len(content) // 2] ^= 1
    initrd.write_bytes(content)
    return str(directory)


FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "no QEMU": ({"qemu": "/nonexistent/qemu"}, "no QEMU at /nonexistent/qemu"),
    "no vsock": ({"vhost_device_vsock": "/nonexistent/vsock"}, "this host has no vsock"),
    "no guest image": ({"image_dir": "/nonexistent/image"}, "/nonexistent/image"),
    "unknown key": ({"memory_mb": 512}, "memory_mib"),
    "unknown TEE": ({"tee": "tdx"}, "emulated"),
    "SNP without the hardware": ({"tee": "snp"}, "snp"),
}


def run_with(settings: dict[str, object], archives: dict[str, Path], name: str) -> str:
    """Runs it on a containerd with this configuration; asserts failure and a clean roll-back; returns the message."""
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", parma_config=settings) as daemon:
        host = Host(daemon, archives)
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        before = Inventory.take(host)
        done = host.run(name, HELLO, "--rm")
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        host.remove(name)
        assert_nothing_left(host, before)
        return done.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_named(fault: str, archives: dict[str, Path], name: str) -> None:
    settings, expected = FAULTS[fault]
    assert expected in run_with(settings, archives, name)


def test_a_guest_image_that_is_not_its_manifests_is_not_booted(
    archives: dict[str, Path], name: str, tmp_path: Path
) -> None:
    message = run_with({"image_dir": damaged_image(tmp_path / "image")}, archives, name)
    assert "initrd.img" in message
    assert "manifest" in message


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system with room for so many bytes."""
    mounted = []

    def make(size: int) -> Path:
        directory = tmp_path / "disk"
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
        mounted.append(directory)
        return directory

    yield make
    for directory in mounted:
        # The helper that makes the emulated processor's keys there ends by itself.
        wait_until(lambda: subprocess.run(["umount", directory]).returncode == 0, "the disk to be idle")  # noqa: B023


@pytest.mark.parametrize(("room", "what"), [(512 << 10, "layer"), (16 << 20, "scratch space")])
def test_a_full_disk_is_named(
    full_disk: Callable[[int], Path], archives: dict[str, Path], name: str, room: int, what: str
) -> None:
    message = run_with({"data_dir": str(full_disk(room))}, archives, name)
    assert what in message
    assert "full" in message or "No space left" in message


def test_blobs_gone_from_the_content_store_are_named(own_host: Host, name: str) -> None:
    listing = own_host.daemon.ctr("content", "list", "-q").stdout.split()
    sizes = {digest: own_host.daemon.ctr("content", "get", digest).stdout for digest in listing}
    layers = [digest for digest, text in sizes.items() if not text.lstrip().startswith("{")]
    for digest in layers:
        own_host.daemon.ctr("content", "delete", digest)
    before = Inventory.take(own_host)
    done = own_host.run(name, HELLO, "--rm")
    assert done.returncode != 0
    assert "content store" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    own_host.remove(name)
    assert_nothing_left(own_host, before)
