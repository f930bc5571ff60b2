# SPDX-License-Identifier: Apache-2.0
"""A container group: the containers that share one VM, and the VM.

The first container boots the VM, with the hash of its policy as HOST_DATA; further ones join it. Creating is a
sequence of steps, each of which pushes what takes it back: a failure runs that list, and so does ``delete_container``::

    layers found and converted  |  VM booted, policy set        (at the same time)
    signed fragments handed over; the policy keeps what they add for the life of the VM
    each layer: disk attached, verified and mounted in the guest (shared with the group's other containers)
    scratch: disk attached, encrypted and mounted in the guest  (or guest memory)
    overlay mounted
    container created

Lock contract: ``_setup`` serialises creating, deleting and shutting down, and is held while the guest works.
``_lock`` guards the fields; nothing is waited for under it. Everything else (``guest``, ``vm_pid``, ``kill``, ...)
takes ``_lock`` only, so it never waits for a guest that is stuck.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import ttrpc
from parma_shim import guest_request, pod_volumes
from parma_shim.attestation import Attester, Publish
from parma_shim.booting import Booter
from parma_shim.config import Config
from parma_shim.digest import hex_digest
from parma_shim.document_source import SignedDocument, documents_from_annotations
from parma_shim.guest import Around, GuestClient, unobserved
from parma_shim.helpers.call import call
from parma_shim.host_mounts import Names
from parma_shim.members import Member, Members
from parma_shim.policy_source import policy_from_annotations, require_policy
from parma_shim.task.hooks import Hook
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm import cleanup
from parma_shim.vm.command import VmSpec
from parma_shim.vm.layer_choice import LayerChoice
from parma_shim.vm.layers import LayerJob, LayerSource
from parma_shim.vm.machine import VirtualMachine
from parma_shim.vm.recipe import Place, verified_image
from parma_shim.vm.scratch import mount_scratch
from parma_shim.vm.session import Session, boot
from parma_shim.vm.spawn import Executor, on_spawn_thread
from parma_shim.vm.undo import Undo
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    NotFound,
    ParmaError,
    Unavailable,
)

if TYPE_CHECKING:
    from parma_shim.endorsements import Endorsing
    from parma_shim.provided import HostFiles

ExitCallback = Callable[[int | None], None]


class Log(Protocol):
    """Calling it logs at level info."""

    def __call__(self, message: str, **fields: object) -> None: ...
    def warning(self, message: str, **fields: object) -> None: ...


_SHUTDOWN_SECONDS: Final = 10.0
_HOOKS_GRACE: Final = 5.0  # for the helper to say which of them was late


class ContainerGroup:
    """See the module. Safe for several threads."""

    def __init__(
        self,
        config: Config,
        *,
        group_id: str,
        namespace: str,
        directory: Path,
        grpc_address: str,
        log: Log,
        executor: Executor = on_spawn_thread,
        publish: Publish | None = None,
        socket_path: str = "",
        shim_is_placed: bool = False,
        around: Around = unobserved,
        on_boot: Callable[[], None] = lambda: None,
        boot_session: Callable[..., Session] = boot,
        start_layers: Callable[..., LayerSource] = LayerJob,
    ) -> None:
        """
        Args:
            publish: gets topic and attested-policy status when that changes.
            shim_is_placed: containerd has put the shim into a cgroup, where it stays.
            around: sees each call to the guest.
            on_boot: called when a VM has accepted its policy; its directory is there then.
            boot_session, start_layers: for tests.
        """
        self._config: Final = config
        self._cgroups: Final = directory / cleanup.CGROUP_FILE
        self._log: Final = log
        self._on_boot: Final = on_boot
        self._setup: Final = threading.Lock()
        self._lock: Final = threading.Lock()
        self._containers: Final = Members(group_id)
        self._machine: VirtualMachine | None = None
        self._session: Session | None = None
        self._policy_digest = b""
        self._endorsing: Endorsing | None = None
        self._names = Names()
        self._host_files: HostFiles | None = None
        self._killed = False
        self._exit_callbacks: list[ExitCallback] = []
        self._booter: Final = Booter(
            config,
            Place(namespace, group_id, directory, shim_is_placed),
            log=log,
            executor=executor,
            around=around,
            on_machine=self._machine_started,
            on_session=self._booted,
            boot_session=boot_session,
        )
        self._layers: Final = LayerChoice(
            config, grpc_address=grpc_address, namespace=namespace, log=log, start_layers=start_layers
        )
        self._attester: Final = Attester(
            config,
            group_id=group_id,
            namespace=namespace,
            directory=directory,
            grpc_address=grpc_address,
            log=log,
            publish=publish,
            socket_path=socket_path,
        )

    # What the task service asks while containers run; none of it waits.

    @property
    def guest(self) -> GuestClient:
        """The enforcer. Raises FailedPrecondition when there is no VM."""
        return self._running().guest

    @property
    def vm_pid(self) -> int:
        """QEMU's process id, 0 when there is no VM."""
        with self._lock:
            return self._machine.pid if self._machine is not None else 0

    @property
    def vm_memory_mib(self) -> int:
        """Memory that the VM was given, 0 when there is none."""
        with self._lock:
            return self._machine.spec.memory_mib if self._machine is not None else 0

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds of each part of the VM's start."""
        with self._lock:
            return dict(self._session.timings) if self._session is not None else {}

    @property
    def status(self) -> dict[str, Any]:
        """A summary of the attested-policy status; empty before there is one."""
        return self._attester.status

    @property
    def status_document(self) -> str:
        """The attested-policy status with its evidence, JSON; empty before there is one."""
        return self._attester.document

    def require_attested(self, *, deadline: float | None) -> None:
        """Wait until the VM's evidence has verified, if the configuration wants that. Raises Unverified."""
        self._attester.require(deadline=deadline)

    def open_stream_connection(self) -> ttrpc.Client:
        """A connection for one process's streams; the caller closes it."""
        return self._running().open_stream_connection()

    def run_hooks(
        self, hooks: Sequence[Hook], state: Mapping[str, Any], network_namespace: str, *, deadline: float
    ) -> None:
        """Programs of the host, by a helper process. Raises ParmaError for the first that fails."""
        seconds = max(0.0, deadline - time.monotonic())
        request = {
            "network_namespace": network_namespace,
            "directory": state["bundle"],
            "state": state,
            "hooks": [hook._asdict() for hook in hooks],
            "seconds": seconds,
            "cgroups": str(self._cgroups),
        }
        call(self._config.python, "hooks", request, timeout=seconds + _HOOKS_GRACE)
        if state.get("status") == "creating":
            self._booter.connect_cards(self.vm_pid, deadline=deadline)

    def on_vm_exit(self, callback: ExitCallback) -> None:
        """Call back, once for each VM that had been booted, when it has ended for whatever reason."""
        with self._lock:
            self._exit_callbacks.append(callback)

    def refresh_status(self) -> None:
        """Fetch and verify evidence anew, in the background. To be called when a task has started or is gone."""
        self._attester.refresh()

    def kill(self) -> None:
        """End the VM now, also one that is booting. Returns at once; idempotent."""
        with self._lock:
            self._killed = True
            machine = self._machine
        if machine is not None:
            machine.kill()

    def create_container(
        self, spec: ContainerSpec, *, deadline: float | None = None, on_running: Callable[[], None] = lambda: None
    ) -> None:
        """Create a container, up to and without its start; boots the VM if there is none.

        Args:
            on_running: called once the VM runs, before any file of the host is read and the container created.

        Raises Denied, NotFound, Unavailable, DeadlineExceeded, ...; everything is undone then.
        """
        end = self._limit() if deadline is None else min(deadline, self._limit())
        with self._setting_up(end):
            self._require_new(spec)
            with self._lock:
                self._killed = False
            undo = Undo()
            began = time.monotonic()
            try:
                self._create(spec, undo, end, on_running)
            except BaseException:
                self._roll_back(undo)
                raise
            with self._lock:
                self._containers[spec.container_id] = Member.of(spec, undo)
            seconds = f"{time.monotonic() - began:.1f}"
            self._log("container created", container=spec.container_id, seconds=seconds, vm_pid=self.vm_pid)
            self._attester.set_containers(list(self._containers))

    def delete_container(self, container_id: str, *, deadline: float | None = None) -> None:
        """Remove a container that is not running. Raises NotFound, or FailedPrecondition while it runs.

        Once the guest has forgotten it nothing fails any more: what cannot be undone is logged, and gone with the VM.

        Args:
            deadline: until when to wait for its turn. Raises DeadlineExceeded then, and it is deleted in its turn.
        """
        with self._lock:
            container = self._containers.get(container_id)
            if container is None:
                raise NotFound(f"no container {container_id}")
            self._containers.unwanted.add(container_id)
        if deadline is None:
            deadline = time.monotonic() + 4 * self._config.call_timeout
        if not self._setup.acquire(timeout=max(0.0, deadline - time.monotonic())):
            late = partial(self._delete_late, container_id, container)
            threading.Thread(target=late, name="late-delete", daemon=True).start()
            raise DeadlineExceeded("other containers of the group are still being set up: it is deleted after them")
        try:
            self._delete(container_id)
        finally:
            self._setup.release()

    def shutdown(self) -> None:
        """End the group: power off, with a short deadline, then kill; no process, socket or file is left. Idempotent.

        Raises Unavailable when something cannot be removed.
        """
        if not self._setup.acquire(blocking=False):
            self.kill()  # somebody is waiting for the guest; that ends now
            if not self._setup.acquire(timeout=_SHUTDOWN_SECONDS):
                raise DeadlineExceeded("the group is still being set up")
        try:
            self._attester.detach()
            self._attester.release()
            session = self._session
            if session is not None:
                session.end(orderly=True)
            with self._lock:
                self._session = self._machine = None
                self._containers.clear()
        finally:
            self._setup.release()

    # Setting up. Everything below runs with _setup held.

    @contextlib.contextmanager
    def _setting_up(self, deadline: float) -> Iterator[None]:
        if not self._setup.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded("another container of the group is still being set up")
        try:
            yield
        finally:
            self._setup.release()

    def _running(self) -> Session:
        with self._lock:
            session = self._session
        if session is None:
            raise FailedPrecondition("the container group has no VM")
        return session

    def _require_new(self, spec: ContainerSpec) -> None:
        if spec.container_id in self._containers.unwanted:
            self._delete(spec.container_id)
        if spec.container_id in self._containers:
            raise AlreadyExists(f"container {spec.container_id} exists already")
        session = self._session
        if session is None:
            return
        if not session.machine.alive:
            if self._containers:
                raise Unavailable("the group's VM has ended")
            self._end_session()
        else:
            policy = self._policy_of(spec)
            if policy is not None and bytes.fromhex(hex_digest(policy)) != self._policy_digest:
                raise Denied("the group's VM has a policy already, and this is another one")

    def _policy_of(self, spec: ContainerSpec) -> bytes | None:
        return policy_from_annotations(spec.oci.get("annotations") or {}, self._config.policy_dirs)

    def _create(self, spec: ContainerSpec, undo: Undo, end: float, on_running: Callable[[], None]) -> None:
        documents = documents_from_annotations(spec.oci.get("annotations") or {}, self._config.fragment_dirs)
        if guest_request.is_sandbox_container(spec.oci):
            self._create_pod(spec, documents, end)
            on_running()
        else:
            self._create_container(spec, documents, undo, end, on_running)

    def _create_pod(self, spec: ContainerSpec, documents: Sequence[SignedDocument], end: float) -> None:
        """The pause image is not needed: what keeps a pod together is part of the guest's own image."""
        if self._session is not None:
            raise FailedPrecondition("the pod's VM runs already")
        policy = require_policy(self._policy_of(spec), self._config.tee)
        self._booter.boot(spec, verified_image(self._config, end), policy, end)
        session = self._running()
        session.load_documents(documents, deadline=end)
        session.guest.create_sandbox(guest_request.sandbox_request(spec.oci, guest_id=spec.guest_id), deadline=end)

    def _create_container(
        self,
        spec: ContainerSpec,
        documents: Sequence[SignedDocument],
        undo: Undo,
        end: float,
        on_running: Callable[[], None],
    ) -> None:
        if self._session is None:
            policy = require_policy(self._policy_of(spec), self._config.tee)
            image = verified_image(self._config, end)
        source = self._layers.source(
            spec.container_id,
            spec.rootfs,
            policy if self._session is None else self._attester.policy,
            deadline=end,
            on_failure=self._layers_failed,
        )
        try:
            if self._session is None:
                try:
                    self._booter.boot(spec, image, policy, end)
                except Unavailable:
                    # When it was the layers' failure that ended the boot, that is what to report.
                    if source.error is not None:
                        raise source.error from None
                    raise
            session = self._running()
            session.load_documents(documents, deadline=end)
            layers = source.layers(deadline=end)
            with self._step(end) as deadline:
                targets = session.layers.mount(layers, undo, deadline=deadline)
        finally:
            source.close()
        sandbox = self._containers.sandbox
        if sandbox:
            wanted = pod_volumes.empty_dirs(spec.oci.get("mounts") or [])
            with self._step(end) as deadline:
                session.volumes.make(wanted, spec.oci.get("annotations") or {}, self._config, deadline=deadline)
        with self._step(end) as deadline:
            mount_scratch(session, spec.guest_id, self._config, undo, deadline)
        guest = session.guest
        overlay = guest_request.overlay_request(spec.oci, spec.guest_id, targets[::-1])
        with self._step(end) as deadline:
            guest.mount_overlay(overlay, deadline=deadline)
        undo.push("unmounting the overlay", partial(guest.unmount_overlay, spec.guest_id))
        request = guest_request.create_request(
            spec.oci,
            guest_id=spec.guest_id,
            stdin=spec.stdin,
            sandbox=sandbox,
            pid_namespace_of=self._containers.pid_namespace_for(spec),
            names=self._names,
        )
        if self._endorsing is not None:
            self._endorsing.wait(end)
        on_running()  # hooks write /etc/hosts, so the files come after them
        copied = guest_request.copied_mounts(spec.oci, self._names)
        if copied:
            self._provided(session).provide(copied, spec.guest_id, deadline=end)
        with self._step(end) as deadline:
            guest.create_container(request, deadline=deadline)

    def _limit(self) -> float:
        """Until when anything that is begun now has to be done."""
        return time.monotonic() + self._config.boot_timeout + 4 * self._config.call_timeout

    @contextlib.contextmanager
    def _step(self, end: float) -> Iterator[float]:
        """A change in the guest, and its deadline; the VM ends when there is no answer.

        Beside other containers it is not given up when the caller's time is over, but has the time that any request
        has: with one that may or may not be carried out yet, the disk or the id that it names could not be used again.
        """
        if time.monotonic() > end:
            raise DeadlineExceeded("the container could not be created in time")
        try:
            yield self._limit() if self._containers else end
        except DeadlineExceeded:
            self.kill()
            raise

    def _booted(self, session: Session, vm_spec: VmSpec, policy: bytes) -> None:
        with self._lock:
            self._session = session
            self._policy_digest = vm_spec.host_data
        session.machine.on_exit(partial(self._machine_ended, session))
        self._names = Names.of(policy)
        self._attester.attach(session, policy)
        self._on_boot()
        if session.wants_endorsements:
            from parma_shim.endorsements import Endorsing  # few policies want it

            self._endorsing = Endorsing(self._config, session, log=self._log)

    def _provided(self, session: Session) -> HostFiles:
        if self._host_files is None:
            from parma_shim.provided import HostFiles  # many containers mount none

            self._host_files = HostFiles(session.guest, interval=self._config.file_updates, log=self._log.warning)
        return self._host_files

    def _machine_started(self, machine: VirtualMachine) -> None:
        with self._lock:
            self._machine = machine
            killed = self._killed
        if killed:
            machine.kill()

    def _machine_ended(self, session: Session, status: int | None) -> None:
        with self._lock:
            callbacks = list(self._exit_callbacks) if self._session is session else []
        if self._host_files is not None:
            self._host_files.close()
        for callback in callbacks:
            callback(status)

    def _layers_failed(self) -> None:
        """No layers, no container: a VM that is booting for it may as well stop."""
        with self._lock:
            machine = self._machine if self._session is None else None
            self._killed = self._session is None
        if machine is not None:
            machine.kill()

    def _delete(self, container_id: str) -> None:
        with self._lock:
            container = self._containers.get(container_id)
        if container is None:
            raise NotFound(f"no container {container_id}")  # another call has deleted it meanwhile
        session = self._session
        if session is not None and session.machine.alive and not container.is_pod:
            self._delete_in_guest(session, container)
        with self._lock:
            del self._containers[container_id]
        self._attester.set_containers(list(self._containers))
        self._attester.refresh()

    def _delete_late(self, container_id: str, container: Member) -> None:
        """Nobody waits for it any more; but what it holds in the guest, others may need."""
        with self._setup:
            if self._containers.get(container_id) is not container:
                return  # somebody wanted the name meanwhile, or the group has ended
            try:
                self._delete(container_id)
            except ParmaError as error:
                self._log.warning(f"container {container_id} could not be deleted late: {error}")

    def _delete_in_guest(self, session: Session, container: Member) -> None:
        try:
            session.guest.delete_container(container.guest_id)
        except NotFound:
            pass  # it was asked before, and only the answer got lost
        except DeadlineExceeded:
            self.kill()
            return
        except Unavailable:
            if not self._killed and session.machine.alive:
                raise
            return  # it went with the machine
        if not container.undo.run(self._log):
            self.kill()

    def _roll_back(self, undo: Undo) -> None:
        session = self._session
        if session is not None and not self._containers:
            # The VM was booted for this container: with it goes everything inside.
            self._end_session()
        elif session is not None and session.machine.alive and not undo.run(self._log):
            self.kill()
        elif session is None:
            with self._lock:
                self._machine = None

    def _end_session(self) -> None:
        with self._lock:
            session, self._session, self._machine = self._session, None, None
            self._endorsing = None
            self._host_files = None
        self._attester.detach()
        if session is not None:
            session.end(orderly=False)
