# SPDX-License-Identifier: Apache-2.0
"""The conversation with the engine's process: nothing that it does is believed, and it is ended for any nonsense."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from parma_policy.rego.engine import Answer, EngineFailed, EvaluationFailed, Json
from parma_policy.rego.link import ChildEngine, Process
from parma_wire.errors import Malformed

MODULES = (("policy", "package policy"),)
LOADED = '{"definitions":{"x":{"kind":"constant"}},"metadata":false}'

Lines = list[str | None]


class Script:
    """An engine that says prepared lines, one after each that it is sent; None: it ends instead."""

    def __init__(self, *lines: str | None) -> None:
        self.lines: Lines = list(lines)
        self.heard: list[str] = []
        self.started = 0
        self.killed = 0

    def __call__(self, stdin: int, stdout: int) -> Process:
        self.started += 1
        descriptors = os.dup(stdin), os.dup(stdout)
        threading.Thread(target=self._talk, args=descriptors, daemon=True).start()
        return self

    def _talk(self, stdin: int, stdout: int) -> None:
        # A broken pipe is how the conversation ends when the other side has had enough.
        with suppress(OSError), open(stdin, encoding="utf-8") as heard, open(stdout, "wb", buffering=0) as said:
            for line in heard:
                self.heard.append(line)
                answer = self.lines.pop(0) if self.lines else "{}"
                if answer is None:
                    return
                said.write(answer.encode())

    def kill(self) -> None:
        self.killed += 1


def nothing(name: str, document: Json) -> Answer:
    raise AssertionError(name)


@pytest.fixture
def engines() -> Iterator[list[ChildEngine]]:
    made: list[ChildEngine] = []
    yield made
    for engine in made:
        engine.close()


def talk(engines: list[ChildEngine], script: Script, seconds: float = 20) -> ChildEngine:
    engines.append(ChildEngine(script, load_seconds=seconds, query_seconds=seconds))
    return engines[-1]


def test_a_question_is_answered(engines: list[ChildEngine]) -> None:
    script = Script(LOADED + "\n", '{"defined":true,"value":{"allowed":true}}\n', '{"defined":false}\n')
    engine = talk(engines, script)
    assert engine.load(MODULES, "policy", {}).definitions["x"].kind == "constant"
    found = engine.query(MODULES, "policy.x", {}, nothing, None)
    assert found is not None
    assert found.value == {"allowed": True}
    assert engine.query(MODULES, "policy.y", {}, nothing, None) is None
    assert (script.started, script.killed) == (1, 0)


def test_the_engine_may_ask_back(engines: list[ChildEngine]) -> None:
    script = Script(LOADED + "\n", '{"ask":"errors","input":{"a":1}}\n', '{"defined":true,"value":1}\n')
    engine = talk(engines, script)
    asked = []

    def answer(name: str, document: Json) -> Answer:
        asked.append((name, document))
        return Answer(["no"], is_set=True)

    engine.load(MODULES, "policy", {})
    assert engine.query(MODULES, "policy.x", {}, answer, None) is not None
    assert asked == [("errors", {"a": 1})]
    assert script.heard[-1] == '{"value":["no"],"set":true,"refused":""}\n'


@pytest.mark.parametrize(
    "line", ["nonsense\n", "[]\n", "{}\n{}\n", '{"defined":1}\n', '{"value":1}\n', None, '{"ask":"errors"}\n' * 2]
)
def test_nonsense_ends_the_engine(line: str | None, engines: list[ChildEngine]) -> None:
    script = Script(LOADED + "\n", line)
    engine = talk(engines, script)
    engine.load(MODULES, "policy", {})
    with pytest.raises(EngineFailed):
        engine.query(MODULES, "policy.x", {}, nothing, None)
    assert script.killed == 1


def test_silence_ends_the_engine(engines: list[ChildEngine]) -> None:
    script = Script("")
    engine = talk(engines, script, seconds=0.05)
    with pytest.raises(EngineFailed, match="in time"):
        engine.load(MODULES, "policy", {})
    assert script.killed == 1


def test_questions_without_end_end_the_engine(engines: list[ChildEngine]) -> None:
    script = Script(LOADED + "\n", *['{"ask":"errors","input":{}}\n'] * 1100)
    engine = talk(engines, script)
    engine.load(MODULES, "policy", {})
    with pytest.raises(EngineFailed, match="too many"):
        engine.query(MODULES, "policy.x", {}, lambda _name, _document: Answer([]), None)


def test_after_a_failure_another_engine_is_started_and_loaded(engines: list[ChildEngine]) -> None:
    script = Script(LOADED + "\n", None, LOADED + "\n", '{"defined":true,"value":1}\n')
    engine = talk(engines, script)
    engine.load(MODULES, "policy", {"sandboxPrefix": "sandbox://"})
    with pytest.raises(EngineFailed):
        engine.query(MODULES, "policy.x", {}, nothing, None)
    assert engine.query(MODULES, "policy.x", {}, nothing, None) is not None
    assert script.started == 2
    assert "sandbox://" in script.heard[2]


def test_an_error_of_the_policy_leaves_the_engine_alone(engines: list[ChildEngine]) -> None:
    script = Script(LOADED + "\n", '{"error":"conflict"}\n', '{"error":"parse error"}\n')
    engine = talk(engines, script)
    engine.load(MODULES, "policy", {})
    with pytest.raises(EvaluationFailed, match="conflict"):
        engine.query(MODULES, "policy.x", {}, nothing, None)
    with pytest.raises(Malformed, match="parse error"):
        engine.load((("policy", "x"),), "policy", {})
    assert script.killed == 0


def test_what_is_asked_back_may_fail_and_ends_the_engine(engines: list[ChildEngine]) -> None:
    script = Script(LOADED + "\n", '{"ask":"errors","input":{}}\n')
    engine = talk(engines, script)
    engine.load(MODULES, "policy", {})

    def fail(_name: str, _document: Json) -> Answer:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        engine.query(MODULES, "policy.x", {}, fail, None)
    assert script.killed == 1


def test_no_program_is_no_engine(engines: list[ChildEngine]) -> None:
    from parma_policy.rego.process import program

    engines.append(ChildEngine(program(Path("/nonexistent/rego-engine"))))
    with pytest.raises(EngineFailed):
        engines[-1].load(MODULES, "policy", {})


def test_a_program_that_is_no_engine_is_ended(engines: list[ChildEngine]) -> None:
    from parma_policy.rego.process import program

    engines.append(ChildEngine(program(Path(sys.executable), "-c", "print('hello', flush=True); input()")))
    with pytest.raises(EngineFailed):
        engines[-1].load(MODULES, "policy", {})
