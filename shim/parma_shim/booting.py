# SPDX-License-Identifier: Apache-2.0
"""Booting a group's VM: its network cards first, then QEMU, the policy, and the network's addresses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from parma_shim import guest_request
from parma_shim.config import Config
from parma_shim.guest import Around
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm.command import VmSpec
from parma_shim.vm.image import GuestImage
from parma_shim.vm.machine import VirtualMachine
from parma_shim.vm.recipe import Place, launch_spec
from parma_shim.vm.secure_processor import EmulatedSigner
from parma_shim.vm.session import Log, Session, boot
from parma_shim.vm.spawn import Executor
from parma_wire.errors import Unavailable

if TYPE_CHECKING:
    from parma_shim.vm.network import Connection


class Booter:
    """Of one group. For one thread at a time, but for :meth:`connect_cards`."""

    def __init__(
        self,
        config: Config,
        place: Place,
        *,
        log: Log,
        executor: Executor,
        around: Around,
        on_machine: Callable[[VirtualMachine], None],
        on_session: Callable[[Session, bytes], None],
        boot_session: Callable[..., Session] = boot,
    ) -> None:
        """
        Args:
            on_machine: called when QEMU runs, with what can kill it.
            on_session: called when the guest has accepted the policy, which is its last argument.
            boot_session: for tests.
        """
        self._config: Final = config
        self._place: Final = place
        self._log: Final = log
        self._executor: Final = executor
        self._around: Final = around
        self._on_machine: Final = on_machine
        self._on_session: Final = on_session
        self._boot_session: Final = boot_session
        self._hooked: tuple[Session, list[str]] | None = None

    def boot(self, spec: ContainerSpec, image: GuestImage, policy: bytes, end: float) -> None:
        """For a group that begins with this container. Raises ParmaError; what was started has ended then, or is
        known to ``on_session``."""
        self._hooked = None
        vm_spec = launch_spec(self._config, self._place, spec, image, policy)
        namespace = guest_request.network_namespace(spec.oci)
        if not namespace:
            self._boot_without(vm_spec, policy, guest_request.cards_for_hooks(spec.oci), end)
            return
        from parma_shim.vm.network import Connection  # containers without a network do not need it

        is_pod = guest_request.is_sandbox_container(spec.oci)
        connection = Connection(self._config.python, namespace, deadline=end, catch_ports=is_pod)
        try:
            vm_spec = vm_spec._replace(
                network_namespace=namespace, cards=connection.cards, network_record=connection.record
            )
            session = self._boot_vm(vm_spec, policy, connection, end)
            if connection.cards:
                session.guest.configure_network(connection.request(), deadline=end)
            if is_pod:
                self._forward_ports(session, connection)
        finally:
            connection.close()

    def _forward_ports(self, session: Session, connection: Connection) -> None:
        """What connects to a port of a pod's loopback on the host gets to the guest. A pod works without, too."""
        from parma_shim.forwarding import Forwarder

        try:
            session.forward_ports(Forwarder(connection.take_ports(), session.open_stream_connection, self._log))
        except (OSError, Unavailable) as error:
            self._log(f"ports of the pod cannot be forwarded: {error}")

    def connect_cards(self, vm_pid: int, *, deadline: float) -> None:
        """After hooks have made the network. It goes with QEMU, who alone is in the namespace."""
        if self._hooked is None:
            return
        from parma_shim.vm.network import connect_cards

        (session, cards), self._hooked = self._hooked, None
        request = connect_cards(self._config.python, f"/proc/{vm_pid}/ns/net", cards, deadline=deadline)
        if request.interfaces:
            session.guest.configure_network(request, deadline=deadline)

    def _boot_without(self, vm_spec: VmSpec, policy: bytes, cards: int, end: float) -> None:
        """Without a network, or with ``cards`` for one that hooks will make."""
        if not cards:
            self._boot_vm(vm_spec, policy, None, end)
            return
        from parma_shim.vm.network import prepare

        prepared = prepare(self._config.python, cards, deadline=end)
        try:
            path = f"/proc/self/fd/{prepared.namespace}"
            vm_spec = vm_spec._replace(
                network_namespace=path, network_descriptor=prepared.namespace, cards=prepared.cards
            )
            session = self._boot_vm(vm_spec, policy, None, end)
            self._hooked = session, [card.mac for card in prepared.cards]
        finally:
            prepared.close()

    def _boot_vm(self, vm_spec: VmSpec, policy: bytes, connection: Connection | None, end: float) -> Session:
        config = self._config

        def launch() -> VirtualMachine:
            machine = VirtualMachine.launch(vm_spec, config, deadline=end, log=self._log, executor=self._executor)
            try:
                if connection is not None:
                    connection.launched()
            except BaseException:
                machine.destroy()
                raise
            return machine

        signer = None
        if config.tee == "emulated":
            signer = EmulatedSigner(config.python, config.data_dir / "emulated", vm_spec, timeout=config.call_timeout)
        session = self._boot_session(
            launch,
            policy,
            signer=signer,
            on_machine=self._on_machine,
            call_timeout=config.call_timeout,
            deadline=min(end, time.monotonic() + config.boot_timeout),
            log=self._log,
            around=self._around,
        )
        self._on_session(session, policy)
        return session
