# SPDX-License-Identifier: Apache-2.0
"""The grammar: what is read, and what is refused where."""

from __future__ import annotations

import pytest

from parma_policy.reader import PolicyTextError
from parma_policy.reader.limits import MAX_DEPTH, MAX_INTEGER, MAX_LIST, MAX_STATEMENTS
from parma_policy.reader.syntax import RULES_HINT, Array, Object, Parameter, Reference, Value, parse, value_end


def value(literal: str) -> Value:
    return parse(f"package p\nx := {literal}\n").statements["x"].value


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("null", None),
        ("true", True),
        ("false", False),
        ("0", 0),
        ("-12", -12),
        (str(MAX_INTEGER), MAX_INTEGER),
        ('""', ""),
        (r'"a\"b\\\/\b\f\n\r\té😀"', 'a"b\\/\b\f\n\r\té\U0001f600'),
        (r'"\u00e9\ud83d\ude00"', "é\U0001f600"),
        ('`raw \\n "text"\nover lines`', 'raw \\n "text"\nover lines'),
        ("[]", []),
        ("{}", {}),
        ('[1, "a", [true], {"k": null},]', [1, "a", [True], {"k": None}]),
        ('{"a": 1, "b": [2,],}', {"a": 1, "b": [2]}),
        ("data.framework.mount_device", Reference("data.framework.mount_device")),
        ('parameter("p")', Parameter("p")),
        ('parameter( "p" ).a.b', Parameter("p", ("a", "b"))),
    ],
)
def test_a_literal_means_what_json_means(literal: str, expected: Value) -> None:
    assert value(literal) == expected


def test_both_kinds_of_assignment_comments_imports_and_line_ends_are_read() -> None:
    text = (
        "# a comment\r\npackage policy # named\nimport future.keywords.every\nimport future.keywords.in\n"
        "import rego.v1\n\na:= 1\nb =2 # two\nc\t:=\t# where is it?\n  [ # here\n 3 ]\r\nd := 4"
    )
    document = parse(text)
    assert document.package == "policy"
    assert {name: statement.value for name, statement in document.statements.items()} == {
        "a": 1,
        "b": 2,
        "c": [3],
        "d": 4,
    }


