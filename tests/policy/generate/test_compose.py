# SPDX-License-Identifier: Apache-2.0
"""Compose files: what is taken, what is refused, and what nerdctl makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parma_policy.generate.compose.interpolation import Unset, interpolate, read_env_file
from parma_policy.generate.problems import SourceError
from parma_policy.generate.run import Settings
from parma_policy.generate.source import ContainerOptions
from parma_policy.model import Container
from parma_wire.errors import Malformed
from tests.policy.generate.sources import accepts, containers, policies

Json = dict[str, Any]


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """The container of a file's only service."""

    def make(service: Json | str, *, top: Json | None = None, config: Json | None = None, **settings: Any) -> Container:
        path = tmp_path / "compose.yaml"
        if isinstance(service, str):
            path.write_text(service)
        else:
            path.write_text(
                json.dumps({"name": "shop", "services": {"web": {"image": "app:1", **service}}, **(top or {})})
            )
        (policy,) = policies(Settings(compose=path, **settings), **(config or {}))
        (container,) = containers(policy)
        return container

    return make


@pytest.fixture
def refused(made: Any) -> Any:
    def refuse(service: Json | str, **settings: Any) -> str:
        with pytest.raises(SourceError) as caught:
            made(service, **settings)
        return str(caught.value)

    return refuse


# -- variables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "1"),
        ("${A}", "1"),
        ("$$A", "$A"),
        ("$${A}", "${A}"),
        ("${B:-x}", "x"),
        ("${E:-x}", "x"),
        ("${E-x}", ""),
        ("${A:+x}", "x"),
        ("${B+x}", ""),
        ("${E+x}", "x"),
        ("${E:+x}", ""),
        ("${A:?no}", "1"),
        ("${E?no}", ""),
        ("${B:-${A}${C:-d}}", "1d"),
        ("a${A}b$A-c", "a1b1-c"),
        ("${B:-a:-b}", "a:-b"),
    ],
)
def test_references_as_in_the_compose_specification(text: str, expected: str) -> None:
    assert interpolate(text, {"A": "1", "E": ""}) == expected


@pytest.mark.parametrize("text", ["$B", "${B}", "${B:?no}", "${E:?no}", "$", "${", "${}", "${A", "${A|x}", "$1", "a$"])
def test_references_to_nothing_are_errors(text: str) -> None:
    with pytest.raises(Unset):
        interpolate(text, {"A": "1", "E": ""})


def test_files_of_variables(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(
        '# comment\n\nA=1 # c\nexport B = \'x # $A\' # c\nC="y\\n\\"$A\\$"\nD=${A}${X:-z}\nE=\nF=a=b\nG=a#b\n'
    )
    assert read_env_file(path, {}) == {
        "A": "1",
        "B": "x # $A",
        "C": 'y\n"1$',
        "D": "1z",
        "E": "",
        "F": "a=b",
        "G": "a#b",
    }


@pytest.mark.parametrize("line", ["A", "=1", "A='x", 'A="x" y', "A=$B", 'A="\\q"', "A B=1"])
def test_bad_lines_of_variables_are_refused_with_their_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "env"
    path.write_text(f"OK=1\n{line}\n")
    with pytest.raises(Malformed, match="line 2"):
        read_env_file(path, {})


def test_the_environment_of_the_caller_does_not_count(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "me")
    text = refused({"command": ["$WHO"], "environment": ["WHO"]})
    assert "services.web.command[0]" in text
    assert "variable WHO is not set" in text
    assert "WHO has no value" in text


def test_values_that_were_put_in_may_be_numbers_and_flags(made: Any, tmp_path: Path) -> None:
    (tmp_path / "v").write_text("RO=true\nV=012\n")
    service = (
        'services: {web: {image: "app:1", read_only: "${RO}", environment: {V: "${V}"}, privileged: "${P:-false}"}}'
    )
    found = made(service, compose_env=[tmp_path / "v"], project_name="p")
    assert accepts(found, "V=012")


def test_environment_as_mapping_or_list_and_files_before_it(made: Any, tmp_path: Path) -> None:
    (tmp_path / "service.env").write_text("A=file\nB=file\n")
    for environment in ({"A": "x", "N": 5}, ["A=x", "N=5"]):
        found = made({"environment": environment, "env_file": ["service.env"]})
        assert all(accepts(found, variable) for variable in ("A=x", "B=file", "N=5"))
        assert not accepts(found, "A=file")


def test_any_value_needs_no_value(made: Any) -> None:
    found = made({"environment": ["TOKEN"]}, options={"web": ContainerOptions(any_value=("TOKEN",))})
    assert accepts(found, "TOKEN=x")
    assert accepts(found, "HOSTNAME=web")
    assert not accepts(found, "HOSTNAME=other")


@pytest.mark.parametrize("value", ["true", "1.50", "012", "on", "{}", "[1]"])
def test_values_that_need_quotes_are_problems(refused: Any, value: str) -> None:
    text = f'name: shop\nservices:\n  web:\n    image: "app:1"\n    environment:\n      A: {value}\n'
    assert "services.web.environment.A (line 6)" in refused(text)


# -- what runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({}, ("/entry", "serve")),
        ({"command": "a 'b c' $$d"}, ("/entry", "a", "b c", "$d")),
        ({"command": ["a b", 5]}, ("/entry", "a b", "5")),
        ({"entrypoint": "/e x"}, ("/e", "x")),
        ({"entrypoint": ["/e"], "command": ["y"]}, ("/e", "y")),
    ],
)
def test_commands_and_images_merge_as_in_nerdctl(made: Any, service: Json, expected: tuple[str, ...]) -> None:
    assert made(service).command == expected


