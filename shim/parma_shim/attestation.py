# SPDX-License-Identifier: Apache-2.0
"""Keeps a group's attested-policy status up to date, in the background.

Each round asks the guest for a report over fresh random data and has a helper process verify it, write the status
document and label the containers. The first round runs while the first container is being created; later ones follow
each change of the group. Rounds never overlap; a request during a round leads to one more. What cannot be verified, for
whatever reason, is shown as failed. Who trusts this status trusts the host; a relying party verifies for itself.

A container that has left the VM is told so by its label: ``ended``, or ``failed`` where the VM was found unfit to start
containers, which is what somebody wants to know who looks for why. That is for the next round, or at the end for a
process that outlives the shim (``parma_shim.farewell``); should the shim be killed, ``delete`` finds in the VM's
directory whom to tell.

Lock contract: ``_changed`` guards the fields; only :meth:`Attester.require` waits on it, and nothing else is waited for
under it. ``_keeping`` is held while the file for ``delete`` is written, so that the last one is the newest; it may be
held when ``_changed`` is taken, never the other way round.
"""

from __future__ import annotations

import binascii
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from parma_shim import farewell
from parma_shim.config import Config
from parma_shim.guest import NONCE_SIZE
from parma_shim.helpers.call import Helper
from parma_shim.vm import files
from parma_shim.vm.session import Session
from parma_wire.errors import DeadlineExceeded, Unverified

TOPIC_ATTESTED: Final = "/parma/attested"
TOPIC_DENIED: Final = "/parma/denied"
TOPIC_PERMISSIVE: Final = "/parma/permissive"

_HELPER_SECONDS: Final = 60.0
_ATTESTED: Final = "attested"
_FAILED: Final = "failed"
_ENDED: Final = "ended"
_REQUIRED: Final = "required"
_TOPICS: Final = {_ATTESTED: TOPIC_ATTESTED, _FAILED: TOPIC_DENIED, "permissive": TOPIC_PERMISSIVE}

Publish = Callable[[str, Mapping[str, Any]], None]
"""Topic and a summary of the status: see :attr:`Attester.status`."""


