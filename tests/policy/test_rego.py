# SPDX-License-Identifier: Apache-2.0
"""Policies with rules of their own, decided with the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_policy.framework import Decision, Kind
from parma_policy.loaded import LoadedPolicy, load_policy
from parma_policy.rego.engine import EngineFailed
from parma_policy.rego.link import ChildEngine
from parma_wire.errors import Malformed
from tests.policy.builders import ID, LAYERS, OTHER_ID, Json, creation, disk, execution, rootfs, text
from tests.policy.rego_engine import needs_engine, new_engine

pytestmark = needs_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[ChildEngine]:
    made = new_engine()
    yield made
    made.close()


class Conversation:
    """With a policy; remembers the state."""

    def __init__(self, engine: ChildEngine, rego: str) -> None:
        self.policy: LoadedPolicy = load_policy(rego.encode(), engine)
        self.state: Any = self.policy.initial_state()

    def ask(self, point: str, request: Json | None = None, /, **members: object) -> Decision:
        decision, self.state = self.policy.decide(self.state, point, members if request is None else request)
        return decision

    def prepared(self) -> Conversation:
        targets = [disk(number) for number in range(len(LAYERS))]
        for target, layer in zip(targets, LAYERS, strict=True):
            assert self.ask("mount_device", target=target, deviceHash=layer).allowed
        overlay = {"containerID": ID, "layerPaths": targets[::-1], "target": rootfs()}
        assert self.ask("mount_overlay", overlay).allowed
        return self


def with_rules(*rules: str, **definitions: Any) -> str:
    """The good policy, with these rules instead of the framework's of the same names."""
    names = [rule.removeprefix("default ").split(" ")[0].split("(")[0] for rule in rules]
    lines = [line for line in text(**definitions).splitlines() if line.split(" ")[0] not in names]
    return "\n".join([*lines, *rules, ""])


def test_without_an_engine_it_is_refused_and_says_what_is_missing() -> None:
    rego = with_rules('get_properties := {"allowed": true}')
    with pytest.raises(Malformed) as caught:
        load_policy(rego.encode())
    assert "get_properties" in caught.value.message
    assert "'rego' variant" in caught.value.hint


def test_a_rule_of_its_own_decides(engine: ChildEngine) -> None:
    rule = 'signal_container_process := {"allowed": input.signal in {10, 12}}'
    talk = Conversation(engine, with_rules(rule))
    request = {"containerID": ID, "signal": 10, "isInitProcess": True, "argList": []}
    assert talk.ask("signal_container_process", request).allowed
    assert not talk.ask("signal_container_process", {**request, "signal": 9}).allowed


def test_the_framework_goes_on_deciding_the_rest(engine: ChildEngine) -> None:
    talk = Conversation(engine, with_rules('dump_stacks := {"allowed": true}')).prepared()
    assert talk.ask("dump_stacks", {}).allowed
    assert talk.ask("create_container", creation()).allowed
    denied = talk.ask("create_container", creation())
    assert denied.reasons[0].code == "already_started"


def test_a_rule_can_narrow_what_the_framework_allows(engine: ChildEngine) -> None:
    rule = """create_container := data.framework.create_container if input.umask == "0022"
create_container := {"allowed": false} if input.umask != "0022" """
    talk = Conversation(engine, with_rules(rule)).prepared()
    assert not talk.ask("create_container", creation(argList=["/bin/other"])).allowed
    assert talk.ask("create_container", creation()).allowed
    assert talk.ask("exec_in_container", execution()).allowed


def test_an_answer_that_leaves_out_the_changes_records_nothing(engine: ChildEngine) -> None:
    rule = 'create_container := {"allowed": data.framework.create_container.allowed, "env_list": []}'
    talk = Conversation(engine, with_rules(rule)).prepared()
    assert talk.ask("create_container", creation()).env_list == ()
    assert talk.ask("exec_in_container", execution()).topics() == ("container not started",)


def test_an_answer_never_adds_to_the_request(engine: ChildEngine) -> None:
    rule = """create_container := {"allowed": true, "env_list": ["PATH=/usr/bin:/bin", "EVIL=1"], "caps_list":
 {"bounding": ["CAP_SYS_ADMIN", "CAP_KILL"], "effective": [], "permitted": [], "inheritable": [], "ambient": []}}"""
    decision = Conversation(engine, with_rules(rule)).ask("create_container", creation())
    assert decision.env_list == ("PATH=/usr/bin:/bin",)
    assert decision.caps is not None
    assert decision.caps.bounding == ("CAP_KILL",)


def test_rules_of_its_own_give_a_container_nothing_of_attestation(engine: ChildEngine) -> None:
    plain = Conversation(engine, with_rules('create_container := {"allowed": true}')).ask(
        "create_container", creation()
    )
    assert plain.allowed
    assert plain.attestation == frozenset()
    rule = 'create_container := object.union(data.framework.create_container, {"env_list": []})'
    asked = Conversation(engine, with_rules(rule)).prepared().ask("create_container", creation())
    framework = Conversation(engine, text()).prepared().ask("create_container", creation())
    assert asked.attestation == framework.attestation
    assert asked.identity == framework.identity
    other = """create_container := object.union(answer, {"env_list": []}) if {
 answer := data.framework.create_container with input as object.union(input, {"workingDir": "/srv"})
}"""
    made_up = Conversation(engine, with_rules(other)).prepared().ask("create_container", creation(workingDir="/"))
    assert made_up.allowed
    assert made_up.attestation == frozenset()


