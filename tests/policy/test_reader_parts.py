# SPDX-License-Identifier: Apache-2.0
"""A policy's definitions, each in a text of a few lines: what they are read as, and what they are refused with."""

from __future__ import annotations

import json

import pytest

from parma_policy.model import Extensions
from parma_policy.points import POINTS
from parma_policy.reader import PolicyTextError, has_own_rules, load
from parma_policy.reader.errors import Source
from parma_policy.reader.limits import MAX_POLICY_BYTES
from parma_policy.reader.policy import decode
from parma_policy.reader.shape import Node
from parma_policy.reader.syntax import Parameter, Reference, Value, parse
from parma_policy.versions import version
from parma_wire.errors import Malformed
from tests.policy.builders import Json, short

TRUST: Json = {"issuer": "i", "subject": "s", "minimum_svn": 1, "allowed_ledgers": []}


def refused(*lines: str, parity: bool = False) -> PolicyTextError:
    with pytest.raises(PolicyTextError) as caught:
        short(*lines, parity=parity)
    return caught.value


# -- places and messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "line", "column"), [(0, 1, 1), (1, 2, 1), (2, 2, 2), (3, 2, 3), (4, 3, 1), (5, 4, 1), (6, 4, 2)]
)
def test_lines_and_columns_count_from_one(offset: int, line: int, column: int) -> None:
    error = Source("\nab\n\nc").error(offset, "no")
    assert (error.line, error.column) == (line, column)
    assert str(error) == f"policy line {line}, column {column}: no"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (7, "the number 7"),
        ("x" * 61, f"the string {'x' * 60!r}"),
        (parse("package p\nx := []").statements["x"].value, "an array"),
        (parse("package p\nx := {}").statements["x"].value, "an object"),
        (Reference("data.framework.x"), "data.framework.x"),
        (Parameter("y" * 61), f"parameter({'y' * 60!r})"),
    ],
)
def test_what_was_found_is_named(value: Value, kind: str) -> None:
    error = Node(Source(""), value, 0, "there").wrong("another thing")
    assert str(error) == f"policy line 1, column 1: there: found {kind}; expected another thing"


def test_the_text_has_a_largest_size() -> None:
    assert decode(b"x" * MAX_POLICY_BYTES)
    with pytest.raises(Malformed, match=f"has {MAX_POLICY_BYTES + 1} bytes"):
        decode(b"x" * (MAX_POLICY_BYTES + 1))


# -- definitions -------------------------------------------------------------------------------------------------


def test_another_package_is_refused_at_the_start() -> None:
    with pytest.raises(PolicyTextError, match="package other; expected package policy") as caught:
        load(b"package other\n")
    assert (caught.value.line, caught.value.column) == (1, 1)


@pytest.mark.parametrize(
    ("line", "hint"),
    [("reson := 1", "did you mean 'reason'?"), ("mount_devices := 1", "did you mean 'mount_device'?")],
)
def test_a_name_that_is_nearly_known_is_guessed(line: str, hint: str) -> None:
    assert refused(line).hint == hint
    assert not short(line, parity=True).rules


POINT_LINES = [f"{name} := data.framework.{name}" for name in POINTS]


@pytest.mark.parametrize(
    ("lines", "own", "own_in_parity"),
    [
        ([], False, False),
        (["framework_version := 5"], False, False),
        (["framework_version := 5", *POINT_LINES], False, False),
        (POINT_LINES[:1], False, False),
        (['mount_device := {"allowed": true}'], True, True),
        (["mount_device { true }"], True, True),
        (["helper := 1"], True, False),
    ],
)
def test_whether_a_text_may_have_rules_of_its_own(lines: list[str], own: bool, own_in_parity: bool) -> None:
    data = "\n".join(["package policy", *lines, ""]).encode()
    assert has_own_rules(data) is own
    assert has_own_rules(data, parity=True) is own_in_parity


def test_a_text_of_another_package_is_a_matter_for_an_engine_and_one_that_is_none_is_not() -> None:
    assert has_own_rules(b"package other\n") is True
    with pytest.raises(Malformed, match="not UTF-8"):
        has_own_rules(b"\xff")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "policy does not define api_version"),
        (["api_version := null"], "policy does not define api_version"),
        (['api_version := "0.1"'], "api_version is not a semantic version"),
        (["api_version := 5"], "api_version is not a semantic version"),
        (['api_version := "0.10.0"'], ""),
        (['api_svn := "0.10.0"'], ""),
        (['api_version := "0.10.0"', 'api_svn := "0.10.0"'], ""),
        (['api_version := "0.10.0"', 'api_svn := "0.11.0"'], "api_version and api_svn have different values"),
        (['api_version := "0.10.0"', "api_svn := null"], "api_version and api_svn have different values"),
    ],
)
def test_what_is_wrong_with_the_api_version(lines: list[str], problem: str) -> None:
    loaded = short(*lines)
    assert loaded.api_problem == problem
    assert loaded.api_version == (None if problem else version("0.10.0"))


