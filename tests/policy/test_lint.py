# SPDX-License-Identifier: Apache-2.0
"""Findings about policies: each rule finds its case, at its place, and leaves a good policy alone."""

from __future__ import annotations

from typing import Any

import pytest

from parma_policy.lint import RULES, Severity, lint
from parma_policy.lint.patterns import _top_level_alternation
from parma_policy.points import POINTS
from tests.policy.builders import capabilities, container, text

PROFILE = "5" * 64


def tidy(**changes: Any) -> dict[str, Any]:
    """A container with nothing to complain about."""
    good: dict[str, Any] = {
        "env_rules": [{"pattern": "PATH=/usr/bin:/bin", "strategy": "string", "required": True}],
        "mounts": [
            {"destination": "/d", "source": "sandbox:///tmp/empty/[0-9]+", "type": "bind", "options": ["rbind", "rw"]}
        ],
        "exec_processes": [{"command": ["/bin/app", "--status"], "signals": [9]}],
        "seccomp_profile_sha256": PROFILE,
    }
    return container(**{**good, **changes})


def env(pattern: str, strategy: str = "re2") -> dict[str, Any]:
    return {"env_rules": [{"pattern": pattern, "strategy": strategy, "required": False}]}


def user(**changes: Any) -> dict[str, Any]:
    return {"user": {**container()["user"], **changes}}


def rules_of(*containers: dict[str, Any], **definitions: Any) -> list[str]:
    return [finding.rule for finding in lint(text(*containers, **definitions).encode())]


def test_a_good_policy_has_no_findings() -> None:
    assert rules_of(tidy(), tidy(command=["/bin/other"])) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (env("A=1|B=2"), "alternation"),
        (env("(A|B)=[|]x|y"), "alternation"),
        (env("A=1\\$"), "unanchored"),
        (env("(?m)A=1"), "unanchored"),
        (env("URL=https://example.com/x[0-9]"), "unescaped-dot"),
        (env("IP=10.0.0.1?"), "unescaped-dot"),
        (env("A=1"), "plain-expression"),
        (env(".*"), "env-any"),
        (env(".+=.+"), "env-any"),
        (env("[A-Z_]+=(?s:.*)"), "env-any"),
        (env("HOSTNAME=.+"), "env-any-value"),
        (
            {"env_rules": [{"name": "A", "name_strategy": "string", "value": ".*", "value_strategy": "re2"}]},
            "env-any-value",
        ),
        ({"env_rules": [*env("A=1", "string")["env_rules"]] * 2}, "duplicate-rule"),
        (
            {"mounts": [{"destination": "/d", "source": "sandbox:///.+", "type": "bind", "options": []}]},
            "mount-any-source",
        ),
        ({"mounts": [{"destination": "/d", "source": "plan9://", "type": "bind", "options": []}]}, "dead-rule"),
        ({"mounts": [{"destination": "", "source": "/x", "type": "bind", "options": []}]}, "dead-rule"),
        (user(user_idname={"pattern": "", "strategy": "any"}), "user-any"),
        (user(user_idname={"pattern": "a(b|c)", "strategy": "re2"}), "user-expression"),
        (user(umask="0000"), "umask-open"),
        ({"allow_elevated": True}, "elevated"),
        ({"capabilities": capabilities(["CAP_SYS_ADMIN"])}, "capability"),
        ({"no_new_privileges": False}, "new-privileges"),
        ({"seccomp_profile_sha256": ""}, "seccomp"),
        ({"exec_processes": [{"command": ["/bin/sh"], "signals": []}]}, "shell"),
        ({"exec_processes": [{"command": [], "signals": []}]}, "dead-rule"),
        ({"exec_processes": [{"command": ["/a"], "signals": [n]} for n in (1, 2)]}, "duplicate-rule"),
        ({"command": ["/usr/bin/python3"]}, "stdio"),
        ({"command": []}, "dead-container"),
    ],
)
def test_each_finding_about_a_container(changes: dict[str, Any], rule: str) -> None:
    assert rules_of(tidy(**changes)) == [rule]


@pytest.mark.parametrize(
    ("definitions", "rule"),
    [
        ({"allow_dump_stacks": True}, "debug-flag"),
        ({"allow_runtime_logging": True}, "debug-flag"),
        ({"allow_unencrypted_scratch": True}, "debug-flag"),
        ({"allow_host_network": True}, "debug-flag"),
        ({"denials_show_arguments": True}, "debug-flag"),
        ({"denials_show_environment": True}, "debug-flag"),
        ({"allow_properties_access": True}, "properties"),
        ({"permissive": True}, "permissive"),
        ({"api_version": "0.13.0"}, "version"),
        ({"api_version": None}, "version"),
        ({"api_version": "0.11.0"}, "version"),
        ({"framework_version": "0.6.0"}, "version"),
        ({"framework_version": 5}, "version"),
        ({"fragments": [{"issuer": "i", "feed": "f", "minimum_svn": 0, "includes": ["containers"]}]}, "fragment"),
        ({"fragments": [{"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": []}]}, "dead-rule"),
        ({"fragments": [{"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": ["fragments"]}]}, "fragment"),
        (
            {
                "external_processes": [
                    {"command": ["x"], "env_rules": [], "working_dir": "/", "allow_stdio_access": False},
                ]
            },
            "elevated",
        ),
    ],
)
def test_each_finding_about_a_policy(definitions: dict[str, Any], rule: str) -> None:
    assert rules_of(tidy(), **definitions) == [rule]


def test_a_missing_rule_is_found() -> None:
    found = lint(text(tidy(), without=["mount_overlay", "dump_stacks"]).encode())
    assert {(finding.rule, finding.severity) for finding in found} == {
        ("no-rule", Severity.WARNING),
        ("no-rule", Severity.INFO),
    }


