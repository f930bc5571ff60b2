# SPDX-License-Identifier: Apache-2.0
"""Where the host accounts for a VM."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.vm import cleanup, hostcgroup
from parma_shim.vm.hostcgroup import HostCgroup, relative_path
from parma_wire.errors import Malformed, Unavailable


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/default/c1", "default/c1"),
        ("default/c1", "default/c1"),
        ("/kubepods/burstable/pod1/abc", "kubepods/burstable/pod1/abc"),
        ("system.slice:cri-containerd:abc", "system.slice/cri-containerd-abc.scope"),
        (
            "kubepods-besteffort-pod1_2.slice:cri-containerd:abc",
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/cri-containerd-abc.scope",
        ),
        (":nerdctl:abc", "system.slice/nerdctl-abc.scope"),
        ("-.slice::abc", "abc.scope"),
        ("a.slice:x:b.slice", "a.slice/b.slice"),
    ],
)
def test_paths_are_read_as_runc_reads_them(given: str, path: str) -> None:
    assert relative_path(given) == path


@pytest.mark.parametrize("path", ["/", "", "/a/../b", "a/./b", "a\0b", "../a:b:c"])
def test_paths_that_could_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(Malformed):
        relative_path(path)


def unified(root: Path) -> Path:
    """Files like those of a host with cgroup version 2."""
    (root / "cgroup.controllers").write_text("cpu io memory pids")
    (root / "cgroup.subtree_control").touch()
    (root / "pod").mkdir()
    return root


def test_only_accounting_hierarchies_of_version_1_are_used(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "cpuset", "unified", "systemd"):
        (tmp_path / name).mkdir()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert hostcgroup.hierarchies(tmp_path) == [tmp_path / "cpu,cpuacct", tmp_path / "memory"]


def test_controllers_are_enabled_on_the_way(tmp_path: Path) -> None:
    root = unified(tmp_path)
    HostCgroup("/pod/c", tmp_path / "record", root).enter([])
    assert (root / "cgroup.subtree_control").read_text() == "+pids"  # the last of four writes


def test_what_is_made_is_recorded_before_and_removed_after(tmp_path: Path) -> None:
    root, record = unified(tmp_path), tmp_path / "record"
    HostCgroup("/pod/a/b", record, root).enter([])
    assert record.read_text().splitlines() == [f"{root}/pod/a/b", f"{root}/pod/a"]
    cleanup.remove_cgroups(str(record))
    cleanup.remove_cgroups(str(record))
    assert (root / "pod").is_dir()
    assert not (root / "pod/a").exists()


def test_what_somebody_else_uses_stays(tmp_path: Path) -> None:
    root, record = unified(tmp_path), tmp_path / "record"
    HostCgroup("/pod/a/b", record, root).enter([])
    (root / "pod/a/other").mkdir()
    cleanup.remove_cgroups(str(record))
    assert [path.name for path in (root / "pod/a").iterdir()] == ["other"]


def test_the_containers_own_directory_is_removed_whoever_made_it(tmp_path: Path) -> None:
    root = unified(tmp_path)
    (root / "pod/c").mkdir()  # by an earlier container of that name, which is about to end
    HostCgroup("/pod/c", tmp_path / "record", root).enter([])
    cleanup.remove_cgroups(str(tmp_path / "record"))
    assert list((root / "pod").iterdir()) == []


def test_a_hierarchy_that_cannot_be_used_is_one_error(tmp_path: Path) -> None:
    root = unified(tmp_path)
    (root / "pod/c").touch()
    with pytest.raises(Unavailable, match="cannot use the cgroup"):
        HostCgroup("/pod/c", tmp_path / "record", root).enter([])


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()


def test_real_processes_are_accounted_together_and_nothing_stays(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    if os.geteuid() or not os.access(hostcgroup.ROOT, os.W_OK):
        pytest.skip("needs root and writable cgroups")
    name = f"parma-test-{os.getpid()}"
    cgroup = HostCgroup(f"/{name}/c", tmp_path / "record")
    try:
        cgroup.enter([process.pid])
        places = [hierarchy / name / "c" for hierarchy in hostcgroup.hierarchies()]
        for place in places:
            assert (place / "cgroup.procs").read_text().split() == [str(process.pid)]
    finally:
        process.kill()
        threading.Timer(0.1, process.wait).start()  # until then it is there, as a zombie
        cgroup.remove()
    assert [place for place in places if place.parent.exists()] == []


def test_a_process_that_has_ended_is_no_error_here(tmp_path: Path) -> None:
    if os.geteuid() or not os.access(hostcgroup.ROOT, os.W_OK):
        pytest.skip("needs root and writable cgroups")
    with subprocess.Popen(["true"]) as ended:
        pass
    cgroup = HostCgroup(f"/parma-test-{os.getpid()}", tmp_path / "record")
    cgroup.enter([ended.pid])
    cgroup.remove()
