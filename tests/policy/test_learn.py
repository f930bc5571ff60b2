# SPDX-License-Identifier: Apache-2.0
"""Policies from recordings: they allow what was recorded and nothing that differs from it in one value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_policy import conversation
from parma_policy.conversation import Step
from parma_policy.learn import learn, mutations, quoted, starting_policy
from parma_policy.loaded import DataPolicy
from parma_policy.patterns import compile_anchored
from parma_policy.reader import load
from parma_policy.session import Session
from parma_policy.simulate import simulate
from parma_wire.errors import Malformed, Unsupported
from tests.policy.builders import ID, LAYERS, OTHER_ID, SANDBOX, creation, disk, execution, rootfs
from tests.policy.test_cli import parma

Question = tuple[str, dict[str, Any]]


def prepared(identity: str = ID, first: int = 0) -> list[Question]:
    targets = [disk(first + number) for number in range(len(LAYERS))]
    return [
        *(
            ("mount_device", {"target": target, "deviceHash": layer})
            for target, layer in zip(targets, LAYERS, strict=True)
        ),
        ("mount_overlay", {"containerID": identity, "layerPaths": targets[::-1], "target": rootfs(identity)}),
    ]


def signal(number: int, command: list[str] | None = None, identity: str = ID) -> Question:
    asked = {"containerID": identity, "signal": number, "isInitProcess": command is None, "argList": command or []}
    return "signal_container_process", asked


MOUNT = {"destination": "/d", "source": f"{SANDBOX}/tmp/a.b$", "type": "bind", "options": ["rbind", "rw"]}
RUN: list[Question] = [
    *prepared(),
    ("create_container", creation(mounts=[MOUNT])),
    ("exec_in_container", execution(envList=["PATH=/usr/bin:/bin", "TERM=xterm"])),
    signal(15, ["/bin/sh"]),
    ("get_properties", {}),
    signal(9),
    ("shutdown_container", {"containerID": ID}),
    ("unmount_overlay", {"unmountTarget": rootfs()}),
    ("unmount_device", {"unmountTarget": disk(0)}),
]


def recording(questions: list[Question]) -> bytes:
    """As a permissive guest would have it: decided with the starting policy."""
    session = Session.of(load(starting_policy().encode()))
    steps = []
    for number, (call, asked) in enumerate(questions):
        decision, session = session.ask(call, asked)
        steps.append(Step(number, call, asked, {"allowed": decision.allowed}))
    return conversation.dump(steps).encode()


def learned(questions: list[Question]) -> Any:
    return learn(conversation.parse(recording(questions)))


def test_what_was_recorded_is_allowed_and_what_differs_is_not() -> None:
    made = learned(RUN)
    assert made.allowed == len(RUN)
    assert made.denied > 40
    policy = load(made.text.encode())
    talk = conversation.parse(recording(RUN))
    assert all(outcome.allowed for outcome in simulate(DataPolicy(policy), talk))


def test_the_policy_is_the_least_one() -> None:
    policy = load(learned(RUN).text.encode())
    (container,) = policy.containers.containers
    assert container.command == ("/bin/app", "--serve")
    assert container.layers == LAYERS
    assert [(rule.pattern.text, rule.required) for rule in container.env_rules.rules] == [
        ("PATH=/usr/bin:/bin", True),
        ("TERM=xterm", False),
    ]
    assert [(process.command, process.signals) for process in container.exec_processes] == [
        (("/bin/sh",), frozenset({15}))
    ]
    assert container.signals == {9}
    assert container.mounts[0].source == "sandbox:///tmp/a\\.b\\x{24}"
    assert not policy.extensions.permissive
    assert policy.flags.allow_properties_access
    assert not policy.flags.allow_runtime_logging


def test_every_changed_value_is_denied_with_a_reason() -> None:
    steps = conversation.parse(recording(RUN)).steps
    session = Session.of(load(learned(RUN).text.encode()))
    tried = set()
    for step in steps:
        for name, changed in mutations(step, steps):
            decision, _ = session.ask(step.call, changed)
            assert not decision.allowed, name
            assert decision.reasons[0].code
            tried.add(name)
        _, session = session.ask(step.call, step.input)
    assert {"layer", "order of layers", "argument 0", "value of PATH", "user", "umask", "mount", "signal"} <= tried


def test_a_container_that_runs_twice_is_one() -> None:
    again = [
        *prepared(OTHER_ID, 10),
        ("create_container", creation(containerID=OTHER_ID, sandboxDir=SANDBOX.replace(ID, OTHER_ID))),
    ]
    made = learned([*prepared(), ("create_container", creation()), *again])
    assert len(load(made.text.encode()).containers.containers) == 1


def test_different_containers_are_two() -> None:
    other = creation(containerID=OTHER_ID, argList=["/bin/app", "--serve", "x"])
    made = learned(
        [*prepared(), ("create_container", creation()), *prepared(OTHER_ID, 10), ("create_container", other)]
    )
    assert len(load(made.text.encode()).containers.containers) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"user": {"id": "0", "name": "root"}}, "another user"),
        ({"workingDir": "/"}, "another working directory"),
        ({"umask": "0077"}, "another umask"),
        ({"capabilities": {**creation()["capabilities"], "ambient": ["CAP_KILL"]}}, "another set of capabilities"),
    ],
)
def test_what_a_policy_cannot_say_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(Unsupported, match=says):
        learned([*prepared(), ("create_container", creation()), ("exec_in_container", execution(**change))])


def test_an_exec_that_may_gain_privileges_is_learned() -> None:
    exec_ = ("exec_in_container", execution(noNewPrivileges=False))
    made = learned([*prepared(), ("create_container", creation()), exec_])
    assert not load(made.text.encode()).containers.containers[0].no_new_privileges


def test_what_was_taken_back_or_denied_does_not_count() -> None:
    talk = conversation.parse(recording(RUN))
    begin, back = (Step(0, f"transaction_{what}", {}) for what in ("begin", "rollback"))
    bad = Step(0, "exec_external", {"argList": ["x"], "envList": [], "workingDir": "/"}, {"allowed": True})
    no = Step(0, "unmount_device", {"unmountTarget": "/x"}, {"allowed": False})
    more = conversation.Conversation((*talk.steps, begin, bad, back, no))
    assert learn(more).text == learned(RUN).text
    with pytest.raises(Unsupported, match="exec_external cannot be learned"):
        learn(conversation.Conversation((*talk.steps, bad)))


@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (conversation.Conversation((), dropped=3), "incomplete"),
        (conversation.Conversation(()), "no container"),
        (conversation.Conversation((Step(1, "create_container", creation()),)), "does not have"),
        (conversation.Conversation((Step(1, *signal(9)),)), "does not have"),
    ],
)
def test_a_recording_that_makes_no_sense_is_malformed(talk: conversation.Conversation, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        learn(talk)


def test_reading_the_recording_is_nothing_to_learn() -> None:
    talk = conversation.parse(recording([*RUN, ("runtime_logging", {})]))
    assert not load(learn(talk).text.encode()).flags.allow_runtime_logging
    assert load(learn(talk, logging=True).text.encode()).flags.allow_runtime_logging


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@settings(max_examples=300, deadline=None)
def test_a_quoted_text_matches_itself_and_nothing_else(text: str) -> None:
    compiled = compile_anchored(quoted(text))
    assert compiled is not None
    assert compiled.search(text)
    for other in (f"{text}x", f"x{text}", f"{text}\n", text[1:], text.swapcase()):
        assert other == text or not compiled.search(other)


def test_the_starting_policy_is_permissive_and_knows_nothing() -> None:
    policy = load(starting_policy().encode())
    assert policy.extensions.permissive
    assert policy.containers.containers == ()


def test_ports_that_were_forwarded_are_learned() -> None:
    policy = load(learned([*RUN, ("forward_port", {"port": 8080}), ("forward_port", {"port": 8080})]).text.encode())
    assert policy.forward_ports == {8080}


def test_the_command_writes_what_it_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, out = tmp_path / "run.jsonl", tmp_path / "learned.rego"
    record.write_bytes(recording(RUN))
    assert parma("policy", "learn", record, "--out", out) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "recorded requests are allowed" in captured.err
    assert out.read_text() == learned(RUN).text
    assert parma("policy", "learn", "--json", record) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == out.read_text()
    assert parma("policy", "learn", record) == 0
    assert capsys.readouterr().out == out.read_text()
    assert parma("policy", "learn", "--starting-policy") == 0
    assert capsys.readouterr().out == starting_policy()
    with pytest.raises(Malformed, match="no recording"):
        parma("policy", "learn")
