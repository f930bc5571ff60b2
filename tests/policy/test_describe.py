# SPDX-License-Identifier: Apache-2.0
"""``parma policy show`` and ``hash``: the words are about the policy that was given, and the hash is of every byte."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from parma_policy.annotation import to_annotation
from parma_policy.describe import describe
from parma_policy.points import closed_door
from parma_policy.reader import load
from parma_wire.errors import Malformed
from tests.policy.builders import capabilities, container, policy, text
from tests.policy.test_cli import parma


def test_what_may_run_is_said() -> None:
    said = describe(policy(container(name="web")))
    for words in (
        "1 container may run:",
        "containers[0] (web): an image of 3 layers, running",
        '"/bin/app" "--serve"',
        "in /srv as user 1000 with groups 1000, new files with umask 0022",
        "PATH=/usr/bin:/bin (required)",
        "HOSTNAME=.+ (expression)",
        "/data from sandbox:///tmp/empty/.+ (bind, rbind, rshared, rw)",
        '"/bin/sh" (KILL, TERM)',
        "signals: TERM",
        "containerd's default capabilities",
        "input and output: with the host",
    ):
        assert words in said


FLAGS = {
    "allow_properties_access": "see statistics",
    "allow_runtime_logging": "see the enforcer's log",
    "allow_dump_stacks": "see the enforcer's stacks",
    "allow_host_network": "own network",
    "allow_unencrypted_scratch": "not encrypted",
}


@pytest.mark.parametrize(("flag", "words"), FLAGS.items())
def test_a_flag_moves_its_words_from_nobody_to_the_host(flag: str, words: str) -> None:
    for on in (False, True):
        change: dict[str, Any] = {flag: on}
        may, _, may_not = describe(policy(**change)).partition("Nobody may")
        assert (words in may.partition("The host may")[2]) is on
        assert (words in may_not) is not on


def test_ports_move_their_words_from_nobody_to_the_host() -> None:
    for ports, words in (([8080], "connect to port 8080 on"), ([9, 8], "connect to ports 8, 9 on")):
        may, _, may_not = describe(policy(forward_ports=ports)).partition("Nobody may")
        assert words in may.partition("The host may")[2]
        assert "loopback" not in may_not
    assert "connect to what containers serve on their loopback" in describe(policy()).partition("Nobody may")[2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"allow_elevated": True}, "possibly privileged"),
        ({"no_new_privileges": False}, "set-uid programs may gain privileges"),
        ({"capabilities": None}, "default capabilities"),
        ({"capabilities": capabilities([])}, "no capabilities"),
        ({"capabilities": capabilities(["CAP_KILL"])}, "the capabilities CAP_KILL"),
        ({"allow_stdio_access": False}, "input and output: none"),
        ({"signals": [], "exec_processes": []}, "later commands: none"),
        ({"signals": [64, 1]}, "signals: HUP, RTMAX"),
        ({"attestation": ["/attest/raw"]}, "attestation: /attest/raw"),
        ({"attestation": []}, "attestation: none"),
        ({}, "attestation: /dev/sev-guest, UVM_SECURITY_CONTEXT_DIR (as the cloud gives everyone)"),
        ({"env_rules": []}, "environment: no variables"),
        ({"user": {**container()["user"], "group_idnames": []}}, "user 1000 without groups"),
        (
            {"user": {**container()["user"], "user_idname": {"pattern": "a.*", "strategy": "re2"}}},
            "user whose name matches a.*",
        ),
    ],
)
def test_each_property_of_a_container_is_said(changes: dict[str, Any], words: str) -> None:
    assert words in describe(policy(container(**changes)))


def test_what_is_of_no_use_or_permissive_says_so_first() -> None:
    assert "IT IS PERMISSIVE" in describe(policy(permissive=True))
    assert "IT IS OF NO USE: framework_version" in describe(policy(framework_version="9.0.0"))
    assert "No containers may run." in describe(load(closed_door().encode()))


def test_what_others_may_add_is_said() -> None:
    fragment = {"issuer": "did:x", "feed": "f", "minimum_svn": 3, "includes": ["containers"]}
    external = {"command": ["/x"], "env_rules": [], "working_dir": "/", "allow_stdio_access": False}
    said = describe(policy(fragments=[fragment], external_processes=[external]))
    assert "may add containers by its feed f" in said
    assert "outside of the containers" in said
    assert "add to this policy" not in said


# -- hash --------------------------------------------------------------------------------------------------------


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.rego"
    path.write_bytes(text().encode())
    return path


def test_the_hash_is_the_same_from_everywhere(
    policy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = policy_file.read_bytes()
    digest = hashlib.sha256(data).digest()
    annotation = tmp_path / "annotation"
    annotation.write_text(to_annotation(data) + "\n")
    forms: list[list[str | Path]] = [
        [policy_file],
        ["--annotation", annotation],
        ["--annotation-text", to_annotation(data)],
        ["--annotation-text", to_annotation(data, compress=False)],
        ["-"],
        [],
    ]
    for form in forms:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert parma("policy", "hash", *form) == 0
        assert capsys.readouterr().out == f"{digest.hex()}\n{base64.b64encode(digest).decode()}\n"
    assert parma("policy", "hash", "--hex", policy_file) == 0
    assert capsys.readouterr().out == f"{digest.hex()}\n"
    assert parma("policy", "hash", "--json", policy_file) == 0
    assert json.loads(capsys.readouterr().out) == {
        "sha256": digest.hex(),
        "hex": digest.hex(),
        "base64": base64.b64encode(digest).decode(),
        "bytes": len(data),
    }


def test_every_byte_counts(policy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parma("policy", "hash", policy_file)
    before = capsys.readouterr().out
    policy_file.write_bytes(policy_file.read_bytes() + b"\n")
    parma("policy", "hash", policy_file)
    assert capsys.readouterr().out != before


@pytest.mark.parametrize("data", [b"", b"nonsense"])
def test_what_the_guest_refuses_has_no_hash(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "p.rego"
    path.write_bytes(data)
    with pytest.raises(Malformed):
        parma("policy", "hash", path)
    path.write_bytes(b"\xff")
    with pytest.raises(Malformed, match="base64"):
        parma("policy", "hash", "--annotation", path)


def test_show_prints_either_form(policy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma("policy", "show", policy_file) == 0
    assert hashlib.sha256(policy_file.read_bytes()).hexdigest() in capsys.readouterr().out
    assert parma("policy", "show", "--json", policy_file) == 0
    assert json.loads(capsys.readouterr().out)["containers"][0]["command"] == ["/bin/app", "--serve"]


def test_check_says_permissive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.rego"
    path.write_text(text(permissive=True))
    assert parma("policy", "check", path) == 0
    assert "Switched on: permissive" in capsys.readouterr().out
    assert parma("policy", "show", "--json", path) == 0
    assert json.loads(capsys.readouterr().out)["flags"]["permissive"] is True


def test_lint_prints_findings_and_fails_as_told(policy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma("policy", "lint", policy_file) == 1
    assert "[shell]" in capsys.readouterr().out
    assert parma("policy", "lint", "--ignore", "shell", "--ignore", "env-any-value", policy_file) == 0
    assert parma("policy", "lint", "--fail-on", "never", "--json", policy_file) == 0
    assert parma("policy", "lint", "--fail-on", "info", "--ignore", "shell", policy_file) == 1
    capsys.readouterr()
    assert parma("policy", "lint", "--json", "--fail-on", "never", policy_file) == 0
    assert {finding["rule"] for finding in json.loads(capsys.readouterr().out)} >= {"shell", "seccomp"}
    assert parma("policy", "lint", "--rules") == 0
    assert "alternation" in capsys.readouterr().out
    for wrong in (["lint"], ["lint", "--ignore", "nothing", policy_file]):
        with pytest.raises(Malformed):
            parma("policy", *wrong)
