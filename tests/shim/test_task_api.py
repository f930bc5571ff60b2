# SPDX-License-Identifier: Apache-2.0
"""Which task API version is offered to which containerd."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_shim import bootstrap, task_api


def boot(dialect: int) -> bootstrap.Bootstrap:
    made = bootstrap.Bootstrap("x", "ns")
    made.dialect = dialect
    return made


def program(path: Path, prints: str) -> str:
    path.write_text(f"#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{prints}'; echo run >> {path}.runs; fi\n")
    path.chmod(0o755)
    return str(path)


def runs(executable: str) -> int:
    return len(Path(f"{executable}.runs").read_text().splitlines())


def test_parameters_mean_3_and_containerd_1_6_a_plain_address() -> None:
    assert task_api.version_to_offer(boot(bootstrap.PARAMS), "") == 3
    assert task_api.version_to_offer(boot(bootstrap.LEGACY), "") == 1


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("containerd github.com/containerd/containerd v1.7.24 88bf19b2105c", 2),
        ("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6", 2),
        ("containerd github.com/containerd/containerd/v2 v2.1.9 75cb2b7193e4", 3),
        ("containerd github.com/containerd/containerd/v2 2.2.7~ds1 2.2.7~ds1-1", 3),
        ("Docker version 24.0.5, build ced0996", 3),
        ("", 3),
        ("containerd", 3),
    ],
)
def test_the_daemon_itself_is_asked(tmp_path: Path, text: str, version: int) -> None:
    executable = program(tmp_path / "c", text)
    assert (
        task_api.version_to_offer(boot(bootstrap.UNKNOWN), "", executable=executable, run_dir=str(tmp_path)) == version
    )


def test_the_answer_is_remembered_until_the_executable_changes(tmp_path: Path) -> None:
    def offered() -> int:
        return task_api.version_to_offer(
            boot(bootstrap.UNKNOWN), "", executable=executable, run_dir=str(tmp_path / "run")
        )

    executable = program(tmp_path / "c", "containerd x v1.7.24 y")
    assert [offered(), offered()] == [2, 2]
    assert runs(executable) == 1
    program(tmp_path / "c", "containerd x v2.0.1 y")
    assert [offered(), offered()] == [3, 3]
    assert runs(executable) == 2


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    executable = program(tmp_path / "c", "containerd x v1.7.24 y")
    (tmp_path / "file").write_text("")
    where = str(tmp_path / "file" / "below")
    assert task_api.version_to_offer(boot(bootstrap.UNKNOWN), "", executable=executable, run_dir=where) == 2


def test_an_executable_that_is_gone_means_3(tmp_path: Path) -> None:
    assert task_api.version_to_offer(boot(bootstrap.UNKNOWN), "", executable=str(tmp_path / "none")) == 3


@pytest.mark.parametrize(
    ("line", "version"), [("task_api = 2", 2), ('task_api = "3"', 3), ('task_api = "auto"', 1), ("task_api =", 1)]
)
def test_the_configuration_wins(tmp_path: Path, line: str, version: int) -> None:
    (tmp_path / "c.toml").write_text(line)
    assert task_api.version_to_offer(boot(bootstrap.LEGACY), str(tmp_path / "c.toml")) == version


def test_a_drop_in_and_the_runtimes_options_configure_the_version_too(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("task_api = 2")
    asked = boot(bootstrap.LEGACY)
    (tmp_path / "c.d").mkdir()
    (tmp_path / "c.d/1.toml").write_text("task_api = 3")
    assert task_api.version_to_offer(asked, str(config)) == 3
    asked.config_body = b"task_api = 2"
    assert task_api.version_to_offer(asked, str(config)) == 2
