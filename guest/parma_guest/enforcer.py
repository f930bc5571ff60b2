# SPDX-License-Identifier: Apache-2.0
"""The gate that every request of the host passes.

States::

    no policy --SetPolicy--> policy set --(something could not be taken back)--> poisoned
       Hello                    everything,                                       reads, PowerOff
       PutPolicy                as the policy decides
       SetPolicy

A change is a transaction: under one lock the policy is asked, the side effect is carried out, and only then is the
policy's new state kept. When the side effect fails, the state stays as it was; when even taking the side effect back
fails, nothing that the enforcer knows is certain any more and it refuses further changes for the life of the VM.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from parma_guest import points
from parma_guest.decisions import Document, Engine, OpenDoorEngine, Verdict, policy_digest
from parma_guest.points import Kind, Row
from parma_guest.tee import TeeProvider
from parma_guest.undo import CleanupFailed
from parma_snp.binding import report_data_for_nonce
from parma_wire.errors import Denied, FailedPrecondition, Malformed, ParmaError, Unavailable, Unsupported
from parma_wire.limits import MAX_POLICY_BYTES

if TYPE_CHECKING:
    from parma_guest.recording import Asked, Recording

LoadPolicy = Callable[[bytes], Engine]

_NO_POLICY: Final = "no execution policy has been set"


class Asker:
    """The policy, for the duration of one request. Knows which questions the request's row in the table demands."""

    def __init__(self, engine: Engine, state: Any, row: Row) -> None:
        self._engine = engine
        self._row = row
        self._asked: set[str] = set()
        self._before: Any = state
        self.state: Any = state
        self.questions: list[tuple[str, Document, Verdict]] = []
        self.state_if_refused: Any = state
        """What holds when the request fails: the state from before it, and what a denial itself has recorded."""

    def ask(self, point: str, request: Document) -> Verdict:
        """Raises `Denied` with the policy's reason. The state that follows is kept only when all goes well."""
        if point not in self._row.points:
            raise Denied(f"{point} is not an enforcement point of this request")
        verdict, after = self._engine.decide(self.state, point, request)
        self.questions.append((point, request, verdict))
        if not verdict.allowed:
            self.state_if_refused = self._engine.after_denial(self._before, self.state, after)
            raise Denied(verdict.message or f"{point} denied: the policy does not allow it")
        self.state = after
        self._asked.add(point)
        return verdict

    def require_open_door(self, what: str) -> None:
        """Raises `Unsupported` where there is a policy: none has words for this, so none can have allowed it."""
        if not self._engine.open_door:
            raise Unsupported(f"{what} is not supported under an execution policy")

    def require_all_asked(self) -> None:
        """Raises `Denied` when the request would have gone through without each of its questions."""
        missing = set(self._row.points) - self._asked
        if missing:
            raise Denied(f"the policy was not asked about {', '.join(sorted(missing))}")


