# SPDX-License-Identifier: Apache-2.0
"""Policies as a whole: definitions, versions, containers, and what is refused in them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from parma_policy.model import Policy
from parma_policy.reader import PolicyTextError, load
from parma_policy.reader.limits import MAX_CONTAINERS, MAX_EXPRESSION_LENGTH, MAX_EXPRESSIONS, MAX_POLICY_BYTES
from parma_policy.versions import version
from parma_wire.errors import Malformed
from tests.policy.builders import LAYERS, Json, container, policy, text


def only(loaded: Policy) -> Any:
    (found,) = loaded.containers.containers
    return found


def refused(policy_text: str, *, parity: bool = False) -> PolicyTextError:
    with pytest.raises(PolicyTextError) as caught:
        load(policy_text.encode(), parity=parity)
    return caught.value


def changed(path: str, value: object) -> Json:
    """The good container with the member at a dotted path replaced; a value of ``...`` removes it."""
    good: Any = json.loads(json.dumps(container()))
    place = good
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    result: Json = good
    return result


def test_the_hash_is_that_of_the_bytes() -> None:
    data = text().encode()
    assert load(data).sha256 == hashlib.sha256(data).digest()
    assert load(data + b"\n").sha256 != load(data).sha256


def test_a_container_is_read_whole() -> None:
    found = only(policy(container(id="the id", name="the name")))
    assert found.command == ("/bin/app", "--serve")
    assert found.layers == LAYERS
    assert found.signals == {15}
    assert found.exec_processes[0].command == ("/bin/sh",)
    assert found.exec_processes[0].signals == {9, 15}
    assert (found.id, found.name) == ("the id", "the name")
    assert found.mounts[0].source == "sandbox:///tmp/empty/.+"
    assert found.user.umask == "0022"
    assert found.capabilities.inheritable == ()
    assert (found.allow_elevated, found.allow_stdio_access, found.no_new_privileges) == (False, True, True)


def test_expressions_that_repeat_are_compiled_once() -> None:
    rules = [{"pattern": "A=.+", "strategy": "re2", "required": False}]
    first, second = policy(container(env_rules=rules), container(env_rules=rules, command=["x"])).containers.containers
    assert first.env_rules.rules[0].pattern is second.env_rules.rules[0].pattern


@pytest.mark.parametrize("data", [b"", b" \n\t\n"])
def test_an_empty_policy_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="empty"):
        load(data)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(Malformed, match="not UTF-8 text: bad byte at offset 15"):
        load(b"package policy\n\xff")


def test_a_policy_has_a_largest_size() -> None:
    start = text().encode() + b"# "
    assert load(start + b"x" * (MAX_POLICY_BYTES - len(start)))
    with pytest.raises(Malformed, match=str(MAX_POLICY_BYTES)):
        load(start + b"x" * (MAX_POLICY_BYTES - len(start) + 1))


def test_another_package_is_refused() -> None:
    error = refused(text().replace("package policy", "package other"))
    assert "package policy" in str(error)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("allow_dump_stack := true", "did you mean 'allow_dump_stacks'?"),
        ("totally_unknown := 1", "Rego engine"),
        ("allow_dump_stacks := 1", "allow_dump_stacks: found the number 1; expected true or false"),
        ("fragments := 1", "expected an array"),
        ("fragments := [1]", "fragments[0]: found the number 1; expected an object"),
        ("external_processes := [{}]", "external_processes[0]: member 'command' is missing"),
        ("allowed_log_providers := [1]", "allowed_log_providers[0]: found the number 1; expected a string"),
        ("allowed_log_providers := {}", "found an object; expected an array of strings"),
    ],
)
def test_definitions_are_checked(line: str, message: str) -> None:
    assert message in str(refused(text() + line + "\n"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"allowed": true}', "not handed to the framework"),
        ("true", "not handed to the framework"),
        ("data.framework.unmount_device", "expected data.framework.mount_device"),
        ("data.framework", "not handed to the framework"),
        ("data.other.mount_device", "not handed to the framework"),
    ],
)
def test_a_point_can_only_be_handed_to_its_own_rule(value: str, message: str) -> None:
    error = refused(text(without=["mount_device"]) + f"mount_device := {value}\n")
    assert message in str(error)
    assert error.column == len("mount_device := ") + 1


@pytest.mark.parametrize(
    ("reason", "good"),
    [
        ("data.framework.reason", True),
        ('{"errors": data.framework.errors}', True),
        ('{"errors": data.framework.errors, "error_objects": data.framework.error_objects}', True),
        ('{"error_objects": data.framework.error_objects}', False),
        ('{"errors": data.framework.error_objects}', False),
        ('{"errors": data.framework.errors, "more": 1}', False),
        ('"because"', False),
        ("data.framework.errors", False),
    ],
)
def test_the_reason_rule_has_three_forms(reason: str, good: bool) -> None:
    policy_text = text().replace("reason := data.framework.reason", f"reason := {reason}")
    if good:
        assert load(policy_text.encode()).has_reason
    else:
        assert "unknown reason" in str(refused(policy_text))


def test_a_reference_elsewhere_is_refused() -> None:
    assert "data.framework.x" in str(refused(text(containers=None) + "containers := data.framework.x\n"))
    assert "parameter('x')" in str(refused(text(containers=None) + 'containers := parameter("x")\n'))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("command", "x", "containers[0].command: found the string 'x'; expected an array of strings"),
        ("command", [1], "containers[0].command[0]: found the number 1; expected a string"),
        ("command", ..., "containers[0]: member 'command' is missing"),
        ("layers", [], "no layers"),
        ("layers", ["A" * 64], "is no layer"),
        ("layers", ["a" * 63], "is no layer"),
        ("signals", [-1], "expected a whole number from 0 to 64"),
        ("signals", [65], "expected a whole number from 0 to 64"),
        ("signals", [True], "found true"),
        ("signals", 9, "expected an array"),
        ("allow_elevated", None, "found null; expected true or false"),
        ("working_dir", None, "found null; expected a string"),
        ("env_rules.0.strategy", "glob", "unknown strategy 'glob'"),
        ("env_rules.0.pattern", 1, "expected a string"),
        ("env_rules.0.required", "yes", "expected true or false"),
        ("env_rules.0", {"pattern": "A=1"}, "member 'strategy' is missing"),
        ("env_rules.0", {"name": "A", "value": "1"}, "member 'name_strategy' is missing"),
        ("env_rules.1.pattern", "A=(", "RE2 refuses the expression 'A=('"),
        ("env_rules.1.pattern", "A=(?=b)", "RE2 refuses"),
        ("env_rules.1.pattern", "a" * (MAX_EXPRESSION_LENGTH + 1), "expression too long"),
        ("mounts.0.source", "sandbox://(", "RE2 refuses"),
        ("mounts.0.options", None, "expected an array of strings"),
        ("mounts.0.kind", "x", "unknown member 'kind'"),
        ("user.umask", "22", "four octal digits"),
        ("user.umask", "0888", "four octal digits"),
        ("user.user_idname.strategy", "uid", "unknown strategy 'uid'"),
        ("user.user_idname", {"pattern": "(", "strategy": "re2"}, "RE2 refuses"),
        ("user.group_idnames", None, "expected an array"),
        ("capabilities.bounding", ["cap_kill"], "'cap_kill' is no capability"),
        ("capabilities.bounding", ["CAP_KILL", "CAP_KILL"], "listed twice"),
        ("capabilities.ambient", ..., "member 'ambient' is missing"),
        ("capabilities.ambiant", [], "did you mean 'ambient'?"),
        ("seccomp_profile_sha256", "x", "expected a SHA-256"),
        ("exec_processes.0.signals", ..., "member 'signals' is missing"),
        ("no_new_privilege", True, "did you mean 'no_new_privileges'?"),
        ("no_new_privileges", ..., "member 'no_new_privileges' is missing"),
    ],
)
def test_a_bad_container_is_refused_with_its_path(path: str, value: object, message: str) -> None:
    error = refused(text(changed(path, value)))
    assert message in str(error)
    assert "containers[0]" in str(error)
    assert error.line == 5


def test_an_unknown_member_is_pointed_at() -> None:
    policy_text = text(container(surprise=1))
    error = refused(policy_text)
    line = policy_text.splitlines()[error.line - 1]
    assert line[error.column - 1 :].startswith("1")


def test_numbers_of_things_are_limited() -> None:
    many = [container() for _ in range(MAX_CONTAINERS + 1)]
    assert f"at most {MAX_CONTAINERS}" in str(refused(text(*many)))
    rules = [{"pattern": f"A{n}=.", "strategy": "re2", "required": False} for n in range(MAX_EXPRESSIONS + 1)]
    assert "too many different expressions" in str(refused(text(container(env_rules=rules))))


# -- versions ----------------------------------------------------------------------------------------------------


def test_current_versions_have_no_problem() -> None:
    loaded = policy()
    assert (loaded.api_version, loaded.framework_version) == (version("0.12.0"), version("0.5.0"))
    assert (loaded.api_problem, loaded.framework_problem) == ("", "")


@pytest.mark.parametrize(
    ("definitions", "problem"),
    [
        ({"api_version": None}, "policy does not define api_version"),
        ({"api_version": None, "api_svn": "0.10.0"}, ""),
        ({"api_svn": "0.10.0"}, "different values"),
        ({"api_svn": "0.12.0"}, ""),
        ({"api_version": "1"}, "not a semantic version"),
        ({"api_version": 5}, "not a semantic version"),
        ({"api_version": "9.0.0"}, ""),
    ],
)
def test_api_version(definitions: Json, problem: str) -> None:
    loaded = policy(**definitions)
    assert problem in loaded.api_problem
    assert bool(loaded.api_problem) == bool(problem)


@pytest.mark.parametrize(
    ("definitions", "problem"),
    [
        ({"framework_version": None}, "framework_version is missing. Current version: 0.5.0"),
        ({"framework_version": None, "framework_svn": "0.5.0"}, ""),
        ({"framework_svn": "0.4.0"}, "different values"),
        ({"framework_version": "0.5.1"}, "0.5.1 is greater than 0.5.0"),
        ({"framework_version": "0.5"}, "not a semantic version"),
        ({"framework_version": 5}, "not a semantic version"),
        ({"framework_version": "0.5.0-rc.1"}, ""),
    ],
)
def test_a_framework_version_that_we_do_not_know_leaves_no_containers(definitions: Json, problem: str) -> None:
    loaded = policy(**definitions)
    assert problem in loaded.framework_problem
    assert bool(loaded.framework_problem) == bool(problem)
    assert bool(loaded.containers.containers) == (not problem)


def test_containers_of_a_newer_framework_are_not_even_read() -> None:
    assert policy(container(new_member=1), framework_version="0.6.0").containers.containers == ()


@pytest.mark.parametrize(
    ("framework", "member", "expected"),
    [
        ("0.1.9", "no_new_privileges", False),
        ("0.2.0", "no_new_privileges", True),
        ("0.2.1", "capabilities", None),
        ("0.2.2", "seccomp_profile_sha256", ""),
        ("0.2.3", "seccomp_profile_sha256", "ab" * 32),
        ("0.4.0", "signals", {15, 9, 2}),
        ("0.4.1", "signals", {2}),
    ],
)
def test_what_an_older_framework_did_not_know_gets_its_default(framework: str, member: str, expected: object) -> None:
    made = container(seccomp_profile_sha256="ab" * 32, signals=[2])
    assert getattr(only(policy(made, framework_version=framework)), member) == expected


def test_before_users_were_known_anybody_may_run() -> None:
    old = container()
    del old["user"]
    user = only(policy(old, framework_version="0.2.0")).user
    assert user.user.matches("5", "games")
    assert user.groups[0].matches("7", "")
    assert user.umask == "0022"


def test_platform_rules_and_trust_lists_came_with_0_5_0() -> None:
    rules: list[Json] = [{"env_rules": []}]
    lists = [{"issuer": "i", "subject": "s", "minimum_svn": 1, "allowed_ledgers": ["l"]}]
    new = policy(platform_rules=rules, transparency_trust_lists=lists)
    old = policy(platform_rules=rules, transparency_trust_lists=lists, framework_version="0.4.1")
    assert len(new.platform_rules) == len(new.transparency_trust_lists) == 1
    assert (old.platform_rules, old.transparency_trust_lists) == ((), ())


def test_fragments_are_read() -> None:
    rule = {"issuer": "i", "feed": "f", "minimum_svn": "2", "includes": ["containers"], "required_receipts": ["*"]}
    semver = {**rule, "minimum_svn": "1.2.3", "parameters": {"p": 1}}
    first, second = policy(fragments=[rule, semver]).fragments
    assert (first.minimum_svn, second.minimum_svn) == (2, version("1.2.3"))
    assert (first.parameters, second.parameters) == (None, {"p": 1})
    assert first.required_receipts == ("*",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minimum_svn": "two"}, "expected a whole number or a semantic version"),
        ({"minimum_svn": True}, "expected a whole number or a semantic version"),
        ({"includes": ["everything"]}, "cannot include 'everything'"),
        ({"parameters": []}, "expected an object"),
        ({"parameters": 5}, "expected an object"),
        ({"extra": 1}, "unknown member 'extra'"),
    ],
)
def test_a_bad_fragment_rule_is_refused(change: Json, message: str) -> None:
    rule = {"issuer": "i", "feed": "f", "minimum_svn": "2", "includes": ["containers"], **change}
    assert message in str(refused(text(fragments=[rule])))


# -- comparison with the reference -------------------------------------------------------------------------------


def test_parity_mode_accepts_what_then_never_matches() -> None:
    rules: list[Json] = [
        {"pattern": "A=(", "strategy": "re2", "required": False},
        {"pattern": "B=1", "strategy": "glob", "required": False},
        {"name": "C", "name_strategy": "string", "value": 5, "value_strategy": "string"},
    ]
    made = container(env_rules=rules, layers=["not a hash"])
    made["user"]["group_idnames"] = [{"pattern": "x", "strategy": "unknown"}]
    found = only(policy(made, parity=True, unknown_name=1))
    assert not any(found.env_rules.accepts(text) for text in ("A=(", "B=1", "C=5"))
    assert not found.user.groups[0].matches("1", "x")


def test_parity_mode_mounts_layers_of_unusable_containers() -> None:
    loaded = policy(framework_version="9.0.0", parity=True)
    assert loaded.mountable_layers == set(LAYERS)
    assert policy(framework_version="9.0.0").mountable_layers == frozenset()


@pytest.mark.parametrize("version", ["0.4.1", "9.0.0"])
def test_trust_lists_of_another_version_count_in_parity_mode_only(version: str) -> None:
    rule = {"issuer": "i", "subject": "s", "minimum_svn": 1, "allowed_ledgers": ["*"]}
    given: Json = {"framework_version": version, "transparency_trust_lists": [rule]}
    assert policy(parity=True, **given).transparency_trust_lists
    assert not policy(**given).transparency_trust_lists


def test_an_old_policy_may_use_the_name_of_trust_lists_for_something_else() -> None:
    for parity in (True, False):
        given: Json = {"framework_version": "0.4.1", "transparency_trust_lists": [1]}
        assert not policy(parity=parity, **given).transparency_trust_lists


def test_parity_mode_has_signals_that_no_system_has() -> None:
    assert only(policy(container(signals=[9, 99]), parity=True)).signals == {9, 99}


def test_parameters_are_literals() -> None:
    rule = '{"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": [], "parameters": {"p": parameter("x")}}'
    assert "literals only" in str(refused(text() + f"fragments := [{rule}]\n"))


def test_parameters_do_not_change() -> None:
    rule = {"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": [], "parameters": {"p": [1, {"q": None}]}}
    (found,) = policy(fragments=[rule]).fragments
    assert found.parameters is not None
    assert found.parameters["p"] == (1, {"q": None})
    with pytest.raises(TypeError):
        found.parameters["p"] = 1  # type: ignore[index]
