# SPDX-License-Identifier: Apache-2.0
"""Properties of every text: it loads, it is always the same, and it allows exactly what it says."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_policy.generate.assemble import Variable, Wanted, assemble
from parma_policy.generate.patterns import Text
from parma_policy.generate.platforms import load as platform
from parma_policy.generate.policy import Container, Exec, Mount
from parma_policy.generate.render import policy_text
from parma_policy.images import Image
from parma_policy.reader import load
from tests.policy.builders import LAYERS, Talk, capabilities, code, creation, execution
from tests.policy.generate.builders import GROUP, PASSWD

WORDS = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=20)
NAMES = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=8)
COMMANDS = st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=2)
IMAGE = Image({"Cmd": ["/app"]}, LAYERS, PASSWD, GROUP)


@st.composite
def wanted(draw: st.DrawFn) -> Wanted:
    variables = draw(st.dictionaries(NAMES, WORDS, max_size=4))
    return Wanted(
        name=draw(WORDS),
        origin=tuple(draw(st.lists(WORDS, max_size=2))),
        entrypoint=tuple(draw(st.lists(WORDS, min_size=1, max_size=3))),
        env=tuple(Variable(name, Text.of(value), draw(WORDS)) for name, value in variables.items()),
        working_dir="/" + draw(NAMES),
        execs=tuple(
            Exec(tuple(words), draw(WORDS)) for words in draw(st.lists(st.lists(WORDS, min_size=1), max_size=2))
        ),
        add=("CAP_SYS_ADMIN",) if draw(st.booleans()) else (),
        stdio=draw(st.booleans()),
        user=str(draw(st.integers(0, 2**31 - 1))),
    )


@settings(deadline=None)
@given(st.lists(wanted(), min_size=1, max_size=3))
def test_every_text_loads_is_ascii_and_says_what_was_wanted(given_containers: list[Wanted]) -> None:
    made = [assemble(item, IMAGE, platform("ctr-1")) for item in given_containers]
    text = policy_text(made)
    assert text == policy_text(made)
    assert text.isascii()
    for expected, found in zip(made, load(text.encode()).containers.containers, strict=True):
        assert found.command == expected.command
        assert found.working_dir == expected.working_dir
        assert [process.command for process in found.exec_processes] == [run.command for run in expected.execs]
        assert found.user.user.pattern == expected.user.user.pattern
        for rule in expected.env:
            assert found.env_rules.accepts(rule.pattern)
            assert not found.env_rules.accepts(rule.pattern + "x")


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS, st.booleans()), max_size=5))
def test_a_text_with_unknown_parts_matches_only_in_those(parts: list[tuple[str, bool]]) -> None:
    text = Text.joined(Text.matching("[0-9]+|x") if unknown else Text.of(word) for word, unknown in parts)
    variable = Variable("N", text)
    (rule,) = [
        rule for rule in assemble(Wanted(env=(variable,)), IMAGE, platform("ctr-1")).env if rule.name.startswith("N")
    ]
    found = load(policy_text([assemble(Wanted(env=(variable,)), IMAGE, platform("ctr-1"))]).encode())
    (container,) = found.containers.containers
    assert container.env_rules.accepts("N=" + "".join("42" if unknown else word for word, unknown in parts))
    assert not container.env_rules.accepts("N=" + "".join("42" if unknown else word for word, unknown in parts) + "\n")
    assert rule.required


def test_a_dollar_sign_at_the_end_is_no_anchor() -> None:
    parts = Text.joined([Text.matching("[0-9]+"), Text.of("$")])
    made = assemble(Wanted(env=(Variable("N", parts),)), IMAGE, platform("ctr-1"))
    (container,) = load(policy_text([made]).encode()).containers.containers
    assert container.env_rules.accepts("N=42$")
    assert not container.env_rules.accepts("N=42$junk")


def test_a_note_cannot_become_anything_but_a_comment() -> None:
    note = 'x\n"y" := true\r\nallow_properties_access := true\u2028z := 1\u0085q := 2'
    container = assemble(
        Wanted(origin=(note,), mounts=(Mount("/a", "tmpfs", "tmpfs", (), note),)), IMAGE, platform("ctr-1")
    )
    text = policy_text([container], notes=[note])
    assert load(text.encode()).flags.allow_properties_access
    assert not [line for line in text.splitlines() if line.strip().startswith(('"y"', "z :=", "q :="))]


# -- one change in each field is denied --------------------------------------------------------------------------


def container() -> Container:
    return assemble(
        Wanted(
            entrypoint=("/app", "serve"),
            env=(Variable("A", Text.of("1")),),
            user="1000:1000",
            drop=("CAP_MKNOD",),
            working_dir="/srv",
            mounts=(Mount("/data", "sandbox:///volumes/empty-dir/data", "bind", ("rbind", "rw")),),
            execs=(Exec(("/check",)),),
        ),
        IMAGE,
        platform("kubernetes-1"),
    )


def request(**changes: Any) -> dict[str, Any]:
    made = container()
    request: dict[str, Any] = creation(
        argList=["/app", "serve"],
        envList=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "HOSTNAME=any"],
        workingDir="/srv",
        capabilities=capabilities(made.capabilities.bounding),
        noNewPrivileges=False,
    )
    source = request["sandboxDir"] + "/volumes/empty-dir/data"
    request["mounts"] = [{"destination": "/data", "source": source, "type": "bind", "options": ["rbind", "rw"]}]
    return {**request, **changes}


def mount(**changes: Any) -> list[dict[str, Any]]:
    return [{**request()["mounts"][0], **changes}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"argList": ["/app"]}, "command"),
        ({"envList": [*request()["envList"][:1], "A=2"]}, "env"),
        ({"envList": [*request()["envList"], "LD_PRELOAD=/x"]}, "env"),
        ({"envList": request()["envList"][:1]}, "env_required"),
        ({"user": {"id": "0", "name": "root"}}, "user"),
        ({"groups": [{"id": "0", "name": "root"}]}, "group"),
        ({"umask": "0000"}, "umask"),
        ({"capabilities": capabilities([*container().capabilities.bounding, "CAP_MKNOD"])}, "capabilities"),
        ({"capabilities": capabilities(container().capabilities.bounding[1:])}, "capabilities"),
        ({"privileged": True}, "privileged"),
        ({"workingDir": "/"}, "working_dir"),
        ({"seccompProfileSHA256": "0" * 64}, "seccomp"),
        ({"mounts": mount(destination="/etc")}, "mounts"),
        ({"mounts": mount(source="/etc")}, "mounts"),
        ({"mounts": mount(source=request()["mounts"][0]["source"] + "/../../x")}, "mounts"),
        ({"mounts": mount(options=["rbind", "ro"])}, "mounts"),
        ({"mounts": mount(type="tmpfs")}, "mounts"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_change_of_one_field_is_denied_and_named(changes: dict[str, Any], reason: str) -> None:
    loaded = load(policy_text([container()]).encode())
    assert Talk(loaded).prepared().ask("create_container", request()).allowed
    decision = Talk(loaded).prepared().ask("create_container", request(**changes))
    assert not decision.allowed
    assert code(decision) == reason


def test_execs_and_signals_that_are_not_listed_are_denied() -> None:
    talk = Talk(load(policy_text([container()]).encode())).prepared()
    asked = request()
    assert talk.ask("create_container", asked).allowed
    shared = {name: asked[name] for name in ("envList", "workingDir", "capabilities", "noNewPrivileges")}
    assert talk.ask("exec_in_container", execution(**shared, argList=["/check"])).allowed
    assert code(talk.ask("exec_in_container", execution(**shared, argList=["/check", "x"]))) == "command"
    sent = {"containerID": asked["containerID"], "isInitProcess": True, "argList": []}
    assert talk.ask("signal_container_process", {**sent, "signal": 15}).allowed
    assert code(talk.ask("signal_container_process", {**sent, "signal": 28})) == "signal"


def test_another_image_of_the_same_command_has_no_overlay() -> None:
    other = replace(container(), layers=("f" * 64,))
    talk = Talk(load(policy_text([other]).encode()))
    assert not talk.ask("mount_device", target="/run/mounts/scsi/m1", deviceHash=LAYERS[0]).allowed
