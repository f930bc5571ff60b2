# SPDX-License-Identifier: Apache-2.0
"""What follows from the table of enforcement points: reference pages, the closed door, results and state changes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genreference
from parma_policy import requests
from parma_policy.framework import Decision, State, decide
from parma_policy.points import POINTS, closed_door
from parma_policy.reader import load
from parma_wire.errors import Malformed
from tests.policy.builders import ID, Json, Talk, container, creation, disk, execution, policy, rootfs

DOCS = Path(__file__).resolve().parents[2] / "docs"
LINUX = [name for name, point in POINTS.items() if point.linux]
CLOSED = load(closed_door().encode())


@pytest.mark.parametrize("name", genreference.PAGES)
def test_the_reference_pages_are_those_that_the_code_makes(name: str) -> None:
    assert (DOCS / name).read_text() == genreference.PAGES[name](), "run: python tools/genreference.py"


def test_results_and_changes_are_fields_that_exist() -> None:
    for point in POINTS.values():
        assert set(point.results) <= {field.name for field in fields(Decision)}
        assert set(point.changes) <= {field.name for field in fields(State)}


# -- inputs of every point, from the same declaration ------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from([ID, disk(0), rootfs(), "/bin/app", "/srv", "ext4", "1" * 64, "PATH=/usr/bin:/bin", "", "0022"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    requests.text: WORDS,
    requests.flag: st.booleans(),
    requests.number: st.integers(-70, 70),
    requests.optional_number: st.none() | st.integers(0, 9),
    requests.texts: st.none() | st.lists(WORDS, max_size=3),
    requests.devices: st.lists(WORDS, max_size=1),
}


def inputs(schema: requests.Schema) -> st.SearchStrategy[Json]:
    """Well-formed inputs of a point."""
    return st.fixed_dictionaries({key: value_of(decoder) for key, decoder in schema.members})


def value_of(decoder: Any) -> st.SearchStrategy[Any]:
    if decoder in VALUES:
        return VALUES[decoder]
    nested = getattr(decoder, "__self__", None)
    if isinstance(nested, requests.Schema):
        return inputs(nested)
    return st.lists(inputs(decoder.args[0]), max_size=2)


QUESTIONS = st.one_of([st.tuples(st.just(name), inputs(POINTS[name].schema)) for name in LINUX])


@given(st.lists(QUESTIONS, max_size=5))
@settings(max_examples=300, deadline=None)
def test_behind_the_closed_door_nothing_is_allowed(questions: list[tuple[str, Json]]) -> None:
    state = State.initial()
    for point, request in questions:
        try:
            decision, after = decide(CLOSED, state, point, request)
        except Malformed:
            assert point == "load_fragment"  # whose text may be no fragment at all
            continue
        if decision.allowed:  # what needs no more than encryption, or asks for nothing
            assert point in ("rw_mount_device", "rw_unmount_device", "scratch_mount", "scratch_unmount") or (
                point == "log_provider" and not request["providers"]
            )
        state = after
    assert not state.devices
    assert not state.matches
    assert not state.started
    assert not state.fragments


@given(QUESTIONS, st.sampled_from([5, "x", [5], {"x": 1}, True, None, 1.5, b"x"]), st.data())
@settings(max_examples=200, deadline=None)
def test_ill_typed_or_unknown_input_is_malformed_and_never_denied(
    question: tuple[str, Json], wrong: object, data: st.DataObject
) -> None:
    point, request = question
    key = data.draw(st.sampled_from([*request, "unknown"]))
    decoder = dict(POINTS[point].schema.members).get(key)
    try:
        if decoder is not None:
            decoder(wrong, key)
            return  # a value of the right type after all
    except Malformed:
        pass
    with pytest.raises(Malformed):
        decide(CLOSED, State.initial(), point, {**request, key: wrong})


def test_the_closed_door_hands_every_point_to_the_framework() -> None:
    assert set(CLOSED.rules) == set(LINUX)
    assert not CLOSED.api_problem
    assert not CLOSED.framework_problem


def changed(before: State, after: State) -> set[str]:
    return {field.name for field in fields(State) if getattr(before, field.name) != getattr(after, field.name)}


CONVERSATION: list[tuple[str, Json]] = [
    ("mount_device", {"target": disk(0), "deviceHash": "1" * 64}),
    (
        "rw_mount_device",
        {"target": f"/run/gcs/c/{ID}", "encrypted": True, "ensureFilesystem": True, "filesystem": "ext4"},
    ),
    ("scratch_mount", {"target": "/s", "encrypted": True}),
    ("mount_overlay", {"containerID": ID, "layerPaths": [disk(0)], "target": rootfs()}),
    ("plan9_mount", {"target": f"/run/gcs/c/{ID}/mounts/m1"}),
    ("create_container", creation()),
    ("exec_in_container", execution()),
    ("signal_container_process", {"containerID": ID, "signal": 15, "isInitProcess": True, "argList": []}),
    ("exec_external", {"argList": ["x"], "envList": [], "workingDir": "/"}),
    ("get_properties", {}),
    ("dump_stacks", {}),
    ("runtime_logging", {}),
    ("host_network", {}),
    ("log_provider", {"providers": ["p"]}),
    (
        "load_fragment",
        {"issuer": "i", "feed": "f", "header_svn": None, "receipts": []}
        | {"rego": 'package p\nsvn := "1"\nframework_version := "0.5.0"\ncontainers := []\n'},
    ),
    ("load_transparency_trust_list", {"issuer": "i", "subject": "s", "svn": 1, "ledgers": ["l"]}),
    ("shutdown_container", {"containerID": ID}),
    ("plan9_unmount", {"unmountTarget": f"/run/gcs/c/{ID}/mounts/m1"}),
    ("unmount_overlay", {"unmountTarget": rootfs()}),
    ("scratch_unmount", {"unmountTarget": "/s"}),
    ("rw_unmount_device", {"unmountTarget": f"/run/gcs/c/{ID}"}),
    ("unmount_device", {"unmountTarget": disk(0)}),
]


def test_an_allowed_request_changes_what_its_point_declares_and_nothing_else() -> None:
    talk = Talk(
        policy(
            container(layers=["1" * 64]),
            container(layers=["1" * 64], command=["other"]),
            external_processes=[
                {"command": ["x"], "env_rules": [], "working_dir": "/", "allow_stdio_access": True},
            ],
            fragments=[{"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers"]}],
            transparency_trust_lists=[{"issuer": "i", "subject": "s", "minimum_svn": 1, "allowed_ledgers": ["l"]}],
            allowed_log_providers=["p"],
            allow_properties_access=True,
            allow_dump_stacks=True,
            allow_runtime_logging=True,
            allow_host_network=True,
        )
    )
    defaults = Decision(allowed=True, point="")
    seen = set()
    for point, request in CONVERSATION:
        before = talk.state
        decision = talk.ask(point, request)
        assert decision.allowed, decision.message()
        may_change = set(POINTS[point].changes)
        narrowed = {"matches"} if point in ("exec_in_container", "signal_container_process") else set()
        assert may_change - narrowed <= changed(before, talk.state) <= may_change
        decided = {f.name for f in fields(Decision) if getattr(decision, f.name) != getattr(defaults, f.name)}
        assert decided - {"point"} <= set(POINTS[point].results)
        seen.add(point)
    assert seen == set(LINUX) - {"mount_blockdev", "unmount_blockdev"}
