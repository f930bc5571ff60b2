# SPDX-License-Identifier: Apache-2.0
"""A host that runs out of something while containers live: descriptors, space for a log, space for what they write."""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.client import Containerd, code_of
from tests.e2e.crashes import lone_shim
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "600")
TRUE = ("/bin/true",)
TALK = ("/bin/seq", "200000")
"""More than a megabyte."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file system of this size."""
    directory = tmp_path / "disk"
    directory.mkdir()

    def make(size: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
        return directory

    yield make
    wait_until(lambda: subprocess.run(["umount", directory]).returncode == 0, "the disk to be idle")


def test_a_shim_without_descriptors_refuses_what_is_new_and_keeps_what_it_has(own_host: Host, name: str) -> None:
    before, client = Inventory.take(own_host), Containerd(own_host)
    client.new_container(name, SLEEP, policy=own_host.policy(SLEEP, execs=[TRUE]))
    client.create(name)
    client.start(name)
    pid = lone_shim(own_host)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    client.add_exec(name, "starved", TRUE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    starting = client.sending_start(name, "starved")
    assert code_of(starting) not in {"OK", "DEADLINE_EXCEEDED"}
    assert client.state(name) == "RUNNING"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    client.delete(name, "starved")
    assert own_host.exec(name, "fed", *TRUE).returncode == 0
    client.kill(name, signal.SIGKILL)
    assert client.wait(name) == 137
    assert client.delete(name) == 137
    client.close()
    own_host.remove(name)
    assert_nothing_left(own_host, before)


def test_a_log_file_on_a_full_disk_stops_nobody(own_host: Host, name: str, small_disk: Callable[[str], Path]) -> None:
    client, disk = Containerd(own_host), small_disk("64k")
    client.new_container(name, SLEEP, policy=own_host.policy(SLEEP, execs=[TALK, TRUE]))
    client.create(name)
    client.start(name)
    client.add_exec(name, "talks", TALK, stdout=f"file://{disk}/log")
    client.start(name, "talks")
    assert client.wait(name, "talks") == 0
    assert client.delete(name, "talks") == 0
    assert (disk / "log").read_text().startswith("1\n2\n3\n")
    assert own_host.exec(name, "after", *TRUE).returncode == 0
    client.close()
    own_host.remove(name)


WRITE = ("/bin/sh", "-c", "dd if=/dev/zero of=/big bs=1048576 count=300 conv=fsync && exit 0; exit 5")


def test_a_host_that_has_no_space_for_what_a_container_writes_tells_the_container(
    archives: dict[str, Path], name: str, small_disk: Callable[[str], Path]
) -> None:
    settings = {"data_dir": str(small_disk("140m")), "scratch_mib": 512}
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", parma_config=settings) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        host = Host(daemon, archives)
        before = Inventory.take(host)
        done = host.run(name, WRITE, "--rm")
        assert done.returncode == 5, done.stderr
        host.remove(name)
        assert_nothing_left(host, before)
