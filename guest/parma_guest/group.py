# SPDX-License-Identifier: Apache-2.0
"""The container group: layers, scratch spaces, overlays and containers, and in which order they may come and go.

::

    MountDevice* ---+
                    +--> MountOverlay --> CreateContainer --> StartContainer --> (exit)
    MountScratch ---+                                                              |
                                                                                   v
    UnmountDevice* <---- UnmountOverlay <------------------------------- DeleteContainer
    UnmountScratch <--+

The policy decides what may be done; this module knows what makes sense. Both must agree.
"""

from __future__ import annotations

import signal as signals
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from parma_guest import decisions, oci, pause
from parma_guest.attest.service import Session, merged
from parma_guest.cgroups import Usage
from parma_guest.containers import Attestation, Container, Host, Members, Network, Runtime, stdio_plan, watched
from parma_guest.creation import Creator, require_safe_sysctls
from parma_guest.enforcer import Asker, Enforcer
from parma_guest.forwarding import Forwarder
from parma_guest.overlay import Overlays
from parma_guest.pod import Pod
from parma_guest.processes import ExitStatus, Process
from parma_guest.requests import CreateContainer, CreateSandbox, ExecProcess, MountVolume, SignalProcess
from parma_guest.runtime import StdioPlan
from parma_guest.scratch import Scratches
from parma_guest.storage import Storage
from parma_guest.undo import Undo, must
from parma_guest.users import with_home
from parma_guest.values import ContainerId, ExecId, Resources
from parma_guest.verity import Layers
from parma_wire.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, NotFound, Unavailable

if TYPE_CHECKING:
    from parma_guest.attest.endorsements import Endorsements
    from parma_guest.network_requests import Interface
    from parma_wire import guest_pb2 as pb

MAX_EXECS: Final = 256
_NO_STDIO: Final = StdioPlan(allowed=False, terminal=False, stdin=False, console_size=(0, 0))


