# SPDX-License-Identifier: Apache-2.0
"""Where the host accounts for a VM."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
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


@pytest.mark.parametrize("path", ["/", "", "/a/../b", "a/./b", "a\0b", "a\nb", "../a:b:c"])
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


ROOT = Path(__file__).resolve().parents[2]
LEAVE = """
import sys
sys.path.insert(0, sys.argv[1])
from parma_shim.vm.cleanup import leave_cgroups
open(sys.argv[3], "w").write("0")
print(open("/proc/self/cgroup").read(), "--")
leave_cgroups(sys.argv[2])
print(open("/proc/self/cgroup").read())
"""

MEMBERSHIP = """\
9:name=systemd:/system.slice/containerd.service
4:memory:/elsewhere
3:cpu,cpuacct:/shims/one
0::/shims/two
"""


def test_where_the_shim_came_from_is_found_in_each_hierarchy(tmp_path: Path) -> None:
    cpu, memory, blkio = (tmp_path / name for name in ("cpuacct,cpu", "memory", "blkio"))
    for directory in (cpu / "shims/one", memory, blkio):
        directory.mkdir(parents=True)
        (directory / "cgroup.procs").touch()
    assert hostcgroup.home(cpu, MEMBERSHIP) == cpu / "shims/one"
    assert hostcgroup.home(memory, MEMBERSHIP) == memory  # /elsewhere cannot be seen from here
    assert hostcgroup.home(blkio, MEMBERSHIP) == blkio  # not named
    root = unified(tmp_path)
    (root / "shims/two").mkdir(parents=True)
    (root / "shims/two/cgroup.procs").touch()
    assert hostcgroup.home(root, MEMBERSHIP) == root / "shims/two"


HYBRID = hostcgroup.ROOT / "unified"
ROOTS = {"version 1": hostcgroup.ROOT, "version 2": HYBRID if HYBRID.is_dir() else hostcgroup.ROOT}

Sleeper = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    """Starts a process that does nothing, with these variables in its environment."""
    started = []

    def start(**variables: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["/bin/sleep", "600"], env=variables)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(params=ROOTS)
def real_root(request: pytest.FixtureRequest) -> Path:
    """Of the cgroups of this machine, by version."""
    root = ROOTS[request.param]
    if os.geteuid() or not os.access(root, os.W_OK):
        pytest.skip("needs root and writable cgroups")
    if (root / "cgroup.controllers").exists() != (request.param == "version 2"):
        pytest.skip(f"this machine has no cgroups of {request.param}")
    return root


@pytest.fixture
def places(real_root: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """Of a container of this test's own, in each hierarchy; none is there yet."""
    name = f"parma-test-{os.getpid()}-{tmp_path.name}"
    found = [hierarchy / name / "c" for hierarchy in hostcgroup.hierarchies(real_root)]
    yield found
    for place in (*found, *(place.parent for place in found)):
        with contextlib.suppress(OSError):
            place.rmdir()


def members(place: Path) -> set[int]:
    return {int(pid) for pid in (place / "cgroup.procs").read_text().split()}


def cgroup_of(places: list[Path], root: Path, record: Path, *, shim: int = 0) -> HostCgroup:
    path = places[0].relative_to(hostcgroup.hierarchies(root)[0])
    return HostCgroup(f"/{path}", record, root, shim=shim)


def left(places: list[Path]) -> list[Path]:
    return [place for place in places if place.parent.exists()]


def test_real_processes_are_accounted_together_and_nothing_stays(
    tmp_path: Path, real_root: Path, places: list[Path], sleeper: Sleeper
) -> None:
    process = sleeper()
    cgroup = cgroup_of(places, real_root, tmp_path / "record")
    cgroup.enter([process.pid])
    assert [members(place) for place in places] == [{process.pid}] * len(places)
    process.kill()
    threading.Timer(0.1, process.wait).start()  # until then it is there, as a zombie
    cgroup.remove()
    assert left(places) == []


def test_the_shim_and_what_it_started_go_back_where_the_shim_came_from(
    tmp_path: Path, real_root: Path, places: list[Path], sleeper: Sleeper
) -> None:
    qemu, shim = sleeper(), sleeper()
    helper = sleeper(PARMA_SHIM=str(shim.pid))
    membership = Path(f"/proc/{shim.pid}/cgroup").read_text()
    cgroup = cgroup_of(places, real_root, tmp_path / "record", shim=shim.pid)
    cgroup.enter([qemu.pid, helper.pid])  # a real one is born there
    assert [members(place) for place in places] == [{qemu.pid, shim.pid, helper.pid}] * len(places)
    qemu.kill()
    qemu.wait()
    cgroup.remove()
    assert left(places) == []
    for process in (shim, helper):
        assert process.poll() is None
        assert Path(f"/proc/{process.pid}/cgroup").read_text() == membership


def test_delete_finds_them_by_the_record_of_a_shim_that_was_killed(
    tmp_path: Path, real_root: Path, places: list[Path], sleeper: Sleeper
) -> None:
    shim = sleeper()
    helper = sleeper(PARMA_SHIM=str(shim.pid))
    directory = tmp_path / "vm"
    directory.mkdir()
    cgroup_of(places, real_root, directory / cleanup.CGROUP_FILE, shim=shim.pid).enter([helper.pid])
    shim.kill()
    shim.wait()
    cleanup.destroy_leftovers(directory, shim.pid)
    assert left(places) == []
    assert helper.poll() is None


def test_who_belongs_to_somebody_else_is_left_where_he_is(
    tmp_path: Path, real_root: Path, places: list[Path], sleeper: Sleeper
) -> None:
    """Containers of two daemons may have one name, and so one cgroup."""
    shim, others = sleeper(), sleeper(PARMA_SHIM="1")
    cgroup = cgroup_of(places, real_root, tmp_path / "record", shim=shim.pid)
    cgroup.enter([others.pid])
    cgroup.remove()
    assert [members(place) for place in places] == [{others.pid}] * len(places)


def test_a_home_that_is_gone_is_replaced_by_the_nearest_above(
    tmp_path: Path, real_root: Path, places: list[Path], sleeper: Sleeper
) -> None:
    process = sleeper()
    place = places[0]
    place.mkdir(parents=True)
    (place / "cgroup.procs").write_text(str(process.pid))
    record = tmp_path / "record"
    record.write_text(f"{place}\0{place.parent}/gone/too\n")
    cleanup.remove_cgroups(str(record), process.pid)
    assert members(place.parent) == {process.pid}
    process.kill()
    process.wait()


def test_what_may_outlive_the_container_takes_itself_away(
    tmp_path: Path, real_root: Path, places: list[Path], sleeper: Sleeper
) -> None:
    shim = sleeper()
    record = tmp_path / "record"
    cgroup = cgroup_of(places, real_root, record, shim=shim.pid)
    cgroup.enter([])
    arguments = [ROOT / "shim", record, places[0] / "cgroup.procs"]
    done = subprocess.run([sys.executable, "-ISc", LEAVE, *arguments], capture_output=True, text=True, check=True)
    inside, outside = done.stdout.split("--")
    name = places[0].parent.name
    assert name in inside
    assert name not in outside
    cgroup.remove()


def test_a_process_that_has_ended_is_no_error_here(tmp_path: Path, real_root: Path, places: list[Path]) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    cgroup = cgroup_of(places, real_root, tmp_path / "record")
    cgroup.enter([ended.pid])
    cgroup.remove()
    assert left(places) == []
