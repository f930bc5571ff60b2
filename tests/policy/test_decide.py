# SPDX-License-Identifier: Apache-2.0
"""What holds for every enforcement point: versions, defaults, shapes, flags, and purity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from parma_policy.framework import POINTS, Kind, State, decide
from parma_policy.framework.handlers import HANDLERS
from parma_policy.model import Policy
from parma_policy.points import OWN_POINTS, Default
from parma_policy.reader import load
from parma_wire.errors import Malformed
from tests.policy.builders import ID, Json, Talk, code, creation, disk, execution, policy, rootfs

GOOD: dict[str, Json] = {
    "mount_device": {"target": disk(0), "deviceHash": "1" * 64},
    "unmount_device": {"unmountTarget": disk(0)},
    "rw_mount_device": {"target": "/x", "encrypted": True, "ensureFilesystem": True, "filesystem": "ext4"},
    "rw_unmount_device": {"unmountTarget": "/x"},
    "mount_blockdev": {"target": "/x"},
    "unmount_blockdev": {"unmountTarget": "/x"},
    "mount_overlay": {"containerID": ID, "layerPaths": [], "target": rootfs()},
    "unmount_overlay": {"unmountTarget": rootfs()},
    "create_container": creation(),
    "exec_in_container": execution(),
    "exec_external": {"argList": ["x"], "envList": [], "workingDir": "/"},
    "shutdown_container": {"containerID": ID},
    "signal_container_process": {"containerID": ID, "signal": 9, "isInitProcess": True, "argList": None},
    "plan9_mount": {"target": "/x"},
    "plan9_unmount": {"unmountTarget": "/x"},
    "get_properties": {},
    "dump_stacks": {},
    "runtime_logging": {},
    "load_fragment": {"issuer": "i", "feed": "f", "header_svn": None, "rego": "package p\n", "receipts": []},
    "scratch_mount": {"target": "/x", "encrypted": True},
    "scratch_unmount": {"unmountTarget": "/x"},
    "log_provider": {"providers": []},
    "load_transparency_trust_list": {"issuer": "i", "subject": "s", "svn": 1, "ledgers": []},
    "host_network": {},
}
LINUX = [name for name, point in POINTS.items() if point.linux]


def test_every_point_of_linux_has_a_function_and_a_test_request() -> None:
    assert set(HANDLERS) - set(OWN_POINTS) == set(LINUX) == set(GOOD)
    assert set(OWN_POINTS) <= set(HANDLERS)
    assert set(POINTS) - set(LINUX) == {"mount_cims", "registry_changes"}


@pytest.mark.parametrize("point", LINUX)
def test_a_policy_that_knows_a_point_must_have_a_rule_for_it(point: str) -> None:
    decision = Talk(policy(without=[point])).ask(point, GOOD[point])
    assert decision.kind is Kind.POLICY_ERROR
    assert decision.message() == (
        f"{point} denied: rule for {point} is missing from policy; to allow it, the policy would have to say "
        f'"{point} := data.framework.{point}" [no_rule]'
    )


@pytest.mark.parametrize("point", LINUX)
def test_a_policy_older_than_a_point_gets_its_default(point: str) -> None:
    older = Talk(policy(without=[point], api_version="0.0.1"))
    decision = older.ask(point, GOOD[point])
    match POINTS[point].default:
        case Default.ALLOW:
            assert decision.allowed
            assert not decision.allow_stdio_access
        case Default.DENY:
            assert code(decision) == "old_policy"
            assert str(POINTS[point].introduced) in decision.hint()
            assert decision.reasons[1:] == Talk(policy()).ask(point, GOOD[point]).reasons
        case Default.FRAMEWORK:
            asked = Talk(policy()).ask(point, GOOD[point])
            assert (decision.allowed, decision.reasons) == (asked.allowed, asked.reasons)


@pytest.mark.parametrize("point", LINUX)
@pytest.mark.parametrize("version", [None, "x", 5])
def test_without_an_api_version_nothing_is_allowed(point: str, version: object) -> None:
    decision = Talk(policy(api_version=version)).ask(point, GOOD[point])
    assert decision.kind is Kind.POLICY_ERROR
    assert code(decision) == "api_version"


def test_a_version_without_a_problem_and_no_problem_without_a_version_are_both_needed() -> None:
    for unusable in ({"api_problem": "not understood"}, {"api_version": None}):
        decision = Talk(replace(policy(allow_dump_stacks=True), **unusable)).ask("dump_stacks")
        assert (decision.allowed, code(decision)) == (False, "api_version")


def test_an_unknown_point_is_denied_whatever_is_asked() -> None:
    decision = Talk(policy()).ask("no_such_point", {"any": object()})
    assert decision.kind is Kind.POLICY_ERROR
    assert code(decision) == "unknown_point"
    assert "no_such_point" in decision.message()
    assert Talk(policy()).ask("x" * 100_000, {}).message() == (
        f"{'x' * 80} denied: enforcement point rule {'x' * 80} does not exist [unknown_point]"
    )


@pytest.mark.parametrize("point", ["mount_cims", "registry_changes"])
def test_points_of_windows_are_denied(point: str) -> None:
    assert code(Talk(policy()).ask(point, {"any": 1})) == "not_linux"
    assert code(Talk(policy(without=[point])).ask(point, {})) == "no_rule"
    assert code(Talk(policy(without=[point], api_version="0.1.0")).ask(point, {})) == "old_policy"


WRONG: tuple[object, ...] = (
    None,
    5,
    1.5,
    "text",
    b"bytes",
    [],
    {},
    [5],
    ["\0"],
    "\0",
    "\ud800",
    ["\ud800"],
    True,
    {"a": 1},
    1 << 70,
)


@pytest.mark.parametrize("point", LINUX)
def test_ill_typed_requests_are_malformed_not_denied(point: str) -> None:
    good = GOOD[point]
    for name in good:
        for wrong in WRONG:
            if _fits(good[name], wrong):
                continue
            with pytest.raises(Malformed):
                decide(policy(), State.initial(), point, {**good, name: wrong})


def _fits(good: object, wrong: object) -> bool:
    """Whether ``wrong`` has the right type after all."""
    if wrong is None:
        return good is None or (isinstance(good, list) and not any(isinstance(item, dict) for item in good))
    if good is None:  # a number, or a list of strings
        return wrong == 5 or wrong == []
    if isinstance(good, bool):
        return isinstance(wrong, bool)
    if isinstance(good, str):
        return wrong == "text"
    if isinstance(good, int):
        return wrong == 5 and not isinstance(wrong, bool)
    return isinstance(good, list) and wrong == []


@pytest.mark.parametrize("point", LINUX)
def test_missing_and_unknown_members_are_malformed(point: str) -> None:
    good = GOOD[point]
    with pytest.raises(Malformed, match="unknown request member 'surprise'"):
        decide(policy(), State.initial(), point, {**good, "surprise": 1})
    for name in good:
        with pytest.raises(Malformed, match="is missing"):
            decide(policy(), State.initial(), point, {key: value for key, value in good.items() if key != name})


@pytest.mark.parametrize("request_", [None, 5, "x", []])
def test_a_request_must_be_an_object(request_: object) -> None:
    with pytest.raises(Malformed):
        decide(policy(), State.initial(), "get_properties", request_)


def test_devices_may_be_given_as_oci_objects() -> None:
    talk = Talk(policy()).prepared()
    decision = talk.ask("create_container", creation(devices=[{"path": "/dev/kvm", "type": "c"}]))
    assert '"/dev/kvm"' in decision.message()
    with pytest.raises(Malformed):
        talk.ask("create_container", creation(devices=[{"no": "path"}]))


def test_members_with_one_possible_value_may_be_given() -> None:
    request = {**GOOD["mount_device"], "mountPathRegex": "/run/mounts/scsi/m[0-9]+"}
    assert Talk(policy()).ask("mount_device", request).allowed
    with pytest.raises(Malformed, match="mountPathRegex"):
        Talk(policy()).ask("mount_device", {**request, "mountPathRegex": ".*"})


def test_a_typed_request_is_taken_as_it_is() -> None:
    typed = POINTS["mount_device"].schema.decode(GOOD["mount_device"], "x")
    decision, _ = decide(policy(), State.initial(), "mount_device", typed)
    assert decision.allowed


# -- flags -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "flag"),
    [
        ("get_properties", "allow_properties_access"),
        ("dump_stacks", "allow_dump_stacks"),
        ("runtime_logging", "allow_runtime_logging"),
        ("host_network", "allow_host_network"),
    ],
)
def test_a_flag_decides(point: str, flag: str) -> None:
    definitions: dict[str, Any] = {flag: True}
    assert Talk(policy(**definitions)).ask(point).allowed
    definitions[flag] = False
    for off in (policy(**definitions), policy()):
        decision = Talk(off).ask(point)
        assert code(decision) == "flag"
        assert decision.hint() == f"{flag} would have to be true"
        assert decision.reasons[0].where == flag


def test_case_is_ignored_letter_by_letter() -> None:
    talk = Talk(policy(allowed_log_providers=["\u03b1\u03c2", "i"]))
    assert code(talk.ask("log_provider", providers=["\u0391\u03a3"])) == "provider"
    assert talk.ask("log_provider", providers=["\u0130", "I"]).allowed


def test_log_providers_compare_without_case() -> None:
    listed = policy(allowed_log_providers=["Alpha", "Beta"])
    assert Talk(listed).ask("log_provider", providers=["ALPHA"]).providers_to_keep == ("ALPHA",)
    assert code(Talk(listed).ask("log_provider", providers=["alpha", "gamma"])) == "provider"
    dropping = policy(allowed_log_providers=["Alpha"], allow_log_provider_dropping=True)
    assert Talk(dropping).ask("log_provider", providers=["gamma", "alpha"]).providers_to_keep == ("alpha",)


# -- outside of containers ---------------------------------------------------------------------------------------


def external(**changes: Any) -> Json:
    rules = [{"pattern": "A=1", "strategy": "string", "required": True}]
    good = {"command": ["tool"], "env_rules": rules, "working_dir": "/", "allow_stdio_access": True}
    return {**good, **changes}


def run(**changes: Any) -> Json:
    return {"argList": ["tool"], "envList": ["A=1"], "workingDir": "/", **changes}


def test_an_external_process_must_be_listed() -> None:
    decision = Talk(policy(external_processes=[external()])).ask("exec_external", run())
    assert decision.allowed
    assert decision.allow_stdio_access
    assert decision.env_list == ("A=1",)
    for dropping in (False, True):
        none = Talk(policy(allow_environment_variable_dropping=dropping))
        assert code(none.ask("exec_external", run())) == "command"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"argList": ["x"]}, "command"),
        ({"workingDir": "/x"}, "working_dir"),
        ({"envList": ["A=1", "B=1"]}, "env"),
        ({"envList": []}, "env_required"),
    ],
)
def test_any_other_external_process_is_denied(change: Mapping[str, Any], expected: str) -> None:
    assert code(Talk(policy(external_processes=[external()])).ask("exec_external", run(**change))) == expected


def test_external_processes_that_leave_no_answer() -> None:
    def loaded(*processes: Json) -> Policy:
        return policy(external_processes=list(processes), allow_environment_variable_dropping=True)

    def rule(name: str) -> list[Json]:
        return [{"pattern": f"{name}=.", "strategy": "re2", "required": False}]

    both = loaded(external(), external(allow_stdio_access=False))
    assert code(Talk(both).ask("exec_external", run())) == "stdio_undecidable"
    either = loaded(external(env_rules=rule("A")), external(env_rules=rule("B")))
    assert code(Talk(either).ask("exec_external", run(envList=["A=1", "B=1"]))) == "env_undecidable"
    twice = loaded(external(env_rules=rule("A")))
    assert code(Talk(twice).ask("exec_external", run(envList=["A=1", "A=2"]))) == "env_ambiguous"


def test_what_no_external_process_may_have_is_told_before_what_is_given_twice() -> None:
    talk = Talk(policy(external_processes=[external()]))
    assert code(talk.ask("exec_external", run(envList=["A=1", "A=2"]))) == "env"


def test_trust_lists_must_be_listed() -> None:
    rule = {"issuer": "i", "subject": "s", "minimum_svn": 2, "allowed_ledgers": ["one", "two"]}
    talk = Talk(policy(transparency_trust_lists=[rule]))

    def offer(**changes: object) -> Any:
        good = {"issuer": "i", "subject": "s", "svn": 2, "ledgers": ["two", "three"]}
        return talk.ask("load_transparency_trust_list", {**good, **changes})

    assert offer().allowed_ledgers == ("two",)
    assert code(offer(issuer="x")) == "trust_list"
    assert code(offer(subject="x")) == "trust_list"
    assert code(offer(svn=1)) == "trust_list"
    assert code(offer(ledgers=["three"])) == "ledgers"


def test_a_rule_may_accept_every_ledger() -> None:
    def loaded(*ledgers: str) -> Talk:
        rule = {"issuer": "i", "subject": "s", "minimum_svn": 1, "allowed_ledgers": list(ledgers)}
        return Talk(policy(transparency_trust_lists=[rule]))

    request = {"issuer": "i", "subject": "s", "svn": 1, "ledgers": ["a", "b"]}
    assert loaded("*").ask("load_transparency_trust_list", request).allowed_ledgers == ("a", "b")
    assert code(loaded("c").ask("load_transparency_trust_list", request)) == "ledgers"


# -- the reading of recorded policies ----------------------------------------------------------------------------


def test_an_unmodified_policy_of_azures_generator_is_accepted() -> None:
    text = (
        "package policy\n\nimport future.keywords.every\nimport future.keywords.in\n\n"
        'api_version := "0.10.0"\nframework_version := "0.2.3"\n\nfragments := [\n  {\n    "feed": "f",\n'
        '    "includes": ["containers", "fragments"],\n    "issuer": "i",\n    "minimum_svn": "1"\n  }\n]\n\n'
        "containers := []\n\nallow_properties_access := true\nallow_dump_stacks := false\n"
        "allow_runtime_logging := false\nallow_environment_variable_dropping := true\n"
        "allow_unencrypted_scratch := false\nallow_capability_dropping := true\n\n"
        "mount_device := data.framework.mount_device\nget_properties := data.framework.get_properties\n"
        'reason := {"errors": data.framework.errors}\n'
    )
    talk = Talk(load(text.encode()))
    assert talk.ask("get_properties").allowed
    assert code(talk.ask("mount_device", GOOD["mount_device"])) == "layer"
    assert code(talk.ask("rw_mount_device", GOOD["rw_mount_device"])) == "target"