class Enforcer:
    """Policy, its state, and the lock."""

    def __init__(self, tee: TeeProvider, load_policy: LoadPolicy) -> None:
        self._tee = tee
        self._load_policy = load_policy
        self._lock = threading.Lock()
        self._received = bytearray()
        self._engine: Engine | None = None
        self._policy_bytes = b""
        self._state: Any = None
        self._poison = ""
        self._recording: Recording | None = None

    @property
    def tee(self) -> str:
        """Name of the report provider."""
        return self._tee.name

    @property
    def poisoned(self) -> str:
        """Why changes are refused, or ""."""
        return self._poison

    @property
    def has_policy(self) -> bool:
        """True once `set_policy` has succeeded."""
        return self._engine is not None

    @property
    def policy_bytes(self) -> bytes:
        """The policy as it was accepted; b"" before."""
        return self._policy_bytes

    @property
    def wants_endorsements(self) -> bool:
        """Whether the host's endorsements would be of use to a container."""
        return self._tee.name != "none" and self._policy().wants_endorsements()

    def put_policy(self, offset: int, data: bytes) -> None:
        """Appends a piece of the policy. Raises `Malformed` out of order or beyond the limit."""
        with self._lock:
            self._refuse_second_policy()
            if offset != len(self._received):
                raise Malformed("piece of the policy is out of order", expected=f"offset {len(self._received)}")
            if len(self._received) + len(data) > MAX_POLICY_BYTES:
                raise Malformed("policy is too large", expected=f"at most {MAX_POLICY_BYTES} bytes")
            self._received += data

    def set_policy(self, size: int) -> bytes:
        """Accepts the policy, once in the life of the VM; returns its SHA-256.

        The empty policy, which allows everything, is for VMs that protect nothing: without a TEE.

        Raises `Denied` when it is not a policy or the VM was not launched for it: either is a no to all that would
        follow. `Malformed` when pieces are missing, `Unverified` when there is no report to tell. After a failure the
        pieces are forgotten and another attempt may be made: it would have to match HOST_DATA all the same.
        """
        with self._lock:
            self._refuse_second_policy()
            policy, self._received = bytes(self._received), bytearray()
            if size != len(policy):
                raise Malformed("policy is incomplete", expected=f"the {size} bytes announced")
            if not policy:
                self._require_no_tee()
            digest = policy_digest(policy)
            self._check_host_data(digest)
            engine = self._load(policy) if policy else OpenDoorEngine()
            if engine.permissive:
                from parma_guest.recording import Recording

                self._recording = Recording(digest)
            self._state = engine.initial_state()
            self._policy_bytes = policy
            self._engine = engine
            return digest

    def evidence(self, nonce: bytes) -> bytes:
        """A report that answers ``nonce`` (64 bytes), bound by `report_data_for_nonce`; b"" without a TEE."""
        with self._lock:
            self._policy()
            return self._tee.report(report_data_for_nonce(nonce))

    def recording(self, offset: int) -> tuple[bytes, int, int]:
        """A piece of what a permissive policy was asked: see `Recording.read`. Raises `FailedPrecondition`, `Denied`.

        It is a log of the enforcer, so the policy decides as for one.
        """
        with self.read("Recording") as policy:
            policy.ask("runtime_logging", {})
        if self._recording is None:
            raise FailedPrecondition("nothing is recorded: the policy is not permissive")
        return self._recording.read(offset)

    @contextmanager
    def change(self, method: str) -> Iterator[Asker]:
        """The transaction around a request that changes something; see the module's text."""
        row = _row(method, Kind.CHANGE)
        with self._lock:
            engine = self._policy()
            if self._poison:
                raise FailedPrecondition(f"the container group takes no more changes: {self._poison}")
            asker = Asker(engine, self._state, row)
            done = False
            try:
                yield asker
                asker.require_all_asked()
                done = True
            except CleanupFailed as error:
                self._poison = str(error)
                raise
            except OSError as error:
                raise Unavailable(f"the guest's kernel refused: {error.strerror}") from error
            except ParmaError:
                self._state = asker.state_if_refused
                raise
            except Exception as error:
                # A bug: what has happened and what has not is unknown. The text of the error could hold anything.
                self._poison = f"internal error ({type(error).__name__})"
                raise Unavailable(self._poison) from error
            finally:
                if self._recording is not None:
                    self._recording.add(_questions(asker), kept=done)
            self._state = asker.state

    @contextmanager
    def read(self, method: str) -> Iterator[Asker]:
        """A request that only reveals something: asked against the state of this moment, without waiting.

        Where the policy has rules of its own, these may record that it was asked, and requests take turns.
        """
        row = _row(method, Kind.READ)
        engine = self._policy()
        with self._lock if engine.records else nullcontext():
            asker = Asker(engine, self._state, row)
            try:
                yield asker
                asker.require_all_asked()
            except Denied:
                if engine.records:
                    self._state = asker.state_if_refused
                raise
            finally:
                if self._recording is not None and method != "Recording":  # whose reading is no part of the run
                    self._recording.add_read(_questions(asker))
            if engine.records:
                self._state = asker.state

    def _policy(self) -> Engine:
        if self._engine is None:
            raise FailedPrecondition(_NO_POLICY)
        return self._engine

    def _refuse_second_policy(self) -> None:
        if self._engine is not None:
            raise FailedPrecondition("an execution policy is set already; there is no second one")

    def _load(self, policy: bytes) -> Engine:
        try:
            return self._load_policy(policy)
        except Malformed as error:
            raise Denied(error.message, expected=error.expected, hint=error.hint) from error

    def _require_no_tee(self) -> None:
        """By name, which follows from the measured command line: a report that cannot be had is not a TEE's absence."""
        if self._tee.name != "none":
            raise Denied(
                "the execution policy is empty",
                expected=f"a policy, as this VM was started with tee = {self._tee.name}",
                hint="parma policy generate makes one",
            )

    def _check_host_data(self, digest: bytes) -> None:
        host_data = self._tee.host_data()
        if host_data is None:  # tee = none: nothing vouches for any policy, and Hello says so
            return
        if not hmac.compare_digest(host_data, digest):
            raise Denied(
                "the policy is not the one that this VM was launched for",
                expected=f"SHA-256 {host_data.hex()} (HOST_DATA), not {digest.hex()}",
            )


def _questions(asker: Asker) -> list[Asked]:
    from parma_guest.recording import Asked

    return [
        Asked(point, request, verdict.allowed, verdict.message if verdict.allowed else "")
        for point, request, verdict in asker.questions
    ]


def _row(method: str, kind: Kind) -> Row:
    row = points.row(method)
    if row is None or row.kind is not kind:
        raise Denied(f"{method} has no enforcement point")
    return row
