# SPDX-License-Identifier: Apache-2.0
"""The containers in the guest of one VM that runs: the steps that create one, and its deletion.

Each step pushes what takes it back; a deletion runs that list once the container is gone::

    each layer: disk attached, verified and mounted in the guest (shared with the group's other containers)
    scratch: disk attached, encrypted and mounted in the guest  (or guest memory)
    overlay mounted
    container created

What further containers find there is not taken back: a pod's emptyDirs, files of the host, endorsements.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from parma_shim import guest_request, pod_volumes
from parma_shim.config import Config
from parma_shim.digest import hex_digest
from parma_shim.group_vm import GroupVm
from parma_shim.host_mounts import Names
from parma_shim.members import Member, Members
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm.layers import Layer
from parma_shim.vm.scratch import mount_scratch
from parma_shim.vm.session import Session
from parma_shim.vm.undo import Undo
from parma_wire.errors import DeadlineExceeded, NotFound, Unavailable

if TYPE_CHECKING:
    from parma_shim.endorsements import Endorsing
    from parma_shim.provided import HostFiles


class Log(Protocol):
    """Calling it logs at level info."""

    def __call__(self, message: str, **fields: object) -> None: ...
    def warning(self, message: str, **fields: object) -> None: ...


def time_limit(config: Config) -> float:
    """Until when anything that is begun now has to be done; of ``time.monotonic``."""
    return time.monotonic() + config.boot_timeout + 4 * config.call_timeout


class GuestContainers:
    """Of one VM, from its boot to its end. For one thread at a time."""

    def __init__(
        self, session: Session, policy: bytes, config: Config, *, vm: GroupVm, members: Members, log: Log
    ) -> None:
        """
        Args:
            vm: ended when the guest does not answer.
            members: the group's containers, kept by the caller.
        """
        self.session: Final = session
        self.policy_digest: Final = hex_digest(policy)
        self._config: Final = config
        self._vm: Final = vm
        self._members: Final = members
        self._log: Final = log
        self._names: Final = Names.of(policy)
        self._endorsing: Endorsing | None = None
        self._host_files: HostFiles | None = None
        session.machine.on_exit(self._ended)

    @property
    def alive(self) -> bool:
        """Whether the VM runs, as far as is known."""
        return self.session.machine.alive

    def fetch_endorsements(self) -> None:
        """In the background, where the policy wants any. The first container waits for them."""
        if self.session.wants_endorsements:
            from parma_shim.endorsements import Endorsing  # few policies want it

            self._endorsing = Endorsing(self._config, self.session, log=self._log)

    def create_pod(self, spec: ContainerSpec, end: float) -> None:
        """The pause image is not needed: what keeps a pod together is part of the guest's own image."""
        request = guest_request.sandbox_request(spec.oci, guest_id=spec.guest_id)
        self.session.guest.create_sandbox(request, deadline=end)

    def mount_layers(self, layers: Sequence[Layer], undo: Undo, end: float) -> list[str]:
        """Where they are in the guest, in the same order: the first step, after which nobody needs their files."""
        with self._step(end) as deadline:
            return self.session.layers.mount(layers, undo, deadline=deadline)

    def create(
        self, spec: ContainerSpec, layer_targets: Sequence[str], undo: Undo, end: float, on_running: Callable[[], None]
    ) -> None:
        """All the other steps. Raises what goes wrong; to run ``undo`` is the caller's then.

        Args:
            on_running: called before any file of the host is read.
        """
        self._make_volumes(spec, end)
        with self._step(end) as deadline:
            mount_scratch(self.session, spec.guest_id, self._config, undo, deadline)
        self._mount_overlay(spec, layer_targets, undo, end)
        request = guest_request.create_request(
            spec.oci,
            guest_id=spec.guest_id,
            stdin=spec.stdin,
            sandbox=self._members.sandbox,
            pid_namespace_of=self._members.pid_namespace_for(spec),
            names=self._names,
        )
        if self._endorsing is not None:
            self._endorsing.wait(end)
        on_running()  # hooks write /etc/hosts, so the files come after them
        self._provide_files(spec, end)
        with self._step(end) as deadline:
            self.session.guest.create_container(request, deadline=deadline)

    def delete(self, container: Member) -> None:
        """One that does not run, if the VM still does. Raises FailedPrecondition, Unavailable.

        What cannot be taken back once the guest has forgotten it is logged, and gone with the VM.
        """
        if not self.alive or container.is_pod:
            return
        try:
            self.session.guest.delete_container(container.guest_id)
        except NotFound:
            pass  # it was asked before, and only the answer got lost
        except DeadlineExceeded:
            self._vm.kill()
            return
        except Unavailable:
            if not self._vm.killed and self.alive:
                raise
            return  # it went with the machine
        self.take_back(container.undo)

    def take_back(self, undo: Undo) -> None:
        """What a container had, or one that was not to be. The VM ends when there is no answer."""
        if not undo.run(self._log):
            self._vm.kill()

    def _make_volumes(self, spec: ContainerSpec, end: float) -> None:
        if self._members.sandbox:
            wanted = pod_volumes.empty_dirs(spec.oci.get("mounts") or [])
            annotations = spec.oci.get("annotations") or {}
            with self._step(end) as deadline:
                self.session.volumes.make(wanted, annotations, self._config, deadline=deadline)

    def _mount_overlay(self, spec: ContainerSpec, layer_targets: Sequence[str], undo: Undo, end: float) -> None:
        guest = self.session.guest
        overlay = guest_request.overlay_request(spec.oci, spec.guest_id, layer_targets[::-1])
        with self._step(end) as deadline:
            guest.mount_overlay(overlay, deadline=deadline)
        undo.push("unmounting the overlay", partial(guest.unmount_overlay, spec.guest_id))

    def _provide_files(self, spec: ContainerSpec, end: float) -> None:
        copied = guest_request.copied_mounts(spec.oci, self._names)
        if not copied:
            return
        if self._host_files is None:
            from parma_shim.provided import HostFiles  # many containers mount none

            interval = self._config.file_updates
            self._host_files = HostFiles(self.session.guest, interval=interval, log=self._log.warning)
        self._host_files.provide(copied, spec.guest_id, deadline=end)

    @contextlib.contextmanager
    def _step(self, end: float) -> Iterator[float]:
        """A change in the guest, and its deadline; the VM ends when there is no answer.

        Beside other containers it is not given up when the caller's time is over, but has the time that any request
        has: with one that may or may not be carried out yet, the disk or the id that it names could not be used again.
        """
        if time.monotonic() > end:
            raise DeadlineExceeded("the container could not be created in time")
        try:
            yield time_limit(self._config) if self._members else end
        except DeadlineExceeded:
            self._vm.kill()
            raise

    def _ended(self, _status: int | None) -> None:
        """Files of the host need not be looked at any more."""
        if self._host_files is not None:
            self._host_files.close()
