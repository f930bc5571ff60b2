# SPDX-License-Identifier: Apache-2.0
"""What holds for any text, any request and any conversation."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parma_policy.annotation import load_annotation, to_annotation
from parma_policy.framework import POINTS, Kind, State, decide
from parma_policy.reader import PolicyTextError, load
from parma_policy.reader.syntax import parse
from parma_policy.versions import Version
from parma_wire.errors import Malformed
from tests.policy.builders import Talk, container, creation, policy, text

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PIECES = st.sampled_from(
    [
        "package policy\n", "import rego.v1\n", "api_version := ", '"0.12.0"', "containers := [", "{", "}", "[", "]",
        ",", ":", ":=", "=", "\n", "# c\n", '"a"', "`r`", "1", "-1", "1e5", "true", "null", "data.framework.x",
        'parameter("p")', "default ", "if", "\r\n", "\r", "\\", '"', "`", " ",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@quick
@given(st.text(max_size=300) | st.lists(PIECES, max_size=40).map("".join))
def test_the_parser_refuses_with_a_place_in_the_text(source: str) -> None:
    place = (1, 1)
    try:
        parse(source)
    except PolicyTextError as error:
        place = (error.line, error.column)
    lines = source.split("\n")
    assert 1 <= place[0] <= len(lines)
    assert 1 <= place[1] <= len(lines[place[0] - 1]) + 1


@quick
@given(st.binary(max_size=300))
def test_loading_any_bytes_raises_nothing_but_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        load(data)


@quick
@given(JSON.filter(lambda value: not isinstance(value, str) or value.isprintable()), st.booleans())
def test_literals_mean_what_json_means(value: Any, pretty: bool) -> None:
    literal = json.dumps(value, indent=2 if pretty else None, ensure_ascii=pretty)
    try:
        read = parse(f"package p\nx := {literal}\n").statements["x"].value
    except PolicyTextError:
        # Only what JSON writes raw and we refuse: nothing else may differ.
        assert any(ord(character) in range(0xD800, 0xE000) for character in str(value))
        return
    assert read == value


@quick
@given(st.dictionaries(st.sampled_from(sorted(container())), JSON, max_size=4))
def test_any_container_is_loaded_or_refused(changes: dict[str, Any]) -> None:
    with contextlib.suppress(Malformed):
        load(text(container(**changes)).encode())


REQUESTS = st.dictionaries(
    st.sampled_from(["target", "deviceHash", "unmountTarget", "containerID", "argList", "envList", "workingDir", "x"]),
    JSON,
    max_size=6,
)


@quick
@given(st.sampled_from([*POINTS, "no_such_point"]), REQUESTS | JSON)
def test_deciding_raises_nothing_but_malformed(point: str, request: Any) -> None:
    state = State.initial()
    try:
        decision, after = decide(policy(), state, point, request)
    except Malformed:
        return
    assert decision.allowed or after is state


WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "argList": st.lists(WORD, max_size=3),
        "envList": st.lists(st.sampled_from(["PATH=/usr/bin:/bin", "HOSTNAME=x", "A=1", "A", "", "=", "PATH="])),
        "workingDir": st.sampled_from(["/srv", "/srv/", "/", ""]),
        "umask": st.sampled_from(["0022", "022", "0000"]),
        "noNewPrivileges": st.booleans(),
        "privileged": st.booleans(),
        "user": st.fixed_dictionaries({"id": st.sampled_from(["1000", "0", "01000"]), "name": WORD}),
        "capabilities": st.fixed_dictionaries(
            {
                name: st.lists(st.sampled_from(["CAP_KILL", "CAP_CHOWN"]), max_size=3)
                for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
            }
        ),
    },
)
LOADED = policy()


@quick
@given(FIELDS)
def test_whatever_is_allowed_is_what_the_policy_says(changes: dict[str, Any]) -> None:
    decision = Talk(LOADED).prepared().ask("create_container", creation(**changes))
    request = creation(**changes)
    good = creation()
    same = all(
        request[name] == good[name]
        for name in ("argList", "workingDir", "umask", "privileged", "noNewPrivileges", "capabilities")
    )
    env = set(request["envList"]) - {"HOSTNAME=x"} == {"PATH=/usr/bin:/bin"}
    assert decision.allowed is (same and env and request["user"]["id"] == "1000")
    assert decision.allowed or (decision.kind is Kind.DENIED and decision.reasons)


@quick
@given(st.binary(max_size=200), st.booleans())
def test_an_annotation_gives_back_what_was_put_in(data: bytes, compress: bool) -> None:
    if not data.startswith(b"\x1f\x8b"):
        assert load_annotation(to_annotation(data, compress=compress)) == data


@quick
@given(st.text(max_size=60))
def test_any_annotation_is_read_or_malformed(annotation: str) -> None:
    with contextlib.suppress(Malformed):
        load_annotation(annotation)


@quick
@given(st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(-[0-9a-z.]{1,6})?", fullmatch=True))
def test_a_version_is_equal_to_what_it_prints(written: str) -> None:
    parsed = Version.parse(written)
    if parsed is not None:
        assert Version.parse(str(parsed)) == parsed