class Attester:
    """One group's status. Safe for several threads."""

    def __init__(
        self,
        config: Config,
        *,
        group_id: str,
        namespace: str,
        directory: Path,
        grpc_address: str,
        log: Callable[[str], None],
        publish: Publish | None,
        socket_path: str = "",
        start_helper: Callable[..., Helper] = Helper,
        start_farewell: Callable[[str, int], None] = farewell.start,
    ) -> None:
        """``socket_path`` is where the shim answers ``parma evidence``; the last two are for tests."""
        self._config: Final = config
        self._group_id: Final = group_id
        self._namespace: Final = namespace
        self._directory: Final = directory
        self._grpc_address: Final = grpc_address
        self._log: Final = log
        self._publish: Final = publish
        self._socket_path: Final = socket_path
        self._start_helper: Final = start_helper
        self._start_farewell: Final = start_farewell
        self._keeping: Final = threading.Lock()
        self._changed: Final = threading.Condition()
        self._session: Session | None = None
        self._helper: Helper | None = None
        self._containers: list[str] = []
        self._released: dict[str, str] = {}
        self._refused = False
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._summary: dict[str, Any] = {}

    @property
    def status(self) -> dict[str, Any]:
        """The last verdict: ``verdict``, ``reason``, ``tee``, ``emulated``, ``permissive``, ``policy_sha256``, ...

        Empty before the first.
        """
        with self._changed:
            return dict(self._summary)

    @property
    def document(self) -> str:
        """The whole status document (``parma_snp.status``), evidence included; empty before the first."""
        try:
            return (self._directory / files.STATUS).read_text()
        except OSError:
            return ""

    @property
    def policy(self) -> bytes:
        """The policy's bytes; empty where there is none."""
        try:
            return (self._directory / files.POLICY).read_bytes()
        except OSError:
            return b""

    def attach(self, session: Session, policy: bytes) -> None:
        """From now on this VM is asked, for the first time at once.

        The policy is part of the evidence and kept in a file, not in memory.
        """
        try:
            _write_private(self._directory / files.POLICY, policy)
        except OSError as error:
            self._log(f"cannot keep the policy for the status: {error}")
        with self._changed:
            self._session = session
            self._summary = {}
            self._refused = False
        self._keep()
        self.refresh()

    def set_containers(self, containers: Sequence[str]) -> None:
        """containerd's ids of the group's containers: who gets labels. Those that have left are told so."""
        with self._changed:
            left = self._released | self._leaving()
            self._released = {name: word for name, word in left.items() if name not in containers}
            self._containers = list(containers)
        self._keep()

    def _leaving(self) -> dict[str, str]:
        """The label of each container when it leaves."""
        return dict.fromkeys(self._containers, _FAILED if self._refused else _ENDED)

    def refresh(self) -> None:
        """Ask for a round. Returns at once."""
        with self._changed:
            self._wanted = self._session is not None
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="attest", daemon=True)
                self._thread.start()

    def require(self, *, deadline: float | None) -> None:
        """Return once the VM's evidence has verified; at once where the configuration does not want that.

        Raises Unverified, with the reason, when it does not verify or the VM is gone; DeadlineExceeded.
        """
        if self._config.attestation != _REQUIRED:
            return
        end = time.monotonic() + _HELPER_SECONDS + self._config.call_timeout
        with self._changed:
            known = self._changed.wait_for(
                lambda: self._summary or self._session is None,
                (end if deadline is None else min(deadline, end)) - time.monotonic(),
            )
            summary = dict(self._summary)
        if not known:
            raise DeadlineExceeded("the VM's evidence is still being verified")
        if not summary:
            raise Unverified("the VM has ended before its evidence was verified")
        if summary["verdict"] == _FAILED:
            with self._changed:
                self._refused = True
            self._keep()
            raise Unverified(
                f"the VM's evidence does not verify: {summary['reason']}",
                hint="attestation = 'reported' in the configuration starts containers all the same",
            )

    def detach(self) -> None:
        """Stop and wait until nothing is under way any more: the VM and its directory are about to go."""
        with self._changed:
            self._session = None
            self._wanted = False
            helper, thread = self._helper, self._thread
            self._changed.notify_all()
        if helper is not None:
            helper.abort()
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._config.call_timeout)

    def release(self) -> None:
        """Have all containers told that they have left the VM. Returns at once; after :meth:`detach`."""
        request = self._farewell()
        with self._changed:
            self._released, self._containers = {}, []
        if not request:
            return
        try:
            document = os.memfd_create("farewell", os.MFD_CLOEXEC)
            try:
                os.write(document, request)
                os.lseek(document, 0, os.SEEK_SET)
                self._start_farewell(str(self._config.python), document)
            finally:
                os.close(document)
        except OSError as error:
            self._log(f"labels of containers that are gone may be old: {error}")

    def _farewell(self) -> bytes:
        """Whom to tell what if the VM ended now; empty for nobody."""
        with self._changed:
            released = self._released | self._leaving()
        if not released or not self._grpc_address:
            return b""
        request = {"address": self._grpc_address, "namespace": self._namespace, "released": released}
        return json.dumps(request).encode()

    def _keep(self) -> None:
        """Leaves that in the VM's directory, for ``delete``."""
        with self._changed:
            if self._session is None:
                return  # the directory is about to go
        path = self._directory / farewell.REQUEST
        with self._keeping:
            request = self._farewell()
            try:
                if request:
                    _write_private(path, request)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                self._log(f"cannot keep whom to tell at the end: {error}")

    def _run(self) -> None:
        while True:
            with self._changed:
                session = self._session if self._wanted else None
                self._wanted = False
                if session is None:
                    self._thread = None
                    return
            try:
                self._round(session)
            except Exception as error:  # noqa: BLE001  # the next round must be possible whatever happened in this one
                self._fail(session, error)

    def _round(self, session: Session) -> None:
        nonce = os.urandom(NONCE_SIZE)
        report = session.guest.evidence(nonce)
        evidence = {"report": binascii.b2a_base64(report, newline=False).decode(), "nonce": nonce.hex()}
        self._judge(session, evidence)

    def _fail(self, session: Session, error: Exception) -> None:
        """No evidence, or nobody to verify it: the last status would claim what nobody knows any more."""
        if not session.machine.alive:
            self._take(session, {"verdict": _FAILED, "reason": "the VM has ended"}, publish=False)
            return
        self._log(f"the VM's evidence cannot be verified: {error}")
        try:
            self._judge(session, {"failure": str(error)})
        except Exception as again:  # noqa: BLE001  # as in _run
            self._log(f"no attested-policy status can be written: {again}")
            (self._directory / files.STATUS).unlink(missing_ok=True)
            self._take(session, {"verdict": _FAILED, "reason": str(error), "tee": session.machine.spec.tee})

    def _judge(self, session: Session, evidence: Mapping[str, str]) -> None:
        """Have the helper verify and write; nothing when the VM is no longer ours to ask."""
        with self._changed:
            if self._session is not session:
                return
            told = dict(self._released)
            request = {**self._request(session), **evidence}
            self._helper = helper = self._start_helper(self._config.python, "attest")
        try:
            answer = helper.exchange(request, deadline=time.monotonic() + _HELPER_SECONDS)
        finally:
            with self._changed:
                self._helper = None
        with self._changed:  # not before: a helper that was aborted has told nobody
            self._released = {name: word for name, word in self._released.items() if name not in told}
        self._keep()
        self._write_log(answer)
        self._take(session, dict(answer.get("summary") or {}))

    def _request(self, session: Session) -> dict[str, Any]:
        config, spec = self._config, session.machine.spec
        measurement = spec.image.measurement(spec.tee, spec.vcpus).hex() if spec.tee != "none" else ""
        return {
            "tee": spec.tee,
            "host_data": spec.host_data.hex(),
            "measurement": measurement,
            "minimum_tcb": config.minimum_tcb,
            "certificates": str(config.certificates or ""),
            "authority": str(config.data_dir / "emulated"),
            "image_dir": str(config.image_dir),
            "directory": str(self._directory),
            "address": self._grpc_address,
            "socket": self._socket_path,
            "namespace": self._namespace,
            "group": self._group_id,
            "containers": self._containers,
            "released": self._released,
            "boot": session.timings,
            "guest_version": session.greeting.version,
            "image_version": spec.image.version,
            "vcpus": spec.vcpus,
            "memory_mib": spec.memory_mib,
            "vsock_cid": session.machine.vsock_cid,
        }

    def _write_log(self, answer: Mapping[str, Any]) -> None:
        for line in answer.get("log") or []:
            self._log(str(line))

    def _take(self, session: Session, summary: dict[str, Any], *, publish: bool = True) -> None:
        with self._changed:
            if self._session is not session:
                return
            changed = summary != self._summary
            self._summary = summary
            self._changed.notify_all()
        topic = _TOPICS.get(str(summary.get("verdict")))
        if publish and changed and topic is not None and self._publish is not None:
            self._publish(topic, summary)


def _write_private(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as stream:
        stream.write(data)
    temporary.replace(path)
