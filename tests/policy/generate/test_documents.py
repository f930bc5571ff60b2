# SPDX-License-Identifier: Apache-2.0
"""Reading YAML and JSON with care, and collecting what cannot be taken."""

from __future__ import annotations

import pytest

from parma_policy.generate.documents import json_document, yaml_documents
from parma_policy.generate.nodes import Node
from parma_policy.generate.problems import Problems, SourceError
from parma_wire.errors import Malformed, NotFound


def parsed(text: str, *ignored: str) -> tuple[Node, Problems]:
    problems = Problems("the source", ignored)
    (root,) = yaml_documents(text, problems)
    return root, problems


def messages(problems: Problems) -> str:
    with pytest.raises(SourceError) as caught:
        problems.check()
    return str(caught.value)


@pytest.mark.parametrize(
    "scalar",
    [
        *("on", "Off", "yes", "NO", "y", "N", "true", "False", "012", "0o17", "0x1F", "0b1", "1_000", "1:30", "1.10"),
        *("1e3", ".5", "5.", ".inf", ".NaN", "2024-01-02", "-7", "12"),
    ],
)
def test_a_bare_scalar_that_readers_of_yaml_disagree_on_is_no_string(scalar: str) -> None:
    root, problems = parsed(f"a: {scalar}\n")
    with root.fields() as fields:
        fields.text("a")
    assert f'write "{scalar}"' in messages(problems)
    root, problems = parsed(f'a: "{scalar}"\n')
    with root.fields() as fields:
        assert fields.text("a") == scalar
    problems.check()


@pytest.mark.parametrize("scalar", ["a", "1.2.3", "10.0.0.1", "-", ".", "./x", "e5", "1a", "v1.10", "8080:80", "nope"])
def test_other_bare_scalars_are_strings(scalar: str) -> None:
    root, problems = parsed(f"a: {scalar}\n" if scalar != "-" else "a: '-'\n")
    with root.fields() as fields:
        assert fields.text("a") == scalar
    problems.check()


def test_decimal_numbers_are_text_where_the_source_says_so() -> None:
    root, problems = parsed("[8080, 0, 012]")
    assert root.texts(number_as_text=True) == ("8080", "0", "")
    assert "[2] (line 1): 012 without quotes" in messages(problems)


@pytest.mark.parametrize(
    ("text", "good"), [("12", True), ("012", False), ("0x10", False), ('"12"', False), ("99", False)]
)
def test_integers_are_decimal_and_in_range(text: str, good: bool) -> None:
    root, problems = parsed(f"a: {text}")
    with root.fields() as fields:
        number = fields.maybe_integer("a", 0, 50)
    if good:
        problems.check()
        assert number == 12
    else:
        messages(problems)


@pytest.mark.parametrize("text", ["on", "yes", "True", '"true"', "1"])
def test_flags_are_true_or_false_and_nothing_else(text: str) -> None:
    root, problems = parsed(f"a: {text}")
    with root.fields() as fields:
        fields.flag("a")
    assert "true or false" in messages(problems)


def test_all_problems_are_told_at_once_with_path_and_line() -> None:
    root, problems = parsed("a:\n  b: [1, {c: x, d: y}]\n  e: z\nf: g\n")
    with root.fields() as fields, fields.node.members()["a"].fields() as inner:
        fields.get("a")
        for node in inner.items("b"):
            with node.fields() as item:
                item.text("c")
    text = messages(problems)
    for expected in ("a.b[0] (line 2)", "a.b[1].d (line 2): not understood", "a.e (line 3)", "f (line 4)", "4 fields"):
        assert expected in text


def test_a_close_name_is_suggested() -> None:
    root, problems = parsed("comand: x")
    with root.fields() as fields:
        fields.text("command")
    assert "did you mean 'command'?" in messages(problems)


def test_a_field_is_set_aside_by_its_exact_path_only() -> None:
    root, problems = parsed("a: {b: 1, c: 2}", "a.b")
    with root.fields() as fields, fields.node.members()["a"].fields():
        fields.get("a")
    text = messages(problems)
    assert "a.b" not in text
    assert "a.c" in text
    assert problems.set_aside == ("a.b",)


def test_setting_aside_what_is_no_problem_is_an_error() -> None:
    with pytest.raises(NotFound, match="no problem there"):
        Problems("the source", ["a.b"]).check()


def test_keys_given_twice_are_refused() -> None:
    with pytest.raises(Malformed, match="line 2: key 'a' is given twice"):
        parsed("a: 1\na: 2\n")
    with pytest.raises(Malformed, match="'a' is given twice"):
        json_document('{"a": 1, "a": 2}', Problems("the source"))


def test_anchors_and_merges_are_resolved_and_own_keys_win() -> None:
    root, problems = parsed("x: &x {a: p, b: q}\ny: {<<: *x, b: r}\nz: {<<: [*x, {c: s}]}\n")
    members = root.members()
    assert {name: node.text() for name, node in members["y"].members().items()} == {"a": "p", "b": "r"}
    assert {name: node.text() for name, node in members["z"].members().items()} == {"a": "p", "b": "q", "c": "s"}
    problems.check()


def test_aliases_that_expand_without_end_are_refused() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for number in range(1, 8):
        bomb += f"{chr(97 + number)}: &{chr(97 + number)} [{', '.join(['*' + chr(96 + number)] * 10)}]\n"
    with pytest.raises(Malformed, match="too many values"):
        parsed(bomb)
    with pytest.raises(Malformed, match="contains itself"):
        parsed("a: &a [*a]")


@pytest.mark.parametrize("text", ["[" * 2000, "a: [", "\t- a", "a: b: c", "\x00"])
def test_what_is_no_yaml_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match=r"not YAML|too deep"):
        parsed(text)


def test_tags_of_the_documents_own_are_problems() -> None:
    root, problems = parsed("a: !!python/object:os.system {}\nb: !env HOME\n")
    assert root.members()
    assert "tag !env is not supported" in messages(problems)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "NaN", '{"a": Infinity}', "[" * 100 + "]" * 100])
def test_what_is_no_json_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        json_document(text, Problems("the source"))