def test_the_framework_can_be_asked_about_another_input(engine: ChildEngine) -> None:
    rule = """exec_in_container := answer if {
 answer := data.framework.exec_in_container with input as object.union(input, {"umask": "0022"})
}"""
    talk = Conversation(engine, with_rules(rule)).prepared()
    assert talk.ask("create_container", creation()).allowed
    assert talk.ask("exec_in_container", execution(umask="0000")).allowed


def test_history_of_its_own(engine: ChildEngine) -> None:
    rules = (
        "default attempts := 0",
        "attempts := data.metadata.attempts.count",
        """get_properties := {"allowed": attempts < 2, "metadata":
 [{"name": "attempts", "action": "update", "key": "count", "value": attempts + 1}]}""",
    )
    talk = Conversation(engine, with_rules(*rules))
    first = talk.state
    answers = [talk.ask("get_properties", {}).allowed for _ in range(4)]
    assert answers == [True, True, False, False]
    talk.state = first  # rolled back
    assert talk.ask("get_properties", {}).allowed


def test_rules_see_what_the_framework_has_recorded(engine: ChildEngine) -> None:
    rule = 'get_properties := {"allowed": count(data.metadata.devices) == 3}'
    talk = Conversation(engine, with_rules(rule))
    assert talk.ask("get_properties", {}).kind is Kind.POLICY_ERROR  # undefined: nothing was ever mounted
    talk.prepared()
    assert talk.ask("get_properties", {}).allowed


@pytest.mark.parametrize(
    "operation",
    [
        '{"name": "matches", "action": "update", "key": "x", "value": [{"command": ["/bin/evil"]}]}',
        '{"name": "devices", "action": "add", "key": "/x", "value": 1}',
        '{"name": "started", "action": "add", "key": "x", "value": {}}',
        '{"name": "issuers", "action": "update", "key": "x", "value": {"feeds": ["f"]}}',
        '{"name": "fragment_parameters", "type": "set", "action": "add", "value": {}}',
        '{"name": "devices", "type": "set", "action": "add", "value": 1}',
    ],
)
def test_what_the_framework_records_cannot_be_made_up(operation: str, engine: ChildEngine) -> None:
    talk = Conversation(engine, with_rules(f'get_properties := {{"allowed": true, "metadata": [{operation}]}}'))
    decision = talk.ask("get_properties", {})
    assert decision.kind is Kind.POLICY_ERROR
    assert talk.state.metadata.framework == talk.policy.initial_state().metadata.framework


def test_reasons_of_its_own_are_told(engine: ChildEngine) -> None:
    rules = ('dump_stacks := {"allowed": false}', 'reason := {"errors": [sprintf("no %s here", [input.rule])]}')
    assert "no dump_stacks here" in Conversation(engine, with_rules(*rules)).ask("dump_stacks", {}).message()


def test_the_frameworks_reasons_are_told_for_a_rule_that_asks_it(engine: ChildEngine) -> None:
    rule = "create_container := object.union(data.framework.create_container, {})"
    talk = Conversation(engine, with_rules(rule)).prepared()
    own = talk.ask("create_container", creation(workingDir="/tmp"))
    framework = Conversation(engine, text()).prepared().ask("create_container", creation(workingDir="/tmp"))
    assert own.reasons == framework.reasons


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ('get_properties := {"allowed": true} if time.now_ns() > 0', "time.now_ns"),
        ('get_properties := {"allowed": true} if http.send({"method": "get", "url": "http://h"})', "http.send"),
        ('get_properties := {"allowed": opa.runtime().env.A == "1"}', "opa.runtime"),
        ('get_properties := {"allowed": rand.intn("a", 2) == 1}', "rand.intn"),
        ('get_properties := {"allowed": true} if not data.framework.candidate_containers', "candidate_containers"),
        ('get_properties := {"allowed": true} if not data.framework[input.x].allowed', "framework"),
        ('get_properties := {"allowed": true} if not data.api.version', "data.api"),
        ('get_properties := {"allowed": true} if not data[input.x].allowed', "named"),
        ('get_properties := {"allowed": true} if { some x; data[x].allowed }', "named"),
        ('get_properties := {"allowed": true} if walk(data, [["framework"], _])', "whole"),
        ('get_properties := {"allowed": true} if { not data.metadata.issuers }', "issuers"),
        ('get_properties := {"allowed": true} if { not data.metadata[input.x] }', "metadata"),
        ("get_properties := data.framework.get_properties with data.metadata as {}", "with"),
        ('get_properties := parma.framework("get_properties", input)', "parma"),
        ("get_properties { true }", "if"),
        ("containers := input.containers", "containers depends"),
        ("allow_dump_stacks if data.metadata.x", "allow_dump_stacks depends"),
        ('permissive := true\nget_properties := {"allowed": true}', "permissive"),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_refused_when_loaded(rule: str, what: str, engine: ChildEngine) -> None:
    with pytest.raises(Malformed, match=what.replace(".", r"\.")):
        Conversation(engine, with_rules(rule))


