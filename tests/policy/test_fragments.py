# SPDX-License-Identifier: Apache-2.0
"""Fragments: who may supply what, how new it must be, and what of it counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parma_policy.framework import GUEST, Decision, Kind, State
from parma_policy.framework.fragments import parameter_sets
from parma_policy.framework.view import View
from parma_policy.requests import LoadFragment
from parma_wire.errors import Malformed
from tests.policy.builders import ID, Json, Talk, code, container, creation, policy

THEIR_LAYERS = ["c" * 64, "d" * 64]
THEIRS = container(layers=THEIR_LAYERS, command=["theirs"])


def rule(**changes: Any) -> Json:
    return {"issuer": "i", "feed": "f", "minimum_svn": "2", "includes": ["containers"], **changes}


def fragment(*lines: str, **definitions: Any) -> str:
    values = {"svn": "2", "framework_version": "0.5.0", "containers": [THEIRS], **definitions}
    given = [f"{name} := {json.dumps(value)}" for name, value in values.items() if value is not None]
    return "\n".join(["package theirs", *given, *lines, ""])


def offer(talk: Talk, rego: str, **changes: Any) -> Decision:
    good: Json = {"issuer": "i", "feed": "f", "header_svn": None, "rego": rego, "receipts": []}
    return talk.ask("load_fragment", {**good, **changes})


def test_containers_of_a_fragment_count_once_it_is_loaded() -> None:
    talk = Talk(policy(fragments=[rule()]))
    request = {"target": "/run/mounts/scsi/m0", "deviceHash": "c" * 64}
    assert code(talk.ask("mount_device", request)) == "layer"
    assert offer(talk, fragment()).allowed
    talk.prepared(THEIR_LAYERS)
    assert talk.ask("create_container", creation(argList=["theirs"])).allowed


def test_loading_it_again_adds_nothing() -> None:
    talk = Talk(policy(fragments=[rule()]))
    assert offer(talk, fragment()).allowed
    before = talk.state
    assert offer(talk, fragment()).allowed
    assert talk.state == before


def test_only_what_is_included_counts() -> None:
    talk = Talk(policy(fragments=[rule(includes=["external_processes"])]))
    process = {"command": ["tool"], "env_rules": [], "working_dir": "/", "allow_stdio_access": False}
    assert offer(talk, fragment(external_processes=[process])).allowed
    assert talk.ask("exec_external", argList=["tool"], envList=[], workingDir="/").allowed
    assert code(talk.ask("mount_device", target="/run/mounts/scsi/m0", deviceHash="c" * 64)) == "layer"


@pytest.mark.parametrize(
    "name", ["containers", "external_processes", "fragments", "platform_rules", "transparency_trust_lists"]
)
def test_of_a_fragment_that_brings_everything_only_what_is_included_is_kept(name: str) -> None:
    brought: Json = {
        "containers": [THEIRS],
        "external_processes": [{"command": ["x"], "env_rules": [], "working_dir": "/", "allow_stdio_access": False}],
        "fragments": [rule(issuer="nested")],
        "platform_rules": [{"env_rules": [{"pattern": "A=1", "strategy": "string"}]}],
        "transparency_trust_lists": [{"issuer": "t", "subject": "s", "minimum_svn": 1, "allowed_ledgers": ["l"]}],
    }
    talk = Talk(policy(fragments=[rule(includes=[name])]))
    assert offer(talk, fragment(**brought)).allowed
    (loaded,) = talk.state.fragments
    kept = {other: getattr(loaded, other) for other in brought}
    kept["containers"] = loaded.containers.containers
    assert [other for other, items in kept.items() if items] == [name]


@pytest.mark.parametrize(
    ("version", "own", "allowed"),
    [
        ("0.5.0", None, True),
        ("0.5.0-rc1", None, False),
        ("0.4.0", None, False),
        ("0.4.0", [], True),
    ],
)
def test_an_older_policy_without_a_list_of_external_processes_has_none_of_its_fragments_either(
    version: str, own: list[Json] | None, *, allowed: bool
) -> None:
    """Recorded of the reference: its rule for older versions has no answer where the policy has no such list."""
    rules = [rule(includes=["external_processes"])]
    talk = Talk(policy(framework_version=version, fragments=rules, external_processes=own))
    process = {"command": ["tool"], "env_rules": [], "working_dir": "/", "allow_stdio_access": False}
    assert offer(talk, fragment(external_processes=[process])).allowed
    assert talk.ask("exec_external", argList=["tool"], envList=[], workingDir="/").allowed is allowed


def test_fragments_of_fragments_can_be_loaded_where_included() -> None:
    nested = rule(issuer="nested")
    for includes, allowed in ((["fragments"], True), (["containers"], False)):
        talk = Talk(policy(fragments=[rule(includes=includes)]))
        assert offer(talk, fragment(fragments=[nested])).allowed
        assert offer(talk, fragment(), issuer="nested").allowed is allowed


def test_platform_rules_and_trust_lists_of_a_fragment_count() -> None:
    talk = Talk(policy(fragments=[rule(includes=["platform_rules", "transparency_trust_lists"])]))
    rules = [{"env_rules": [{"pattern": "A=1", "strategy": "string"}]}]
    lists = [{"issuer": "t", "subject": "s", "minimum_svn": 1, "allowed_ledgers": ["l"]}]
    assert offer(talk, fragment(platform_rules=rules, transparency_trust_lists=lists)).allowed
    trust = talk.ask("load_transparency_trust_list", issuer="t", subject="s", svn=1, ledgers=["l"])
    assert trust.allowed
    assert talk.prepared().ask("create_container", creation(envList=["PATH=/usr/bin:/bin", "A=1"])).allowed


@pytest.mark.parametrize(
    ("change", "expected"), [({"issuer": "x"}, "issuer"), ({"feed": "x"}, "feed"), ({"header_svn": 1}, "svn")]
)
def test_the_envelope_is_judged_before_the_text_is_read(change: Json, expected: str) -> None:
    talk = Talk(policy(fragments=[rule()]))
    assert code(offer(talk, "package theirs\nnot Rego at all", **change)) == expected


def test_with_an_unknown_framework_version_of_the_policy_there_are_no_fragments() -> None:
    assert code(offer(Talk(policy(fragments=[rule()], framework_version="9.0.0")), fragment())) == "framework_version"


@pytest.mark.parametrize(
    ("minimum", "svn", "header", "expected"),
    [
        ("2", "2", None, ""),
        ("2", 3, None, ""),
        ("2", "03", None, ""),
        ("2", "01", None, "svn"),
        (2, "2", None, ""),
        ("2", "2", 2, ""),
        ("2", None, 2, ""),
        ("2", "1", None, "svn"),
        ("2", None, None, "svn"),
        ("2", "two", None, "svn"),
        ("2", True, None, "svn"),
        ("2", "3", 2, "svn_mismatch"),
        ("2", "1.2.3", None, "svn_type"),
        ("1.2.0", "1.10.0", None, ""),
        ("1.2.0", "1.1.9", None, "svn"),
        ("1.2.0", 5, None, "svn_type"),
        ("1.2.0", "1.2.0", 5, "svn_type"),
        ("1.2.0", "1.2.0", None, ""),
        ("1.2.0", None, None, "svn"),
    ],
)
def test_the_version_must_be_new_enough(minimum: object, svn: object, header: object, expected: str) -> None:
    decision = offer(Talk(policy(fragments=[rule(minimum_svn=minimum)])), fragment(svn=svn), header_svn=header)
    assert decision.allowed is (not expected)
    if expected:
        assert code(decision) == expected


def test_a_minimum_that_is_no_version_is_satisfied_by_nothing() -> None:
    talk = Talk(policy(fragments=[rule(minimum_svn="none")], parity=True))
    for svn in ("2", "1.2.3"):
        assert not offer(talk, fragment(svn=svn)).allowed


@pytest.mark.parametrize("version", [None, "9.0.0", "x"])
def test_a_fragment_needs_a_framework_version_that_we_know(version: object) -> None:
    decision = offer(Talk(policy(fragments=[rule()])), fragment(framework_version=version))
    assert [reason.code for reason in decision.reasons] == ["framework_version"]


def test_where_a_fragment_is_too_old_for_all_rules_the_first_is_told() -> None:
    rules = [rule(minimum_svn="3", required_receipts=["*"]), rule(minimum_svn="4")]
    assert offer(Talk(policy(fragments=rules)), fragment()).reasons[0].expected == "3 or newer"


def test_every_reason_against_a_fragment_is_given() -> None:
    old = offer(Talk(policy(fragments=[rule(required_receipts=["*"])])), fragment(), header_svn=1)
    assert old.topics() == ("fragment svn is below the specified minimum", "missing receipt from *")
    unknown = offer(Talk(policy(fragments=[rule()])), fragment(svn=1, framework_version="x"))
    assert [reason.code for reason in unknown.reasons] == ["framework_version", "svn"]


def test_a_text_that_begins_as_no_fragment_is_malformed_whatever_the_policy_says() -> None:
    for talk in (Talk(policy()), Talk(policy(api_version="none"))):
        with pytest.raises(Malformed, match="fragment's first line"):
            offer(talk, "PACKAGE x\n")


@pytest.mark.parametrize(
    ("required", "receipts", "missing"),
    [
        (["*"], [], ["*"]),
        (["*"], [{"issuer": "any", "ttl_subjects": []}], []),
        (["ledger"], [{"issuer": "other", "ttl_subjects": []}], ["ledger"]),
        (["ledger"], [{"issuer": "ledger", "ttl_subjects": []}], []),
        (["TTL:s"], [{"issuer": "x", "ttl_subjects": ["t"]}], ["TTL:s"]),
        (["TTL:s"], [{"issuer": "x", "ttl_subjects": ["t", "s"]}], []),
        (["TTL:s"], [{"issuer": "TTL:s", "ttl_subjects": ["t"]}], ["TTL:s"]),
        (["*"], [{"issuer": "TTL:s", "ttl_subjects": []}], []),
        (["TTL:s", "ledger"], [], ["TTL:s", "ledger"]),
        (["TTL:s", "ledger"], [{"issuer": "ledger", "ttl_subjects": ["s"]}], []),
    ],
)
def test_receipts_must_be_there(required: list[str], receipts: list[Json], missing: list[str]) -> None:
    talk = Talk(policy(fragments=[rule(required_receipts=required)]))
    decision = offer(talk, fragment(), receipts=receipts)
    assert decision.allowed is (not missing)
    assert decision.topics() == tuple(sorted(f"missing receipt from {name}" for name in missing))
    assert [reason.code for reason in decision.reasons] == ["receipt"] * len(missing)


@pytest.mark.parametrize(
    "first_line", ["", " package theirs", "package", "package a.b", "package api", "package policy", "package x # y"]
)
def test_the_first_line_must_name_a_package_of_its_own(first_line: str) -> None:
    with pytest.raises(Malformed, match="fragment"):
        offer(Talk(policy(fragments=[rule()])), f"{first_line}\nsvn := 2\n")


@pytest.mark.parametrize(
    "line",
    ["x := y", "mount_device := data.framework.mount_device", "unknown := 1", "svn = {", 'containers2 := [{"a": 1}]'],
)
def test_a_fragment_that_cannot_be_read_is_denied(line: str) -> None:
    talk = Talk(policy(fragments=[rule()]))
    before = talk.state
    decision = offer(talk, fragment(line))
    assert (decision.kind, code(decision)) == (Kind.POLICY_ERROR, "fragment_text")
    assert "line " in decision.message()
    assert talk.state is before


def test_a_bad_container_in_a_fragment_is_denied() -> None:
    decision = offer(Talk(policy(fragments=[rule()])), fragment(containers=[container(layers=["x"])]))
    assert "containers[0].layers" in decision.message()


def test_the_namespace_include_is_passed_on() -> None:
    assert offer(Talk(policy(fragments=[rule(includes=["namespace"])])), fragment()).add_module
    assert not offer(Talk(policy(fragments=[rule()])), fragment()).add_module


# -- parameters --------------------------------------------------------------------------------------------------


def with_parameters(api: Json) -> str:
    made = json.dumps(container(layers=THEIR_LAYERS, command=["theirs"], working_dir="@dir", env_rules=["@env"]))
    made = made.replace('"@dir"', 'parameter("dir")').replace(
        '"@env"',
        '{"name": "R", "name_strategy": "string", "value": parameter("env").value, "value_strategy": "string"}',
    )
    return fragment(f"parameters_api := {json.dumps(api)}", f"containers := [{made}]", containers=None)


API: Json = {"dir": {"default": "/default"}, "env": {}}


def attempt(rules: list[Json], directory: str, value: str, api: Json | None = None, **given: Any) -> bool:
    talk = Talk(policy(fragments=rules, **given))
    if not offer(talk, with_parameters(API if api is None else api)).allowed:
        return False
    talk.prepared(THEIR_LAYERS)
    request = creation(argList=["theirs"], workingDir=directory, envList=[f"R={value}"])
    return talk.ask("create_container", request).allowed


def test_parameters_come_from_the_policy_or_their_default() -> None:
    rules = [rule(parameters={"env": {"value": "east"}})]
    assert attempt(rules, "/default", "east")
    assert not attempt(rules, "/default", "west")
    assert attempt([rule(parameters={"env": {"value": "east"}, "dir": "/given"})], "/given", "east")


def test_each_set_of_parameters_makes_its_own_containers() -> None:
    rules = [rule(parameters={"env": {"value": value}, "dir": value}) for value in ("/a", "/b")]
    assert attempt(rules, "/a", "/a")
    assert attempt(rules, "/b", "/b")
    assert not attempt(rules, "/a", "/b")


def test_a_set_of_parameters_that_is_given_twice_counts_once() -> None:
    talk = Talk(policy(fragments=[rule(parameters={"dir": "/a"})] * 2))
    assert offer(talk, fragment()).allowed
    assert len(talk.state.fragments) == 1


def test_the_parameters_are_those_of_rules_that_accept_the_envelope() -> None:
    rules = [rule(parameters={"dir": "/other"}, required_receipts=["*"]), rule(parameters={"dir": "/given"}), rule()]
    request = LoadFragment("i", "f", None, fragment(), ())
    for parity, expected in ((False, ["/given"]), (True, ["/other", "/given"])):
        view = View(policy(fragments=rules, parity=parity), State.initial(), GUEST)
        assert [given["dir"] for given in parameter_sets(view, request)] == expected


WIDE = rule(includes=["containers", "external_processes"])
WITH_DEFAULTS: Json = {"dir": {"default": "/default"}, "env": {"default": {"value": "west"}}}


@pytest.mark.parametrize(
    "other",
    [
        WIDE,
        rule(includes=["containers", "namespace"]),
        rule(includes=["external_processes"], parameters={"env": {"value": "east"}}),
        rule(includes=["external_processes"], required_receipts=["*"]),
    ],
)
@pytest.mark.parametrize("parity", [True, False])
def test_rules_that_accept_a_fragment_must_include_the_same(other: Json, parity: bool) -> None:
    for rules in ([rule(), other], [other, rule()]):
        decision = offer(Talk(policy(fragments=rules, parity=parity)), fragment())
        assert (decision.kind, code(decision)) == (Kind.POLICY_ERROR, "fragment_rules")


def test_a_rule_that_the_fragment_is_too_old_for_contradicts_nothing() -> None:
    newer = rule(minimum_svn="3", includes=["external_processes"])
    assert offer(Talk(policy(fragments=[newer, rule()])), fragment()).allowed
    same = rule(includes=["external_processes", "containers"])
    assert offer(Talk(policy(fragments=[WIDE, same])), fragment()).allowed


def test_no_namespace_with_several_sets_of_parameters() -> None:
    rules = [rule(includes=["namespace"], parameters={"dir": directory}) for directory in ("/a", "/b")]
    decision = offer(Talk(policy(fragments=rules)), fragment())
    assert (decision.kind, code(decision)) == (Kind.ERROR, "fragment_rules")
    assert offer(Talk(policy(fragments=rules[:1])), fragment()).add_module


def test_a_rule_without_parameters_gives_none_where_another_gives_some() -> None:
    rules = [rule(), rule(parameters={"dir": "/given"})]
    assert attempt(rules, "/given", "west", WITH_DEFAULTS)
    assert not attempt(rules, "/default", "west", WITH_DEFAULTS)


def test_parameters_of_a_rule_that_lacks_a_receipt_count_in_parity_mode_only() -> None:
    rules = [rule(parameters={"dir": "/other"}, required_receipts=["*"]), rule(parameters={"dir": "/given"})]
    assert attempt(rules, "/given", "west", WITH_DEFAULTS)
    assert not attempt(rules, "/other", "west", WITH_DEFAULTS)
    assert attempt(rules, "/other", "west", WITH_DEFAULTS, parity=True)
    assert not attempt([rules[0], rule()], "/default", "west", WITH_DEFAULTS)


def test_one_rule_must_accept_both_envelope_and_text() -> None:
    rules = [rule(required_receipts=["*"]), rule(minimum_svn="3")]
    assert code(offer(Talk(policy(fragments=rules)), fragment())) == "svn"
    assert offer(Talk(policy(fragments=rules, parity=True)), fragment()).allowed


def test_old_policies_give_an_empty_set_of_parameters() -> None:
    rules = [rule(), rule(parameters={"dir": "/given"})]
    for directory in ("/given", "/default"):
        assert attempt(rules, directory, "west", WITH_DEFAULTS, framework_version="0.4.1")


def test_a_wrong_parameter_is_reported_where_the_fragment_uses_it() -> None:
    rules = [rule(parameters={"env": {"value": "x" * 10_000}, "dir": ["a", {"b": 1}]})]
    decision = offer(Talk(policy(fragments=rules)), with_parameters(API))
    assert "line 5, column " in decision.message()
    assert "working_dir: found an array; expected a string" in decision.message()


@pytest.mark.parametrize(
    ("parameters", "api"),
    [
        (None, API),
        ({}, API),
        ({"env": "text"}, API),
        ({"env": {"other": 1}}, API),
        ({"env": {"value": "east"}}, {"env": {}}),
        ({"env": {"value": "east"}}, {"env": {}, "dir": {}}),
        ({"env": {"value": 5}}, API),
    ],
)
def test_a_parameter_without_a_fitting_value_denies_the_fragment(parameters: object, api: Json) -> None:
    rules = [rule() if parameters is None else rule(parameters=parameters)]
    assert not attempt(rules, "/default", "east", api)


def test_parameters_cannot_make_a_fragment_arbitrarily_large() -> None:
    talk = Talk(policy(fragments=[rule(parameters={"p": [["x"] * 1000] * 9})]))
    uses = ",".join(['parameter("p")'] * 12)
    rego = fragment('parameters_api := {"p": {}}', f"external_processes := [{uses}]", containers=None)
    assert "too large" in offer(talk, rego).message()


def test_in_parity_mode_an_undefined_parameter_leaves_out_its_definition() -> None:
    talk = Talk(policy(fragments=[rule()], parity=True))
    assert offer(talk, with_parameters(API)).allowed
    assert code(talk.ask("mount_device", target="/run/mounts/scsi/m0", deviceHash="c" * 64)) == "layer"


def test_state_names_the_container_only_once_mounted() -> None:
    talk = Talk(policy(fragments=[rule()]))
    assert offer(talk, fragment()).allowed
    assert talk.state.candidates(ID) == ()