def test_health_checks_are_in_the_exec_list(made: Any) -> None:
    def commands(check: Json | None) -> list[tuple[str, ...]]:
        service = {} if check is None else {"healthcheck": check}
        found = made(service, config={"Healthcheck": {"Test": ["CMD", "/image"]}})
        return [process.command for process in found.exec_processes]

    assert commands(None) == [("/image",), ("/bin/sh", "-c", "/image")]
    assert commands({"interval": "5s"}) == commands(None)
    assert commands({"test": "curl x"}) == [("/bin/sh", "-c", "curl x")]
    assert commands({"test": ["CMD-SHELL", "a b"]}) == [("/bin/sh", "-c", "a b")]
    assert commands({"test": ["NONE"]}) == []
    assert commands({"disable": True}) == []


def test_security_is_that_of_nerdctl(made: Any, tmp_path: Path) -> None:
    usual = made({})
    assert usual.seccomp_profile_sha256
    assert not usual.no_new_privileges
    assert made({"security_opt": ["no-new-privileges:true"]}).no_new_privileges
    assert made({"security_opt": ["no-new-privileges"]}).no_new_privileges
    assert made({"security_opt": ["seccomp=unconfined"]}).seccomp_profile_sha256 == ""
    (tmp_path / "p.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    own = made({"security_opt": ["seccomp:p.json"]}).seccomp_profile_sha256
    assert own not in ("", usual.seccomp_profile_sha256)
    privileged = made({"privileged": True})
    assert privileged.allow_elevated
    assert privileged.seccomp_profile_sha256 == ""
    assert len(privileged.capabilities.bounding) == 41
    assert made({"cap_drop": ["ALL"], "cap_add": ["kill"]}).capabilities.bounding == ("CAP_KILL",)


def test_users_and_groups(made: Any) -> None:
    found = made({"user": "1000:1000", "group_add": [44, "45"]})
    assert found.user.user.pattern == "1000"
    assert {group.pattern for group in found.user.groups} == {"7", "44", "45", "1000"}
    assert made({"user": 1000}).user.user.pattern == "1000"


def test_mounts_are_those_that_nerdctl_asks_for(made: Any, tmp_path: Path) -> None:
    service = {
        "volumes": [
            "data:/data",
            "data:/ro:ro",
            "/anonymous",
            "./here:/here",
            {"type": "bind", "source": "./here", "target": "/there", "read_only": True},
            {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 1024, "mode": 511}},
        ],
        "tmpfs": ["/a:exec,size=1m", "/b/"],
        "configs": [{"source": "c", "target": "/etc/c"}],
        "secrets": ["s"],
    }
    top = {"volumes": {"data": None}, "configs": {"c": {"file": "c"}}, "secrets": {"s": {"file": "s"}}}
    host = str((tmp_path / "here").resolve())
    found = made(service, top=top, host_paths=frozenset({host}), config={"Volumes": {"/state": {}, "/data": {}}})
    by_destination = {mount.destination: (mount.source, mount.type, set(mount.options)) for mount in found.mounts}
    volume = "sandbox:///volumes/nerdctl/shop_data"
    assert by_destination["/data"] == (volume, "bind", {"rbind"})
    assert by_destination["/ro"] == (volume, "bind", {"ro", "rbind"})
    assert by_destination["/anonymous"][0].endswith("/[0-9a-f]{64}")
    assert by_destination["/here"][2] == {"rbind"}
    assert by_destination["/there"][2] == {"ro", "rprivate", "rbind"}
    assert by_destination["/t"] == ("tmpfs", "tmpfs", {"noexec", "nosuid", "nodev", "size=1024", "mode=777"})
    assert by_destination["/a"] == ("tmpfs", "tmpfs", {"exec", "nosuid", "nodev", "size=1m"})
    assert by_destination["/b"] == ("tmpfs", "tmpfs", {"noexec", "nosuid", "nodev"})
    assert by_destination["/etc/c"] == ("sandbox:///configs/c", "bind", {"ro", "rprivate", "rbind"})
    assert by_destination["/run/secrets/s"][0] == "sandbox:///secrets/s"
    assert by_destination["/state"][2] == {"rbind"}
    assert by_destination["/etc/hosts"][2] == {"bind", "rprivate"}


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ({"image": ""}, "services.web"),
        ({"foo": 1}, "services.web.foo"),
        ({"entrypoint": []}, "services.web.entrypoint"),
        ({"command": "'open"}, "services.web.command"),
        ({"network_mode": "host"}, "services.web.network_mode"),
        ({"pid": "host"}, "services.web.pid"),
        ({"ipc": "host"}, "services.web.ipc"),
        ({"init": True}, "services.web.init"),
        ({"devices": ["/dev/kvm"]}, "services.web.devices"),
        ({"deploy": {"resources": {"reservations": {"devices": [{}]}}}}, "services.web.deploy.resources.reservations"),
        ({"extends": {"service": "x"}}, "services.web.extends"),
        ({"platform": "linux/arm64"}, "services.web.platform"),
        ({"cap_add": ["FLY"]}, "services.web.cap_add[0]"),
        ({"group_add": ["staff"]}, "services.web.group_add[0]"),
        ({"stop_signal": "SIGNOT"}, "services.web.stop_signal"),
        ({"security_opt": ["apparmor=x"]}, "services.web.security_opt[0]"),
        ({"security_opt": ["seccomp=absent.json"]}, "services.web.security_opt[0]"),
        ({"security_opt": ["systempaths=unconfined"]}, "services.web.security_opt[0]"),
        ({"volumes": ["/etc:/e"]}, "services.web.volumes[0]"),
        ({"volumes": ["absent:/e"]}, "services.web.volumes[0]"),
        ({"volumes": [{"type": "npipe", "source": "x", "target": "/x"}]}, "services.web.volumes[0]"),
        ({"volumes": ["a:b:c:d"]}, "services.web.volumes[0]"),
        ({"configs": ["absent"]}, "services.web.configs[0]"),
        ({"env_file": "absent.env"}, "services.web.env_file"),
        ({"healthcheck": {"foo": 1}}, "services.web.healthcheck.foo"),
        ({"environment": {"A": "x\ny"}}, "services.web.environment.A"),
    ],
)
def test_what_cannot_be_honoured_is_a_problem(refused: Any, service: Json, path: str) -> None:
    assert f"  {path}" in refused(service)


