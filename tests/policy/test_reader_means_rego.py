# SPDX-License-Identifier: Apache-2.0
"""Whatever the strict reader accepts means the same to a full Rego engine: the Open Policy Agent's, in a child."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parma_policy.points import POINTS
from parma_policy.reader import load
from parma_policy.reader.policy import DATA
from parma_policy.reader.syntax import Array, Document, Object, Parameter, Reference, Value, parse
from parma_policy.rego.engine import FRAMEWORK, Answer, Definition
from parma_policy.rego.link import ChildEngine
from parma_wire.errors import Malformed
from tests.policy.builders import container, text
from tests.policy.rego_engine import needs_engine, new_engine

pytestmark = needs_engine
thorough = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def engine() -> Iterator[ChildEngine]:
    made = new_engine()
    yield made
    made.close()


def meaning(engine: ChildEngine, source: str, package: str = "policy") -> dict[str, Any]:
    """What the engine makes of every definition. Raises Malformed where it refuses the text."""
    modules = ((package, source),)
    definitions = engine.load(modules, package, {}).definitions
    found: dict[str, Any] = {}
    for name, definition in definitions.items():
        if definition.kind == "framework":
            found[name] = definition
        else:
            answer = engine.query(modules, f"{package}.{name}", {}, lambda asked, _: Answer({"data": asked}), None)
            found[name] = "undefined" if answer is None else answer.value
    return found


def expected(document: Document) -> dict[str, Any]:
    """What the reader makes of them."""
    prefix = "data.framework."
    found: dict[str, Any] = {}
    for name, statement in document.statements.items():
        value = statement.value
        if isinstance(value, Reference) and value.path.removeprefix(prefix) in FRAMEWORK:
            found[name] = Definition("framework", value.path.removeprefix(prefix))
        else:
            found[name] = plain(value)
    return found


def plain(value: Value) -> Any:
    match value:
        case Array():
            return [plain(item) for item in value]
        case Object():
            return {key: plain(item) for key, item in value.items()}
        case Reference(path=path):
            return {"data": path.removeprefix("data.framework.")}
        case Parameter():
            raise AssertionError(value)
    return value


def same(left: Any, right: Any) -> bool:
    """Equal, and of one type: True is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


# -- texts -------------------------------------------------------------------------------------------------------

CHARACTERS = st.characters(exclude_categories=["Cs"])
STRINGS = st.text(CHARACTERS, max_size=12) | st.sampled_from(
    ["", "\\", '"', "`", "\u2028", "\x00", "é", "e\u0301", "😀", "\ufeff", "\\u0041", "%s", "{}", "#", "\u202e", "a\nb"]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | STRINGS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=10,
)
COMMENT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), max_size=8)
BLANKS = st.sampled_from(["", " ", "\t", "\n", "\r\n", "  \n  "]) | COMMENT.map(lambda text: f" # {text}\n")
NAMES = st.from_regex(r"[a-z_][a-zA-Z0-9_]{0,8}", fullmatch=True) | st.sampled_from(
    ["if", "in", "contains", "every", "as", "with", "set", "input", "data", "default", "count", "x", "__x", "null"]
)


@st.composite
def strings(draw: st.DrawFn, value: str) -> str:
    """One way to write a string."""
    way = draw(st.sampled_from(["ascii", "unicode", "raw", "escaped"]))
    if way == "raw" and "`" not in value and "\r" not in value:
        return f"`{value}`"
    if way == "escaped" and all(ord(character) < 0x10000 for character in value):
        return '"' + "".join(f"\\u{ord(character):04x}" for character in value) + '"'
    return json.dumps(value, ensure_ascii=way == "ascii").replace("/", draw(st.sampled_from(["/", "\\/"])))


@st.composite
def literals(draw: st.DrawFn, value: Any) -> str:
    """One way to write a value."""

    def blank() -> str:
        return draw(BLANKS)

    if isinstance(value, str):
        return draw(strings(value))
    if isinstance(value, list | dict):
        if isinstance(value, list):
            items = [draw(literals(item)) for item in value]
        else:
            items = [f"{draw(strings(key))}{blank()}:{blank()}{draw(literals(item))}" for key, item in value.items()]
        opening, closing = "[]" if isinstance(value, list) else "{}"
        comma = draw(st.sampled_from(["", ","])) if items else ""
        return opening + blank() + f"{blank()},{blank()}".join(items) + blank() + comma + blank() + closing
    return json.dumps(value)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A policy text and what it says."""
    values = draw(st.dictionaries(NAMES, VALUES, max_size=4))
    parts = [f"{draw(BLANKS)}package policy{draw(COMMENT.map(lambda text: f' # {text}'))}"]
    parts += draw(st.lists(st.sampled_from(["import rego.v1", "import future.keywords.in"]), max_size=1))
    for name, value in values.items():
        parts.append(f"{name} {draw(st.sampled_from([':=', '=']))} {draw(literals(value))}")
    return draw(st.sampled_from(["\n", "\r\n", "\n\n", " # c\n"])).join(parts) + draw(
        st.sampled_from(["", "\n"])
    ), values


@thorough
@given(documents())
def test_what_the_reader_accepts_means_the_same_to_the_engine(
    engine: ChildEngine, written: tuple[str, dict[str, Any]]
) -> None:
    source, values = written
    try:
        document = parse(source)
    except Malformed:
        return
    assert same(expected(document), values)
    assert same(meaning(engine, source), values)


EDITS = st.lists(
    st.tuples(
        st.integers(0, 1 << 16),
        st.integers(0, 6),
        st.text(CHARACTERS, max_size=4)
        | st.sampled_from(
            [*"\"`'{}[]:,=#\\\r\n\t ", "data.", "framework", ":=", "0", "1e5", "_", "if", "true", "\\u0"]
        ),
    ),
    min_size=1,
    max_size=3,
)
SMALL = text(container(env_rules=[], mounts=[], exec_processes=[]), allow_dump_stacks=True)


@thorough
@given(EDITS)
def test_a_damaged_policy_is_refused_or_means_the_same(engine: ChildEngine, edits: list[tuple[int, int, str]]) -> None:
    source = SMALL
    for position, length, new in edits:
        place = position % (len(source) + 1)
        source = source[:place] + new + source[place + length :]
    try:
        load(source.encode(), parity=True)
    except Malformed:
        return
    # Definitions under other names count for nothing, and may refer to what is not there.
    counted = (*DATA, *FRAMEWORK)
    read, meant = expected(parse(source)), meaning(engine, source)
    assert same({name: meant.get(name) for name in counted}, {name: read.get(name) for name in counted})


@thorough
@given(st.lists(st.sampled_from([*POINTS, "reason"]), unique=True), st.data())
def test_points_handed_to_the_framework_are_the_same(
    engine: ChildEngine, names: list[str], data: st.DataObject
) -> None:
    lines = [f"{name}{data.draw(BLANKS)}:={data.draw(BLANKS)}data.framework.{name}" for name in names]
    source = "\n".join(["package policy", 'api_version := "0.12.0"', 'framework_version := "0.5.0"', *lines])
    try:
        policy = load(source.encode())
    except Malformed:
        return
    found: Mapping[str, Definition] = engine.load((("policy", source),), "policy", {}).definitions
    assert policy.rules == {name for name in POINTS if found.get(name) == Definition("framework", name)}
