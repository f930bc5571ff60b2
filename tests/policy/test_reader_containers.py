# SPDX-License-Identifier: Apache-2.0
"""Containers and what is in them, one member at a time: what it is read as, and what it is refused with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parma_policy.model import Container, IdName, MountRule, User
from parma_policy.patterns import TextPattern
from parma_policy.reader import PolicyTextError, load
from parma_policy.reader.containers import ContainerReader
from parma_policy.reader.errors import Source
from parma_policy.reader.limits import MAX_EXPRESSIONS
from parma_policy.reader.shape import Node
from parma_policy.versions import version
from tests.policy.builders import Json, container, short, text

DIGEST = "d" * 64


def with_container(changes: Json, *, parity: bool = False) -> Container:
    made = f"containers := {json.dumps([container(**changes)])}"
    (found,) = short('framework_version := "0.5.0"', made, parity=parity).containers.containers
    return found


def refused_container(changes: Json, *, parity: bool = False) -> str:
    with pytest.raises(PolicyTextError) as caught:
        with_container(changes, parity=parity)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message", "expected", "hint"),
    [
        ({"surprise": 1}, "containers[0]: unknown member 'surprise'", "", ""),
        ({"working_dirs": 1}, "containers[0]: unknown member 'working_dirs'", "", "did you mean 'working_dir'?"),
        ({"exec_processes": [{}]}, "containers[0].exec_processes[0]: member 'command' is missing", "", ""),
        (
            {"env_rules": [{"pattern": "(", "strategy": "re2"}]},
            "containers[0].env_rules[0].pattern: RE2 refuses the expression '('",
            "",
            "see the syntax of RE2",
        ),
        ({"env_rules": [5]}, "containers[0].env_rules[0]: found the number 5", "an object", ""),
    ],
)
def test_an_error_says_what_there_is_to_say_and_no_more(changes: Json, message: str, expected: str, hint: str) -> None:
    with pytest.raises(PolicyTextError) as caught:
        with_container(changes)
    assert caught.value.message.partition(": ")[2] == message
    assert (caught.value.expected, caught.value.hint) == (expected, hint)


@pytest.mark.parametrize(
    ("changes", "member", "expected"),
    [
        ({"capabilities": None}, "capabilities", None),
        ({"no_new_privileges": False}, "no_new_privileges", False),
        ({"no_new_privileges": True}, "no_new_privileges", True),
        ({"signals": [0, 64]}, "signals", {0, 64}),
        ({"id": "one", "name": "two"}, "id", "one"),
        ({"id": 5}, "id", ""),
        ({}, "name", ""),
        ({"mounted_cim": ["x"], "registry_changes": {}}, "name", ""),
        ({"seccomp_profile_sha256": DIGEST}, "seccomp_profile_sha256", DIGEST),
    ],
)
def test_members_of_a_container(changes: Json, member: str, expected: object) -> None:
    assert getattr(with_container(changes), member) == expected


NAMES: Json = {name: ["any", "any"] for name in container()["capabilities"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seccomp_profile_sha256": "x"}, "seccomp_profile_sha256: found the string 'x'; expected a SHA-256 in hex"),
        ({"user": {**container()["user"], "umask": "22"}}, "umask: found the string '22'; expected four octal digits"),
        ({"capabilities": NAMES}, "capabilities.bounding: 'any' is no capability"),
        ({"layers": ["x"]}, "layers: 'x' is no layer"),
        ({"layers": []}, "layers: no layers"),
    ],
)
def test_only_parity_mode_accepts_what_cannot_be_meant(changes: Json, message: str) -> None:
    assert message in refused_container(changes)
    found = with_container(changes, parity=True)
    assert found.seccomp_profile_sha256 == changes.get("seccomp_profile_sha256", "")
    assert found.user.umask == {**container(), **changes}["user"]["umask"]
    assert found.capabilities is not None
    assert (found.capabilities.ambient == ("any", "any")) is ("capabilities" in changes)
    assert (list(found.layers) == changes.get("layers")) is ("layers" in changes)


def test_before_users_were_known_anybody_has_the_usual_umask() -> None:
    old = {name: value for name, value in container().items() if name != "user"}
    loaded = short('framework_version := "0.2.0"', f"containers := {json.dumps([old])}")
    assert loaded.containers.containers[0].user == User(IdName("", "any"), (IdName("", "any"),), "0022")


@pytest.mark.parametrize("strategy", ["id", "name"])
def test_only_what_is_an_expression_has_to_be_one(strategy: str) -> None:
    user = {**container()["user"], "user_idname": {"pattern": "(", "strategy": strategy}}
    found = with_container({"user": user}).user.user
    assert found.pattern == "("
    assert found.matches("(", "(")


def test_an_unknown_strategy_is_one_that_matches_nothing_in_parity_mode() -> None:
    user = {**container()["user"], "group_idnames": [{"pattern": "x", "strategy": "other"}]}
    rules = [{"pattern": "A", "strategy": "other"}, {"pattern": 5, "strategy": "string"}]
    found = with_container({"user": user, "env_rules": rules}, parity=True)
    assert found.user.groups == (IdName("", "re2"),)
    assert [rule.pattern for rule in found.env_rules.rules] == [TextPattern("A", "unknown"), TextPattern("", "unknown")]


@pytest.mark.parametrize("required", [True, False, None])
@pytest.mark.parametrize(
    "rule",
    [
        {"pattern": "A=1", "strategy": "string"},
        {"name": "A", "name_strategy": "string", "value": "1", "value_strategy": "string"},
    ],
)
def test_a_variable_can_be_required_by_either_form_of_rule(rule: Json, required: bool | None) -> None:
    made = rule if required is None else {**rule, "required": required}
    (found,) = with_container({"env_rules": [made]}).env_rules.rules
    assert found.matches("A=1")
    assert found.required is bool(required)


def test_an_expression_has_8192_characters_at_most_and_a_text_as_many_as_it_likes() -> None:
    for length, strategy in ((8192, "re2"), (8193, "string")):
        with_container({"env_rules": [{"pattern": "a" * length, "strategy": strategy}]})
    long = {"env_rules": [{"pattern": "a" * 8193, "strategy": "re2"}]}
    assert "expression too long; expected at most 8192 characters" in refused_container(long)


def test_different_expressions_are_limited() -> None:
    reader = ContainerReader(version("0.5.0"), parity=False)
    for number in [*range(MAX_EXPRESSIONS), 0]:
        reader.pattern(Node(Source(""), f"a{number}", 0, "there"), "re2")
    with pytest.raises(PolicyTextError, match=f"too many different expressions; expected at most {MAX_EXPRESSIONS}"):
        reader.pattern(Node(Source(""), "b", 0, "there"), "re2")


def mount(**changes: Any) -> Json:
    return {"destination": "/d", "source": "sandbox:///s", "type": "bind", "options": ["ro"], **changes}


@pytest.mark.parametrize(
    ("changes", "pins", "updates"),
    [
        ({}, None, False),
        ({"updates": True}, None, True),
        ({"updates": False}, None, False),
        ({"sha256": DIGEST}, {("", DIGEST)}, False),
        ({"sha256": DIGEST, "updates": False}, {("", DIGEST)}, False),
        ({"sha256": {"a": DIGEST, "b/c": "e" * 64}}, {("a", DIGEST), ("b/c", "e" * 64)}, False),
    ],
)
def test_what_a_mount_says_of_files_that_the_host_provides(changes: Json, pins: object, updates: bool) -> None:
    (found,) = with_container({"mounts": [mount(**changes)]}).mounts
    assert found == MountRule("/d", "sandbox:///s", "bind", ("ro",), pins=pins, updates=updates)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": {}}, "mounts[0].sha256: no files; expected paths below the mount"),
        ({"sha256": {"/a": DIGEST}}, "mounts[0].sha256: no path of a file; expected paths below the mount"),
        ({"sha256": {"a": DIGEST, "../b": DIGEST}}, "mounts[0].sha256: no path of a file"),
        ({"sha256": "x"}, "mounts[0].sha256: found the string 'x'; expected a SHA-256 in hex"),
        ({"sha256": ["x"]}, "mounts[0].sha256: found an array; expected a string"),
        ({"sha256": {"a": "x"}}, "mounts[0].sha256.a: found the string 'x'; expected a SHA-256 in hex"),
        ({"sha256": DIGEST, "updates": True}, "mounts[0].sha256: files whose SHA-256 is given cannot have updates"),
        ({"updates": 1}, "mounts[0].updates: found the number 1; expected true or false"),
    ],
)
def test_what_a_mount_cannot_say_of_them(changes: Json, message: str) -> None:
    assert message in refused_container({"mounts": [mount(**changes)]})


@pytest.mark.parametrize("changes", [{"sha256": DIGEST}, {"updates": True}])
def test_in_parity_mode_a_mount_says_nothing_of_them(changes: Json) -> None:
    assert f"unknown member '{next(iter(changes))}'" in refused_container({"mounts": [mount(**changes)]}, parity=True)


def test_platform_rules_add_variables_and_mounts() -> None:
    made = [{"env_rules": [{"pattern": "A=1", "strategy": "string"}]}, {"mounts": [mount()]}, {}]
    rules = short('framework_version := "0.5.0"', f"platform_rules := {json.dumps(made)}").platform_rules
    assert [rule.env_rules.accepts("A=1") for rule in rules] == [True, False, False]
    assert [[item.destination for item in rule.mounts] for rule in rules] == [[], ["/d"], []]


def backwards(value: Any) -> Any:
    """The same with the members of all objects in the opposite order."""
    if isinstance(value, dict):
        return {name: backwards(item) for name, item in reversed(value.items())}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def test_a_container_is_the_same_in_whatever_order_its_members_are() -> None:
    made = container(attestation=["/key/derive"])
    one, other = (load(text(members).encode()) for members in (made, backwards(made)))
    (first,), (second,) = one.containers.containers, other.containers.containers
    assert first.identity == second.identity != b""
