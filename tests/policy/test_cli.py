# SPDX-License-Identifier: Apache-2.0
"""``parma policy ...`` with real image archives, and the annotation."""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from parma_policy import images
from parma_policy.annotation import load_annotation, to_annotation
from parma_policy.cli import add_policy_commands
from parma_policy.commands.files import read_policy, write_file
from parma_policy.commands.generate import parse_mount
from parma_policy.generate import Mount
from parma_policy.layers.convert import root_hash
from parma_policy.reader import load
from parma_wire.errors import Denied, Malformed, NotFound, ParmaError, Unavailable, Unverified
from parma_wire.limits import MAX_POLICY_BYTES
from tests.policy.builders import text

Files = Sequence[tuple[str, bytes | None]]


def layer_tar(files: Files) -> bytes:
    """A tar of files; no content: a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            entry.size = len(data or b"")
            tar.addfile(entry, io.BytesIO(data or b""))
    return buffer.getvalue()


BASE = layer_tar([("etc", None), ("etc/passwd", b"root:x:0:0::/:\napp:x:5:6::/:\n"), ("etc/group", b"g:x:7:app\n")])
TOP = layer_tar([("app", b"#!/bin/true\n")])


def archive(path: Path, layers: Sequence[bytes], *, lie: bool = False, **config: Any) -> Path:
    """A ``docker save`` archive."""
    ids = [f"sha256:{hashlib.sha256(layer + b'!' * lie).hexdigest()}" for layer in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/app"], "User": "app", **config},
        "rootfs": {"type": "layers", "diff_ids": ids},
    }
    names = [f"layer{number}.tar" for number in range(len(layers))]
    members = {
        **dict(zip(names, layers, strict=True)),
        "config.json": json.dumps(document).encode(),
        "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]).encode(),
    }
    path.write_bytes(layer_tar(list(members.items())))
    return path


def parma(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="parma")
    add_policy_commands(parser.add_subparsers())
    parsed = parser.parse_args(list(map(str, arguments)))
    code: int = parsed.run(parsed)
    return code


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
def test_a_command_must_be_a_json_list(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parma("policy", "generate", "--image-archive", "x", "--command", command)
    assert "JSON list of strings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("type=bind,src=/a,dst=/b,options=rbind:ro", Mount("/b", "/a", "bind", ("rbind", "ro"))),
        ("source=/a,destination=/b", Mount("/b", "/a", "", ())),
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
    found = images.account_files([lambda: io.BytesIO(lower), lambda: io.BytesIO(layer_tar(upper))])
    assert found == {"etc/passwd": passwd, "etc/group": group}


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


# -- check and annotation ----------------------------------------------------------------------------------------


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.rego"
    path.write_text(text())
    return path


def test_check_prints_hash_and_summary(policy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma("policy", "check", policy_file) == 0
    assert hashlib.sha256(policy_file.read_bytes()).hexdigest() in capsys.readouterr().out
    assert parma("policy", "check", "--json", policy_file) == 0
    assert json.loads(capsys.readouterr().out)["api_version"] == "0.12.0"


def test_check_fails_for_a_policy_that_allows_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.rego"
    path.write_text(text(framework_version="9.0.0"))
    assert parma("policy", "check", path) == 1
    assert "No container can run" in capsys.readouterr().out
    path.write_text("package policy\nx {")
    with pytest.raises(Malformed, match="line 2"):
        parma("policy", "check", path)


@pytest.mark.parametrize("options", [[], ["--no-gzip"]])
def test_annotation_prints_what_the_shim_takes(
    policy_file: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert parma("policy", "annotation", *options, policy_file) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert load_annotation(printed.rstrip("\n")) == policy_file.read_bytes()


def test_annotations_are_the_same_every_time_and_short() -> None:
    data = text().encode()
    assert to_annotation(data) == to_annotation(data)
    assert len(to_annotation(data)) < len(to_annotation(data, compress=False))
    assert load_annotation(to_annotation(b"")) == b""


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ("!", "not base64"),
        ("YQ", "not base64"),
        ("YQ==YQ==", "not base64"),
        ("YQ==\n", "not base64"),
        ("é", "not base64"),
        (encoded(b"\x1f\x8bnot gzip"), "damaged"),
        (encoded(gzip.compress(b"x")[:-3]), "cut short"),
        (encoded(gzip.compress(b"x") + b"more"), "followed by something else"),
        (encoded(gzip.compress(b"x") * 2), "followed by something else"),
    ],
    ids=str,
)
def test_bad_annotations_are_refused(annotation: str, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        load_annotation(annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        encoded(gzip.compress(b"x" * (MAX_POLICY_BYTES + 1))),
        encoded(b"x" * (MAX_POLICY_BYTES + 1)),
        "A" * (MAX_POLICY_BYTES * 2),
    ],
    ids=["gzip", "plain", "text"],
)
def test_annotations_with_too_large_a_policy_are_denied(annotation: str) -> None:
    with pytest.raises(Denied, match="too large"):
        load_annotation(annotation)


def test_the_largest_policy_fits_an_annotation() -> None:
    data = hashlib.sha256(b"seed").digest() * (MAX_POLICY_BYTES // 32)
    assert load_annotation(to_annotation(data, compress=False)) == data


# -- files -------------------------------------------------------------------------------------------------------


def test_reading_fails_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        read_policy(tmp_path / "none")
    with pytest.raises(Unavailable, match="cannot read"):
        read_policy(tmp_path)
    (tmp_path / "large").write_bytes(b"x" * (MAX_POLICY_BYTES + 1))
    with pytest.raises(Malformed, match="too large"):
        read_policy(tmp_path / "large")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from stdin")))
    assert read_policy(Path("-")) == b"from stdin"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(Unavailable, match="cannot write"):
        write_file(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(Unavailable, match="cannot write"):
        write_file(tmp_path / "none" / "file", b"x")
