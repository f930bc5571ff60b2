# SPDX-License-Identifier: Apache-2.0
"""Shared by the shim's tests: bundles, a recording environment, a fake containerd, the real binary."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

import ttrpc
from parma_shim.api import event_service_pb2, events_pb2, process_pb2, task_pb2
from parma_shim.task.environment import Environment
from parma_shim.task.service import TaskService
from tests.shim.fakes import PATIENCE, FakeGroup

ROOT = Path(__file__).resolve().parents[2]

SPEC: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"args": ["sleep"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "mount"}], "maskedPaths": ["/proc/kcore"]},
}


LIFE = ["/tasks/create a", "/tasks/start a", "/tasks/exit a", "/tasks/delete a"]
"""The events of container a, from beginning to end."""


def bundle(directory: Path, *args: str, annotations: Mapping[str, str] | None = None, **changes: Any) -> Path:
    """A bundle directory whose container runs ``args``."""
    directory.mkdir(parents=True, exist_ok=True)
    spec = {**SPEC, "annotations": dict(annotations or {}), **changes}
    spec["process"] = {**SPEC["process"], "args": list(args or ("sleep",))}
    (directory / "config.json").write_text(json.dumps(spec))
    return directory


def eventually(condition: Callable[[], Any], what: str = "it", timeout: float = PATIENCE) -> Any:
    """Waits for something that another thread or process does; returns the condition's value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
    return value


class Log:
    """Remembers lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fields: list[dict[str, object]] = []
        """Of each line."""

    def __call__(self, message: str, **fields: object) -> None:
        self.lines.append(message)
        self.fields.append(fields)

    warning = error = debug = __call__


class Context(ttrpc.Context):
    """A request's circumstances, as if it had come over a connection."""

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__(deadline=None if timeout is None else time.monotonic() + timeout)


class Rig:
    """The task service over a fake group, called directly."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.group = FakeGroup()
        self.events: list[tuple[str, Message]] = []
        self.log = Log()
        self.ended = threading.Event()
        self.env = Environment(
            namespace="default",
            make_group=lambda: self.group,
            publish=lambda topic, event: self.events.append((topic, event)),
            log=self.log,
        )
        self.service = TaskService(self.env, shutdown=self.ended.set)

    def call(self, method: str, request: Message, *, timeout: float | None = 10) -> Any:
        """One RPC."""
        context = Context(timeout)
        try:
            return getattr(self.service, method)(request, context)
        finally:
            context.finish()

    def create(self, container_id: str, *args: str, **fields: Any) -> int:
        """Create; returns the process id."""
        options = {name: fields.pop(name) for name in ("annotations", "hooks", "linux", "mounts") if name in fields}
        path = bundle(self.directory / container_id, *args, **options)
        request = task_pb2.CreateTaskRequest(id=container_id, bundle=str(path), **fields)
        pid: int = self.call("Create", request).pid
        return pid

    def run(self, container_id: str, *args: str, **fields: Any) -> int:
        """Create and Start."""
        pid = self.create(container_id, *args, **fields)
        self.call("Start", task_pb2.StartRequest(id=container_id))
        return pid

    def exec(self, container_id: str, exec_id: str, *args: str, **fields: Any) -> None:
        """Exec, not started."""
        process = {**SPEC["process"], "args": list(args)}
        request = task_pb2.ExecProcessRequest(id=container_id, exec_id=exec_id, **fields)
        request.spec.value = json.dumps(process).encode()
        self.call("Exec", request)

    def kill(self, container_id: str, signal: int = 9, **fields: Any) -> None:
        """Kill."""
        self.call("Kill", task_pb2.KillRequest(id=container_id, signal=signal, **fields))

    def delete(self, container_id: str, exec_id: str = "") -> task_pb2.DeleteResponse:
        """Delete."""
        response: task_pb2.DeleteResponse = self.call(
            "Delete", task_pb2.DeleteRequest(id=container_id, exec_id=exec_id)
        )
        return response

    def wait(self, container_id: str, exec_id: str = "") -> int:
        """Wait; returns the exit status."""
        status: int = self.call("Wait", task_pb2.WaitRequest(id=container_id, exec_id=exec_id)).exit_status
        return status

    def status(self, container_id: str, exec_id: str = "") -> str:
        """The status in State, as a word."""
        response = self.call("State", task_pb2.StateRequest(id=container_id, exec_id=exec_id))
        name: str = process_pb2.Status.Name(response.status)
        return name

    def topics(self) -> list[str]:
        """Events so far, as "topic id"."""
        return [f"{topic} {_subject(event)}" for topic, event in self.events]


def _subject(event: Message) -> str:
    for name in ("id", "exec_id", "container_id"):
        value = getattr(event, name, "")
        if value:
            return str(value)
    return ""


class FakeContainerd:
    """containerd's ttrpc socket: takes events, in order, and can go away and come back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.envelopes: list[Any] = []
        self.refuse: ttrpc.TtrpcError | None = None
        self._server: ttrpc.Server | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        server = ttrpc.Server()
        server.register(event_service_pb2.DESCRIPTOR.services_by_name["Events"], self)
        self._server = server

        def serve() -> None:
            with listener:
                server.serve(listener)

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._thread.join(PATIENCE)
            self._server = None

    def Forward(self, request: event_service_pb2.ForwardRequest, _context: ttrpc.Context) -> Empty:  # noqa: N802
        if self.refuse is not None:
            raise self.refuse
        self.envelopes.append(request.envelope)
        return Empty()

    def topics(self) -> list[str]:
        return [envelope.topic for envelope in self.envelopes]

    def exits(self) -> list[events_pb2.TaskExit]:
        return [
            events_pb2.TaskExit.FromString(envelope.event.value)
            for envelope in self.envelopes
            if envelope.topic == "/tasks/exit"
        ]