def test_containers_know_where_their_elements_are() -> None:
    text = 'package p\nx := [{"k": 1}]\n'
    array = parse(text).statements["x"].value
    assert isinstance(array, Array)
    assert isinstance(array[0], Object)
    assert text[array.offsets[0] :].startswith('{"k"')
    assert text[array[0].offsets["k"] :].startswith("1}")


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "the text ends"),
        ("\ufeffpackage p\n", 1, 1, "byte order mark"),
        ("package p # \ufeff\n", 1, 13, "byte order mark"),
        ("package p\nif := 1\n", 2, 1, "'if' cannot stand here"),
        ("package p\ninput := 1\n", 2, 1, "'input' cannot stand here"),
        ("x := 1\n", 1, 1, "package policy"),
        ("package\n p", 2, 2, "package name"),
        ("package a.b\n", 1, 9, "package name"),
        ("package", 1, 8, "package name"),
        ("package 5", 1, 9, "package name"),
        ("package p x := 1", 1, 11, "new line"),
        ("package p\npackage q\n", 2, 1, "'package' cannot stand here"),
        ("package p\nimport data.x\n", 2, 8, "cannot import"),
        ("package p\nimport future.keywords.foo\n", 2, 8, "cannot import"),
        ("package p\nimport\nrego.v1\n", 3, 1, "cannot import"),
        ("package p\nx := 1\nimport rego.v1\n", 3, 1, "'import' cannot stand here"),
        ("package p\ndefault x := 1\n", 2, 1, "'default' cannot stand here"),
        ("package p\nx := 1\n\nx := 2\n", 4, 1, "'x' is defined twice"),
        ("package p\nx := 1 y := 2\n", 2, 8, "behind a complete statement"),
        ("package p\nx := 1 if { true }\n", 2, 8, "behind a complete statement"),
        ("package p\nx { true }\n", 2, 3, "behind 'x'"),
        ("package p\nx(y) := 1\n", 2, 2, "behind 'x'"),
        ("package p\nx == 1\n", 2, 3, "behind 'x'"),
        ("package p\nx[1] := 2\n", 2, 2, "behind 'x'"),
        ("package p\nx.y := 2\n", 2, 1, "found 'x.y'"),
        ("package p\n:= 2\n", 2, 1, "found ':'; expected 'name := value'"),
        ('package p\nx := "a""b"\n', 2, 9, "behind a complete statement"),
        ('package p\nx :=\n"a"y := 1\n', 3, 4, "behind a complete statement"),
        ("package p\nx := y\n", 2, 6, "found 'y'"),
        ("package p\nx := input.a\n", 2, 6, "found 'input.a'"),
        ("package p\nx := http.send({})\n", 2, 6, "found 'http.send'"),
        ("package p\nx := object.get(1)\n", 2, 6, "found 'object.get'"),
        ("package p\nx := {1, 2}\n", 2, 7, "member name"),
        ("package p\nx := {a: 2}\n", 2, 7, "member name"),
        ("package p\nx := [y | y := 1]\n", 2, 7, "found 'y'"),
        ("package p\nx := [1 | true]\n", 2, 9, "',' or ']'"),
        ("package p\nx := 1 + 2\n", 2, 8, "behind a complete statement"),
        ("package p\nx := [1, 2\n", 3, 1, "the text ends"),
        ("package p\nx := [,]\n", 2, 7, "found ','"),
        ("package p\nx := [1,,]\n", 2, 9, "found ','"),
        ('package p\nx := {"a": 1, "a": 2}\n', 2, 15, "member 'a' is given twice"),
        ('package p\nx := {"a" 1}\n', 2, 11, "':'"),
        ('package p\nx := {"a":}\n', 2, 11, "found '}'"),
        ("package p\nx :=\n", 3, 1, "the text ends"),
        ('package p\nx := "open\n', 2, 11, "bad string"),
        ('package p\nx := "\\q"\n', 2, 7, "bad string"),
        ('package p\nx := "\\ud800"\n', 2, 6, "surrogate"),
        ('package p\nx := "\t"\n', 2, 7, "bad string"),
        ("package p\nx := `open\n", 2, 6, "raw string"),
        ("package p\nx := `a\r\nb`\n", 2, 6, "raw string"),
        ("package p\nx := `a\0b`\n", 2, 6, "raw string"),
        ("package p\nx := 1.5\n", 2, 6, "bad number"),
        ("package p\nx := 1e3\n", 2, 6, "bad number"),
        ("package p\nx := 01\n", 2, 6, "bad number"),
        ("package p\nx := -\n", 2, 6, "bad number"),
        ("package p\nx := -0\n", 2, 6, "bad number"),
        ("package p\nx := 0x10\n", 2, 6, "bad number"),
        ("package p\nx := ٣\n", 2, 6, "bad number"),
        (f"package p\nx := {MAX_INTEGER + 1}\n", 2, 6, "bad number"),
        (f"package p\nx := {'9' * 400}\n", 2, 6, "bad number"),
        ("package p\nx := NaN\n", 2, 6, "found 'NaN'"),
        ("package p\nx := parameter(1)\n", 2, 16, "parameter's name"),
        ('package p\nx := parameter("a"\n', 3, 1, "')'"),
        ("package p\nx := parameter\n", 2, 6, "found 'parameter'"),
        ("package p\nx :=\r1\n", 2, 5, "U+000D"),
        ("package p\nx := \x00\n", 2, 6, "U+0000"),
        ("package p\nx := 1 # a \u202e comment\n", 2, 7, "U+202E"),
        ("package p\nx := 1\u00a0\n", 2, 7, "U+00A0"),
        (f"package p\nx := {'[' * (MAX_DEPTH + 1)}\n", 2, 6 + MAX_DEPTH, "nested too deeply"),
        (f"package p\nx := [{'1,' * MAX_LIST}1]\n", 2, 7 + 2 * MAX_LIST, "too many elements"),
    ],
)
def test_what_is_refused_is_refused_with_its_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(PolicyTextError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert f"line {line}, column {column}" in str(caught.value)


def test_the_number_of_statements_is_limited() -> None:
    lines = [f"x{number} := 1" for number in range(MAX_STATEMENTS)]
    assert len(parse("\n".join(["package p", *lines])).statements) == MAX_STATEMENTS
    with pytest.raises(PolicyTextError, match="too many definitions"):
        parse("\n".join(["package p", *lines, "y := 1"]))


@pytest.mark.parametrize(
    "word",
    [
        *("as", "contains", "data", "default", "else", "every", "false", "if", "import", "in", "input", "not", "null"),
        *("package", "some", "true", "with", "_"),
    ],
)
def test_words_of_the_language_are_no_names(word: str) -> None:
    with pytest.raises(PolicyTextError, match=f"'{word}' cannot stand here"):
        parse(f"package p\nx := 1\n{word} := 1\n")


def test_one_definition_too_many_is_pointed_at() -> None:
    lines = [f"x{number} := 1" for number in range(MAX_STATEMENTS + 1)]
    with pytest.raises(PolicyTextError, match=f"too many definitions; expected at most {MAX_STATEMENTS}") as caught:
        parse("\n".join(["package p", *lines, "y := 1"]))
    assert (caught.value.line, caught.value.column) == (MAX_STATEMENTS + 2, 1)


def test_the_end_of_a_value_is_found_however_deep_it_is() -> None:
    literal = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert value_end(f"x := {literal} # more", 5) == 5 + len(literal)


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ('mount_device := {"allowed": true} if { input.target == "x" }', "mount_device"),
        ("mount_device { true }", "mount_device"),
        ("mount_device contains 1", "mount_device"),
        ("mount_device := x", "mount_device"),
        ("mount_device := [x | x := 1]", "mount_device"),
        ("default mount_device := false", "mount_device"),
        ("default\tmount_device=false", "mount_device"),
        ("x := 1\ndefault", ""),
        ("x := 1\ndefault := 1", ""),
        ("x := 1\nelse := 1", ""),
        ("import data.x", ""),
    ],
)
def test_rules_of_its_own_are_refused_with_the_way_out(lines: str, name: str) -> None:
    with pytest.raises(PolicyTextError) as caught:
        parse(f"package policy\n{lines}\n")
    assert caught.value.hint == (f"'{name}' seems to be a rule: {RULES_HINT}" if name else RULES_HINT)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("package other", "'name := value'"),
        ("x := 1\nimport rego.v1", "'name := value'"),
        (":= 1", "'name := value'"),
        ("x := ?", "a literal: a string, a whole number, true, false, null, an array or an object"),
        ("x := 1\nx := 2", ""),
    ],
)
def test_other_mistakes_are_no_matter_for_an_engine(lines: str, expected: str) -> None:
    with pytest.raises(PolicyTextError) as caught:
        parse(f"package policy\n{lines}\n")
    assert (caught.value.expected, caught.value.hint) == (expected, "")
