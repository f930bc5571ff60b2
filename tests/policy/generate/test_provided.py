# SPDX-License-Identifier: Apache-2.0
"""Pins and updates of files that the host provides, as the generator writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from parma_policy.generate.policy import Mount
from parma_policy.generate.provided import ProvidedFiles, parse_pin
from parma_wire.errors import Malformed, NotFound

SETTINGS = Mount("/settings", "sandbox:///volumes/configmap/settings", "bind", ("rbind", "ro"))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_directory_is_pinned_file_by_file_and_a_file_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b").write_bytes(b"2")
    made = ProvidedFiles({"/settings": tmp_path})._applied(SETTINGS)
    assert made.as_object()["sha256"] == {"a": digest(b"1"), "sub/b": digest(b"2")}
    made = ProvidedFiles({"/settings": tmp_path / "a"})._applied(SETTINGS)
    assert made.as_object()["sha256"] == digest(b"1")


def test_updates_are_for_what_kubernetes_changes(tmp_path: Path) -> None:
    changing = ProvidedFiles(updates=True)
    assert changing._applied(SETTINGS).as_object()["updates"] is True
    other = Mount("/x", "sandbox:///host/x", "bind", ("rbind",))
    assert "updates" not in changing._applied(other).as_object()
    assert set(SETTINGS.as_object()) == {"destination", "source", "type", "options"}


def test_the_names_of_other_containers_may_change_where_that_is_said() -> None:
    names = Mount("/etc/hosts", "sandbox:///etc/hosts", "bind", ("bind", "rprivate"))
    assert "updates" not in ProvidedFiles(updates=True)._applied(names).as_object()
    assert ProvidedFiles(hosts=True)._applied(names).as_object()["updates"] is True
    assert "updates" not in ProvidedFiles(hosts=True)._applied(SETTINGS).as_object()


def test_a_pin_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no container mounts anything at /settings"):
        ProvidedFiles({"/settings": tmp_path}).applied([])
    with pytest.raises(NotFound, match="no file"):
        ProvidedFiles({"/settings": tmp_path / "none"})._applied(SETTINGS)
    assert parse_pin("/a=b=c") == ("/a", Path("b=c"))
    for text in ("a=b", "/a", "/a="):
        with pytest.raises(Malformed):
            parse_pin(text)
