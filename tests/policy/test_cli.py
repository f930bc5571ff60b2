# SPDX-License-Identifier: Apache-2.0
"""``parma policy check`` and ``annotation``, and files of policies."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from pathlib import Path

import pytest

from parma_policy.annotation import load_annotation, to_annotation
from parma_policy.commands.files import read_policy, write_file
from parma_wire.errors import Denied, Malformed, NotFound, Unavailable
from parma_wire.limits import MAX_POLICY_BYTES
from tests.policy.builders import text
from tests.policy.generate.builders import parma as parma


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


def test_a_policy_with_rules_of_its_own_is_hashed_and_packed_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "own.rego"
    path.write_text('package policy\napi_version := "0.12.0"\nget_properties := {"allowed": true} if 1 == 1\n')
    for command in ("hash", "annotation"):
        with pytest.raises(Malformed, match="complete statement"):
            parma("policy", command, path)
        assert parma("policy", command, "--own-rules", path) == 0
    path.write_text('package policy\napi_version := "0.12.0"\nallow_dump_stacks := "yes"\n')
    with pytest.raises(Malformed, match="allow_dump_stacks"):
        parma("policy", "hash", "--own-rules", path)
