# SPDX-License-Identifier: Apache-2.0
"""What a permissive policy was asked and would have said: for ``parma policy learn``.

Kept only where the policy itself says ``permissive := true``, so that whoever attests the VM knows of it. JSON Lines in
the form of ``parma_policy.conversation``: a question each, those of a request that failed between
``transaction_begin`` and ``transaction_rollback``. Bounded: what does not fit any more is counted, and nothing of it
kept. Environment and arguments are in it as they were asked for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from parma_wire.limits import POLICY_CHUNK

MAX_BYTES: Final = 4 << 20
MAX_SEEN: Final = 10_000

FORMAT: Final = "parma-conversation/1"


class Asked(NamedTuple):
    """One question and its answer; ``objection`` is what a policy that is not permissive would have said."""

    point: str
    request: Mapping[str, object]
    allowed: bool
    objection: str


class Recording:
    """The record of one VM. Safe for several threads."""

    def __init__(self, policy_sha256: bytes, maximum: int = MAX_BYTES) -> None:
        header = {"format": FORMAT, "policy_sha256": policy_sha256.hex()}
        self._maximum: Final = maximum
        self._lock: Final = threading.Lock()
        self._text = bytearray(_line(header))
        self._dropped = 0
        self._seen: set[bytes] = set()

    def add(self, asked: Sequence[Asked], *, kept: bool = True) -> None:
        """The questions of one request. ``kept``: it was carried out, and the policy's state is the one after them."""
        lines = [_line(_step(question)) for question in asked]
        if lines and not kept:
            lines = [_line(_marker("transaction_begin")), *lines, _line(_marker("transaction_rollback"))]
        with self._lock:
            self._append(lines)

    def add_read(self, asked: Sequence[Asked]) -> None:
        """Questions of a request that changes nothing: asked again and again, so each is recorded once."""
        with self._lock:
            lines = [line for line in map(_line, map(_step, asked)) if line not in self._seen]
            if len(self._seen) < MAX_SEEN:
                self._seen.update(lines)
            self._append(lines)

    def read(self, offset: int) -> tuple[bytes, int, int]:
        """A piece from ``offset`` on, the record's size so far in bytes, and the number of steps left out."""
        with self._lock:
            return bytes(self._text[offset : offset + POLICY_CHUNK]), len(self._text), self._dropped

    def _append(self, lines: Sequence[bytes]) -> None:
        # Once something is missing, what follows would be about a state that nobody can replay.
        if self._dropped or len(self._text) + sum(map(len, lines)) > self._maximum:
            self._dropped += len(lines)
            return
        for line in lines:
            self._text += line


def _step(asked: Asked) -> dict[str, Any]:
    step: dict[str, Any] = {"call": asked.point, "input": asked.request, "expect": {"allowed": asked.allowed}}
    if asked.objection:
        step["note"] = asked.objection
    return step


def _marker(call: str) -> dict[str, Any]:
    return {"call": call, "input": {}}


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
