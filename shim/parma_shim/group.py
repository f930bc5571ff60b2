# SPDX-License-Identifier: Apache-2.0
"""A container group: the containers that share one VM, and the VM.

The first container boots the VM, with the hash of its policy as HOST_DATA; further ones join it. Creating is a
sequence of steps; a failure takes back those that were done::

    layers found and converted  |  VM booted, policy set        (at the same time)
    signed fragments handed over; the policy keeps what they add for the life of the VM
    everything that is mounted for the container, and the container itself (:mod:`parma_shim.guest_containers`)

Lock contract: ``_setup`` serialises creating, deleting and shutting down, and is held while the guest works; it guards
``_inside``. ``_lock`` guards the containers; nothing is waited for under it. What the task service asks meanwhile
(``guest``, ``vm_pid``, ``kill``, ...) is for :mod:`parma_shim.group_vm`, and never waits for a guest that is stuck.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import ttrpc
from parma_shim import guest_request
from parma_shim.attestation import Attester, Publish
from parma_shim.booting import Booter
from parma_shim.config import Config
from parma_shim.digest import hex_digest
from parma_shim.document_source import SignedDocument, documents_from_annotations
from parma_shim.group_vm import GroupVm
from parma_shim.guest import Around, GuestClient, unobserved
from parma_shim.guest_containers import GuestContainers, Log, time_limit
from parma_shim.hook_runner import run_hooks
from parma_shim.members import Member, Members
from parma_shim.policy_source import policy_from_annotations, require_policy
from parma_shim.task.hooks import Hook
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm import cleanup
from parma_shim.vm.image import GuestImage
from parma_shim.vm.layer_choice import LayerChoice
from parma_shim.vm.layers import LayerJob, LayerSource
from parma_shim.vm.machine import ExitCallback
from parma_shim.vm.recipe import Place, verified_image
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

_SHUTDOWN_SECONDS: Final = 10.0


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
        self._vm: Final = GroupVm()
        self._inside: GuestContainers | None = None
        self._booter: Final = Booter(
            config,
            Place(namespace, group_id, directory, shim_is_placed),
            log=log,
            executor=executor,
            around=around,
            on_machine=self._vm.started,
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
        return self._vm.session().guest

    @property
    def vm_pid(self) -> int:
        """QEMU's process id, 0 when there is no VM."""
        return self._vm.pid

    @property
    def vm_memory_mib(self) -> int:
        """Memory that the VM was given, 0 when there is none."""
        return self._vm.memory_mib

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds of each part of the VM's start."""
        return self._vm.timings

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
        return self._vm.session().open_stream_connection()

    def run_hooks(
        self, hooks: Sequence[Hook], state: Mapping[str, Any], network_namespace: str, *, deadline: float
    ) -> None:
        """Programs of the host, by a helper process. Raises ParmaError for the first that fails."""
        run_hooks(self._config.python, hooks, state, network_namespace, cgroups=self._cgroups, deadline=deadline)
        if state.get("status") == "creating":
            self._booter.connect_cards(self.vm_pid, deadline=deadline)

    def on_vm_exit(self, callback: ExitCallback) -> None:
        """Call back, once for each VM that had been booted, when it has ended for whatever reason."""
        self._vm.on_exit(callback)

    def refresh_status(self) -> None:
        """Fetch and verify evidence anew, in the background. To be called when a task has started or is gone."""
        self._attester.refresh()

    def kill(self) -> None:
        """End the VM now, also one that is booting. Returns at once; idempotent."""
        self._vm.kill()

    def create_container(
        self, spec: ContainerSpec, *, deadline: float | None = None, on_running: Callable[[], None] = lambda: None
    ) -> None:
        """Create a container, up to and without its start; boots the VM if there is none.

        Args:
            on_running: called once the VM runs, before any file of the host is read and the container created.

        Raises Denied, NotFound, Unavailable, DeadlineExceeded, ...; everything is undone then.
        """
        limit = time_limit(self._config)
        end = limit if deadline is None else min(deadline, limit)
        with self._setting_up(end):
            self._require_new(spec)
            self._vm.want()
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
            if self._inside is not None:
                self._inside.session.end(orderly=True)
            self._inside = None
            self._vm.forget()
            with self._lock:
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

    def _require_new(self, spec: ContainerSpec) -> None:
        if spec.container_id in self._containers.unwanted:
            self._delete(spec.container_id)
        if spec.container_id in self._containers:
            raise AlreadyExists(f"container {spec.container_id} exists already")
        if self._inside is None:
            return
        if not self._inside.alive:
            if self._containers:
                raise Unavailable("the group's VM has ended")
            self._end_vm()
        else:
            policy = self._policy_of(spec)
            if policy is not None and hex_digest(policy) != self._inside.policy_digest:
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
        if self._inside is not None:
            raise FailedPrecondition("the pod's VM runs already")
        policy = require_policy(self._policy_of(spec), self._config.tee)
        inside = self._boot(spec, verified_image(self._config, end), policy, end)
        inside.session.load_documents(documents, deadline=end)
        inside.create_pod(spec, end)

    def _create_container(
        self,
        spec: ContainerSpec,
        documents: Sequence[SignedDocument],
        undo: Undo,
        end: float,
        on_running: Callable[[], None],
    ) -> None:
        inside = self._inside
        if inside is None:
            policy = require_policy(self._policy_of(spec), self._config.tee)
            image = verified_image(self._config, end)
        else:
            policy = self._attester.policy
        source = self._layers.source(
            spec.container_id, spec.rootfs, policy, deadline=end, on_failure=self._vm.kill_if_booting
        )
        with contextlib.closing(source):
            if inside is None:
                inside = self._boot_meanwhile(source, spec, image, policy, end)
            inside.session.load_documents(documents, deadline=end)
            layer_targets = inside.mount_layers(source.layers(deadline=end), undo, end)
        inside.create(spec, layer_targets, undo, end, on_running)

    def _boot_meanwhile(
        self, source: LayerSource, spec: ContainerSpec, image: GuestImage, policy: bytes, end: float
    ) -> GuestContainers:
        """When it was the layers' failure that ended the boot, that is what to report."""
        try:
            return self._boot(spec, image, policy, end)
        except Unavailable:
            if source.error is not None:
                raise source.error from None
            raise

    def _boot(self, spec: ContainerSpec, image: GuestImage, policy: bytes, end: float) -> GuestContainers:
        self._booter.boot(spec, image, policy, end)
        if self._inside is None:
            raise FailedPrecondition("the container group has no VM")
        return self._inside

    def _booted(self, session: Session, policy: bytes) -> None:
        config, members = self._config, self._containers
        self._inside = GuestContainers(session, policy, config, vm=self._vm, members=members, log=self._log)
        self._vm.booted(session)
        self._attester.attach(session, policy)
        self._on_boot()
        self._inside.fetch_endorsements()

    def _delete(self, container_id: str) -> None:
        with self._lock:
            container = self._containers.get(container_id)
        if container is None:
            raise NotFound(f"no container {container_id}")  # another call has deleted it meanwhile
        if self._inside is not None:
            self._inside.delete(container)
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

    def _roll_back(self, undo: Undo) -> None:
        if self._inside is None:
            self._vm.forget()
        elif not self._containers:
            self._end_vm()  # it was booted for this container: with it goes everything inside
        elif self._inside.alive:
            self._inside.take_back(undo)

    def _end_vm(self) -> None:
        """Without asking the guest, and without telling anybody: there is no container that it could end for."""
        inside, self._inside = self._inside, None
        self._vm.forget()
        self._attester.detach()
        if inside is not None:
            inside.session.end(orderly=False)