@pytest.mark.parametrize(
    ("lines", "problem", "contradiction"),
    [
        ([], "framework_version is missing. Current version: 0.5.0", False),
        (['framework_version := "0.5"'], "framework_version is not a semantic version", False),
        (
            ['framework_version := "0.5.0"', 'framework_svn := "0.4.0"'],
            "framework_version and framework_svn have different values",
            True,
        ),
        (['framework_version := "0.5.0"', 'framework_svn := "0.5.0"'], "", False),
    ],
)
def test_what_is_wrong_with_the_framework_version(lines: list[str], problem: str, contradiction: bool) -> None:
    loaded = short(*lines)
    assert (loaded.framework_problem, loaded.framework_contradiction) == (problem, contradiction)


@pytest.mark.parametrize(
    ("framework", "defined", "none"),
    [("0.5.0", False, False), ("0.4.1", False, True), ("0.4.1", True, False), (None, False, False)],
)
def test_only_an_older_policy_without_their_list_has_no_external_processes_at_all(
    framework: str | None, defined: bool, none: bool
) -> None:
    lines = [f'framework_version := "{framework}"'] if framework else []
    assert short(*lines, *["external_processes := []"] * defined).no_external_processes is none


@pytest.mark.parametrize("line", ["permissive := true", "allow_network := false"])
def test_switches_that_only_parma_knows_are_ignored_in_parity_mode(line: str) -> None:
    assert short(line).extensions != Extensions()
    assert short(line, parity=True).extensions == Extensions()


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nframework_version := 5\n"])
def test_a_permissive_policy_says_so_in_a_line_of_its_own(end: str) -> None:
    assert load(f"package policy\npermissive := true{end}".encode()).extensions.permissive
    for line in ("permissive:= true", "permissive := true ", "permissive := true # for now", " permissive := true"):
        with pytest.raises(PolicyTextError, match="the line 'permissive := true'"):
            load(f"package policy\n{line}{end}".encode())


def test_ports_are_those_that_there_are_and_a_thousand_at_most() -> None:
    assert short("forward_ports := [1, 65535, 1]").forward_ports == {1, 65535}
    assert short().forward_ports == frozenset()
    assert len(short(f"forward_ports := {list(range(1, 1001))}").forward_ports) == 1000
    assert "1001 elements; expected at most 1000" in str(refused(f"forward_ports := {[1] * 1001}"))


@pytest.mark.parametrize(
    "name", ["containers", "external_processes", "fragments", "platform_rules", "transparency_trust_lists"]
)
def test_a_list_has_a_thousand_elements_at_most(name: str) -> None:
    lines = ['framework_version := "0.5.0"', f"{name} := {[5] * 1001}"]
    assert (
        str(refused(*lines)) == f"policy line 3, column {len(name) + 5}: {name}: 1001 elements; expected at most 1000"
    )
    lines[1] = f"{name} := {[5] * 1000}"
    assert f"{name}[0]: found the number 5" in str(refused(*lines))


@pytest.mark.parametrize(
    ("framework", "parity", "counts"),
    [("0.4.1", False, 0), ("0.4.1", True, 1), ("0.5.0", False, 1), ("0.5.0", True, 1), ("9.0.0", True, 1)],
)
def test_whether_the_policys_trust_lists_count(framework: str, parity: bool, counts: int) -> None:
    lines = [f'framework_version := "{framework}"', f"transparency_trust_lists := {json.dumps([TRUST])}"]
    assert len(short(*lines, parity=parity).transparency_trust_lists) == counts


@pytest.mark.parametrize("parity", [True, False])
def test_trust_lists_that_are_none_are_refused_where_the_version_has_any(parity: bool) -> None:
    lines = ['framework_version := "0.5.0"', "transparency_trust_lists := [5]"]
    assert "transparency_trust_lists[0]: found the number 5" in str(refused(*lines, parity=parity))
    lines[0] = 'framework_version := "0.4.1"'
    assert short(*lines, parity=parity).transparency_trust_lists == ()


@pytest.mark.parametrize(("framework", "given"), [("0.4.1", {}), ("0.5.0", None)])
def test_what_a_fragment_rule_without_parameters_gives(framework: str, given: object) -> None:
    rule = {"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": []}
    (found,) = short(f'framework_version := "{framework}"', f"fragments := {json.dumps([rule])}").fragments
    assert found.parameters == given


def test_unknown_includes_count_for_nothing_in_parity_mode() -> None:
    rule = {"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": ["everything"]}
    lines = ['framework_version := "0.5.0"', f"fragments := {json.dumps([rule])}"]
    assert short(*lines, parity=True).fragments[0].includes == {"everything"}
    assert "cannot include 'everything'" in str(refused(*lines))


@pytest.mark.parametrize("framework", ["9.0.0", "0.5"])
def test_layers_of_containers_that_cannot_be_used_are_found_in_parity_mode(framework: str) -> None:
    lines = [f'framework_version := "{framework}"', 'containers := [5, {}, {"layers": "b"}, {"layers": ["a", 5]}]']
    assert short(*lines, parity=True).mountable_layers == {"a"}
    assert short(*lines).mountable_layers == frozenset()
