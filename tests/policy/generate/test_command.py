# SPDX-License-Identifier: Apache-2.0
"""``parma policy generate`` with real image archives."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from parma_policy.generate import Mount
from parma_policy.generate.command import of_host, parse_mount
from parma_policy.generate.layer_facts import account_files
from parma_policy.layers.convert import root_hash
from parma_policy.reader import load
from parma_wire.errors import Malformed, NotFound, ParmaError, Unverified
from tests.policy.generate.builders import BASE, TOP, Files, app_image, archive, layer_tar, parma

ASKED = "asked for on the command line"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test uses the machine's own cache."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory))
    return directory


def test_generate_makes_a_policy_for_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma("policy", "generate", "--image-archive", archive(tmp_path / "image.tar", [BASE, TOP])) == 0
    (container,) = load(capsys.readouterr().out.encode()).containers.containers
    assert container.command == ("/app",)
    assert container.layers == (root_hash(io.BytesIO(BASE)), root_hash(io.BytesIO(TOP)))
    assert container.user.user.pattern == "5"
    assert [group.pattern for group in container.user.groups] == ["6", "7"]


def test_generate_takes_every_option(tmp_path: Path) -> None:
    out = tmp_path / "policy.rego"
    options = ["--command", '["/bin/sh", "-c", "x"]', "--exec", '["/bin/true"]', "--exec", '["/bin/false"]']
    options += ["--env", "A=1", "--signal", "USR2", "--signal", "30", "--user", "app", "--cwd", "/w", "--no-stdio"]
    options += ["--mount", "type=bind,src=/a.d,dst=/b,options=rbind:ro", "--allow-host-path", "/a.d"]
    options += ["--no-properties", "--runtime-logging", "--forward-port", "8080", "--forward-port", "9"]
    source = archive(tmp_path / "image.tar", [BASE])
    assert parma("policy", "generate", "--image-archive", source, *options, "--out", out) == 0
    loaded = load(out.read_bytes())
    (container,) = loaded.containers.containers
    assert container.command == ("/bin/sh", "-c", "x")
    assert [process.command for process in container.exec_processes] == [("/bin/true",), ("/bin/false",)]
    assert container.env_rules.accepts("A=1")
    assert {12, 30} <= container.signals
    assert (container.working_dir, container.allow_stdio_access) == ("/w", False)
    assert (container.mounts[0].destination, container.mounts[0].source) == ("/b", "sandbox:///host/a\\.d")
    assert (loaded.flags.allow_properties_access, loaded.flags.allow_runtime_logging) == (False, True)
    assert loaded.forward_ports == {8080, 9}
    assert out.stat().st_mode & 0o777 == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"policy.rego", "image.tar"}


def test_a_layer_that_is_not_what_the_image_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unverified, match="not what its configuration says"):
        parma("policy", "generate", "--image-archive", archive(tmp_path / "image.tar", [BASE], lie=True))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], Malformed),
        (["--image-archive", "/nonexistent.tar"], NotFound),
        (["--image", "x", "--containerd", "/nonexistent.sock"], ParmaError),
    ],
)
def test_generate_without_an_image_is_an_error(options: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        parma("policy", "generate", *options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ignore-field", "x"], "--ignore-field says nothing about --image"),
        (["--only", "x"], "--only"),
        (["--together"], "--together"),
        (["--compose-env", "x"], "expected --compose"),
        (["--project-name", "x"], "expected --compose"),
        (["--seccomp-root", "x"], "expected --kubernetes"),
        (["--sandbox-image", "x"], "expected --kubernetes"),
        (["--cwd", "w"], "the working directory 'w'"),
        (["--cwd", "/w/.."], "the working directory"),
        (["--mount", "type=bind,src=/a,dst=/b"], "--allow-host-path /a"),
        (["--mount", "type=nfs,src=a,dst=/b"], "type 'nfs'"),
        (["--mount", "type=tmpfs,src=a,dst=/b"], "a tmpfs has no source"),
        (["--mount", "type=tmpfs,src=tmpfs,dst=/b,options=dev"], "option 'dev'"),
        (["--mount", "type=tmpfs,src=tmpfs,dst=/dev/x"], "the mount at '/dev/x'"),
        (["--mount", "type=tmpfs,src=tmpfs,dst=/b/../c"], "the mount at '/b/../c'"),
    ],
)
def test_what_cannot_count_is_not_dropped(tmp_path: Path, options: list[str], says: str) -> None:
    source = archive(tmp_path / "image.tar", [BASE])
    with pytest.raises(Malformed) as caught:
        parma("policy", "generate", "--image-archive", source, *options)
    assert says in str(caught.value)


def test_the_platforms_files_are_known_by_their_place() -> None:
    mount = Mount("/etc/resolv.conf", "/run/x", "bind", ("bind",))
    assert of_host(mount, {"/run/x"}).source == "sandbox:///etc/resolv\\.conf"
    assert of_host(Mount("/t", "tmpfs", "tmpfs", ()), set()).source == "tmpfs"


@pytest.mark.parametrize("name", ["x:1", "docker.io/library/x:1", "docker.io/x:1"])
def test_an_archive_is_searched_for_every_spelling_of_a_name(tmp_path: Path, name: str) -> None:
    source = archive(tmp_path / "image.tar", [BASE])
    assert parma("policy", "generate", "--image-archive", source, "--image", name, "--out", tmp_path / "o") == 0


def test_an_archive_without_the_named_image_says_what_it_has(tmp_path: Path) -> None:
    source = archive(tmp_path / "image.tar", [BASE])
    with pytest.raises(NotFound, match="it holds: x:1"):
        parma("policy", "generate", "--image-archive", source, "--image", "y:1")


@pytest.mark.parametrize("command", ["/bin/sh", "[]", "[1]", '{"a": 1}', "["])
def test_a_command_must_be_a_json_list(command: str) -> None:
    with pytest.raises(Malformed, match="JSON list of strings"):
        parma("policy", "generate", "--image-archive", "x", "--command", command)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("type=bind,src=/a,dst=/b,options=rbind:ro", Mount("/b", "/a", "bind", ("rbind", "ro"), ASKED)),
        ("source=/a,destination=/b", Mount("/b", "/a", "", (), ASKED)),
    ],
)
def test_mounts_are_written_as_for_ctr(written: str, expected: Mount) -> None:
    assert parse_mount(written) == expected


@pytest.mark.parametrize("written", ["", "src=/a", "dst=/b", "src=/a,dst=/b,x=y", "src=/a,dst=/b,src=/c", "src"])
def test_bad_mounts_are_refused(written: str) -> None:
    with pytest.raises(Malformed, match="mount"):
        parse_mount(written)


# -- account files of layered images -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upper", "passwd", "group"),
    [
        ([("etc/passwd", b"new")], b"new", b"g"),
        ([("./etc/passwd", b"new")], b"new", b"g"),
        ([("etc/.wh.passwd", b"")], b"", b"g"),
        ([("etc/.wh..wh..opq", b""), ("etc/group", b"only")], b"", b"only"),
        ([(".wh.etc", b"")], b"", b""),
        ([("etc/passwd", None)], b"", b"g"),
        ([("usr/etc/passwd", b"other")], b"p", b"g"),
    ],
)
def test_later_layers_win(upper: Files, passwd: bytes, group: bytes) -> None:
    lower = layer_tar([("etc/passwd", b"p"), ("etc/group", b"g")])
    found = {**account_files(io.BytesIO(lower)), **account_files(io.BytesIO(layer_tar(upper)))}
    assert {name: data or b"" for name, data in found.items()} == {"etc/passwd": passwd, "etc/group": group}


def test_an_image_without_configuration_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "image.tar", [BASE])
    with tarfile.open(path) as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    document = json.loads(members["config.json"])
    members["config.json"] = json.dumps({**document, "config": []}).encode()
    path.write_bytes(layer_tar(list(members.items())))
    with pytest.raises(Malformed, match="no command"):
        parma("policy", "generate", "--image-archive", path)
    members["config.json"] = json.dumps({**document, "config": [1]}).encode()
    path.write_bytes(layer_tar(list(members.items())))
    with pytest.raises(Malformed, match="no 'config' object"):
        parma("policy", "generate", "--image-archive", path)


# -- several policies --------------------------------------------------------------------------------------------


def compose(directory: Path, *services: str) -> list[str | Path]:
    path = directory / "compose.yaml"
    path.write_text(json.dumps({"name": "shop", "services": {name: {"image": "app:1"} for name in services}}))
    return ["--compose", path, "--image", f"app:1={app_image(directory / 'app.tar')}"]


def test_several_policies_need_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = compose(tmp_path, "a", "b")
    with pytest.raises(Malformed, match="makes 2 policies: service a, service b"):
        parma("policy", "generate", *arguments)
    assert parma("policy", "generate", *arguments, "--only", "b") == 0
    assert "# service b" in capsys.readouterr().out
    assert parma("policy", "generate", *arguments, "--out-dir", tmp_path / "new/out") == 0
    assert sorted(path.name for path in (tmp_path / "new/out").iterdir()) == ["a.rego", "b.rego"]
    assert parma("policy", "generate", *arguments, "--together", "--annotation") == 0
    assert capsys.readouterr().out.startswith("# service a and service b\nio.parma.policy: ")


@pytest.mark.parametrize("name", ["../out", "/etc/x", ".hidden", "a/b", "a\nb"])
def test_no_policy_is_written_outside_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(Malformed, match="cannot be the name of a file"):
        parma("policy", "generate", *compose(tmp_path, name), "--out-dir", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--command", '["x"]'], "--command is about an image"),
        (["--cap-add", "KILL"], "--cap-add is about an image"),
        (["--kubernetes", "x.yaml"], "one source"),
        (["--out-yaml", "x.yaml"], "--kubernetes FILE"),
        (["--fragment", "x"], "does not describe a fragment"),
        (["--attestation", "/everything"], "nothing of attestation"),
        (["--env", "a:b"], "NAME=value"),
        (["--platform", "ctr-9"], "no platform rule set"),
        (["--image", "app:1"], "--image app:1 is a source of its own"),
        (["--seccomp-default", "docker"], "no recorded seccomp profile"),
    ],
)
def test_options_that_make_no_sense_are_errors(tmp_path: Path, options: list[str], says: str) -> None:
    with pytest.raises(ParmaError) as caught:
        parma("policy", "generate", *compose(tmp_path, "a"), *options)
    assert says in str(caught.value)


def test_services_learn_names_later_only_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, changing in (([], set()), (["--file-updates"], {"/etc/hosts"})):
        assert parma("policy", "generate", *compose(tmp_path, "a"), *options) == 0
        (container,) = load(capsys.readouterr().out.encode()).containers.containers
        assert {mount.destination for mount in container.mounts if mount.updates} == changing


def test_options_count_for_all_or_for_one_container(tmp_path: Path) -> None:
    arguments = [*compose(tmp_path, "a", "b"), "--out-dir", tmp_path / "out"]
    options = ["--env", "A=1:2", "--env", "b:B=1", "--exec", 'b:["/x:y"]', "--signal", "a:USR2", "--no-stdio"]
    options += ["--mount", "type=tmpfs,src=tmpfs,dst=/t,options=ro:noexec", "--attestation", "b:/aa/token"]
    assert parma("policy", "generate", *arguments, *options) == 0
    first, second = (load((tmp_path / f"out/{name}.rego").read_bytes()).containers.containers[0] for name in "ab")
    assert first.env_rules.accepts("A=1:2")
    assert second.env_rules.accepts("A=1:2")
    assert second.env_rules.accepts("B=1")
    assert not first.env_rules.accepts("B=1")
    assert ("/x:y",) in [process.command for process in second.exec_processes]
    assert ("/x:y",) not in [process.command for process in first.exec_processes]
    assert 12 in first.signals
    assert {"/t"} <= {mount.destination for mount in first.mounts}
    assert not first.allow_stdio_access
    assert not second.allow_stdio_access
