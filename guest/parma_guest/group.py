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
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from parma_guest import decisions, oci, paths, pause
from parma_guest.attest.service import Access, Session, merged
from parma_guest.cgroups import Usage
from parma_guest.containers import Attestation, Container, Host, Network, Runtime
from parma_guest.enforcer import Asker, Enforcer
from parma_guest.overlay import Overlays
from parma_guest.pod import Pod, namespace
from parma_guest.processes import ExitStatus, Process
from parma_guest.requests import (
    CreateContainer,
    CreateSandbox,
    ExecProcess,
    MountDevice,
    MountOverlay,
    MountScratch,
    MountVolume,
    SignalProcess,
)
from parma_guest.runtime import Launched, StdioPlan
from parma_guest.scratch import Scratches
from parma_guest.undo import CleanupFailed, Undo
from parma_guest.users import with_home
from parma_guest.values import ContainerId, ExecId, GuestPath, LayerTarget, MountSpec, ProcessSpec, Resources
from parma_guest.verity import Layers
from parma_wire.errors import AlreadyExists, Denied, FailedPrecondition, NotFound, ParmaError, Unsupported

if TYPE_CHECKING:
    from parma_guest.attest.endorsements import Endorsements
    from parma_guest.network_requests import Interface
    from parma_guest.provided import HostFiles
    from parma_wire import guest_pb2 as pb

