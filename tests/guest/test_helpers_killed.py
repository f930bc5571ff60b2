# SPDX-License-Identifier: Apache-2.0
"""The enforcer's helpers are killed, before they have done anything and after all of it: nothing is half done.

The enforcer, its reaper and the adapters are real; scripts stand in the helpers' places and kill themselves. The script
in crun's place keeps containers and processes as crun does: a file of each container, and a process in its cgroup.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from parma_guest import paths
from parma_guest.cgroups import Cgroup
from parma_guest.runtime import Crun
from parma_wire import guest_pb2 as pb
from tests.descriptors import descriptors
from tests.guest.rpcs import HONEST
from tests.guest.test_boundaries import ID, World
from tests.guest.test_processes import OwnReaper
from tests.shim.support import ended, eventually
from ttrpc import Status

_CRUN = """\
#!/bin/sh
here={here}
for word in "$@"; do
    case $before in --pid-file) pidfile=$word;; json) command=$word;; esac
    before=$word id=$word
done
echo $command >> $here/calls
fate=$(grep "^$command " $here/fates | cut -d" " -f2)
[ "$fate" = first ] && kill -9 $$
run() {{
    sleep 1000 > /dev/null 2>&1 &
    echo $! | tee -a {cgroup}/cgroup.procs $here/started > $pidfile
}}
case $command in
create) [ -e $here/$id ] && exit 1; run; cp $pidfile $here/$id;;
start) echo started >> $here/$id;;
exec) run;;
delete) [ -e $here/$id ] || exit 1; kill -9 $(head -n 1 $here/$id); rm $here/$id;;
esac
[ "$fate" = last ] && kill -9 $$
exit 0
"""
_ROOTFS = ("MountDevice", "MountScratch", "MountOverlay")
_CREATED = (*_ROOTFS, "CreateContainer")
_RUNNING = (*_CREATED, "StartContainer")


class Helpers:
    """The scripts, what they do, and an enforcer that runs them."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory / "crun"
        self.directory.mkdir()
        self.private = directory / "private"
        self.private.mkdir()
        self.cgroup = directory / "world" / ID
        self.spare()
        self._monkeypatch = monkeypatch
        self.put("CRUN", _CRUN.format(here=self.directory, cgroup=self.cgroup))
        self.put("MKFS_EXT4", "#!/bin/sh\nexit 0\n")
        reaper = OwnReaper()
        crun = Crun(reaper, private=str(self.private), cgroup=lambda _: Cgroup(self.cgroup))
        self.world = World(directory / "world", crun=crun, reaper=reaper)
        self.cgroup.mkdir()
        (self.cgroup / "cgroup.procs").touch()
        (self.cgroup / "cgroup.kill").touch()
        self.world.rig.set_policy()

    def put(self, place: str, script: str) -> None:
        """A script in a helper's place."""
        path = self.directory / place
        path.write_text(script)
        path.chmod(0o755)
        self._monkeypatch.setattr(paths, place, str(path))

    def kill(self, command: str, when: str) -> None:
        """From now on this command of crun's kills itself."""
        with (self.directory / "fates").open("a") as fates:
            fates.write(f"{command} {when}\n")

    def spare(self) -> None:
        """None any more."""
        (self.directory / "fates").write_text("")

    def reach(self, *methods: str) -> None:
        for method in methods:
            answer = self.world.call(method)
            assert not isinstance(answer, int), (method, answer)

    @property
    def alive(self) -> int:
        """Processes of containers."""
        started = self.directory / "started"
        pids = started.read_text().split() if started.exists() else []
        return sum(not ended(int(pid)) for pid in pids)

    def snapshot(self) -> Mapping[str, object]:
        """Of the world, and what crun has and the enforcer has made for it; cgroup.procs only ever grows here."""
        found = {key: value for key, value in self.world.snapshot().items() if key not in ("files", "attestation")}
        crun = sorted(path.name for path in self.directory.iterdir() if len(path.name) == len(ID))
        private = sorted(str(path.relative_to(self.private)) for path in self.private.rglob("*") if path.name != "c")
        return {**found, "crun": crun, "private": private}

    def close(self) -> None:
        self.world.close()
        for pid in self.cgroup.joinpath("cgroup.procs").read_text().split():
            if not ended(int(pid)):
                os.kill(int(pid), signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = descriptors()
    yield
    eventually(lambda: descriptors() <= before)


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Helpers]:
    made = Helpers(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize("when", ["first", "last"])
@pytest.mark.parametrize(
    ("command", "before", "method"),
    [
        ("create", _ROOTFS, "CreateContainer"),
        ("exec", _RUNNING, "ExecProcess"),
        ("update", _CREATED, "UpdateResources"),
    ],
)
def test_what_a_killed_crun_had_begun_is_taken_back_and_can_be_asked_for_again(
    helpers: Helpers, command: str, before: tuple[str, ...], method: str, when: str
) -> None:
    helpers.reach(*before)
    snapshot, alive = helpers.snapshot(), helpers.alive
    helpers.kill(command, when)
    assert helpers.world.call(method) == Status.UNAVAILABLE
    assert helpers.snapshot() == snapshot
    eventually(lambda: helpers.alive == alive)
    helpers.spare()
    helpers.reach(method)


@pytest.mark.parametrize("when", ["first", "last"])
def test_a_container_whose_start_was_cut_off_does_not_run(helpers: Helpers, when: str) -> None:
    helpers.reach(*_CREATED)
    snapshot = helpers.snapshot()
    helpers.kill("start", when)
    assert helpers.world.call("StartContainer") == Status.UNAVAILABLE
    assert (helpers.cgroup / "cgroup.kill").read_text() == "1"
    assert helpers.snapshot() == snapshot
    assert helpers.world.call("ExecProcess") == Status.FAILED_PRECONDITION
    helpers.spare()
    helpers.reach("DeleteContainer", "UnmountOverlay", "UnmountScratch", "UnmountDevice")
    eventually(lambda: helpers.alive == 0)


@pytest.mark.parametrize("when", ["first", "last"])
@pytest.mark.parametrize(
    ("begun", "before", "method"), [("", _CREATED, "DeleteContainer"), ("create", _ROOTFS, "CreateContainer")]
)
def test_what_could_not_be_taken_back_for_sure_poisons_the_group(
    helpers: Helpers, begun: str, before: tuple[str, ...], method: str, when: str
) -> None:
    helpers.reach(*before)
    state = helpers.snapshot()["state"]
    if begun:
        helpers.kill(begun, "last")
    helpers.kill("delete", when)
    assert helpers.world.call(method) == Status.UNAVAILABLE
    helpers.spare()
    assert helpers.snapshot()["state"] == state
    assert "was killed" in helpers.world.rig.enforcer.poisoned
    assert helpers.world.call("MountScratch") == Status.FAILED_PRECONDITION


def test_scratch_space_whose_making_was_cut_off_is_gone(helpers: Helpers) -> None:
    snapshot = helpers.snapshot()
    helpers.put("MKFS_EXT4", "#!/bin/sh\nkill -9 $$\n")
    assert helpers.world.call("MountScratch") == Status.UNAVAILABLE
    assert helpers.snapshot() == snapshot
    helpers.put("MKFS_EXT4", "#!/bin/sh\nexit 0\n")
    helpers.reach("MountScratch")


@pytest.mark.parametrize("script", ["kill -9 $$", "printf .; kill -9 $$"], ids=["first", "ready"])
def test_layers_whose_user_namespace_died_are_not_mounted(helpers: Helpers, script: str) -> None:
    helpers.world.rig.engine.open_door = True
    helpers.reach(*_ROOTFS[:2])
    snapshot = helpers.snapshot()
    helpers.put("PYTHON", f"#!/bin/sh\n{script}\n")
    mapping = pb.IdMapping(inside=0, outside=100_000, size=65_536)
    mapped: Any = HONEST["MountOverlay"](ID)
    mapped.uid_mappings.append(mapping)
    mapped.gid_mappings.append(mapping)
    assert helpers.world.call("MountOverlay", mapped) == Status.UNAVAILABLE
    assert helpers.snapshot() == snapshot
    helpers.reach("MountOverlay")


_HELPERS: Mapping[str, str] = {
    "parma_guest.runtime": "test_helpers_killed.py::test_what_a_killed_crun_had_begun_is_taken_back",
    "parma_guest.owners": "test_helpers_killed.py::test_layers_whose_user_namespace_died_are_not_mounted",
    "parma_guest.attest.service": "test_attest_sessions.py::test_an_agent_that_is_killed_is_forgotten",
    "parma_guest.rego": "../policy/test_rego.py::test_an_engine_that_dies_is_a_no_and_is_started_again",
}
"""Modules that start programs, and where these are killed."""


def test_every_module_that_starts_a_program_is_known() -> None:
    """Whoever adds a helper says where its death is tested."""
    root = Path(__file__).parents[2] / "guest"
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path in (root / "parma_guest").rglob("*.py")
        if "reaper.spawn(" in path.read_text() or "._spawn(" in path.read_text() or "posix_spawn(" in path.read_text()
    } - {"parma_guest.reaper"}
    assert found == set(_HELPERS)
    for place in _HELPERS.values():
        file, _, name = place.partition("::")
        assert f"def {name}" in (Path(__file__).parent / file).read_text()