@pytest.mark.parametrize(
    "rule",
    [
        'get_properties := {"allowed": "yes"}',
        "get_properties := true",
        'get_properties := {"allowed": true} if 1 == 1\nget_properties := {"allowed": false} if 2 == 2',
        'get_properties(x) := {"allowed": true}',
        'get_properties := {"allowed": true} if input.nothing.at.all',
        'get_properties := {"allowed": true} if not data.framework.create_container.allowed',
        'get_properties := {"allowed": true, "metadata": [{"name": "m"}]}',
        'get_properties := {"allowed": true, "metadata": {}}',
    ],
)
def test_an_answer_that_makes_no_sense_is_a_no(rule: str, engine: ChildEngine) -> None:
    decision = Conversation(engine, with_rules(rule)).ask("get_properties", {})
    assert not decision.allowed
    assert decision.kind is Kind.POLICY_ERROR


def test_an_endless_evaluation_is_a_no_and_the_next_question_is_answered(engine: ChildEngine) -> None:
    slow = new_engine()
    slow._query_seconds = 0.3
    numbers = "numbers.range(1, 100000)"
    rules = (
        f'get_properties := {{"allowed": true}} if count([1 | some i in {numbers}; some j in {numbers}; i == -j]) == 0',
        'dump_stacks := {"allowed": true}',
    )
    talk = Conversation(slow, with_rules(*rules))
    assert talk.ask("get_properties", {}).kind is Kind.POLICY_ERROR
    assert talk.ask("dump_stacks", {}).allowed
    slow.close()


def test_an_engine_that_dies_is_a_no_and_is_started_again(engine: ChildEngine) -> None:
    mortal = new_engine()
    talk = Conversation(mortal, with_rules('dump_stacks := {"allowed": true}'))
    assert talk.ask("dump_stacks", {}).allowed
    assert mortal._process is not None
    mortal._process.kill()
    assert talk.ask("dump_stacks", {}).kind is Kind.POLICY_ERROR
    assert talk.ask("dump_stacks", {}).allowed
    mortal.close()


def test_data_that_rules_compute_are_data(engine: ChildEngine) -> None:
    rules = (
        'framework_version := concat(".", ["0", "5", "0"])',
        "allow_dump_stacks if count(containers) == 1",
    )
    talk = Conversation(engine, with_rules(*rules))
    assert talk.ask("dump_stacks", {}).allowed


def test_a_confined_engine_has_nothing(tmp_path: Path) -> None:
    import os

    if os.geteuid() != 0:
        pytest.skip("confinement needs root")
    confined = new_engine("-confine")
    talk = Conversation(confined, with_rules('dump_stacks := {"allowed": true}'))
    assert talk.ask("dump_stacks", {}).allowed
    pid = confined._process._process.pid  # type: ignore[union-attr]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == [str(0xFFFFFF01)] * 4
    assert status["Groups"].split() == []
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for namespace in ("net", "mnt", "ipc", "uts"):
        assert Path(f"/proc/{pid}/ns/{namespace}").readlink() != Path(f"/proc/self/ns/{namespace}").readlink()
    assert list(Path(f"/proc/{pid}/root/").iterdir()) == []
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "Max data size             402653184" in limits
    threads = [Path(path).read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    assert len(threads) > 1
    assert all("Seccomp:\t2" in thread and "CapEff:\t0000000000000000" in thread for thread in threads)
    confined.close()


def test_other_containers_are_not_reached_by_a_rule(engine: ChildEngine) -> None:
    rule = "shutdown_container := object.union(data.framework.shutdown_container, {})"
    talk = Conversation(engine, with_rules(rule)).prepared()
    assert talk.ask("create_container", creation()).allowed
    assert not talk.ask("shutdown_container", containerID=OTHER_ID).allowed
    assert talk.ask("shutdown_container", containerID=ID).allowed
    assert not talk.ask("exec_in_container", execution()).allowed


def test_no_engine_is_no_policy() -> None:
    from parma_policy.rego.process import program

    nowhere = ChildEngine(program(Path("/nonexistent/rego-engine")))
    with pytest.raises(EngineFailed):
        load_policy(with_rules('dump_stacks := {"allowed": true}').encode(), nowhere)


def test_a_rule_that_would_take_all_memory_is_a_no(engine: ChildEngine) -> None:
    import os

    if os.geteuid() != 0:
        pytest.skip("confinement needs root")
    confined = new_engine("-confine")
    rules = (
        'get_properties := {"allowed": true} if count([[i, i, i, i] | some i in numbers.range(1, 20000000)]) > 0',
        'dump_stacks := {"allowed": true}',
    )
    talk = Conversation(confined, with_rules(*rules))
    assert talk.ask("get_properties", {}).kind is Kind.POLICY_ERROR
    assert talk.ask("dump_stacks", {}).allowed
    confined.close()
