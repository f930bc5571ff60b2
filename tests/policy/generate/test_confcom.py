# SPDX-License-Identifier: Apache-2.0
"""confcom's input, in both of its forms."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from parma_policy.generate import seccomp_profiles
from parma_policy.generate.problems import SourceError
from parma_policy.generate.run import Settings
from tests.policy.generate.sources import accepts, containers, loaded, policies

Json = dict[str, Any]


def settings(path: Path, *given: Json, **top: Any) -> Settings:
    path = path / "input.json"
    path.write_text(json.dumps({"version": "1.0", "containers": list(given), **top}))
    return Settings(confcom=path)


def newer(**properties: Any) -> Json:
    return {"name": "c", "properties": {"image": "app:1", **properties}}


def older(**members: Any) -> Json:
    return {"containerImage": "app:1", "environmentVariables": [], "command": [], **members}


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    first = newer(
        command=["/c"],
        environmentVariables=[{"name": "A", "value": "x.*", "regex": True}],
        volumeMounts=[{"name": "v", "mountPath": "/v", "mountType": "emptyDir", "readOnly": True}],
        securityContext={"privileged": True},
    )
    second = older(
        id="c",
        command=["/c"],
        environmentVariables=[{"name": "A", "value": "x.*", "strategy": "re2"}],
        mounts=[{"mountPath": "/v", "mountType": "emptyDir", "readonly": True}],
        allow_elevated=True,
    )
    (made,) = policies(settings(tmp_path, first, second))
    (container,) = containers(made)  # the second allows nothing more
    assert container.command == ("/c",)
    assert container.allow_elevated
    assert accepts(container, "A=xyz")
    assert not accepts(container, "A=yx")
    assert container.mounts[0].source == "sandbox:///tmp/atlas/emptydir/.+"
    assert set(container.mounts[0].options) == {"rbind", "rshared", "ro"}


def test_an_alternation_does_not_escape_its_variable(tmp_path: Path) -> None:
    (made,) = policies(settings(tmp_path, newer(environmentVariables=[{"name": "A", "value": "b|c", "regex": True}])))
    (container,) = containers(made)
    assert accepts(container, "A=b")
    assert accepts(container, "A=c")
    assert not accepts(container, "A=bX")
    assert not accepts(container, "c")


def test_fragments_become_rules(tmp_path: Path) -> None:
    fragment = {"issuer": "did:x509:0:sha256:a::eku:1.2", "feed": "f/g", "minimum_svn": "4", "includes": ["containers"]}
    (made,) = policies(settings(tmp_path, newer(), fragments=[fragment]))
    (rule,) = loaded(made).fragments
    assert (rule.issuer, rule.feed, rule.includes) == (fragment["issuer"], "f/g", frozenset(["containers"]))


def test_probes_signals_secrets_and_the_profile_are_taken(tmp_path: Path) -> None:
    profile = b'{"defaultAction": "SCMP_ACT_ALLOW"}'
    given = newer(
        execProcesses=[{"command": ["/e"], "signals": [18, 9]}],
        livenessProbe={"exec": {"command": ["/live"]}, "periodSeconds": 5},
        readinessProbe={"httpGet": {"path": "/", "port": 80}},
        environmentVariables=[{"name": "S", "secureValue": "hidden"}],
        securityContext={"seccompProfile": base64.b64encode(profile).decode()},
    )
    (made,) = policies(settings(tmp_path, given))
    (container,) = containers(made)
    asked, probe = container.exec_processes
    assert (asked.command, probe.command) == (("/e",), ("/live",))
    assert 18 in asked.signals
    assert 18 not in probe.signals | container.signals
    assert accepts(container, "S=hidden")
    (tmp_path / "profile.json").write_bytes(profile)
    assert container.seccomp_profile_sha256 == seccomp_profiles.from_file(tmp_path / "profile.json")


def test_an_empty_profile_is_none(tmp_path: Path) -> None:
    (made,) = policies(settings(tmp_path, newer(securityContext={"seccompProfile": ""})))
    assert containers(made)[0].seccomp_profile_sha256 == ""


@pytest.mark.parametrize(
    ("container", "top", "path"),
    [
        (newer(execProcesses=[{"command": ["/e"], "signals": [65]}]), {}, "execProcesses[0].signals[0]"),
        (newer(execProcesses=[{"signals": [9]}]), {}, "execProcesses[0]: no command"),
        (newer(livenessProbe={"exec": {}}), {}, "livenessProbe.exec: no command"),
        (newer(readinessProbe={"grpc": {}}), {}, "readinessProbe.grpc"),
        (newer(securityContext={"seccompProfile": "?"}), {}, "seccompProfile: not base64"),
        (newer(securityContext={"seccompProfile": "e30="}), {}, "securityContext.seccompProfile: the profile"),
        (newer(environmentVariables=[{"name": "A", "value": "x", "secureValue": "y"}]), {}, "both value and secureV"),
        (newer(workingDir="relative"), {}, "containers[0]: the working directory"),
        (newer(volumeMounts=[{"mountPath": "/proc/x", "mountType": "emptyDir"}]), {}, "'/proc/x'"),
        (newer(), {"version": "2.0"}, "only version 1.0"),
        (newer(), {"scenario": "vn2"}, "scenario"),
        (newer(), {"resources": []}, "an ARM template"),
        (newer(foo=1), {}, "containers[0].properties.foo"),
        ({"name": "c", "properties": {}}, {}, "'image' is missing"),
        (older(foo=1), {}, "containers[0].foo"),
        (newer(environmentVariables=[{"name": "A", "value": "(", "regex": True}]), {}, "RE2 refuses"),
        (newer(environmentVariables=[{"name": "A", "value": "x", "strategy": "glob"}]), {}, "strategy glob"),
        (newer(volumeMounts=[{"mountPath": "/v", "mountType": "nfs"}]), {}, "mountType nfs"),
        (newer(securityContext={"capabilities": {"add": ["FLY"]}}), {}, "capabilities.add[0]"),
        (newer(securityContext={"runAsUser": "5"}), {}, "securityContext.runAsUser"),
        (newer(securityContext={"runAsNonRoot": True}), {}, "must not run as root"),
    ],
)
def test_what_cannot_be_honoured_is_a_problem(tmp_path: Path, container: Json, top: Json, path: str) -> None:
    with pytest.raises(SourceError) as caught:
        policies(settings(tmp_path, container, **top))
    assert path in str(caught.value)
