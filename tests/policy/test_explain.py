# SPDX-License-Identifier: Apache-2.0
"""``parma policy explain``: a denial read back, its place, and a change that really lets the request pass."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_policy.advice import advise
from parma_policy.advice.denial import read
from parma_policy.framework import Decision
from parma_policy.reader import load
from parma_wire.errors import Malformed
from tests.policy.builders import ID, VECTORS, Talk, capabilities, container, creation, execution, text
from tests.policy.test_cli import parma

SHOWING: dict[str, Any] = {"denials_show_arguments": True, "denials_show_environment": True}
MOUNT = {"destination": "/new, x", "source": '/a "b"', "type": "bind", "options": ["rbind", "ro"]}
CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"argList": ["/bin/app", "--debug"]}, "command"),
    ({"argList": []}, "command"),
    ({"workingDir": '/x "y"'}, "working_dir"),
    ({"user": {"id": "7", "name": 'a "b'}}, "user"),
    ({"groups": [{"id": "1000", "name": ""}, {"id": "8", "name": ""}]}, "group"),
    ({"umask": "0077"}, "umask"),
    ({"noNewPrivileges": False}, "no_new_privileges"),
    ({"privileged": True}, "privileged"),
    ({"mounts": [MOUNT]}, "mounts"),
    ({"seccompProfileSHA256": "6" * 64}, "seccomp"),
    ({"envList": ["PATH=/usr/bin:/bin", 'A="1", 2']}, "env"),
    ({"envList": []}, "env_required"),
]


FILES = f"/run/gcs/c/{ID}/sandboxMounts/volumes/configmap/settings"


def provide(rego: str, *digests: str) -> tuple[Decision, dict[str, Any]]:
    """What the last of several deliveries gets, and the request that it is."""
    talk, decision = Talk(load(rego.encode())), None
    for number, digest in enumerate(digests):
        request = {
            "containerID": ID,
            "sandboxDir": f"/run/gcs/c/{ID}/sandboxMounts",
            "source": FILES,
            "files": [{"path": "colour", "sha256": digest}],
            "update": number > 0,
        }
        decision = talk.ask("provide_files", request)
    assert decision is not None
    return decision, request


def mounting(**more: Any) -> dict[str, Any]:
    source = "sandbox:///volumes/configmap/settings"
    mount = {"destination": "/settings", "source": source, "type": "bind", "options": ["rbind", "ro"], **more}
    return container(mounts=[mount])


@pytest.mark.parametrize("before", [{}, {"updates": False}])
def test_files_that_may_not_change_may_after_the_suggested_change(before: dict[str, bool]) -> None:
    rego = text(mounting(**before))
    decision, request = provide(rego, "a" * 64, "b" * 64)
    for asked in (decision.message(), json.dumps({"call": "provide_files", "input": request})):
        advice = advise(rego.encode(), asked)
        assert advice.codes == ("provided_update",)
        assert advice.text is not None
        assert provide(advice.text, "a" * 64, "b" * 64)[0].allowed


def test_files_that_are_fixed_are_fixed_anew_where_the_request_is_known() -> None:
    rego = text(mounting(sha256={"colour": "a" * 64}))
    decision, request = provide(rego, "b" * 64)
    advice = advise(rego.encode(), json.dumps({"call": "provide_files", "input": request}))
    assert advice.codes == ("provided_content",)
    assert advice.text is not None
    assert provide(advice.text, "b" * 64)[0].allowed
    assert not provide(advice.text, "a" * 64)[0].allowed
    assert advise(rego.encode(), decision.message()).text is None  # a message does not say what the files were


@pytest.mark.parametrize("before", [{}, {"forward_ports": [9]}])
def test_a_port_is_listed_by_the_suggested_change(before: dict[str, Any]) -> None:
    rego = text(container(), **before)
    request = {"port": 8080}
    for asked in (
        Talk(load(rego.encode())).ask("forward_port", request).message(),
        json.dumps({"call": "forward_port", "input": request}),
    ):
        advice = advise(rego.encode(), asked)
        assert advice.codes == ("port",)
        assert advice.text is not None
        assert load(advice.text.encode()).forward_ports == {8080, *before.get("forward_ports", ())}


def ask(rego: str, point: str, request: Any) -> Decision:
    talk = Talk(load(rego.encode())).prepared()
    if point != "create_container":
        assert talk.ask("create_container", creation()).allowed
    return talk.ask(point, request)


@pytest.mark.parametrize(("change", "code"), CHANGES)
def test_the_suggested_change_lets_the_request_pass(change: dict[str, Any], code: str) -> None:
    rego = text(container(command=["/other"], working_dir="/o"), container(), **SHOWING)
    denial = ask(rego, "create_container", creation(**change))
    seen = f"ctr: failed to create shim task: {denial.message()}: permission denied\n"
    advice = advise(rego.encode(), seen)
    assert advice.codes == (code,)
    assert advice.where.startswith("containers[1].")
    assert advice.text is not None
    assert ask(advice.text, "create_container", creation(**change)).allowed
    assert advice.diff.startswith("--- policy\n+++ policy, changed\n")
    assert rego.splitlines()[advice.line - 1].startswith("containers :=")


@pytest.mark.parametrize(("change", "code"), [*CHANGES, ({"capabilities": capabilities(["CAP_KILL"])}, "capabilities")])
def test_a_whole_request_is_enough_whatever_denials_show(change: dict[str, Any], code: str) -> None:
    rego, request = text(), creation(**change)
    advice = advise(rego.encode(), json.dumps({"call": "create_container", "input": request}))
    assert advice.codes[0] == code
    assert advice.complete
    assert advice.text is not None
    assert ask(advice.text, "create_container", request).allowed


def test_several_rules_that_fail_are_changed_together() -> None:
    request = creation(workingDir="/w", umask="0077", envList=["A=1", "B=2"], mounts=[MOUNT])
    advice = advise(text().encode(), json.dumps({"call": "create_container", "input": request}))
    assert set(advice.codes) == {"working_dir", "umask", "mounts", "env", "env_required"}
    assert advice.complete
    assert advice.text is not None
    assert ask(advice.text, "create_container", request).allowed


@pytest.mark.parametrize(
    ("point", "request_"),
    [
        ("exec_in_container", execution(argList=["/bin/ls", "-l"])),
        ("signal_container_process", {"containerID": ID, "signal": 1, "isInitProcess": True, "argList": []}),
        ("signal_container_process", {"containerID": ID, "signal": 1, "isInitProcess": False, "argList": ["/bin/sh"]}),
        ("get_properties", {}),
        ("dump_stacks", {}),
        ("scratch_mount", {"target": "/s", "encrypted": False}),
    ],
)
def test_other_points_are_explained_too(point: str, request_: Any) -> None:
    rego = text(**SHOWING)
    denial = ask(rego, point, request_)
    for seen in (denial.message(), json.dumps({"call": point, "input": request_})):
        advice = advise(rego.encode(), seen)
        assert advice.text is not None
        assert ask(advice.text, point, request_).allowed


def test_a_missing_rule_is_added() -> None:
    rego = text(without=["get_properties"], allow_properties_access=True)
    advice = advise(rego.encode(), ask(rego, "get_properties", {}).message())
    assert advice.text is not None
    assert ask(advice.text, "get_properties", {}).allowed


def test_hidden_values_are_not_guessed() -> None:
    rego = text()
    advice = advise(rego.encode(), ask(rego, "create_container", creation(argList=["/bin/app", "--x", "y"])).message())
    assert (advice.codes, advice.where, advice.text) == (("command",), "containers[0].command[1]", None)


def test_what_a_change_opens_is_said() -> None:
    rego = text(container(exec_processes=[]))
    request = {"call": "exec_in_container", "input": execution(argList=["/bin/sh"])}
    advice = advise(rego.encode(), json.dumps(request))
    assert "shell" in {finding.rule for finding in advice.findings}


def test_a_request_that_is_allowed_is_said_to_be() -> None:
    advice = advise(text().encode(), json.dumps({"call": "create_container", "input": creation()}))
    assert advice.codes == ()
    assert advice.complete


# -- the reference enforcer's denials ----------------------------------------------------------------------------


def envelope(document: Any) -> str:
    return f"failed: policyDecision< {base64.b64encode(json.dumps(document).encode()).decode()} >policyDecision: x"


def test_a_denial_of_the_reference_enforcer_is_understood() -> None:
    given = {"rule": "create_container", **creation(workingDir="/w", envList=["PATH=<<redacted>>"])}
    document = {"decision": "deny", "input": given, "reason": {"errors": ["invalid working directory"]}}
    advice = advise(text().encode(), envelope(document))
    assert advice.point == "create_container"
    assert "working_dir" in advice.codes
    assert advice.text is not None
    assert '"/w"' in advice.diff


def test_abbreviated_capabilities_are_spelled_out() -> None:
    given = {"rule": "create_container", **creation(capabilities=dict.fromkeys(capabilities(), "[privileged]"))}
    advice = advise(text().encode(), envelope({"input": given, "reason": {"errors": ["capabilities don't match"]}}))
    assert advice.codes[0] == "capabilities"


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        (["invalid command"], "command"),
        (["invalid env list: A,B"], "env"),
        (["deviceHash not found"], "layer"),
        (["target isn't allowed to receive the signal"], "signal"),
    ],
)
def test_topics_alone_say_which_rules_it_may_have_been(errors: list[str], code: str) -> None:
    advice = advise(text().encode(), envelope({"decision": "deny", "reason": {"errors": errors}}))
    assert code in advice.codes
    assert advice.text is None


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the recorded conversations are not beside the checkout")
def test_recorded_denials_of_the_reference_enforcer_are_read() -> None:
    seen = 0
    for path in VECTORS.glob("decision-text__*.json"):
        for step in json.loads(path.read_text())["steps"]:
            document = step["expect"].get("decision")
            if document:
                denial = read(envelope(document))
                assert denial.point or denial.topics or "truncated" in document
                seen += 1
    assert seen


# -- nonsense ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seen",
    [
        "",
        "permission denied",
        "no_such_point denied: x [command]",
        "create_container denied: x [no_such_code]",
        "policyDecision< !! >policyDecision",
        envelope([1]),
        envelope({"decision": "deny", "truncated": ["input", "reason"]}),
        envelope({"decision": "deny", "reason": {"errors": ["a reason of a rule of their own"]}}),
        '{"call": "x", "input": {}}',
    ],
)
def test_what_is_no_denial_is_malformed(seen: str) -> None:
    with pytest.raises(Malformed):
        advise(text().encode(), seen)


@given(st.text(max_size=80), st.sampled_from(["command", "mounts", "env", "user", "signal", "seccomp"]))
def test_any_text_between_is_read_or_refused(body: str, code: str) -> None:
    denial = read(f"create_container denied: {body} [{code} at containers[0].command]")
    assert denial.point == "create_container" or "denied: " in body


def test_the_command_prints_writes_and_says_when_it_cannot_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rego, out = tmp_path / "p.rego", tmp_path / "new.rego"
    rego.write_text(text())
    message = ask(text(), "create_container", creation(workingDir="/w")).message()
    assert parma("policy", "explain", rego, message, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "working_dir: Another working directory." in printed
    assert f"{rego}:5:" in printed
    assert ask(out.read_text(), "create_container", creation(workingDir="/w")).allowed
    seen = tmp_path / "seen"
    seen.write_text(ask(text(), "create_container", creation(argList=["/bin/app", "x"])).message())
    assert parma("policy", "explain", "--file", seen, rego) == 1
    assert "No change can be suggested" in capsys.readouterr().out
    assert parma("policy", "explain", "--json", "--file", seen, rego) == 1
    assert json.loads(capsys.readouterr().out)["codes"][0]["code"] == "command"
    with pytest.raises(Malformed, match="no change to write"):
        parma("policy", "explain", "--file", seen, rego, "--out", out)
