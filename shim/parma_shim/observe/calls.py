# SPDX-License-Identifier: Apache-2.0
"""Around each call: containerd's to the shim, and the shim's to the guest.

Method names come from our own service definitions and codes are numbers, so neither peer can make labels grow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from parma_shim.observe.registry import Registry
from parma_wire.errors import Denied
from ttrpc import Context, Status

if TYPE_CHECKING:
    from google.protobuf.message import Message

T = TypeVar("T")

ENDLESS: Final = frozenset({"Wait", "WaitProcess", "WaitSandbox"})
"""Methods that last as long as what they wait for: counted, not timed."""


class Tracer(Protocol):
    """What is needed of :mod:`parma_shim.observe.traces`."""

    def serving(self, method: str, metadata: Mapping[str, str]) -> AbstractContextManager[None]:
        """A span around a call of containerd's, as a child of the caller's if ``metadata`` names one."""

    def asking_guest(self, method: str) -> AbstractContextManager[None]:
        """A span around a call to the guest."""


class RecordLog(Protocol):
    """What is needed of ``parma_shim.log.Log``."""

    def warning(self, message: str, **fields: object) -> None: ...


class CallObserver:
    """Counts, times, traces; and logs what the policy denied."""

    def __init__(self, registry: Registry, log: RecordLog, tracer: Tracer | None = None) -> None:
        self._registry: Final = registry
        self._log: Final = log
        self._tracer: Final = tracer

    def serve(self, method: str, request: Message, context: Context, handle: Callable[[], Any]) -> Any:
        """The server's interceptor (``ttrpc.Server``)."""
        service, _, name = method.rpartition("/")
        labels = (("service", service.rpartition(".")[2]), ("method", name))
        span = self._tracer.serving(method, context.metadata) if self._tracer is not None else nullcontext()
        try:
            with span:
                return self._timed("parma_shim_rpc", name, labels, handle)
        except Denied as error:
            fields = {"container": _text(request, "id"), "exec": _text(request, "exec_id")}
            self._log.warning(f"denied: {error.message}", method=name, **{k: v for k, v in fields.items() if v})
            raise

    def ask_guest(self, method: str, call: Callable[[], T]) -> T:
        """Around a call of ``parma_shim.guest.GuestClient``."""
        labels = (("method", method),)
        with self._tracer.asking_guest(method) if self._tracer is not None else nullcontext():
            try:
                return self._timed("parma_shim_guest_call", method, labels, call)
            except Denied:
                self._registry.add("parma_shim_denials_total", labels)
                raise

    def _timed(self, prefix: str, method: str, labels: tuple[tuple[str, str], ...], call: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return call()
        except BaseException as error:
            code = getattr(error, "code", Status.UNKNOWN)
            self._registry.add(f"{prefix}_failures_total", (*labels, ("code", str(int(code)))))
            raise
        finally:
            if method in ENDLESS:
                self._registry.add(f"{prefix}_waits_total", labels)
            else:
                self._registry.observe(f"{prefix}_duration_seconds", time.monotonic() - began, labels)


def _text(request: Message, field: str) -> str:
    return str(getattr(request, field, ""))
