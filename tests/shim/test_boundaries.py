# SPDX-License-Identifier: Apache-2.0
"""containerd dies at every boundary of every request of the task API: the shim has done all of it or nothing.

The task service and the wire are real, the group is a fake. What must hold is what a second shim holds that was asked
the same, before or after the request, by a containerd that lived.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from parma_shim.api import task_pb2
from parma_shim.task.process import guest_container_id
from tests.descriptors import descriptors
from tests.shim.support import SPEC, Rig, bundle, eventually
from tests.ttrpc.cuts import Cut, MortalClients

SERVICE = task_pb2.DESCRIPTOR.services_by_name["Task"]
METHODS = tuple(method.name for method in SERVICE.methods)
CUTS = tuple(cut for cut in Cut if cut is not Cut.ASKED)  # nobody is asked here
GUEST_ID = guest_container_id("default", "a")


class World:
    """A shim with a fake group, and containerds that come and go."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.rig = Rig(directory)
        self.clients = MortalClients(SERVICE, self.rig.service)
        self.bundle = bundle(directory / "a")

    def request(self, method: str) -> Any:
        return _REQUESTS[method](self)

    def snapshot(self) -> Mapping[str, object]:
        """All that a request could change."""
        with self.rig.env.tasks.changed:
            processes = [one for found in self.rig.env.tasks.all() for one in (found.init, *found.execs.values())]
            states = {f"{one.container.id}/{one.exec_id}": (one.state, one.pid, one.exit_status) for one in processes}
        return {
            "processes": states,
            "events": self.rig.topics(),
            "created": [spec.container_id for spec in self.rig.group.created],
            "deleted": [*self.rig.group.deleted],
            "machine": (self.rig.group.killed, self.rig.group.guest.alive),
            "guest": [call for call in self.rig.group.guest.calls if call != "list"],  # answered from memory, or asked
            "inside": {key: found.exited.is_set() for key, found in self.rig.group.guest.processes.items()},
            "ended": self.rig.ended.is_set(),
        }

    def settle(self) -> None:
        """Waits until the exit of what has ended inside is announced."""
        process = self.rig.group.guest.processes.get((GUEST_ID, ""))
        if process is not None and process.exited.is_set():
            eventually(lambda: "/tasks/exit a" in self.rig.topics())

    def close(self) -> None:
        self.rig.group.machine_dies()
        self.clients.close()
        for container in self.rig.env.tasks.all():
            for process in [container.init, *container.execs.values()]:
                if process.io is not None:
                    process.io.close()


def _create(world: World) -> task_pb2.CreateTaskRequest:
    return task_pb2.CreateTaskRequest(id="a", bundle=str(world.bundle))


def _exec(_world: World) -> task_pb2.ExecProcessRequest:
    request = task_pb2.ExecProcessRequest(id="a", exec_id="e")
    request.spec.value = json.dumps({**SPEC["process"], "args": ["sleep"]}).encode()
    return request


_REQUESTS: Mapping[str, Callable[[World], Any]] = {
    "State": lambda _: task_pb2.StateRequest(id="a"),
    "Create": _create,
    "Start": lambda _: task_pb2.StartRequest(id="a"),
    "Delete": lambda _: task_pb2.DeleteRequest(id="a"),
    "Pids": lambda _: task_pb2.PidsRequest(id="a"),
    "Pause": lambda _: task_pb2.PauseRequest(id="a"),
    "Resume": lambda _: task_pb2.ResumeRequest(id="a"),
    "Checkpoint": lambda _: task_pb2.CheckpointTaskRequest(id="a"),
    "Kill": lambda _: task_pb2.KillRequest(id="a", signal=15),
    "Exec": _exec,
    "ResizePty": lambda _: task_pb2.ResizePtyRequest(id="a", width=80, height=25),
    "CloseIO": lambda _: task_pb2.CloseIORequest(id="a", stdin=True),
    "Update": lambda _: task_pb2.UpdateTaskRequest(id="a"),
    "Wait": lambda _: task_pb2.WaitRequest(id="a"),
    "Stats": lambda _: task_pb2.StatsRequest(id="a"),
    "Connect": lambda _: task_pb2.ConnectRequest(id="a"),
    "Shutdown": lambda _: task_pb2.ShutdownRequest(id="a"),
}


class Row(NamedTuple):
    """What comes before, and whether the process has exited by then."""

    before: tuple[str, ...]
    exited: bool = False
    refused: bool = False


_CREATED = ("Create",)
_RUNNING = ("Create", "Start")
ROWS: Mapping[str, Row] = {
    "State": Row(_RUNNING),
    "Create": Row(()),
    "Start": Row(_CREATED),
    "Delete": Row(_RUNNING, exited=True),
    "Pids": Row(_RUNNING),
    "Pause": Row(_RUNNING),
    "Resume": Row((*_RUNNING, "Pause")),
    "Checkpoint": Row(_RUNNING, refused=True),
    "Kill": Row(_RUNNING),
    "Exec": Row(_RUNNING),
    "ResizePty": Row(_RUNNING),
    "CloseIO": Row(_RUNNING),
    "Update": Row(_RUNNING),
    "Wait": Row(_RUNNING, exited=True),
    "Stats": Row(_RUNNING),
    "Connect": Row(_RUNNING),
    "Shutdown": Row(()),
}


def test_every_request_has_a_row() -> None:
    assert set(ROWS) == set(_REQUESTS) == set(METHODS)


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = descriptors()
    yield
    eventually(lambda: descriptors() <= before)


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """Makes worlds in which a request makes sense."""
    made: list[World] = []

    def make(method: str) -> World:
        world, row = World(tmp_path / f"world-{len(made)}"), ROWS[method]
        made.append(world)
        for earlier in row.before:
            answer = world.clients.call(earlier, world.request(earlier))
            assert not isinstance(answer, int), (earlier, answer)
        if row.exited:
            world.rig.group.guest.process(GUEST_ID).exit(3)
            world.settle()
        return world

    yield make
    while made:
        made.pop().close()


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.name)
@pytest.mark.parametrize("method", METHODS)
def test_a_containerd_that_dies_leaves_all_of_its_request_or_nothing(
    worlds: Callable[[str], World], method: str, cut: Cut
) -> None:
    lived, died = worlds(method), worlds(method)
    assert died.snapshot() == lived.snapshot()
    if not cut.torn:
        answer = lived.clients.call(method, lived.request(method))
        assert isinstance(answer, int) is ROWS[method].refused
    died.clients.die(method, died.request(method), cut)
    _require_same(lived, died)
    # The containerd that is started next meets what it would have met without the death.
    for following in (method, "Delete"):
        refused = [isinstance(one.clients.call(following, one.request(following)), int) for one in (lived, died)]
        assert refused[0] is refused[1], following
        _require_same(lived, died)


def _require_same(lived: World, died: World) -> None:
    for world in (lived, died):
        world.settle()
    eventually(lambda: died.snapshot() == lived.snapshot())