def test_what_is_about_the_host_only_says_nothing(made: Any) -> None:
    service = {
        "ports": ["80:80"],
        "networks": ["n"],
        "restart": "always",
        "depends_on": ["x"],
        "labels": {"a": "b"},
        "mem_limit": "1g",
        "extra_hosts": ["a:1.2.3.4"],
        "x-own": {"whatever": ["on"]},
        "stdin_open": True,
        "deploy": {"resources": {"limits": {"cpus": "0.5"}}, "replicas": 2},
        "container_name": "c",
        "tty": True,
        "init": False,
    }
    assert made(service, top={"networks": {"n": {}}, "version": "3", "x-more": 1}) == made({})


@pytest.mark.parametrize("top", [{"include": ["x.yaml"]}, {"services": {}}, {"volumes": {"v": {"driver": "nfs"}}}])
def test_whole_files_that_cannot_be_honoured(refused: Any, top: Json) -> None:
    assert next(iter(top)) in refused({}, top=top)


def test_the_name_of_the_project_is_the_directorys_where_none_is_given(tmp_path: Path) -> None:
    folder = tmp_path / "My App.1"
    folder.mkdir()
    path = folder / "compose.yaml"
    path.write_text('services: {web: {image: "app:1", volumes: ["d:/d"]}}\nvolumes: {d: {}}\n')
    (policy,) = policies(Settings(compose=path))
    assert "volumes/nerdctl/myapp1_d" in policy.text
    (policy,) = policies(Settings(compose=path, project_name="other"))
    assert "volumes/nerdctl/other_d" in policy.text
