# SPDX-License-Identifier: Apache-2.0
"""Comparing policies by requests: each widening of a container is found, with a request that shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_policy.diff import Comparison, compare
from parma_policy.patterns import PatternCache
from parma_policy.samples import samples
from parma_policy.session import Session
from parma_policy.witness import preparation
from tests.policy.builders import LAYERS, capabilities, container, policy, text
from tests.policy.test_cli import parma


def env(pattern: str, strategy: str = "re2", required: bool = False) -> dict[str, Any]:
    return {"env_rules": [{"pattern": pattern, "strategy": strategy, "required": required}]}


def mounts(source: str, *options: str) -> dict[str, Any]:
    return {"mounts": [{"destination": "/d", "source": source, "type": "bind", "options": list(options)}]}


def user(**changes: Any) -> dict[str, Any]:
    return {"user": {**container()["user"], **changes}}


def compared(one: dict[str, Any], other: dict[str, Any]) -> Comparison:
    return compare(policy(container(**one)), policy(container(**other)))


def codes(comparison: Comparison, only: str) -> set[str]:
    """Codes of the reasons, or the differing results, of one side."""
    found = set()
    for difference in comparison.differences:
        if difference.only == only:
            code = re.search(r"\[([a-z_]+)(?: at .*)?\]", difference.why)
            found.add(code[1] if code else difference.why.partition(" ")[0])
    return found


@pytest.mark.parametrize(
    "definitions",
    [{}, {"allow_properties_access": True}, {"fragments": []}],
)
def test_a_policy_is_the_same_as_itself(definitions: dict[str, Any]) -> None:
    one = policy(container(), container(command=["x"]), **definitions)
    other = policy(container(command=["x"], name="renamed"), container(), **definitions)
    comparison = compare(one, other)
    assert comparison.same
    assert comparison.differences == ()
    assert comparison.undecided == ()
    assert comparison.requests > 20


WIDER: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"exec_processes": [{"command": c, "signals": [9, 15]} for c in (["/bin/sh"], ["/x"])]}, "command"),
    ({}, {"exec_processes": [{"command": ["/bin/sh"], "signals": [1, 9, 15]}]}, "signal"),
    ({}, {"signals": [1, 15]}, "signal"),
    ({}, {"allow_elevated": True}, "privileged"),
    ({}, {"no_new_privileges": False}, "no_new_privileges"),
    ({}, {"env_rules": [*container()["env_rules"], env("NEW=1", "string")["env_rules"][0]]}, "env"),
    (env("A=1", "string"), env("A=[0-9]+"), "env"),
    (env("(A=1)"), env("A=1|B"), "env"),
    (env("A=a\\.b"), env("A=a.b"), "env"),
    (env("A=1", "string", required=True), env("A=1", "string"), "env_required"),
    (mounts("sandbox:///tmp/a"), mounts("sandbox:///tmp/.+"), "mounts"),
    (mounts("sandbox:///tmp/a"), mounts("sandbox:///tmp/[ab]"), "mounts"),
    (user(), user(user_idname={"pattern": "", "strategy": "any"}), "user"),
    (
        user(),
        user(group_idnames=[{"pattern": "1000", "strategy": "id"}, {"pattern": "7", "strategy": "id"}]),
        "group",
    ),
]


@pytest.mark.parametrize(("narrow", "wide", "code"), WIDER)
def test_what_a_wider_container_allows_is_found(narrow: dict[str, Any], wide: dict[str, Any], code: str) -> None:
    comparison = compared(narrow, wide)
    assert code in codes(comparison, "b")
    assert codes(comparison, "a") == set()
    turned = compared(wide, narrow)
    assert code in codes(turned, "a")
    assert codes(turned, "b") == set()


CHANGED: list[tuple[dict[str, Any], str]] = [
    ({"command": ["/bin/app", "--debug"]}, "command"),
    ({"working_dir": "/"}, "working_dir"),
    (user(user_idname={"pattern": "0", "strategy": "id"}), "user"),
    (user(umask="0077"), "umask"),
    ({"capabilities": capabilities(["CAP_KILL"])}, "capabilities"),
    ({"seccomp_profile_sha256": "7" * 64}, "seccomp"),
    (env("PATH=/bin", "string", required=True), "env"),
]


@pytest.mark.parametrize(("change", "code"), CHANGED)
def test_what_a_changed_container_allows_is_found_both_ways(change: dict[str, Any], code: str) -> None:
    comparison = compared({}, change)
    assert code in codes(comparison, "a")
    assert code in codes(comparison, "b")


def test_other_layers_and_containers_are_found() -> None:
    other = compare(policy(container()), policy(container(layers=[*LAYERS[:2], "9" * 64])))
    assert (codes(other, "a"), codes(other, "b")) == ({"layer"}, {"layer"})
    more = compare(policy(container()), policy(container(), container(command=["/second"])))
    assert (codes(more, "a"), codes(more, "b")) == (set(), {"command"})
    order = compare(policy(container()), policy(container(layers=LAYERS[::-1])))
    assert codes(order, "b") == {"layers"}


def test_a_port_that_only_one_of_them_forwards_is_found() -> None:
    comparison = compare(policy(forward_ports=[80, 81]), policy(forward_ports=[81]))
    assert codes(comparison, "a") == {"port"}
    assert codes(comparison, "b") == set()


@pytest.mark.parametrize(
    ("flag", "code"),
    [
        ("allow_properties_access", "flag"),
        ("allow_dump_stacks", "flag"),
        ("allow_runtime_logging", "flag"),
        ("allow_host_network", "flag"),
        ("allow_unencrypted_scratch", "unencrypted"),
        ("allow_environment_variable_dropping", "env"),
        ("permissive", "layer"),
    ],
)
def test_flags_are_found(flag: str, code: str) -> None:
    change: dict[str, Any] = {flag: True}
    if flag == "permissive":
        comparison = compare(policy(), policy(container(layers=["8" * 64]), **change))
    else:
        comparison = compare(policy(), policy(**change))
    assert code in codes(comparison, "b")


def test_other_results_are_found() -> None:
    comparison = compared({}, {"allow_stdio_access": False})
    assert codes(comparison, "") == {"allow_stdio_access"}


def test_external_processes_and_fragments_are_found() -> None:
    external = {"command": ["/x"], "env_rules": [], "working_dir": "/", "allow_stdio_access": False}
    assert "command" in codes(compare(policy(), policy(external_processes=[external])), "b")
    fragment = {"issuer": "i", "feed": "f", "minimum_svn": "2", "includes": ["containers"]}
    assert "issuer" in codes(compare(policy(), policy(fragments=[fragment])), "b")
    wider = {**fragment, "includes": ["containers", "fragments"]}
    comparison = compare(policy(fragments=[fragment]), policy(fragments=[wider]))
    assert comparison.undecided
    assert not comparison.same


def test_what_cannot_be_told_is_said() -> None:
    comparison = compared(env("A=(1|2)"), env("A=[12]"))
    assert comparison.differences == ()
    assert not comparison.same
    assert all("env_rules" in text and "no request was found" in text for text in comparison.undecided)
    assert comparison.undecided


def test_the_request_that_shows_a_difference_really_does() -> None:
    one, other = policy(container(**env("A=1", "string"))), policy(container(**env("A=[0-9]+")))
    (difference,) = compare(one, other).differences
    answers = []
    for loaded in (one, other):
        session = Session.of(loaded)
        for question in preparation(LAYERS):
            _, session = session.ask(question.call, question.input)
        answers.append(session.ask(difference.question.call, difference.question.input)[0].allowed)
    assert answers == [False, True]


PARTS = st.sampled_from(
    ["a", "[0-9]", "[^x]", ".", "(b|c)", "\\d", "\\w+", "x*", "y?", "(?:ab){2}", "\\.", "[a-f]{1,3}"]
)


@given(st.lists(PARTS, min_size=1, max_size=5).map("".join))
@settings(max_examples=150, deadline=None)
def test_samples_are_accepted_and_there_are_some(expression: str) -> None:
    pattern = PatternCache().make(expression, "re2")
    drawn = samples(pattern)
    assert drawn
    assert all(map(pattern.matches, drawn))


def test_what_cannot_be_parsed_has_no_samples() -> None:
    assert samples(PatternCache().make("(?P<x>\\pN\\pN)", "re2")) == []


def test_the_command_prints_both_directions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.rego", tmp_path / "b.rego"
    a.write_text(text(container(), allow_properties_access=True))
    b.write_text(text(container(signals=[9, 15])))
    assert parma("policy", "diff", a, b) == 1
    out = capsys.readouterr().out
    assert "Only A allows:\n  get_properties, as A's get_properties says\n    B: get_properties denied" in out
    assert "Only B allows:\n  signal_container_process, as B's containers[0].signals says" in out
    assert parma("policy", "diff", "--json", a, b) == 1
    document = json.loads(capsys.readouterr().out)
    assert [entry["allowed_by"] for entry in document["differences"]] == [["a"], ["b"]]
    assert document["differences"][1]["input"]["signal"] == 9
    assert parma("policy", "diff", a, a) == 0
    assert "mean the same" in capsys.readouterr().out


def test_the_command_line_of_a_difference_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.rego", tmp_path / "b.rego"
    a.write_text(text(container(command=["/bin/serve", "one"])))
    b.write_text(text(container(command=["/bin/serve", "x" * 300])))
    assert parma("policy", "diff", a, b) == 1
    out = capsys.readouterr().out
    assert 'create_container, as A\'s containers[0] says: "/bin/serve" "one"\n' in out
    assert 'create_container, as B\'s containers[0] says: "/bin/serve" "xxx' in out
    assert max(map(len, re.findall("x+", out))) < 300
