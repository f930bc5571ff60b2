# SPDX-License-Identifier: Apache-2.0
"""The engine as a child process: one JSON document to a line, in turn (``guest/rego``).

Nothing that it says is believed beyond its meaning as an answer: no line is longer than a limit, none takes longer
than a deadline. An engine that breaks these rules is ended and the question fails; the next one starts another.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from parma_policy.rego.engine import (
    FRAMEWORK,
    Ask,
    Definition,
    EngineFailed,
    EvaluationFailed,
    Found,
    Json,
    Loaded,
    Modules,
)
from parma_wire.errors import Malformed

MAX_LINE: Final = 32 << 20
"""Bytes of one document."""
LOAD_SECONDS: Final = 60.0
"""For starting and compiling. Under software emulation a large policy takes some seconds."""
QUERY_SECONDS: Final = 5.0
"""For one evaluation, the questions that come back included."""
_GRACE: Final = 1.0
"""How much later than the engine itself this side gives up."""
_MAX_QUESTIONS: Final = 1000
"""That one evaluation may ask back."""
_READ: Final = 1 << 16
_MAX_LOADED: Final = 8
"""Sets of modules that the engine keeps; the oldest is dropped for a new one."""


class Process(Protocol):
    """A running engine."""

    def kill(self) -> None:
        """Ends it, if it has not ended."""


Spawn = Callable[[int, int], Process]
"""Starts the engine with these descriptors as its standard input and output. Raises OSError."""


class ChildEngine:
    """`Engine` over a child process, started with the first question."""

    def __init__(
        self, spawn: Spawn, *, load_seconds: float = LOAD_SECONDS, query_seconds: float = QUERY_SECONDS
    ) -> None:
        self._spawn = spawn
        self._load_seconds = load_seconds
        self._query_seconds = query_seconds
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._write = self._read = -1
        self._ids: dict[Modules, str] = {}
        self._count = 0
        self._constants: Mapping[str, Json] = {}

    def load(self, modules: Modules, package: str, constants: Mapping[str, Json]) -> Loaded:
        """See `Engine`."""
        with self._lock:
            self._constants = constants
            answer = self._load(modules, package)
        if "error" in answer:
            raise Malformed(f"the Rego engine refuses the policy: {str(answer['error'])[:600]}")
        try:
            found = {name: Definition(**described) for name, described in answer["definitions"].items()}
            return Loaded(found, bool(answer["metadata"]))
        except (KeyError, TypeError, AttributeError):
            raise self._broken("answered nonsense") from None

    def query(self, modules: Modules, path: str, document: Json, ask: Ask, metadata: Json | None) -> Found | None:
        """See `Engine`."""
        with self._lock:
            if (self._process is None or modules not in self._ids) and "error" in self._load(modules, "policy"):
                raise EngineFailed("the Rego engine does not load again what it has loaded before")
            question = {"id": self._ids[modules], "path": path, "input": document, "metadata": metadata}
            question["milliseconds"] = int(self._query_seconds * 1000)
            answer = self._exchange({"query": question}, self._query_seconds + _GRACE, ask)
        if "error" in answer:
            raise EvaluationFailed(f"the policy cannot be evaluated: {str(answer['error'])[:600]}")
        if not isinstance(answer.get("defined"), bool):
            raise self._broken("answered nonsense")
        return Found(answer.get("value")) if answer["defined"] else None

    def close(self) -> None:
        """Ends the child."""
        with self._lock:
            self._end()

    def _load(self, modules: Modules, package: str) -> dict[str, Json]:
        identity = self._ids.get(modules)
        if identity is None:
            self._count += 1
            identity = str(self._count)
        request = {
            "id": identity,
            "modules": dict(modules),
            "package": package,
            "framework": list(FRAMEWORK),
            "constants": self._constants,
        }
        answer = self._exchange({"load": request}, self._load_seconds, _nothing_to_ask)
        if "error" not in answer:
            self._ids[modules] = identity
            if len(self._ids) > _MAX_LOADED:
                oldest = next(iter(self._ids))
                self._exchange({"drop": self._ids.pop(oldest)}, self._query_seconds, _nothing_to_ask)
        return answer

    # -- the conversation ----------------------------------------------------------------------------------------

    def _exchange(self, request: Json, seconds: float, ask: Ask) -> dict[str, Json]:
        """The answer to a request; questions in between go to ``ask``."""
        deadline = time.monotonic() + seconds
        try:
            if self._process is None:
                self._start()
            self._send(request, deadline)
            for _ in range(_MAX_QUESTIONS):
                answer = self._receive(deadline)
                if "ask" not in answer:
                    return answer
                value, is_set, refused = ask(str(answer["ask"]), answer.get("input"))
                self._send({"value": value, "set": is_set, "refused": refused}, deadline)
        except OSError as error:
            raise self._broken(f"cannot be talked to ({error.strerror})") from None
        except (ValueError, RecursionError):
            raise self._broken("answered nonsense") from None
        except BaseException:
            self._end()  # in the middle of a conversation: nobody knows what it would answer next
            raise
        raise self._broken("asked too many questions")

    def _start(self) -> None:
        ours_in, its_out = os.pipe()
        its_in, ours_out = os.pipe()
        try:
            self._process = self._spawn(its_in, its_out)
        except BaseException:
            os.close(ours_in)
            os.close(ours_out)
            raise
        finally:
            os.close(its_in)
            os.close(its_out)
        os.set_blocking(ours_in, False)
        os.set_blocking(ours_out, False)
        self._read, self._write = ours_in, ours_out
        self._ids.clear()

    def _send(self, document: Json, deadline: float) -> None:
        line = memoryview(json.dumps(document, separators=(",", ":")).encode() + b"\n")
        if len(line) > MAX_LINE:
            raise self._broken("would be sent too much")
        while line:
            self._wait(self._write, select.POLLOUT, deadline)
            line = line[os.write(self._write, line) :]

    def _receive(self, deadline: float) -> dict[str, Json]:
        parts: list[bytes] = []
        size = 0
        while not parts or not parts[-1].endswith(b"\n"):
            self._wait(self._read, select.POLLIN, deadline)
            part = os.read(self._read, _READ)
            size += len(part)
            if not part or b"\n" in part[:-1] or size > MAX_LINE:
                raise self._broken("ended" if not part else "said too much")
            parts.append(part)
        answer = json.loads(b"".join(parts))
        if not isinstance(answer, dict):
            raise self._broken("answered nonsense")
        return answer

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise self._broken("did not answer in time")

    def _broken(self, how: str) -> EngineFailed:
        """Ends the engine; the error is to be raised."""
        self._end()
        return EngineFailed(f"the Rego engine {how}")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            os.close(self._read)
            os.close(self._write)
        self._process = None
        self._ids.clear()


def _nothing_to_ask(_name: str, _document: Json) -> Json:
    raise ValueError
