# SPDX-License-Identifier: Apache-2.0
"""``parma policy generate`` with real image archives."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from parma_policy.generate import Mount
from parma_policy.generate.command import parse_mount
from parma_policy.generate.layer_facts import account_files
from parma_policy.layers.convert import root_hash
from parma_policy.reader import load
from parma_wire.errors import Malformed, NotFound, ParmaError, Unverified
from tests.policy.generate.builders import BASE, TOP, Files, archive, layer_tar, parma

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
    options += ["--mount", "type=bind,src=/a,dst=/b,options=rbind:ro", "--no-properties", "--runtime-logging"]
    source = archive(tmp_path / "image.tar", [BASE])
    assert parma("policy", "generate", "--image-archive", source, *options, "--out", out) == 0
    loaded = load(out.read_bytes())
    (container,) = loaded.containers.containers
    assert container.command == ("/bin/sh", "-c", "x")
    assert [process.command for process in container.exec_processes] == [("/bin/true",), ("/bin/false",)]
    assert container.env_rules.accepts("A=1")
    assert {12, 30} <= container.signals
    assert (container.working_dir, container.allow_stdio_access) == ("/w", False)
    assert container.mounts[0].destination == "/b"
    assert (loaded.flags.allow_properties_access, loaded.flags.allow_runtime_logging) == (False, True)
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