class Group:
    """All containers of the VM."""

    def __init__(
        self,
        enforcer: Enforcer,
        layers: Layers,
        scratches: Scratches,
        overlays: Overlays,
        pod: Pod,
        runtime: Runtime,
        host: Host,
        attestation: Attestation,
        network: Network,
    ) -> None:
        self._enforcer = enforcer
        self._pod = pod
        self._runtime = runtime
        self._host = host
        self._attestation = attestation
        self._network = network
        self._members: Final = Members()
        self.storage: Final = Storage(enforcer, layers, scratches, overlays, self._members.containers)
        self.forwarder: Final = Forwarder(enforcer, network, self._members)
        self._creator: Final = Creator(self._members, enforcer, self.storage, pod, runtime, host, attestation, network)

    def put_endorsements(self, endorsements: Endorsements) -> None:
        """What containers that are created from now on may pass on."""
        with self._enforcer.change("PutEndorsements"):
            self._attestation.put_endorsements(endorsements)

    def configure_network(self, interfaces: tuple[Interface, ...]) -> None:
        """Once, before the containers that are to find it there are started."""
        with self._enforcer.change("ConfigureNetwork") as policy:
            policy.ask("configure_network", decisions.configure_network())
            self._network.configure(interfaces)

    def put_file(self, message: pb.PutFileRequest) -> None:
        """A piece of a file that the host has for containers."""
        with self._enforcer.change("PutFile"):
            self._creator.host_files.staging.put(message)

    def provide_files(self, message: pb.ProvideFilesRequest) -> None:
        """The staged files, for one source of mounts."""
        with self._enforcer.change("ProvideFiles") as policy:
            self._creator.host_files.provide(message, policy, self._members.sandbox)

    # Pod

    def create_sandbox(self, request: CreateSandbox) -> int:
        """Returns the process id, in the guest, of what keeps the pod's namespaces."""
        sandbox = request.sandbox
        with self._enforcer.change("CreateSandbox") as policy:
            require_safe_sysctls(request.sysctls, policy)
            if self._members.used_ids:
                raise FailedPrecondition("the group has containers already", expected="the pod before its containers")
            with Undo() as undo:
                undo.add(self._pod.prepare(request))
                launched = self._runtime.create(sandbox, pause.container(request, self._network.namespace()), _NO_STDIO)
            init = watched(self._host, sandbox, ExecId(""), (pause.PROGRAM,), launched)
            self._members.add(Container(sandbox, init, False, Session()))
            self._members.sandbox = sandbox
            self._pod.begin(sandbox, init.pid)
            return init.pid

    def stop_sandbox(self) -> None:
        """Ends the process that keeps the namespaces: no container can be created any more."""
        with self._enforcer.change("StopSandbox"):
            if self._pod.sandbox is None:
                raise FailedPrecondition("there is no pod")
            self._members.get(self._pod.sandbox).init.signal(signals.SIGKILL)

    def mount_volume(self, request: MountVolume) -> None:
        """An emptyDir of the pod."""
        with self._enforcer.change("MountVolume") as policy:
            space = self._pod.space(request.name)
            policy.ask("rw_mount_device", decisions.rw_mount_device(space))
            policy.ask("scratch_mount", decisions.scratch_mount(space))
            if request.lun is not None:
                self.storage.refuse_used_disk(request.lun)
            self._pod.mount_volume(request)

    # Containers

    def create(self, request: CreateContainer) -> int:
        """Returns init's process id in the guest."""
        with self._enforcer.change("CreateContainer") as policy:
            return self._creator.create(request, policy)

    def start(self, container: ContainerId) -> None:
        """Once per container."""
        with self._enforcer.change("StartContainer"):
            found = self._members.get(container)
            if found.started or found.init.exited:
                raise FailedPrecondition("the container was started before")
            try:
                self._runtime.start(container)
            except Unavailable:  # it may run or not: it shall not
                must(self._host.cgroup(container).kill)
                raise
            found.started = True

    def execute(self, request: ExecProcess, remaining: Callable[[], float | None] = lambda: None) -> int:
        """Returns the process id in the guest. ``remaining``: for how many seconds more somebody waits for it."""
        with self._enforcer.change("ExecProcess") as policy:
            if remaining() == 0:  # its turn came late: it would run without anybody who knows of it
                raise DeadlineExceeded("nobody waits for the process any more")
            found = self._members.get(request.container)
            identity = self._host.identity(request.container, request.process.user)
            verdict = policy.ask("exec_in_container", decisions.exec_in_container(request, identity))
            found.require_running()
            if request.exec_id in found.used_exec_ids:
                raise AlreadyExists("the exec id was used before")
            if len(found.execs) >= MAX_EXECS:
                raise FailedPrecondition("too many processes", expected=f"at most {MAX_EXECS}")
            plan = stdio_plan(request.process, found.stdio_allowed)
            env = decisions.kept(request.process.env, verdict.env)
            capabilities = decisions.kept_capabilities(request.process.capabilities, verdict.capabilities)
            env = merged(with_home(env, identity), found.session.environment)
            document = oci.process(request.process, env, capabilities)
            launched = self._runtime.execute(request.container, document, plan)
            process = watched(self._host, request.container, request.exec_id, request.process.args, launched)
            found.require_entered(process)
            found.execs[request.exec_id] = process
            found.used_exec_ids.add(request.exec_id)
            return process.pid

    def signal(self, request: SignalProcess) -> None:
        """For all processes of a container, each that the host started must be allowed to get the signal."""
        with self._enforcer.change("SignalProcess") as policy:
            found = self._members.get(request.container)
            target = found.process(request.exec_id)
            _ask_signal(policy, request, target)
            if not request.all:
                target.signal(request.signal)
                return
            for process in found.execs.values():
                if not process.exited:
                    _ask_signal(policy, request, process)
            self._host.cgroup(request.container).signal_all(request.signal)

    def wait(
        self, container: ContainerId, exec_id: ExecId, on_cancel: Callable[[Callable[[], None]], None]
    ) -> ExitStatus:
        """Blocks until the process has exited. Raises `NotFound` also when the waiter itself is gone."""
        with self._enforcer.read("WaitProcess"):
            process = self._members.get(container).process(exec_id)
        done = threading.Event()
        cancelled = threading.Event()

        def cancel() -> None:
            cancelled.set()
            done.set()

        on_cancel(cancel)
        forget = process.on_exit(done.set)
        done.wait()
        forget()
        if cancelled.is_set() and not process.exited:
            raise NotFound("nobody waits any more")
        status = process.wait()
        assert status is not None  # noqa: S101  # without a timeout it is known
        return status

    def resize(self, container: ContainerId, exec_id: ExecId, width: int, height: int) -> None:
        """The size of a terminal in characters."""
        with self._enforcer.read("ResizePty"):
            self._members.get(container).process(exec_id).stdio.resize(width, height)

    def delete_process(self, container: ContainerId, exec_id: ExecId) -> None:
        """Forgets an exec that has exited."""
        with self._enforcer.change("DeleteProcess"):
            found = self._members.get(container)
            if exec_id.is_init:
                raise FailedPrecondition("init is deleted with its container")
            process = found.process(exec_id)
            if not process.exited:
                raise FailedPrecondition("the process is running")
            del found.execs[exec_id]
            process.close()

    def delete(self, container: ContainerId) -> None:
        """Forgets a container that has stopped or was never started."""
        with self._enforcer.change("DeleteContainer") as policy:
            found = self._members.get(container)
            policy.ask("shutdown_container", decisions.shutdown_container(container))
            if found.started and not found.init.exited:
                raise FailedPrecondition("the container is running")
            must(lambda: self._runtime.delete(container))
            del self._members.containers[container]
            found.session.close()
            for process in (found.init, *found.execs.values()):
                process.close()

    def processes(self, container: ContainerId) -> list[tuple[int, str, bool]]:
        """(pid, exec id, is init) of every process of the container."""
        with self._enforcer.read("ListProcesses") as policy:
            policy.ask("get_properties", {})
            found = self._members.get(container)
            if found.init.exited:
                return []
            execs = list(found.execs.items())  # a copy in one step: reads do not hold the lock
            names = {process.pid: exec_id for exec_id, process in execs if not process.exited}
            pids = self._host.cgroup(container).pids()
            return [(pid, names.get(pid, ExecId("")), pid == found.init.pid) for pid in pids]

    def stats(self, container: ContainerId) -> Usage:
        """What the container uses."""
        with self._enforcer.read("Stats") as policy:
            policy.ask("get_properties", {})
            self._members.get(container)
            return self._host.cgroup(container).usage()

    def pause(self, container: ContainerId) -> None:
        """Stops every process of the container without telling it."""
        with self._enforcer.change("PauseContainer"):
            self._members.get(container).require_running()
            self._host.cgroup(container).freeze(True)

    def resume(self, container: ContainerId) -> None:
        """The opposite."""
        with self._enforcer.change("ResumeContainer"):
            self._members.get(container).require_running()
            self._host.cgroup(container).freeze(False)

    def update(self, container: ContainerId, resources: Resources) -> None:
        """Other limits, also before the start."""
        with self._enforcer.change("UpdateResources"):
            if self._members.get(container).init.exited:
                raise FailedPrecondition("the container has stopped")
            self._runtime.update(container, oci.resources(resources))

    def find_for_stream(self, container: ContainerId, exec_id: ExecId) -> Process:
        """The process whose stream is being opened."""
        with self._enforcer.read("Stream"):
            return self._members.get(container).process(exec_id)


def _ask_signal(policy: Asker, request: SignalProcess, process: Process) -> None:
    policy.ask(
        "signal_container_process",
        decisions.signal_container_process(
            request.container, request.signal, process.args, init=process.exec_id.is_init
        ),
    )
