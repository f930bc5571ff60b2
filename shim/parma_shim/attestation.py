# SPDX-License-Identifier: Apache-2.0
"""Keeps a group's attested-policy status up to date, in the background.

Each round asks the guest for a report over fresh random data and has a helper process verify it, write the status
document and label the containers. Rounds never overlap; a request during a round leads to one more. Nothing here
delays or fails a container: who trusts this status trusts the host, and a relying party verifies for itself.

Lock contract: ``_lock`` guards the fields; nothing is waited for under it.
"""

from __future__ import annotations

import binascii
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from parma_shim.config import Config
from parma_shim.guest import NONCE_SIZE
from parma_shim.helpers.call import Helper
from parma_shim.vm import files
from parma_shim.vm.session import Session

TOPIC_ATTESTED: Final = "/parma/attested"
TOPIC_DENIED: Final = "/parma/denied"
TOPIC_PERMISSIVE: Final = "/parma/permissive"

_HELPER_SECONDS: Final = 60.0
_ATTESTED: Final = "attested"
_DENIED: Final = "denied"
_PERMISSIVE: Final = "permissive"

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
        start_helper: Callable[..., Helper] = Helper,
    ) -> None:
        self._config: Final = config
        self._group_id: Final = group_id
        self._namespace: Final = namespace
        self._directory: Final = directory
        self._grpc_address: Final = grpc_address
        self._log: Final = log
        self._publish: Final = publish
        self._start_helper: Final = start_helper
        self._lock: Final = threading.Lock()
        self._session: Session | None = None
        self._helper: Helper | None = None
        self._containers: list[str] = []
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._summary: dict[str, Any] = {}

    @property
    def status(self) -> dict[str, Any]:
        """The last verdict: ``verdict``, ``reason``, ``tee``, ``emulated``, ``permissive``, ``policy_sha256``, ...

        Empty before the first. The whole document, evidence included, is in the file ``status.json``.
        """
        with self._lock:
            return dict(self._summary)

    def attach(self, session: Session, policy: bytes) -> None:
        """From now on this VM is asked. The policy is part of the evidence and kept in a file, not in memory."""
        try:
            _write_private(self._directory / files.POLICY, policy)
        except OSError as error:
            self._log(f"cannot keep the policy for the status: {error}")
        with self._lock:
            self._session = session

    def set_containers(self, containers: list[str]) -> None:
        """containerd's ids of the group's containers: who gets labels."""
        with self._lock:
            self._containers = containers

    def refresh(self) -> None:
        """Ask for a round. Returns at once."""
        with self._lock:
            self._wanted = self._session is not None
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="attest", daemon=True)
                self._thread.start()

    def detach(self) -> None:
        """Stop and wait until nothing is under way any more: the VM and its directory are about to go."""
        with self._lock:
            self._session = None
            self._wanted = False
            helper, thread = self._helper, self._thread
        if helper is not None:
            helper.abort()
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._config.call_timeout)

    def _run(self) -> None:
        while True:
            with self._lock:
                session = self._session if self._wanted else None
                self._wanted = False
                if session is None:
                    self._thread = None
                    return
            try:
                self._round(session)
            except Exception as error:  # noqa: BLE001  # the next round must be possible whatever happened in this one
                if session.machine.alive:
                    self._log(f"no attested-policy status: {error}")

    def _round(self, session: Session) -> None:
        nonce = os.urandom(NONCE_SIZE)
        report = session.guest.evidence(nonce)
        with self._lock:
            if self._session is not session:
                return
            request = self._request(session, nonce, report)
            self._helper = helper = self._start_helper(self._config.python, "attest")
        try:
            answer = helper.exchange(request, deadline=time.monotonic() + _HELPER_SECONDS)
        finally:
            with self._lock:
                self._helper = None
        self._take(answer)

    def _request(self, session: Session, nonce: bytes, report: bytes) -> dict[str, Any]:
        config, spec = self._config, session.machine.spec
        measurement = spec.image.measurement(spec.tee, spec.vcpus).hex() if spec.tee != "none" else ""
        return {
            "tee": spec.tee,
            "report": binascii.b2a_base64(report, newline=False).decode(),
            "nonce": nonce.hex(),
            "host_data": spec.host_data.hex(),
            "measurement": measurement,
            "certificates": str(config.certificates or ""),
            "authority": str(config.data_dir / "emulated"),
            "directory": str(self._directory),
            "address": self._grpc_address,
            "namespace": self._namespace,
            "group": self._group_id,
            "containers": self._containers,
            "boot": session.timings,
            "guest_version": session.greeting.version,
            "image_version": spec.image.version,
            "vcpus": spec.vcpus,
            "memory_mib": spec.memory_mib,
            "vsock_cid": session.machine.vsock_cid,
        }

    def _take(self, answer: Mapping[str, Any]) -> None:
        summary = dict(answer.get("summary") or {})
        for line in answer.get("log") or []:
            self._log(str(line))
        with self._lock:
            changed = summary != self._summary
            self._summary = summary
        topics = {_ATTESTED: TOPIC_ATTESTED, _DENIED: TOPIC_DENIED, _PERMISSIVE: TOPIC_PERMISSIVE}
        topic = topics.get(str(summary.get("verdict")))
        if changed and topic is not None and self._publish is not None:
            self._publish(topic, summary)


def _write_private(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as stream:
        stream.write(data)
    temporary.replace(path)
