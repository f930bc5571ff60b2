# SPDX-License-Identifier: Apache-2.0
"""A VM whose enforcer has answered and accepted a policy: everything between "start QEMU" and "mount a layer"."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import ttrpc
from parma_shim.digest import hex_digest
from parma_shim.document_source import SignedDocument
from parma_shim.guest import Around, Greeting, GuestClient, unobserved
from parma_shim.vm.command import VmSpec
from parma_shim.vm.layers import LayerTable
from parma_shim.vm.machine import VirtualMachine
from parma_shim.vm.secure_processor import SecureProcessor, Signer
from parma_shim.vm.volumes import Volumes
from parma_wire.errors import ParmaError, Unavailable, Unverified
from parma_wire.limits import GUEST_PORT, MAX_SEND

if TYPE_CHECKING:
    from parma_shim.forwarding import Forwarder

Log = Callable[[str], None]

_POWER_OFF_SECONDS: Final = 2.0
_EXIT_SECONDS: Final = 3.0


class Session:
    """The machine, the control connection and the mounted layers. Made by :func:`boot`.

    Lock contract: ``_lock`` guards the set of stream connections and the forwarder only; ``load_documents`` is for one
    thread at a time.
    """

    def __init__(
        self, machine: VirtualMachine, client: ttrpc.Client, *, call_timeout: float, around: Around = unobserved
    ) -> None:
        self.machine: Final = machine
        self.guest: Final = GuestClient(client, timeout=call_timeout, around=around)
        self.layers: Final = LayerTable(machine, self.guest, timeout=call_timeout)
        self.volumes: Final = Volumes(machine, self.guest)
        self.greeting = Greeting("", "", ())
        self.timings: dict[str, float] = {}
        self.wants_endorsements = False
        """Whether the policy lets containers pass on what `parma_shim.endorsements` finds."""
        self._loaded_documents: set[str] = set()
        self._client: Final = client
        self._call_timeout: Final = call_timeout
        self._lock: Final = threading.Lock()
        self._streams: set[ttrpc.Client] = set()
        self._forwarder: Forwarder | None = None
        machine.on_exit(self._ended)

    def open_stream_connection(self) -> ttrpc.Client:
        """A further connection, for one process's streams. The caller closes it; the VM's end does as well."""
        connection = self.machine.connect(GUEST_PORT, deadline=time.monotonic() + self._call_timeout)
        opened: list[ttrpc.Client] = []
        client = ttrpc.Client(connection, write_chunk=MAX_SEND, on_close=lambda: self._forget(opened))
        opened.append(client)
        with self._lock:
            self._streams.add(client)
        if client.closed:
            self._forget(opened)
        if not self.machine.alive:
            client.close()
        return client

    def forward_ports(self, forwarder: Forwarder) -> None:
        """Takes it over: it ends with the VM."""
        with self._lock:
            self._forwarder = forwarder
        if not self.machine.alive:
            forwarder.close()

    def load_documents(self, documents: Iterable[SignedDocument], *, deadline: float) -> None:
        """Hand over, in order, the signed documents that the guest has not accepted yet."""
        for document in documents:
            digest = hex_digest(document.data)
            if digest not in self._loaded_documents:
                self.guest.load_document(document.data, is_trust_list=document.is_trust_list, deadline=deadline)
                self._loaded_documents.add(digest)

    def end(self, *, orderly: bool) -> None:
        """Power the guest off, with a short deadline, then make sure that nothing is left. Idempotent.

        Raises Unavailable when something cannot be removed.
        """
        if orderly and self.machine.alive:
            try:
                self.guest.power_off(deadline=time.monotonic() + _POWER_OFF_SECONDS)
                self.machine.wait(_EXIT_SECONDS)
            except ParmaError:
                pass  # it is killed next
        self._client.close()
        self._close_forwarder()
        self.machine.destroy()

    def _ended(self, _status: int | None) -> None:
        """Nobody will answer any more: let everyone who waits know."""
        with self._lock:
            streams = list(self._streams)
        self._close_forwarder()
        for client in (self._client, *streams):
            client.close()

    def _close_forwarder(self) -> None:
        with self._lock:
            forwarder = self._forwarder
        if forwarder is not None:
            forwarder.close()

    def _forget(self, opened: list[ttrpc.Client]) -> None:
        with self._lock:
            self._streams.difference_update(opened)


def boot(
    launch: Callable[[], VirtualMachine],
    policy: bytes,
    *,
    signer: Signer | None,
    on_machine: Callable[[VirtualMachine], None],
    call_timeout: float,
    deadline: float,
    log: Log,
    around: Around = unobserved,
) -> Session:
    """Start a VM and bring it to the point where its policy is set.

    ``signer`` makes reports for tee = "emulated"; ``on_machine`` learns of the VM as soon as it can be killed;
    ``around`` sees each call to its guest.
    Raises what went wrong; nothing is left then.
    """
    began = time.monotonic()
    machine = launch()
    try:
        on_machine(machine)
        launched = time.monotonic()
        processor = SecureProcessor(machine, signer, boot_deadline=deadline, log=log) if signer is not None else None
        connection = machine.connect(GUEST_PORT, deadline=deadline)
        client = ttrpc.Client(connection, write_chunk=MAX_SEND)
        session = Session(machine, client, call_timeout=call_timeout, around=around)
        session.greeting = session.guest.hello(deadline=deadline)
        answered = time.monotonic()
        if processor is not None:
            processor.wait_connected(deadline)
        _set_policy(session, machine.spec, policy, deadline)
        session.timings = timings(session.greeting, began, launched, answered, time.monotonic())
    except BaseException as error:
        _discard(machine, error)
        raise
    return session


def timings(greeting: Greeting, began: float, launched: float, answered: float, accepted: float) -> dict[str, float]:
    """Milliseconds of each part of the start, in order.

    The guest's clock starts with its kernel; what is left before it is the firmware's and the loader's.
    """
    result = {"qemu": (launched - began) * 1000}
    uptime = greeting.phases[-1].uptime_us / 1000 if greeting.phases else 0.0
    result["firmware"] = max(0.0, (answered - launched) * 1000 - uptime)
    before = 0.0
    for phase in greeting.phases:
        end = phase.uptime_us / 1000
        result[phase.name] = max(0.0, end - before)
        before = end
    result["policy"] = (accepted - answered) * 1000
    return {name: round(value, 1) for name, value in result.items()}


def _set_policy(session: Session, spec: VmSpec, policy: bytes, deadline: float) -> None:
    if session.greeting.tee != spec.tee:
        raise Unverified(f"the guest runs with tee = {session.greeting.tee!r}", expected=repr(spec.tee))
    accepted = session.guest.set_policy(policy, deadline=deadline)
    if accepted.sha256 != spec.host_data:
        raise Unverified("the guest accepted another policy than the one it was given")
    session.wants_endorsements = accepted.wants_endorsements


def _discard(machine: VirtualMachine, error: BaseException) -> None:
    """End the VM; an error that only says that it is gone gets its last words."""
    if isinstance(error, Unavailable) and not isinstance(error, Unverified) and machine.wait(0.2):
        words = machine.last_words()
        if words and words not in error.message:
            machine.destroy()
            raise Unavailable(f"the VM ended{words}") from error
    machine.destroy()