MAX_CONTAINERS: Final = 64
MAX_EXECS: Final = 256
_ONLY_PROVIDED: Final = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_STATUS_KILLED: Final = 128 + signals.SIGKILL
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
        self._layers = layers
        self._scratches = scratches
        self._overlays = overlays
        self._pod = pod
        self._runtime = runtime
        self._host = host
        self._attestation = attestation
        self._network = network
        self._host_files: HostFiles | None = None
        self._containers: dict[ContainerId, Container] = {}
        self._used_ids: set[ContainerId] = set()
        self._sandbox: ContainerId | None = None

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
            self._files().staging.put(message)

    def provide_files(self, message: pb.ProvideFilesRequest) -> None:
        """The staged files, for one source of mounts."""
        with self._enforcer.change("ProvideFiles") as policy:
            self._files().provide(message, policy, self._sandbox)

    def _files(self) -> HostFiles:
        if self._host_files is None:
            from parma_guest.provided import HostFiles  # many containers have none

            self._host_files = HostFiles(self._host)
        return self._host_files

    # Layers, scratch, overlay

    def mount_device(self, request: MountDevice) -> None:
        """A verified layer."""
        with self._enforcer.change("MountDevice") as policy:
            policy.ask("mount_device", decisions.mount_device(request))
            self._refuse_used_disk(request.lun)
            self._layers.attach(request)

    def unmount_device(self, target: LayerTarget) -> None:
        """Refused while a container stands on the layer."""
        with self._enforcer.change("UnmountDevice") as policy:
            policy.ask("unmount_device", decisions.unmount_device(target))
            if self._overlays.uses(target):
                raise FailedPrecondition("the layer is in use by a root file system")
            _must(lambda: self._layers.detach(target))

    def mount_scratch(self, request: MountScratch) -> None:
        """Writable space for one container."""
        with self._enforcer.change("MountScratch") as policy:
            policy.ask("rw_mount_device", decisions.rw_mount_device(request.container))
            policy.ask("scratch_mount", decisions.scratch_mount(request.container))
            if request.lun is not None:
                self._refuse_used_disk(request.lun)
            self._scratches.attach(request)

    def unmount_scratch(self, container: ContainerId) -> None:
        """Refused while the container's overlay is mounted."""
        with self._enforcer.change("UnmountScratch") as policy:
            policy.ask("scratch_unmount", decisions.scratch_unmount(container))
            policy.ask("rw_unmount_device", decisions.rw_unmount_device(container))
            if self._overlays.exists(container):
                raise FailedPrecondition("the scratch space is in use by a root file system")
            _must(lambda: self._scratches.detach(container))

    def mount_overlay(self, request: MountOverlay) -> None:
        """A container's root file system."""
        with self._enforcer.change("MountOverlay") as policy:
            policy.ask("mount_overlay", decisions.mount_overlay(request))
            if request.user_namespace is not None:
                policy.require_open_door("a user namespace")
            if not self._scratches.exists(request.container):
                raise FailedPrecondition("the container has no scratch space")
            self._overlays.attach(request.container, request.layers, request.user_namespace)

    def unmount_overlay(self, container: ContainerId) -> None:
        """Refused while the container exists."""
        with self._enforcer.change("UnmountOverlay") as policy:
            policy.ask("unmount_overlay", decisions.unmount_overlay(container))
            if container in self._containers:
                raise FailedPrecondition("the root file system is in use by a container")
            _must(lambda: self._overlays.detach(container))

    def _refuse_used_disk(self, lun: int) -> None:
        if self._layers.uses(lun) or self._scratches.uses(lun):
            raise FailedPrecondition(f"the disk at LUN {lun} is in use already")

    # Pod

    def create_sandbox(self, request: CreateSandbox) -> int:
        """Returns the process id, in the guest, of what keeps the pod's namespaces."""
        sandbox = request.sandbox
        with self._enforcer.change("CreateSandbox"):
            if self._used_ids:
                raise FailedPrecondition("the group has containers already", expected="the pod before its containers")
            with Undo() as undo:
                undo.add(self._pod.prepare(request))
                launched = self._runtime.create(sandbox, pause.container(request, self._network.namespace()), _NO_STDIO)
            init = self._process(sandbox, ExecId(""), (pause.PROGRAM,), launched)
            self._containers[sandbox] = Container(sandbox, init, False, Session())
            self._used_ids.add(sandbox)
            self._sandbox = sandbox
            self._pod.begin(sandbox, init.pid)
            return init.pid

    def stop_sandbox(self) -> None:
        """Ends the process that keeps the namespaces: no container can be created any more."""
        with self._enforcer.change("StopSandbox"):
            if self._pod.sandbox is None:
                raise FailedPrecondition("there is no pod")
            self._container(self._pod.sandbox).init.signal(signals.SIGKILL)

    def mount_volume(self, request: MountVolume) -> None:
        """An emptyDir of the pod."""
        with self._enforcer.change("MountVolume") as policy:
            space = self._pod.space(request.name)
            policy.ask("rw_mount_device", decisions.rw_mount_device(space))
            policy.ask("scratch_mount", decisions.scratch_mount(space))
            if request.lun is not None:
                self._refuse_used_disk(request.lun)
            self._pod.mount_volume(request)

    # Containers

    def create(self, request: CreateContainer) -> int:
        """Returns init's process id in the guest."""
        container = request.container
        with self._enforcer.change("CreateContainer") as policy:
            if container in self._used_ids:
                raise AlreadyExists("the container id was used before")
            if not self._overlays.exists(container):
                raise FailedPrecondition("the container has no root file system")
            if len(self._containers) >= MAX_CONTAINERS:
                raise FailedPrecondition("too many containers", expected=f"at most {MAX_CONTAINERS}")
            sandbox = self._sandbox_of(request)
            identity = self._host.identity(container, request.process.user)
            verdict = policy.ask("create_container", decisions.create_container(request, identity, sandbox))
            plan = _stdio_plan(request.process, verdict.stdio)
            env = decisions.kept(request.process.env, verdict.env)
            capabilities = decisions.kept_capabilities(request.process.capabilities, verdict.capabilities)
            for mount in request.mounts:
                self._prepare_mount(mount, sandbox)
            access = Access(verdict.attestation, verdict.identity)
            policy_bytes = self._enforcer.policy_bytes
            session = self._attestation.prepare(container, access, policy_bytes, decisions.policy_digest(policy_bytes))
            with Undo() as undo, ExitStack() as pins:
                undo.add(session.close)
                env = merged(with_home(env, identity), session.environment)
                request = request._replace(mounts=self._pinned(request, sandbox, pins))
                joined = self._joined_namespaces(request)
                users = self._overlays.user_namespace(container)
                network = self._network_namespace(session, mapped=users is not None)
                if network:
                    joined["network"] = network
                memory = self._pod.shared_memory
                spec = oci.container(request, env, capabilities, joined, memory, session.device, users)
                launched = self._runtime.create(container, spec, plan)
                init = self._process(container, ExecId(""), request.process.args, launched)
                undo.add(lambda: self._discard(init))
                self._require_still_there(request)
                session.serve(init.pid)
            self._containers[container] = Container(container, init, verdict.stdio, session)
            self._used_ids.add(container)
            if request.sandbox_container:
                self._sandbox = container
            return init.pid

    def start(self, container: ContainerId) -> None:
        """Once per container."""
        with self._enforcer.change("StartContainer"):
            found = self._container(container)
            if found.started or found.init.exited:
                raise FailedPrecondition("the container was started before")
            self._runtime.start(container)
            found.started = True

    def execute(self, request: ExecProcess) -> int:
        """Returns the process id in the guest."""
        with self._enforcer.change("ExecProcess") as policy:
            found = self._container(request.container)
            identity = self._host.identity(request.container, request.process.user)
            verdict = policy.ask("exec_in_container", decisions.exec_in_container(request, identity))
            found.require_running()
            if request.exec_id in found.used_exec_ids:
                raise AlreadyExists("the exec id was used before")
            if len(found.execs) >= MAX_EXECS:
                raise FailedPrecondition("too many processes", expected=f"at most {MAX_EXECS}")
            plan = _stdio_plan(request.process, found.stdio_allowed)
            env = decisions.kept(request.process.env, verdict.env)
            capabilities = decisions.kept_capabilities(request.process.capabilities, verdict.capabilities)
            env = merged(with_home(env, identity), found.session.environment)
            document = oci.process(request.process, env, capabilities)
            launched = self._runtime.execute(request.container, document, plan)
            process = self._process(request.container, request.exec_id, request.process.args, launched)
            found.execs[request.exec_id] = process
            found.used_exec_ids.add(request.exec_id)
            return process.pid

    def signal(self, request: SignalProcess) -> None:
        """For all processes of a container, each that the host started must be allowed to get the signal."""
        with self._enforcer.change("SignalProcess") as policy:
            found = self._container(request.container)
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
            process = self._container(container).process(exec_id)
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
            self._container(container).process(exec_id).stdio.resize(width, height)

    def delete_process(self, container: ContainerId, exec_id: ExecId) -> None:
        """Forgets an exec that has exited."""
        with self._enforcer.change("DeleteProcess"):
            found = self._container(container)
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
            found = self._container(container)
            policy.ask("shutdown_container", decisions.shutdown_container(container))
            if found.started and not found.init.exited:
                raise FailedPrecondition("the container is running")
            _must(lambda: self._runtime.delete(container))
            del self._containers[container]
            found.session.close()
            for process in (found.init, *found.execs.values()):
                process.close()

    def processes(self, container: ContainerId) -> list[tuple[int, str, bool]]:
        """(pid, exec id, is init) of every process of the container."""
        with self._enforcer.read("ListProcesses") as policy:
            policy.ask("get_properties", {})
            found = self._container(container)
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
            self._container(container)
            return self._host.cgroup(container).usage()

    def pause(self, container: ContainerId) -> None:
        """Stops every process of the container without telling it."""
        with self._enforcer.change("PauseContainer"):
            self._container(container).require_running()
            self._host.cgroup(container).freeze(True)

    def resume(self, container: ContainerId) -> None:
        """The opposite."""
        with self._enforcer.change("ResumeContainer"):
            self._container(container).require_running()
            self._host.cgroup(container).freeze(False)

    def update(self, container: ContainerId, resources: Resources) -> None:
        """Other limits, also before the start."""
        with self._enforcer.change("UpdateResources"):
            if self._container(container).init.exited:
                raise FailedPrecondition("the container has stopped")
            self._runtime.update(container, oci.resources(resources))

    def find_for_stream(self, container: ContainerId, exec_id: ExecId) -> Process:
        """The process whose stream is being opened."""
        with self._enforcer.read("Stream"):
            return self._container(container).process(exec_id)

    def _discard(self, init: Process) -> None:
        """A container that was created, and cannot be kept."""
        self._runtime.delete(init.container)
        init.close()

    def _container(self, container: ContainerId) -> Container:
        found = self._containers.get(container)
        if found is None:
            raise NotFound("no such container")
        return found

    def _sandbox_of(self, request: CreateContainer) -> ContainerId:
        if request.sandbox_container and self._sandbox is not None:
            raise AlreadyExists("the group has a sandbox container already")
        return self._sandbox or request.container

    def _joined_namespaces(self, request: CreateContainer) -> dict[str, str]:
        """Type and path of those that exist already. In a pod the names that go with them are the pod's, too."""
        joined = self._pod.namespaces()
        if joined and (request.hostname or request.sysctls):
            raise Unsupported("host name and sysctls are the pod's", expected="a container without")
        if self._sandbox is not None and self._container(self._sandbox).init.exited:
            raise FailedPrecondition("the pod has stopped")
        if request.pid_namespace_of is not None:
            found = self._container(request.pid_namespace_of)
            if found.init.exited:
                raise FailedPrecondition("the container whose processes are to be shared has stopped")
            joined["pid"] = namespace(found.init.pid, "pid")
        return joined

    def _network_namespace(self, session: Session, *, mapped: bool) -> str | None:
        """The path of the one that all share, or None for the container's own.

        What listens for a container on 127.0.0.1 is for nobody else: its keys are not another container's. So such a
        container has a namespace of its own, or has the group's network to itself. ``mapped``: the container has a
        user namespace, which may only mount /sys for a network that belongs to it.
        """
        if not self._network.configured:
            return None if session.listens or mapped else self._network.namespace()
        others = self._containers.values()
        if (others and session.listens) or any(other.session.listens for other in others):
            raise Unsupported("endpoints of attestation and a network cannot be had by several containers of a VM")
        return self._network.namespace()

    def _require_still_there(self, request: CreateContainer) -> None:
        """crun joins namespaces by numbers of processes: had one ended meanwhile, another might have had its number."""
        for container in (self._sandbox, request.pid_namespace_of):
            if container is not None and not self._container(container).init.alive:
                raise FailedPrecondition("a container whose namespaces are shared has stopped meanwhile")

    def _prepare_mount(self, mount: MountSpec, sandbox: ContainerId) -> None:
        if mount.type != "bind":
            return
        base = paths.sandbox_mounts(sandbox)
        if not GuestPath(mount.source).is_below(base) or mount.source == base:
            raise Unsupported("a bind mount must come from the sandbox's own directory", expected=f"below {base}")
        self._pod.require_volume(mount.source)
        if self._host_files is not None or mount.destination in _ONLY_PROVIDED:
            self._files().provided.check_mount(sandbox, mount.destination, mount.source)
        self._host.prepare_bind(base, mount.source)

    def _pinned(self, request: CreateContainer, sandbox: ContainerId, pins: ExitStack) -> tuple[MountSpec, ...]:
        """The mounts for crun: each bind mount from what its source is now, whatever its name leads to later."""
        base = paths.sandbox_mounts(sandbox)
        return tuple(
            mount._replace(
                source=pins.enter_context(self._host.pinned(base, mount.source, paths.pin(request.container, number)))
            )
            if mount.type == "bind"
            else mount
            for number, mount in enumerate(request.mounts)
        )

    def _process(self, container: ContainerId, exec_id: ExecId, args: tuple[str, ...], launched: Launched) -> Process:
        process = Process(container, exec_id, args, launched.child, launched.pidfd, launched.stdio)
        cgroup = self._host.cgroup(container)
        earlier = cgroup.oom_kills()  # of processes that are none of this one's

        def on_exit(status: int) -> bool:
            oom_killed = status == _STATUS_KILLED and cgroup.oom_kills() > earlier
            if exec_id.is_init:
                cgroup.kill()  # with a shared pid namespace the kernel would leave the others running
            return oom_killed

        process.watch(on_exit)
        return process


def _ask_signal(policy: Asker, request: SignalProcess, process: Process) -> None:
    policy.ask(
        "signal_container_process",
        decisions.signal_container_process(
            request.container, request.signal, process.args, init=process.exec_id.is_init
        ),
    )


def _stdio_plan(process: ProcessSpec, allowed: bool) -> StdioPlan:
    if process.terminal and not allowed:
        raise Denied("a terminal needs access to stdio, which the policy does not allow")
    return StdioPlan(allowed, process.terminal, process.stdin, process.console_size)


def _must(act: Callable[[], None]) -> None:
    """Carries out the removal of something; anything but "there is no such thing" means that it is still there."""
    try:
        act()
    except NotFound:
        raise
    except (OSError, ParmaError) as error:
        raise CleanupFailed(f"something could not be removed: {error}") from error
