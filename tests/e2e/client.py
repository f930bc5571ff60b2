# SPDX-License-Identifier: Apache-2.0
"""containerd's gRPC API, for what ``ctr`` cannot do: a task's life step by step, calls under way, codes, events."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2, empty_pb2
from google.protobuf.message import Message

import ttrpc
from parma_shim.api import containers_pb2, events_pb2, types_pb2
from tests.e2e import tasks_pb2 as pb
from tests.e2e.host import Host

TASKS = "/containerd.services.tasks.v1.Tasks/"
CONTAINERS = "/containerd.services.containers.v1.Containers/"
EVENTS = "/containerd.services.events.v1.Events/"
NAMESPACE = (("containerd-namespace", "default"),)
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
TIMEOUT = 300.0
"""Seconds for any call, a Create with its boot on a busy machine included; one that takes longer hangs."""

GONE = "GONE"


class Containerd:
    """One connection; :meth:`reconnect` makes another one after the daemon was restarted."""

    def __init__(self, host: Host, timeout: float = TIMEOUT) -> None:
        self.host = host
        self._timeout = timeout
        self._channel = self._open()

    def reconnect(self) -> None:
        self._channel.close()
        self._channel = self._open()

    def close(self) -> None:
        self._channel.close()

    def _open(self) -> grpc.Channel:
        return grpc.insecure_channel(f"unix://{self.host.daemon.address}")

    def send(self, method: str, request: Message, response: type[Message], timeout: float = 0) -> Any:
        """A call that is under way: its ``result()`` is the answer, its ``code()`` how it ended."""
        call = self._channel.unary_unary(
            TASKS + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return call.future(request, timeout=timeout or self._timeout, metadata=NAMESPACE, wait_for_ready=True)

    def publish(self, topic: str) -> None:
        """An event that means nothing."""
        event = any_pb2.Any(type_url="containerd.events.ContainerUpdate")
        call = self._channel.unary_unary(
            EVENTS + "Publish",
            request_serializer=pb.PublishRequest.SerializeToString,
            response_deserializer=empty_pb2.Empty.FromString,
        )
        request = pb.PublishRequest(topic=topic, event=event)
        call(request, timeout=TIMEOUT, metadata=NAMESPACE, wait_for_ready=True)

    def subscribe(self) -> Iterator[types_pb2.Envelope]:
        call = self._channel.unary_stream(
            EVENTS + "Subscribe",
            request_serializer=pb.SubscribeRequest.SerializeToString,
            response_deserializer=types_pb2.Envelope.FromString,
        )
        stream: Iterator[types_pb2.Envelope] = call(pb.SubscribeRequest(), metadata=NAMESPACE, wait_for_ready=True)
        return stream

    # A task's life

    def new_container(self, name: str, command: tuple[str, ...], *flags: str, policy: Path | None = None) -> None:
        """A container without a task."""
        run = self.host.run_arguments(name, command, *flags, policy=policy)
        done = self.host.daemon.ctr("container", "create", *run[1:])
        assert done.returncode == 0, done.stderr

    def sending_create(self, name: str) -> Any:
        return self.send("Create", pb.CreateTaskRequest(container_id=name), pb.CreateTaskResponse)

    def create(self, name: str) -> int:
        """The process id that containerd is told."""
        return int(self.sending_create(name).result().pid)

    def sending_start(self, name: str, exec_id: str = "") -> Any:
        return self.send("Start", pb.StartRequest(container_id=name, exec_id=exec_id), pb.StartResponse)

    def start(self, name: str, exec_id: str = "") -> None:
        self.sending_start(name, exec_id).result()

    def process(self, name: str) -> dict[str, Any]:
        """The container's own, as its spec has it."""
        info = json.loads(self.host.daemon.ctr("container", "info", name).stdout)
        process: dict[str, Any] = info["Spec"]["process"]
        return process

    def add_exec(
        self,
        name: str,
        exec_id: str,
        args: tuple[str, ...],
        *,
        like: dict[str, Any] | None = None,
        terminal: bool = False,
        stdin: str = "",
        stdout: str = "",
    ) -> None:
        """An exec that is not started: the container's process (or this one, for whoever makes thousands) with other
        arguments. Streams are fifos' paths."""
        process = {**(like or self.process(name)), "args": list(args), "terminal": terminal}
        spec = any_pb2.Any(type_url=PROCESS_TYPE, value=json.dumps(process).encode())
        request = pb.ExecProcessRequest(
            container_id=name, exec_id=exec_id, spec=spec, terminal=terminal, stdin=stdin, stdout=stdout
        )
        self.send("Exec", request, empty_pb2.Empty).result()

    def sending_kill(self, name: str, signal: int, exec_id: str = "") -> Any:
        return self.send("Kill", pb.KillRequest(container_id=name, exec_id=exec_id, signal=signal), empty_pb2.Empty)

    def kill(self, name: str, signal: int, exec_id: str = "") -> None:
        self.sending_kill(name, signal, exec_id).result()

    def sending_pause(self, name: str) -> Any:
        return self.send("Pause", pb.PauseTaskRequest(container_id=name), empty_pb2.Empty)

    def sending_resume(self, name: str) -> Any:
        return self.send("Resume", pb.ResumeTaskRequest(container_id=name), empty_pb2.Empty)

    def sending_update(self, name: str, resources: dict[str, Any]) -> Any:
        """Other limits; ``resources`` as in the OCI specification."""
        limits = any_pb2.Any(type_url=RESOURCES_TYPE, value=json.dumps(resources).encode())
        return self.send("Update", pb.UpdateTaskRequest(container_id=name, resources=limits), empty_pb2.Empty)

    def update(self, name: str, resources: dict[str, Any]) -> None:
        """As `sending_update`, to its end."""
        self.sending_update(name, resources).result()

    def change_spec(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """What ``ctr`` has no flag for; before the task is created."""
        request = containers_pb2.GetContainerRequest(id=name)
        container = self._containers("Get", request, containers_pb2.GetContainerResponse).container
        spec = json.loads(container.spec.value)
        change(spec)
        container.spec.value = json.dumps(spec).encode()
        changed = containers_pb2.UpdateContainerRequest(container=container)
        changed.update_mask.paths.append("spec")
        self._containers("Update", changed, containers_pb2.UpdateContainerResponse)

    def _containers(self, method: str, request: Message, response: type[Message]) -> Any:
        call = self._channel.unary_unary(
            CONTAINERS + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request, timeout=TIMEOUT, metadata=NAMESPACE)

    def wait(self, name: str, exec_id: str = "") -> int:
        """The exit status."""
        request = pb.WaitRequest(container_id=name, exec_id=exec_id)
        return int(self.send("Wait", request, pb.WaitResponse).result().exit_status)

    def sending_delete(self, name: str) -> Any:
        return self.send("Delete", pb.DeleteTaskRequest(container_id=name), pb.DeleteResponse)

    def delete(self, name: str, exec_id: str = "") -> int:
        """The exit status."""
        if not exec_id:
            return int(self.sending_delete(name).result().exit_status)
        request = pb.DeleteProcessRequest(container_id=name, exec_id=exec_id)
        return int(self.send("DeleteProcess", request, pb.DeleteResponse).result().exit_status)

    def state(self, name: str, exec_id: str = "") -> str:
        """CREATED, RUNNING, ...; GONE when there is no such task or process."""
        call = self.send("Get", pb.GetRequest(container_id=name, exec_id=exec_id), pb.GetResponse)
        if call.code() is grpc.StatusCode.NOT_FOUND:
            return GONE
        return pb.Status.Name(call.result().process.status)


class Happened(NamedTuple):
    """An event about a task; ``id`` is the exec's, or the container's for its first process."""

    topic: str
    container: str
    id: str
    status: int


_TYPES: dict[str, type[Message]] = {
    "/tasks/create": events_pb2.TaskCreate,
    "/tasks/start": events_pb2.TaskStart,
    "/tasks/exec-added": events_pb2.TaskExecAdded,
    "/tasks/exec-started": events_pb2.TaskExecStarted,
    "/tasks/exit": events_pb2.TaskExit,
    "/tasks/oom": events_pb2.TaskOOM,
    "/tasks/delete": events_pb2.TaskDelete,
}


class Events:
    """What containerd announces about tasks from now on, in order; :meth:`listen` again after a restart."""

    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd
        self._ready = 0
        self.all: list[Happened] = []
        self.listen()

    def listen(self) -> None:
        """Returns once announcements arrive."""
        before = self._ready
        threading.Thread(target=self._record, args=(self._containerd.subscribe(),), daemon=True).start()
        deadline = time.monotonic() + TIMEOUT
        while self._ready == before:
            assert time.monotonic() < deadline, "no events arrive"
            self._containerd.publish("/parma-tests/ready")
            time.sleep(0.02)

    def exits(self, container: str) -> list[tuple[str, int]]:
        """Process and status, in order."""
        return [(e.id, e.status) for e in self.all if e.topic == "/tasks/exit" and e.container == container]

    def topics(self, container: str) -> list[str]:
        return [e.topic for e in self.all if e.container == container]

    def _record(self, stream: Iterator[types_pb2.Envelope]) -> None:
        try:
            for envelope in stream:
                kind = _TYPES.get(envelope.topic)
                if kind is None:
                    self._ready += envelope.topic == "/parma-tests/ready"
                    continue
                event: Any = kind.FromString(envelope.event.value)
                container = event.container_id
                identity = getattr(event, "id", "") or getattr(event, "exec_id", "") or container
                self.all.append(Happened(envelope.topic, container, identity, getattr(event, "exit_status", 0)))
        except grpc.RpcError:
            return  # the daemon has gone


def shim_of(host: Host, container: str) -> ttrpc.Client:
    """The shim itself, as containerd dials it: that of a container, or of a pod by the pod's id."""
    bundle = host.daemon.root / "state/io.containerd.runtime.v2.task/default" / container
    address: str = json.loads((bundle / "bootstrap.json").read_text())["address"]
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address.removeprefix("unix://"))
    return ttrpc.Client(connection)


def code_of(call: Any) -> str:
    """How a call under way has ended, by name; waits for it."""
    return str(call.code().name)