@pytest.mark.parametrize(
    ("second", "rule"),
    [
        ({}, "duplicate-container"),
        ({"name": "other"}, "duplicate-container"),
        ({"allow_stdio_access": False}, "ambiguous"),
        ({"attestation": ["/attest/raw"]}, "ambiguous"),
    ],
)
def test_containers_that_requests_cannot_tell_apart(second: dict[str, Any], rule: str) -> None:
    assert rules_of(tidy(), tidy(**second)) == [rule]


def test_containers_that_dropping_cannot_tell_apart() -> None:
    one, other = tidy(**env("A=1", "string")), tidy(**env("B=1", "string"))
    assert rules_of(one, other) == []
    assert rules_of(one, other, allow_environment_variable_dropping=True) == ["ambiguous"]


def test_a_policy_that_does_not_load_has_one_finding_at_its_place() -> None:
    (finding,) = lint(b"package policy\n\nallow_x {\n")
    assert (finding.rule, finding.severity, finding.line) == ("load", Severity.ERROR, 3)
    (finding,) = lint(b"")
    assert finding.rule == "load"


def provided(source: str, destination: str = "/settings", **more: Any) -> dict[str, Any]:
    return {"destination": destination, "source": source, "type": "bind", "options": ["rbind", "ro"], **more}


MAP = "sandbox:///volumes/configmap/settings"
PIN = {"sha256": "d" * 64}


@pytest.mark.parametrize(
    ("mount", "rules"),
    [
        (provided(MAP), []),
        (provided(MAP, updates=True), []),
        (provided(MAP, "/usr/local/bin/app"), ["host-code"]),
        (provided(MAP, "/usr"), ["host-code"]),
        (provided(MAP, "/"), ["host-code"]),
        (provided(MAP, "/usrlocal"), []),
        (provided(MAP, "/usr/local/bin/app", **PIN), []),
        (provided(MAP, "/etc/ssl/certs", updates=True), ["host-trust", "host-updates"]),
        (provided(r"sandbox:///host/srv/authorized\.keys", "/root/.ssh/authorized_keys"), ["host-trust"]),
        (provided("sandbox:///volumes/empty-dir/bin", "/usr/local/bin"), []),
        (provided("sandbox:///volumes/secret/tls", "/tls"), ["host-secret"]),
        (provided("sandbox:///volumes/secret/tls", "/tls", **PIN), []),
        (provided(r"sandbox:///etc/resolv\.conf", "/etc/resolv.conf"), []),
        (provided(r"sandbox:///etc/resolv\.conf", "/etc/resolv.conf", updates=True), ["host-updates"]),
        (provided("sandbox:///tmp/atlas/emptydir/.+", "/cache"), []),
        (provided("sandbox:///volumes/.+", "/data"), ["mount-wide-source"]),
        (provided("sandbox:///host/.+", "/data"), ["mount-wide-source"]),
        (provided("sandbox:///host/[a-z]+", "/data"), []),
        (provided("sandbox:///.+", "/data"), ["mount-any-source"]),
        (provided("sandbox:///.+", "/opt/app"), ["host-code", "mount-any-source"]),
    ],
)
def test_files_of_the_host(mount: dict[str, Any], rules: list[str]) -> None:
    assert sorted(rules_of(tidy(mounts=[mount]))) == rules


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (provided(MAP, updates=True), provided(MAP, **PIN)),
        (provided(MAP, updates=True), provided(MAP)),
        (provided("sandbox:///volumes/configmap/[a-z]+", updates=True), provided(MAP, **PIN)),
        (provided(MAP, **PIN), provided(MAP, updates=True)),
    ],
)
def test_updates_that_another_container_forbids_are_found(first: dict[str, Any], second: dict[str, Any]) -> None:
    data = text(tidy(mounts=[first]), tidy(command=["/bin/other"], mounts=[second])).encode()
    (finding,) = lint(data)
    assert (finding.rule, finding.severity) == ("dead-rule", Severity.WARNING)
    assert finding.path.endswith("mounts[0].updates")


def test_pins_that_contradict_each_other_are_found_at_both() -> None:
    mounts = [provided(MAP, **PIN), provided(MAP, "/other", sha256="e" * 64)]
    assert [finding.path for finding in lint(text(tidy(mounts=mounts)).encode())] == [
        "containers[0].mounts[0].sha256",
        "containers[0].mounts[1].sha256",
    ]
    assert rules_of(tidy(mounts=[provided(MAP, **PIN), provided(MAP, "/other", **PIN)])) == []


def test_a_finding_says_where() -> None:
    source = text(tidy(), tidy(command=["/b"], **env("A=1|B=2")))
    (finding,) = lint(source.encode())
    assert finding.path == "containers[1].env_rules[0].pattern"
    line = source.splitlines()[finding.line - 1]
    assert line[finding.column - 1 :].startswith('"A=1|B=2"')


def test_every_rule_is_documented() -> None:
    assert all(RULES.values())
    assert POINTS


@pytest.mark.parametrize(
    ("expression", "escapes"),
    [
        ("a|b", True),
        ("(a|b)", False),
        ("(a|b)|c", True),
        ("[a|b]", False),
        ("[]|]x", False),
        ("[^]|]x", False),
        ("[[:alpha:]|]", False),
        ("a\\|b", False),
        ("a\\\\|b", True),
        ("\\Qa|b\\E", False),
        ("\\Qa|b", False),
        ("", False),
        ("[", False),
    ],
)
def test_alternations_at_the_top_are_told_from_others(expression: str, escapes: bool) -> None:
    assert _top_level_alternation(expression) is escapes
