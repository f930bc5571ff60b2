# SPDX-License-Identifier: Apache-2.0
"""What holds for any text, any request and any conversation."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parma_policy.annotation import load_annotation, to_annotation
from parma_policy.framework import POINTS, Kind, State, decide
from parma_policy.model import Container
from parma_policy.reader import PolicyTextError, load
from parma_policy.reader.syntax import parse
from parma_policy.versions import Version
from parma_wire.errors import Malformed
from tests.policy.builders import ID, LAYERS, Talk, container, creation, disk, execution, policy, rootfs, text

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


COMMANDS = st.sampled_from([["a"], ["b"], ["c"]])
IDS = st.sampled_from([ID, "b2" * 32])
TARGETS = st.sampled_from([disk(number) for number in range(4)])
HASHES = st.sampled_from([*LAYERS, "f" * 64])
MACHINE_POLICY = policy(
    container(command=["a"], exec_processes=[{"command": ["a"], "signals": [9]}], signals=[1, 2]),
    container(command=["a"], exec_processes=[{"command": ["b"], "signals": [9]}], signals=[2, 3]),
    container(command=["b"], layers=[LAYERS[0]], signals=[2]),
)


class Conversations(RuleBasedStateMachine):
    """Random conversations; what was true must stay true."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(MACHINE_POLICY)
        self.created: set[str] = set()
        self.before: dict[str, tuple[Container, ...]] = {}

    def ask(self, point: str, **request: Any) -> bool:
        before = self.talk.state
        self.before = dict(before.matches)
        decision = self.talk.ask(point, request)
        assert decision.allowed or self.talk.state is before
        again, _ = decide(MACHINE_POLICY, before, point, request)
        assert again == decision
        return decision.allowed

    @rule(place=TARGETS, root_hash=HASHES)
    def mount(self, place: str, root_hash: str) -> None:
        self.ask("mount_device", target=place, deviceHash=root_hash)

    @rule(place=TARGETS)
    def unmount(self, place: str) -> None:
        used = any(place in overlay.layer_targets for overlay in self.talk.state.overlays.values())
        assert not (self.ask("unmount_device", unmountTarget=place) and used)

    @rule(container_id=IDS, layers=st.lists(TARGETS, max_size=3, unique=True))
    def overlay(self, container_id: str, layers: list[str]) -> None:
        hashes = tuple(self.talk.state.devices.get(target, "") for target in reversed(layers))
        request = {"containerID": container_id, "layerPaths": layers, "target": rootfs(container_id)}
        if self.ask("mount_overlay", **request):
            assert all(found.layers == hashes for found in self.talk.state.candidates(container_id))

    @rule(container_id=IDS)
    def take_overlay_away(self, container_id: str) -> None:
        started = self.talk.state.started.get(container_id)
        running = started is not None and not started.shut_down
        assert not (self.ask("unmount_overlay", unmountTarget=rootfs(container_id)) and running)

    @rule(container_id=IDS, command=COMMANDS)
    def create(self, container_id: str, command: list[str]) -> None:
        if self.ask("create_container", **creation(containerID=container_id, argList=command)):
            assert container_id not in self.created
            self.created.add(container_id)
            assert all(list(found.command) == command for found in self.talk.state.candidates(container_id))

    @rule(container_id=IDS, command=COMMANDS)
    def execute(self, container_id: str, command: list[str]) -> None:
        if self.ask("exec_in_container", **execution(containerID=container_id, argList=command)):
            assert container_id in self.created
            for found in self.talk.state.candidates(container_id):
                assert tuple(command) in [process.command for process in found.exec_processes]

    @rule(container_id=IDS, signal=st.integers(0, 4))
    def signal(self, container_id: str, signal: int) -> None:
        request = {"containerID": container_id, "signal": signal, "isInitProcess": True, "argList": []}
        if self.ask("signal_container_process", **request):
            assert all(signal in found.signals for found in self.talk.state.candidates(container_id))

    @precondition(lambda self: self.created)
    @rule(data=st.data())
    def shut_down(self, data: st.DataObject) -> None:
        assert self.ask("shutdown_container", containerID=data.draw(st.sampled_from(sorted(self.created))))

    @invariant()
    def narrowing_never_widens(self) -> None:
        for container_id, candidates in self.talk.state.matches.items():
            if container_id in self.before:
                assert set(map(id, candidates)) <= set(map(id, self.before[container_id]))

    @invariant()
    def overlays_have_their_devices(self) -> None:
        for overlay in self.talk.state.overlays.values():
            assert all(target in self.talk.state.devices for target in overlay.layer_targets)

    @invariant()
    def running_containers_have_their_overlay(self) -> None:
        for container_id, started in self.talk.state.started.items():
            overlays = {overlay.container_id for overlay in self.talk.state.overlays.values()}
            assert started.shut_down or container_id in overlays


Conversations.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestConversations = Conversations.TestCase
