# SPDX-License-Identifier: Apache-2.0
"""The text of a fragment by itself: its package, its version, and parameters that are put in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parma_policy.model import ExternalProcess
from parma_policy.reader import PolicyTextError
from parma_policy.reader.fragment import FragmentText, Parameters, fragment_package
from parma_policy.reader.limits import MAX_PLACED
from parma_policy.reader.lists import Items
from parma_policy.versions import version
from parma_wire.errors import Malformed
from tests.policy.builders import container

PROCESS = {"command": ["tool"], "env_rules": [], "working_dir": "/", "allow_stdio_access": False}


def fragment(*lines: str, parity: bool = False) -> FragmentText:
    return FragmentText.parse("\n".join(["package theirs", *lines, ""]), parity=parity)


def refused(text: FragmentText, parameters: Parameters = None) -> PolicyTextError:
    with pytest.raises(PolicyTextError) as caught:
        text.items(parameters)
    return caught.value


def processes(items: Items) -> list[tuple[str, ...]]:
    return [process.command for process in items.external_processes]


def test_the_package_is_that_of_the_first_line() -> None:
    assert fragment_package("package theirs\npackage other\n") == "theirs"


@pytest.mark.parametrize("name", ["framework", "api", "policy", "metadata"])
def test_names_that_the_policy_has_uses_for_are_no_packages(name: str) -> None:
    with pytest.raises(Malformed, match=f"cannot be package {name}"):
        fragment_package(f"package {name}\n")


@pytest.mark.parametrize(
    ("line", "svn"),
    [
        ("", None),
        ("svn := 3", 3),
        ('svn := "3"', 3),
        ('svn := "1.2.3"', version("1.2.3")),
        ("svn := true", None),
        ("svn := [3]", None),
    ],
)
def test_the_security_version_is_a_number_or_a_semantic_version(line: str, svn: object) -> None:
    text = fragment(line)
    assert text.svn == svn
    assert text.has_svn == bool(line)


@pytest.mark.parametrize(
    "name", ["svn", "framework_version", "framework_svn", "api_version", "api_svn", "parameters_api"]
)
def test_versions_and_parameters_are_what_a_fragment_defines_beside_its_lists(name: str) -> None:
    assert fragment(f"{name} := 1").items(None) == Items()


def test_other_definitions_are_refused_but_in_parity_mode() -> None:
    with pytest.raises(PolicyTextError, match="a fragment cannot define 'surprise'") as caught:
        fragment("svn := 1", "surprise := 1")
    assert (caught.value.line, caught.value.column) == (3, 1)
    assert fragment("surprise := 1", parity=True).items(None) == Items()


def test_containers_are_read_as_the_fragments_own_framework_version_says() -> None:
    old = {name: value for name, value in container().items() if name != "user"}
    containers = f"containers := {json.dumps([old])}"
    (found,) = fragment('framework_version := "0.2.0"', containers).items(None).containers.containers
    assert found.user.user.matches("5", "games")
    for lines in ([containers], ['framework_version := "0.2.1"', containers]):
        assert "member 'user' is missing" in str(refused(fragment(*lines)))


def test_things_are_called_by_the_fragments_name_and_theirs() -> None:
    good = json.dumps(PROCESS)
    (found,) = fragment(f"external_processes := [{good}]").items(None).external_processes
    assert isinstance(found, ExternalProcess)
    assert found.place == "theirs.external_processes[0]"
    assert str(refused(fragment("external_processes := [5]"))) == (
        "policy line 2, column 24: theirs.external_processes[0]: found the number 5; expected an object"
    )


@pytest.mark.parametrize("parity", [True, False])
@pytest.mark.parametrize("framework", ["0.4.1", "0.5.0"])
def test_rules_and_lists_of_a_fragment_have_no_defaults_of_old_policies(framework: str, *, parity: bool) -> None:
    rule = {"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": []}
    trust = {"issuer": "i", "subject": "s", "minimum_svn": 1, "allowed_ledgers": []}
    lines = [f"fragments := {json.dumps([rule])}", f"transparency_trust_lists := {json.dumps([trust])}"]
    items = fragment(f'framework_version := "{framework}"', *lines, parity=parity).items(None)
    assert [found.parameters for found in items.fragments] == [None]
    assert len(items.transparency_trust_lists) == (framework == "0.5.0")


# -- parameters --------------------------------------------------------------------------------------------------


def with_parameter(value: str, api: str = '{"p": {}}', **changes: Any) -> FragmentText:
    """With one external process, whose working directory is this."""
    made = json.dumps({**PROCESS, "working_dir": "@", **changes}).replace('"@"', value)
    return fragment(f"parameters_api := {api}", f"external_processes := [{made}]")


@pytest.mark.parametrize(
    ("value", "api", "given", "expected"),
    [
        ('parameter("p")', '{"p": {}}', {"p": "/given"}, "/given"),
        ('parameter("p")', '{"p": {"default": "/default"}}', {"p": "/given"}, "/given"),
        ('parameter("p")', '{"p": {"default": "/default"}}', {"q": "/given"}, "/default"),
        ('parameter("p")', '{"p": {"default": "/default"}}', None, "/default"),
        ('parameter("p").a.b', '{"p": {}}', {"p": {"a": {"b": "/inner"}}}, "/inner"),
        ('parameter("p").a', '{"p": {"default": {"a": "/default"}}}', {}, "/default"),
    ],
)
def test_a_parameter_is_what_is_given_or_its_default(value: str, api: str, given: Parameters, expected: str) -> None:
    (found,) = with_parameter(value, api).items(given).external_processes
    assert found.working_dir == expected


@pytest.mark.parametrize(
    ("value", "api", "given"),
    [
        ('parameter("p")', '{"p": {}}', None),
        ('parameter("p")', '{"p": {}}', {"q": "/given"}),
        ('parameter("p")', '{"q": {}}', {"p": "/given"}),
        ('parameter("p")', '{"p": "default"}', {}),
        ('parameter("p")', '{"p": 5}', {}),
        ('parameter("p")', '"default"', {"p": "/given"}),
        ('parameter("p").a', '{"p": {}}', {"p": {"b": "/inner"}}),
        ('parameter("p").a', '{"p": {}}', {"p": "a text with the name in it"}),
        ('parameter("p").a', '{"p": {}}', {"p": 5}),
        ('parameter("p").a', '{"p": {}}', {"p": ("a",)}),
        ('parameter("p").a.b', '{"p": {}}', {"p": {"a": None}}),
    ],
)
def test_a_parameter_without_a_value_refuses_the_fragment(value: str, api: str, given: Parameters) -> None:
    assert "parameter 'p' has no value" in str(refused(with_parameter(value, api), given))


def test_without_a_declaration_there_is_no_parameter() -> None:
    text = fragment('external_processes := [parameter("p")]')
    assert "parameter 'p' has no value" in str(refused(text, {"p": 1}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a", 5), "command[1]: found the number 5; expected a string"),
        ({"a": 5}, "command: found an object; expected an array of strings"),
    ],
)
def test_what_does_not_fit_stands_where_the_parameter_does(given: Any, message: str) -> None:
    text = fragment('parameters_api := {"p": {}}', 'external_processes := [{"command": parameter("p"),',
                    '"env_rules": [], "working_dir": "/", "allow_stdio_access": true}]')  # fmt: skip
    error = refused(text, {"p": given})
    assert message in str(error)
    assert (error.line, error.column) == (3, len('external_processes := [{"command": ') + 1)


def test_a_member_that_does_not_fit_stands_where_the_parameter_does() -> None:
    text = fragment('parameters_api := {"p": {}}', 'external_processes := [parameter("p")]')
    error = refused(text, {"p": {**dict.fromkeys(PROCESS, ()), "working_dir": 5}})
    assert "external_processes[0].command: " not in str(error)
    assert "external_processes[0].working_dir: found the number 5; expected a string" in str(error)
    assert (error.line, error.column) == (3, len("external_processes := [") + 1)


@pytest.mark.parametrize(
    "whole",
    [
        tuple([1] * 999),
        {str(number): 1 for number in range(999)},
        (tuple([1] * 499), {str(number): 1 for number in range(498)}),
    ],
    ids=["an array", "an object", "both"],
)
def test_all_that_parameters_put_in_is_counted(whole: Any) -> None:
    """Each of these is a thousand values, itself included."""
    uses = ", ".join(['parameter("p")'] * (MAX_PLACED // 1000))
    api = 'parameters_api := {"p": {}, "one": {}}'
    assert fragment(api, f"svn := [{uses}]").items({"p": whole}) == Items()
    error = refused(fragment(api, f'svn := [{uses}, parameter("one")]'), {"p": whole, "one": 1})
    assert "parameters make the fragment too large" in str(error)


def test_in_parity_mode_only_the_definition_of_an_undefined_parameter_is_left_out() -> None:
    lines = ['containers := [parameter("p")]', f"external_processes := [{json.dumps(PROCESS)}]"]
    assert processes(fragment(*lines, parity=True).items(None)) == [("tool",)]
    refused(fragment(*lines))
