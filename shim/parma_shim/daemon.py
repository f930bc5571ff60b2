# SPDX-License-Identifier: Apache-2.0
"""The shim daemon: the child that ``start`` leaves behind, one per container or pod.

It lives until the last task is deleted and containerd says Shutdown. Two guards keep it from living for ever when
that cannot happen any more: a minute without a connection, and a bundle that has disappeared, while there is no task.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parma_shim import bundle, config, fields, heap
from parma_shim.bootstrap import Bootstrap
from parma_shim.digest import hex_digest
from parma_shim.log import Log
from parma_shim.mainloop import MainLoop
from parma_wire.errors import ParmaError

if TYPE_CHECKING:
    from parma_shim.config import Config
    from parma_shim.events import Publisher
    from parma_shim.group import ContainerGroup
    from parma_shim.observe.collect import View
    from parma_shim.task.environment import Environment
    from parma_shim.task.ports import Group
    from parma_shim.task.process import Container

CONNECT_PATIENCE: Final = 60.0
"""Seconds without a connection or a task after which nobody will come."""

TICK: Final = 15.0
"""Seconds between two looks at whether the shim is still wanted."""

EXITS: Final = 1.0
"""Seconds at the end for the last exits to be noticed."""

FLUSH: Final = 1.5
"""Seconds at the end for containerd to take the last events."""

END: Final = 4.5
"""Seconds that the end may take altogether: containerd gives it 5. What is left of the machine `delete` sees to."""

_GC_THRESHOLD: Final = 5000


def run(boot: Bootstrap, *, group: str, bundle_dir: str, socket_path: str, listener_fd: int) -> int:
    """The process's life after the fork; returns its exit status.

    Args:
        group: the id that the group's containers share.
        bundle_dir: of the container whose ``start`` this is.
        listener_fd: listens at ``socket_path`` already.
    """
    gc.disable()  # there is no garbage in importing
    heap.use_one_arena()
    log = Log(f"{bundle_dir}/log", namespace=boot.namespace, identity=boot.id, debug=boot.debug)
    try:
        settings: Config | ParmaError = _load_config(boot)
        daemon = Daemon(boot, settings, log, group=group, bundle_dir=bundle_dir, socket_path=socket_path)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        gc.enable()
        daemon.serve(socket.socket(fileno=listener_fd))
    except Exception as error:  # noqa: BLE001 - the last chance to say why
        log.write("error", f"the shim failed: {type(error).__name__}: {error}")
        _unlink(socket_path)
        return 1
    return 0  # serve() has removed the socket; by now its path may be a new shim's


def _load_config(boot: Bootstrap) -> Config | ParmaError:
    """A configuration that is wrong is reported by the first Create: there is somebody to read it."""
    try:
        return config.load_in_child(boot.config_path, boot.config_body)
    except ParmaError as error:
        return error


class Daemon:
    """The parts, put together. Made while there is one thread."""

    def __init__(
        self,
        boot: Bootstrap,
        settings: Config | ParmaError,
        log: Log,
        *,
        group: str,
        bundle_dir: str,
        socket_path: str,
    ) -> None:
        import ttrpc
        from parma_shim.api import task_pb2
        from parma_shim.events import Publisher
        from parma_shim.observe.observer import Observer
        from parma_shim.task.environment import Environment
        from parma_shim.task.evidence import EvidenceService
        from parma_shim.task.service import TaskService
        from parma_wire import guest_pb2

        self._boot = boot
        self._log = log
        self._group_id = group
        self._bundle = bundle_dir
        self._socket_path = socket_path
        self._settings = settings
        self._last_seen = time.monotonic()
        self._loop = MainLoop()
        self._events: Publisher = Publisher(boot.ttrpc_address, boot.namespace, log.warning)
        self._observer = Observer(log, namespace=boot.namespace, group=group)
        self._env: Environment = Environment(
            namespace=boot.namespace,
            make_group=self._make_group,
            publish=self._events.publish,
            log=log,
            registry=self._observer.registry,
            on_created=self._write_state,
            on_exited=self._keep_exit,
            on_deleted=self._hand_over,
        )
        service = TaskService(self._env, shutdown=self._loop.stop)
        self._server = ttrpc.Server(accept=ttrpc.same_user, log=log.warning, interceptor=self._observer.calls.serve)
        descriptor = task_pb2.DESCRIPTOR.services_by_name["Task"]
        self._server.register(descriptor, service)
        self._server.register_alias("containerd.task.v2.Task", descriptor, service)
        if not os.path.exists(f"{bundle_dir}/config.json"):  # noqa: PTH110 - a string all along
            self._serve_sandbox(group)
        evidence = guest_pb2.DESCRIPTOR.services_by_name["HostEvidence"]
        self._server.register(evidence, EvidenceService(self._env))
        self._write_state()

    def _serve_sandbox(self, group: str) -> None:
        """A sandbox's bundle holds no specification: containerd starts the shim for the pod as such."""
        from parma_shim.api import sandbox_pb2
        from parma_shim.sandbox.service import SandboxService

        service = SandboxService(self._env, sandbox_id=group, shutdown=self._loop.stop)
        self._server.register(sandbox_pb2.DESCRIPTOR.services_by_name["Sandbox"], service)

    def serve(self, listener: socket.socket) -> None:
        """Until there is nothing left to do; then everything is gone."""
        threading.Thread(target=self._server.serve, args=(listener,), name="accept", daemon=True).start()
        self._loop.run(on_signal=self._on_signal, on_tick=self._on_tick, period=TICK)
        self._end()

    def _on_signal(self, number: int) -> None:
        self._log.warning(f"signal {number}: ending")
        self._loop.stop()

    def _on_tick(self) -> None:
        """Whether anybody still wants this process; and it takes no more memory than it needs."""
        heap.give_back()
        now = time.monotonic()
        tasks = self._left()
        if tasks or self._env.is_sandbox or self._server.connections:
            self._last_seen = now
        if tasks:
            return
        if now - self._last_seen > CONNECT_PATIENCE:
            self._log.warning("there is neither a connection nor a task: ending")
            self._loop.stop()
        elif not os.path.isdir(self._bundle):  # noqa: PTH112 - a string all along
            self._log.warning("the bundle is gone and there is no task: ending")
            self._loop.stop()

    def _left(self) -> list[Container]:
        with self._env.tasks.changed:
            return self._env.tasks.all()

    def _end(self) -> None:
        """Nothing is left afterwards; what does not go in time is left to ``delete``."""
        self._env.closing = True
        _unlink(self._socket_path)  # a new container of the group starts a new shim from here on
        deadline = time.monotonic() + END
        ending = threading.Thread(target=self._end_group, name="end", daemon=True)
        ending.start()
        ending.join(END - EXITS - FLUSH)
        self._env.tasks.wait_until_ended(EXITS)
        self._events.flush(FLUSH)
        self._observer.close()
        ending.join(max(0.0, deadline - time.monotonic()))
        self._server.close()
        if not ending.is_alive():
            _unlink(f"{self._bundle}/{bundle.STATE}")
        self._log.close()

    def _end_group(self) -> None:
        try:
            self._env.end_group()
        except ParmaError as error:
            self._log.error(f"something is left of the virtual machine: {error}")

    def _make_group(self) -> Group:
        from parma_shim.group import ContainerGroup

        if isinstance(self._settings, ParmaError):
            raise self._settings
        group = ContainerGroup(
            self._settings,
            group_id=self._group_id,
            namespace=self._boot.namespace,
            directory=Path(self._directory()),
            grpc_address=self._boot.grpc_address,
            log=self._log,
            executor=self._loop,
            publish=self._publish_status,
            socket_path=self._socket_path,
            shim_is_placed=bool(self._boot.shim_cgroup),
            around=self._observer.calls.ask_guest,
            on_boot=lambda: self._observer.booted(Path(self._directory()), group.timings, partial(self._view, group)),
        )
        return group

    def _view(self, group: ContainerGroup) -> View:
        """What metrics are made from."""
        from parma_shim.observe.collect import View
        from parma_shim.task.states import State

        containers = self._left()
        running = {one.id: one.guest_id for one in containers if one.init.state is State.RUNNING}
        return View(
            running=running,
            containers=len(containers),
            boot=group.timings,
            vm_pid=group.vm_pid,
            vm_memory_mib=group.vm_memory_mib,
            log_lines_lost=self._log.lost,
            events_lost=self._events.dropped,
            stats=lambda guest_id, deadline: group.guest.stats(guest_id, deadline=deadline),
        )

    def _directory(self) -> str:
        """The group's private directory; empty when there is no configuration."""
        if isinstance(self._settings, ParmaError):
            return ""
        name = hex_digest(f"{self._boot.grpc_address}/{self._boot.namespace}/{self._group_id}")[:24]
        return f"{self._settings.state_dir}/{name}"

    def _write_state(self, task_pid: int = 0) -> None:
        """Tells ``delete`` what there is to undo."""
        pid = os.getpid()
        state = bundle.State(
            socket=self._socket_path,
            pid=pid,
            started=bundle.start_time(pid),
            directory=self._directory(),
            task_pid=task_pid,
        )
        try:
            bundle.write_state(self._bundle, state)
        except OSError as error:
            self._log.warning(f"cannot write {bundle.STATE}: {error}")

    def _keep_exit(self, bundle_dir: str, task_pid: int, status: int, exited_at: int) -> None:
        """For a ``delete`` that runs because this process was killed."""
        try:
            bundle.write_exit(bundle_dir, task_pid, status, exited_at)
        except OSError as error:
            self._log.warning(f"cannot write {bundle.EXIT}: {error}")

    def _hand_over(self, bundle_dir: str, task_pid: int) -> None:
        """Which bundle's ``delete`` ends the group: when its container goes before the others, another one's."""
        left = self._left()
        if not left or os.path.realpath(bundle_dir) != os.path.realpath(self._bundle):
            return
        self._bundle = left[0].bundle
        self._write_state(task_pid)
        _unlink(f"{bundle_dir}/{bundle.STATE}")

    def _publish_status(self, topic: str, status: Mapping[str, Any]) -> None:
        """An attestation verdict as an event.

        Its type is one that every client of containerd can decode, an id with labels: ``ctr events`` shows nothing of
        types that it does not know.
        """
        labels = {f"io.parma.{name}": _text(value) for name, value in status.items()}
        payload = fields.bytes_field(1, self._group_id) + b"".join(
            fields.bytes_field(3, fields.bytes_field(1, name) + fields.bytes_field(2, value))
            for name, value in sorted(labels.items())
        )
        self._events.publish_raw(topic, "containerd.events.ContainerUpdate", payload)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)
