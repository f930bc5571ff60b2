# SPDX-License-Identifier: Apache-2.0
"""Policies from annotations: encoded, compressed, in files; and those that are not taken."""

from __future__ import annotations

import argparse
import base64
import gzip
import os
import tracemalloc
from pathlib import Path

import pytest

from parma_policy.cli import add_policy_commands
from parma_shim.policy_source import policy_from_annotations, require_policy
from parma_wire.errors import Denied, FailedPrecondition, Malformed, NotFound, Unavailable
from parma_wire.limits import MAX_POLICY_BYTES

POLICY = b"package policy\n\xff is for the guest to refuse\n"


def inline(data: bytes) -> bytes | None:
    return policy_from_annotations({"io.parma.policy": base64.b64encode(data).decode()}, ())


def from_file(path: Path | str, *directories: Path) -> bytes | None:
    return policy_from_annotations({"io.parma.policy-file": str(path)}, directories)


def test_without_annotations_there_is_none() -> None:
    assert policy_from_annotations({"other": "x"}, ()) is None
    with pytest.raises(FailedPrecondition) as refusal:
        require_policy(None, "snp")
    words = refusal.value.hint.partition(",")[0].split()
    parser = argparse.ArgumentParser()
    add_policy_commands(parser.add_subparsers())
    assert words[0] == "parma"
    assert parser.parse_args(words[1:]).image == ["IMAGE"]  # the hint is a command that exists


@pytest.mark.parametrize("tee", ["snp", "emulated"])
def test_with_a_tee_there_is_no_going_without_a_policy(tee: str) -> None:
    assert inline(b"") == b""
    with pytest.raises(Denied, match="empty"):
        require_policy(b"", tee)
    with pytest.raises(FailedPrecondition, match="no execution policy"):
        require_policy(None, tee)
    assert require_policy(b"x", tee) == b"x"


def test_without_a_tee_no_policy_is_the_empty_one() -> None:
    assert require_policy(None, "none") == b""
    assert require_policy(b"", "none") == b""
    assert require_policy(b"x", "none") == b"x"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_bytes_are_handed_on_exactly(pack: object) -> None:
    assert callable(pack)
    assert inline(pack(POLICY)) == POLICY
    assert inline(pack(b"x" * MAX_POLICY_BYTES)) == b"x" * MAX_POLICY_BYTES


@pytest.mark.parametrize("text", ["%%%", "YQ=", "Y Q==", "YQ==YQ==", "ä"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="base64"):
        policy_from_annotations({"io.parma.policy": text}, ())


@pytest.mark.parametrize(
    "data",
    [gzip.compress(POLICY)[:-1], gzip.compress(POLICY) + b"x", b"\x1f\x8b\x08rest"],
    ids=["cut short", "with more after it", "no gzip but the header"],
)
def test_damaged_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="gzip"):
        inline(data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_policy_that_is_too_large_is_denied(pack: object) -> None:
    assert callable(pack)
    with pytest.raises(Denied, match=str(MAX_POLICY_BYTES)):
        inline(pack(b"x" * (MAX_POLICY_BYTES + 1)))


def test_a_gzip_bomb_takes_no_more_memory_than_a_policy() -> None:
    bomb = gzip.compress(bytes(200 << 20), 9)
    tracemalloc.start()
    with pytest.raises(Denied):
        inline(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_a_file_below_an_allowed_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/p.rego").write_bytes(POLICY)
    assert from_file(tmp_path / "sub/p.rego", Path("/etc/nowhere"), tmp_path) == POLICY


def test_a_directory_that_is_allowed_through_a_link_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real/p.rego").write_bytes(POLICY)
    assert from_file(tmp_path / "real/p.rego", tmp_path / "link") == POLICY


def test_files_elsewhere_are_denied(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed-not").mkdir()
    for name in ("p.rego", "allowed-not/p.rego"):
        (tmp_path / name).write_bytes(POLICY)
    (tmp_path / "allowed/link").symlink_to(tmp_path / "p.rego")
    for name in ("p.rego", "allowed-not/p.rego", "allowed/../p.rego", "allowed/link"):
        with pytest.raises(Denied, match="policy_dirs"):
            from_file(tmp_path / name, tmp_path / "allowed")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"x\.rego"):
        from_file(tmp_path / "x.rego", tmp_path)
    with pytest.raises(Unavailable):
        from_file(tmp_path, tmp_path)
    with pytest.raises(Unavailable):
        from_file("a\0b", tmp_path)


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unavailable, match="regular"):
        from_file(tmp_path / "fifo", tmp_path)


def test_a_file_that_is_too_large_is_denied(tmp_path: Path) -> None:
    with open(tmp_path / "p.rego", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Denied, match="too large"):
        from_file(tmp_path / "p.rego", tmp_path)


def test_two_sources_contradict_each_other() -> None:
    with pytest.raises(Malformed, match="both"):
        policy_from_annotations({"io.parma.policy": "", "io.parma.policy-file": "x"}, ())
