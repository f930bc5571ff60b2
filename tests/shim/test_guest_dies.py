# SPDX-License-Identifier: Apache-2.0
"""The guest dies at every boundary of every request that the shim makes: containerd hears of it, once, and all ends.

Task service, container group, session and the wire are real; the enforcer, QEMU, layers and the helper that verifies
evidence are fakes. A script of tasks is run to its end whatever happens: no step may hang or fail with anything but an
error of ours, each exit is announced once, in order, and nothing is left.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from google.protobuf.message import Message

from parma_shim import group as groups
from parma_shim.api import task_pb2
from parma_shim.attestation import Attester
from parma_shim.digest import hex_digest
from parma_shim.helpers.call import Helper
from parma_shim.task.environment import Environment
from parma_shim.task.service import TaskService
from parma_shim.vm.machine import VirtualMachine
from parma_shim.vm.session import Session, boot
from parma_wire import guest_pb2 as pb
from parma_wire.errors import FailedPrecondition, NotFound, ParmaError, Unavailable, Unverified
from tests.descriptors import descriptors
from tests.shim.support import SPEC, Context, Log, eventually
from tests.vm.fake_guest import SERVICE, FakeGuest
from tests.vm.group_world import POLICY, FakeMachine, World

PROMPT = 30.0
"""Seconds that a step may take: far less than what a request to the guest may, which is 60 here."""

KILLED = 137
GONE = (Unavailable, FailedPrecondition, NotFound, Unverified)


class Cut(Enum):
    """Where the guest dies."""

    BEFORE = "when the request has arrived"
    DONE = "when it is carried out and not answered"
    ANSWERED = "when the answer is on its way"


class Fault(NamedTuple):
    """The guest dies at this request, the first of its kind."""

    method: str
    cut: Cut


class MortalGuest(FakeGuest):
    """Has processes that run until they are killed, and may die."""

    def __init__(self, fault: Fault | None) -> None:
        super().__init__()
        self.answers["ExecProcess"] = pb.ExecProcessResponse(pid=43)
        self.fault = fault
        self.machine: FakeMachine | None = None
        self.pod = ""
        self._ends: dict[tuple[str, str], threading.Event] = {}
        self._ends_lock = threading.Lock()

    def handle(self, name: str, request: Any) -> Any:
        self._die_at(name, Cut.BEFORE)
        answer = super().handle(name, request)
        if name == "SignalProcess":
            self._end(request.container_id, request.exec_id).set()
        elif name == "StopSandbox":
            self._end(self.pod, "").set()
        elif name == "CreateSandbox":
            self.pod = request.sandbox_id
        self._die_at(name, Cut.DONE)
        if name == "WaitProcess":
            end = self._end(request.container_id, request.exec_id)
            while not end.wait(0.005):
                self._be_silent_if_dead()
            return pb.WaitProcessResponse(exit_status=KILLED)
        return answer

    def answered(self, name: str) -> None:
        self._die_at(name, Cut.ANSWERED)

    def _die_at(self, name: str, cut: Cut) -> None:
        if self.fault != (name, cut) or self.machine is None:
            return
        self.fault = None
        self.machine.kill()
        if cut is not Cut.ANSWERED:
            self._be_silent_if_dead()

    def _be_silent_if_dead(self) -> None:
        """The dead do not answer: whoever waits must hear of it otherwise."""
        if self.machine is not None and not self.machine.alive:
            self.released.wait()
            raise Unavailable("the test is over")

    def _end(self, container_id: str, exec_id: str) -> threading.Event:
        with self._ends_lock:
            return self._ends.setdefault((container_id, exec_id), threading.Event())


class Verifier(Helper):
    """In place of the helper process: evidence always verifies."""

    def __init__(self, *_arguments: object) -> None:
        """Nothing is started."""

    def exchange(self, _document: Mapping[str, object], *, deadline: float) -> dict[str, Any]:
        assert deadline > time.monotonic()
        return {"summary": {"verdict": "attested"}}

    def abort(self) -> None:
        """It has ended."""


class Machines(World):
    """Real sessions with a guest that may die."""

    def __init__(self, directory: Path, fault: Fault | None) -> None:
        super().__init__(directory, call_timeout=60.0, file_updates=0.0)
        self.guest = self.mortal = MortalGuest(fault)
        self._dead: list[MortalGuest] = []

    def close(self) -> None:
        super().close()
        for guest in self._dead:
            guest.close()

    def _boot(self, _launch: object, policy: bytes, **options: Any) -> Session:
        if self.mortal.machine is not None:  # what was sent to the one that died, and is still under way, is not for it
            self._dead.append(self.mortal)
            self.guest = self.mortal = MortalGuest(self.mortal.fault)
        machine = FakeMachine(self.directory, self.guest)
        machine.spec = machine.spec._replace(host_data=bytes.fromhex(hex_digest(policy)))
        machine.vsock_cid = 3  # type: ignore[attr-defined]
        self.mortal.machine = machine
        self.machines.append(machine)
        return boot(lambda: cast("VirtualMachine", machine), policy, **{**options, "signer": None})


class Story:
    """A task service, and what it was asked and announced."""

    def __init__(self, directory: Path, fault: Fault | None = None) -> None:
        self.world = Machines(directory, fault)
        self.topics: list[tuple[str, str, str]] = []
        """Topic, container, exec id."""
        self.log = Log()
        self.errors: dict[str, ParmaError] = {}
        self.ended = threading.Event()
        self.host_file = directory / "hosts"
        self.host_file.write_text("127.0.0.1 localhost\n")
        self._directory = directory
        self._env = Environment(
            namespace="default", make_group=lambda: self.world.group, publish=self._publish, log=self.log
        )
        self.service = TaskService(self._env, shutdown=self.ended.set)

    def step(self, name: str, method: str, request: Message) -> Any:
        """One call of containerd; an error is kept under its name."""
        context, began = Context(), time.monotonic()
        try:
            return getattr(self.service, method)(request, context)
        except ParmaError as error:
            self.errors[name] = error
            return None
        finally:
            context.finish()
            assert time.monotonic() - began < PROMPT, f"{name} hung"

    def create(self, name: str, **changes: Any) -> None:
        bundle = self._directory / f"bundle-{name}"
        bundle.mkdir(exist_ok=True)
        annotations = {"io.parma.policy": base64.b64encode(POLICY).decode(), **changes.pop("annotations", {})}
        (bundle / "config.json").write_text(json.dumps({**SPEC, **changes, "annotations": annotations}))
        self.step(f"create {name}", "Create", task_pb2.CreateTaskRequest(id=name, bundle=str(bundle)))

    def start(self, name: str, exec_id: str = "") -> None:
        self.step(f"start {name} {exec_id}", "Start", task_pb2.StartRequest(id=name, exec_id=exec_id))

    def execute(self, name: str, exec_id: str) -> None:
        request = task_pb2.ExecProcessRequest(id=name, exec_id=exec_id)
        request.spec.value = json.dumps({**SPEC["process"], "args": ["sleep"]}).encode()
        self.step(f"exec {name} {exec_id}", "Exec", request)
        self.start(name, exec_id)

    def end(self, name: str, exec_id: str = "") -> None:
        """Kill, Wait, Delete."""
        word = f"{name} {exec_id}"
        self.step(f"kill {word}", "Kill", task_pb2.KillRequest(id=name, exec_id=exec_id, signal=9))
        self.step(f"wait {word}", "Wait", task_pb2.WaitRequest(id=name, exec_id=exec_id))
        self.step(f"delete {word}", "Delete", task_pb2.DeleteRequest(id=name, exec_id=exec_id))

    def close(self) -> None:
        self.step("shutdown", "Shutdown", task_pb2.ShutdownRequest(id="c1", now=True))
        self.world.close()

    def _publish(self, topic: str, event: Message) -> None:
        container = getattr(event, "container_id", "")
        exec_id = getattr(event, "exec_id", "") or getattr(event, "id", "")
        self.topics.append((topic, container, "" if exec_id == container else exec_id))


def containers(story: Story) -> None:
    """Two containers of a group without a pod, an exec, and whatever can be asked of them."""
    story.create("c1")
    story.start("c1")
    story.create("c2", mounts=[*SPEC["mounts"], _bind(story.host_file, "/etc/hosts")])
    story.start("c2")
    story.execute("c1", "e")
    story.step("pause", "Pause", task_pb2.PauseRequest(id="c2"))
    story.step("resume", "Resume", task_pb2.ResumeRequest(id="c2"))
    story.step("update", "Update", _limits("c1"))
    story.step("stats", "Stats", task_pb2.StatsRequest(id="c1"))
    story.step("pids", "Pids", task_pb2.PidsRequest(id="c1"))
    story.end("c1", "e")
    story.end("c2")
    story.end("c1")


def pod(story: Story) -> None:
    """A pod with a container that has an emptyDir."""
    kubelet = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache"
    cri = {"io.kubernetes.cri.sandbox-id": "c1"}
    spaces = [{"type": kind, "path": f"/proc/1/ns/{kind}"} for kind in ("ipc", "pid")] + [{"type": "network"}]
    linux = {**SPEC["linux"], "namespaces": spaces}
    story.create("c1", annotations={**cri, "io.kubernetes.cri.container-type": "sandbox"}, linux=linux)
    story.start("c1")
    story.create(
        "c2",
        annotations={**cri, "io.kubernetes.cri.container-type": "container"},
        linux=linux,
        mounts=[*SPEC["mounts"], _bind(Path(kubelet), "/cache")],
    )
    story.start("c2")
    story.end("c2")
    story.end("c1")


def _bind(source: Path, destination: str) -> dict[str, Any]:
    return {"destination": destination, "source": str(source), "type": "bind", "options": ["rbind", "rw"]}


def _limits(name: str) -> task_pb2.UpdateTaskRequest:
    request = task_pb2.UpdateTaskRequest(id=name)
    request.resources.value = b'{"memory": {"limit": 67108864}}'
    return request


SCRIPTS: Mapping[str, tuple[Callable[[Story], None], frozenset[str]]] = {
    "containers": (
        containers,
        frozenset(
            {
                *("Hello", "PutPolicy", "SetPolicy", "Evidence", "PutFile", "ProvideFiles", "MountDevice"),
                *("MountScratch", "MountOverlay", "CreateContainer", "StartContainer", "ExecProcess", "WaitProcess"),
                *("PauseContainer", "ResumeContainer", "UpdateResources", "Stats", "ListProcesses", "SignalProcess"),
                *("DeleteProcess", "DeleteContainer", "UnmountOverlay", "UnmountScratch"),
            }
        ),
    ),
    "pod": (pod, frozenset({"CreateSandbox", "StopSandbox", "MountVolume", "UnmountDevice"})),
}
"""Each with the requests at which the guest dies while it is played; others happen in it, too."""

_NETWORK = pb.ConfigureNetworkRequest(interfaces=[pb.NetworkInterface(mac=bytes(6), name="eth0")])
BESIDE: Mapping[str, Callable[[World], object]] = {
    "PutDocument": lambda world: world.group.guest.load_document(b"x", is_trust_list=False),
    "LoadFragment": lambda world: world.group.guest.load_document(b"x", is_trust_list=False),
    "LoadTrustList": lambda world: world.group.guest.load_document(b"x", is_trust_list=True),
    "Recording": lambda world: world.group.guest.recording(),
    "PutEndorsements": lambda world: world.group.guest.put_endorsements(b"", b"x"),
    "ConfigureNetwork": lambda world: world.group.guest.configure_network(_NETWORK),
    "ResizePty": lambda world: world.group.guest.resize_pty("0" * 64, "", 80, 25),
    "PowerOff": lambda world: world.group.shutdown(),
}
"""Requests that these scripts do not lead to, made in a group that has a container."""


def test_every_request_has_its_deaths() -> None:
    played = [methods for _, methods in SCRIPTS.values()]
    assert sorted([*BESIDE, *(name for some in played for name in some)]) == sorted(one.name for one in SERVICE.methods)


@pytest.fixture(autouse=True)
def _verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "Attester", lambda *one, **more: Attester(*one, **more, start_helper=Verifier))


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = descriptors()
    yield
    eventually(lambda: descriptors() <= before)  # a thread of the last test may just be ending


def play(directory: Path, script: Callable[[Story], None], fault: Fault | None) -> Story:
    story = Story(directory, fault)
    try:
        script(story)
    finally:
        story.close()
    return story


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_a_death_everything_works(tmp_path: Path, name: str) -> None:
    script, methods = SCRIPTS[name]
    story = play(tmp_path, script, None)
    assert not story.errors
    asked = {method for method, _ in story.world.guest.requests}
    assert methods <= asked
    check(story)


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize(
    ("name", "method"), [(name, one) for name, (_, many) in SCRIPTS.items() for one in sorted(many)]
)
def test_wherever_the_guest_dies_containerd_hears_of_it_once(tmp_path: Path, name: str, method: str, cut: Cut) -> None:
    story = play(tmp_path, SCRIPTS[name][0], Fault(method, cut))
    # Where the last answer is the one that it dies of, the story may be over first.
    eventually(lambda: story.world.mortal.fault is None, "the guest's death")
    assert all(isinstance(error, GONE) for error in story.errors.values()), story.errors
    check(story)


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize("method", BESIDE)
def test_whoever_asks_a_guest_that_dies_is_told_that_it_is_gone(tmp_path: Path, method: str, cut: Cut) -> None:
    world = Machines(tmp_path, Fault(method, cut))
    world.create()
    began = time.monotonic()
    told: Exception | None = None
    try:
        BESIDE[method](world)
    except ParmaError as error:
        told = error
    assert time.monotonic() - began < PROMPT
    if method == "PowerOff":  # the end was asked for
        assert told is None
    elif cut is not Cut.ANSWERED:
        assert isinstance(told, Unavailable)
    eventually(lambda: world.mortal.fault is None)
    eventually(lambda: world.exits == [-9])
    if method != "PowerOff":  # after which the group may begin anew
        with pytest.raises(GONE):
            world.create("c2")
    world.close()
    assert world.machine.destroyed


def check(story: Story) -> None:
    """What holds at the end of every story."""
    assert story.ended.is_set()
    assert story.world.group.vm_pid == 0
    assert all(machine.destroyed for machine in story.world.machines)
    assert not [line for line in story.log.lines if "Traceback" in line]
    made = [container for topic, container, _ in story.topics if topic == "/tasks/create"]
    for name in ("c1", "c2"):
        own = [(topic, exec_id) for topic, container, exec_id in story.topics if container == name]
        assert own.count(("/tasks/create", "")) <= 1
        assert own.count(("/tasks/exit", "")) <= made.count(name)
        assert own.count(("/tasks/exit", "")) >= own.count(("/tasks/start", ""))  # what never ran need not have exited
        assert own.count(("/tasks/delete", "")) == made.count(name)
        started = own.count(("/tasks/exec-started", "e"))
        assert own.count(("/tasks/exit", "e")) == started
        if started:
            assert own.index(("/tasks/exit", "e")) < own.index(("/tasks/exit", ""))
