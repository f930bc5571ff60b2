# SPDX-License-Identifier: Apache-2.0
"""Files in the bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from parma_shim import bundle
from parma_wire.errors import Malformed


def write_spec(directory: Path, annotations: object) -> str:
    (directory / "config.json").write_text(json.dumps({"annotations": annotations}))
    return str(directory)


def test_a_container_alone_is_its_own_group(tmp_path: Path) -> None:
    assert bundle.group_of(str(tmp_path), "a") == "a"
    assert bundle.group_of(write_spec(tmp_path, {"other": "x"}), "a") == "a"
    assert bundle.group_of(write_spec(tmp_path, None), "a") == "a"


def test_the_first_grouping_annotation_counts(tmp_path: Path) -> None:
    both = {"io.kubernetes.cri.sandbox-id": "pod", "io.containerd.runc.v2.group": "group"}
    assert bundle.group_of(write_spec(tmp_path, both), "a") == "group"
    assert bundle.group_of(write_spec(tmp_path, {"io.kubernetes.cri.sandbox-id": "pod"}), "a") == "pod"


def test_annotations_of_another_shape_do_not_group(tmp_path: Path) -> None:
    name = "io.kubernetes.cri.sandbox-id"
    for shape in ([name], {name: 5}, {name: ""}, name):
        assert bundle.group_of(write_spec(tmp_path, shape), "a") == "a"


def test_a_specification_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"io.kubernetes.cri.sandbox-id"')
    with pytest.raises(Malformed):
        bundle.group_of(str(tmp_path), "a")


def test_the_state_survives_writing_and_reading(tmp_path: Path) -> None:
    state = bundle.State(socket="/s", pid=5, started=77, directory="/d=e", task_pid=9)
    bundle.write_state(str(tmp_path), state)
    found = bundle.read_state(str(tmp_path))
    assert found is not None
    assert {name: getattr(found, name) for name in state.__slots__} == {
        name: getattr(state, name) for name in state.__slots__
    }
    assert os.listdir(tmp_path) == ["parma.state"]  # noqa: PTH208


def test_a_damaged_or_newer_state_is_read_as_far_as_possible(tmp_path: Path) -> None:
    (tmp_path / "parma.state").write_bytes(b"format=9\nsocket=/s\nnew=thing\npid=-1\nstarted=\xff\ngarbage\n")
    found = bundle.read_state(str(tmp_path))
    assert found is not None
    assert (found.socket, found.pid, found.started) == ("/s", 0, 0)


def test_no_state_is_none(tmp_path: Path) -> None:
    assert bundle.read_state(str(tmp_path)) is None
    assert bundle.read_state(str(tmp_path / "gone")) is None


def test_the_start_time_tells_processes_apart() -> None:
    assert bundle.start_time(os.getpid()) > 0
    assert bundle.start_time(0) == 0


def test_directories_are_made_with_all_that_is_missing_above_them(tmp_path: Path) -> None:
    bundle.make_directories(str(tmp_path / "a/b/c"))
    bundle.make_directories(str(tmp_path / "a/b/c"))
    assert (tmp_path / "a/b/c").is_dir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        bundle.make_directories(str(tmp_path / "dangling/below"))


def test_an_exit_is_read_back_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    assert bundle.read_exit(str(tmp_path)) is None
    bundle.write_exit(str(tmp_path), 12, 3, 1_700_000_000_123_456_789)
    assert bundle.read_exit(str(tmp_path)) == (12, 3, 1_700_000_000_123_456_789)
    (tmp_path / "parma.exit").write_bytes(b"12 -3 x")
    assert bundle.read_exit(str(tmp_path)) is None


def test_a_pods_specification_nested_without_end_is_refused(tmp_path: Path) -> None:
    name = bundle.GROUP_ANNOTATIONS[0].encode()
    (tmp_path / "config.json").write_bytes(b'{"' + name + b'": ' + b"[" * 100_000)
    with pytest.raises(Malformed, match="not JSON"):
        bundle.group_of(str(tmp_path), "x")