_LAUNCHER = """\
#!{python} -IS
import sys, types
sys.path[:0] = {ours!r}
sys.path += {libraries!r}

class FakeGroupModule(types.ModuleType):
    def __getattr__(self, name):
        sys.path.append({root!r})
        from tests.shim.fakes import FakeGroup
        return FakeGroup

sys.modules["parma_shim.group"] = FakeGroupModule("parma_shim.group")
{prelude}
from parma_shim.main import main
sys.exit(main({config!r}))
"""


class Binary:
    """The real program, with a fake group in the daemon."""

    def __init__(self, directory: Path, *, prelude: str = "") -> None:
        """``prelude`` is code that the launcher runs first."""
        from parma_shim import launcher

        self.directory = directory
        self.path = directory / "containerd-shim-parma-v2"
        self.config = directory / "parma.toml"
        self.config.write_text(f'tee = "none"\nstate_dir = "{directory}/state"\n')
        self.path.write_text(
            _LAUNCHER.format(
                python=launcher.interpreter(),
                ours=launcher.folders(launcher.OURS),
                libraries=launcher.folders(launcher.LIBRARIES),
                root=str(ROOT),
                prelude=prelude,
                config=str(self.config),
            )
        )
        self.path.chmod(0o755)
        self.address = directory / "c.sock"
        self.sockets = directory / "s"
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "MAX_SHIM_VERSION": "2",
            "TTRPC_ADDRESS": f"{self.address}.ttrpc",
            "GRPC_ADDRESS": str(self.address),
            "NAMESPACE": "default",
        }

    def run(
        self,
        action: str,
        identity: str = "",
        *,
        here: Path,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        extra: tuple[str, ...] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        """One call as containerd makes it; standard error is part of the answer."""
        words = [str(self.path), "-namespace", "default", "-address", str(self.address)]
        words += ["-publish-binary", "/usr/bin/containerd", "-id", identity, *extra, action]
        return subprocess.run(
            words,
            cwd=here,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self.environment, **(environment or {})},
            timeout=PATIENCE,
        )

    def params(self, identity: str, **fields: Any) -> bytes:
        """Standard input of containerd 2.3 and later, with a private socket folder."""
        from parma_shim.api import bootstrap_pb2

        return bootstrap_pb2.BootstrapParams(
            instance_id=identity,
            namespace="default",
            containerd_version="2.3.4",
            containerd_ttrpc_address=f"{self.address}.ttrpc",
            containerd_grpc_address=str(self.address),
            socket_dir=str(self.sockets),
            **fields,
        ).SerializeToString()

    def start(self, identity: str, here: Path) -> dict[str, Any]:
        """Starts a shim as containerd 2.3 does; returns the answer."""
        done = self.run("start", identity, here=here, stdin=self.params(identity))
        assert done.returncode == 0, done.stdout
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def connect(address: str) -> ttrpc.Client:
    """A connection to a shim, as containerd makes it."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address.removeprefix("unix://"))
    return ttrpc.Client(connection)


@contextlib.contextmanager
def task_stub(address: str, version: int = 3) -> Iterator[Callable[[str, Message], Any]]:
    """Calls of the task service: ``call("State", request)``."""
    client = connect(address)
    methods = {method.name: method for method in task_pb2.DESCRIPTOR.services_by_name["Task"].methods}

    def call(method: str, request: Message) -> Any:
        from google.protobuf.message_factory import GetMessageClass

        response = GetMessageClass(methods[method].output_type)
        return client.call(f"containerd.task.v{version}.Task", method, request, response, timeout=PATIENCE)

    try:
        yield call
    finally:
        client.close()


def ended(pid: int) -> bool:
    """Whether a process is gone (or only waits for its parent)."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def python_isolated(code: str) -> str:
    """Runs code in an interpreter like the launcher's and returns what it printed."""
    from parma_shim import launcher

    paths = f"sys.path[:0] = {launcher.folders(launcher.OURS)!r}; sys.path += {launcher.folders(launcher.LIBRARIES)!r}"
    done = subprocess.run(
        [launcher.interpreter(), "-IS", "-c", f"import sys; {paths}\n{code}"],
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(errors="replace")
