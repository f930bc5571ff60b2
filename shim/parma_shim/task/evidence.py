# SPDX-License-Identifier: Apache-2.0
"""Fresh reports for ``parma evidence``, on the shim's socket."""

from __future__ import annotations

from parma_shim.task.environment import Environment
from parma_wire import guest_pb2
from ttrpc import Context


class EvidenceService:
    """Hands the question to the guest and its answer back; nothing is judged here."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    def Evidence(  # noqa: N802
        self, request: guest_pb2.EvidenceRequest, context: Context
    ) -> guest_pb2.EvidenceResponse:
        """A report over the nonce; FAILED_PRECONDITION where there is no VM."""
        report = self._env.group.guest.evidence(request.nonce, deadline=context.deadline)
        return guest_pb2.EvidenceResponse(report=report)
