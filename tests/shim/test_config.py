# SPDX-License-Identifier: Apache-2.0
"""The configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_shim import config
from parma_wire.errors import Malformed, NotFound


def load(tmp_path: Path, text: str) -> config.Config:
    (tmp_path / "c.toml").write_text(text)
    return config.load(str(tmp_path / "c.toml"))


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == config.Config()
    assert config.Config().tee == "snp"


def test_values_are_typed(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        'tee = "emulated"\nvcpus = 4\nboot_timeout = 30\npolicy_dirs = ["/a", "/b"]\nqemu_data_dir = "/q"\n'
        'vhost_device_vsock = ""\ntask_api = 2\n',
    )
    assert (found.tee, found.vcpus, found.boot_timeout, found.task_api) == ("emulated", 4, 30.0, "2")
    assert found.policy_dirs == (Path("/a"), Path("/b"))
    assert (found.qemu_data_dir, found.vhost_device_vsock) == (Path("/q"), None)


def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match=r"unknown key 'memory_mb' .*did you mean 'memory_mib'"):
        load(tmp_path, "memory_mb = 5")


@pytest.mark.parametrize(
    "line",
    [
        'tee = "sev"',
        "tee = 5",
        "memory_mib = 1",
        'memory_mib = "512"',
        "memory_mib = true",
        "memory_mib = 512.5",
        "boot_timeout = 0",
        'qemu = "qemu"',
        "qemu = 5",
        'policy_dirs = "/a"',
        'policy_dirs = ["a"]',
        'state_dir = ""',
        "[tee]",
    ],
)
def test_a_wrong_value_is_refused_and_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(Malformed, match=line.strip("[]").split(" ")[0]):
        load(tmp_path, line)


def test_what_is_not_toml_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="line 2"):
        load(tmp_path, "vcpus = 1\ntee = ?\n")


def test_a_file_that_was_named_must_exist() -> None:
    with pytest.raises(NotFound):
        config.load("/nowhere/c.toml")


def test_the_runtimes_options_may_be_the_configuration() -> None:
    assert config.load("", b"vcpus = 3").vcpus == 3


def test_the_text_form_says_the_same(tmp_path: Path) -> None:
    made = config.Config(tee="none", policy_dirs=(Path('/with "quotes"'),), qemu_data_dir=None, vcpus=7)
    assert load(tmp_path, config.to_toml(made)) == made


@pytest.mark.parametrize("text", ["vcpus = 5", ""])
def test_reading_in_a_child_gives_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    assert config.load_in_child(str(tmp_path / "c.toml")) == config.load(str(tmp_path / "c.toml"))


def test_an_error_in_the_child_is_the_parents() -> None:
    with pytest.raises(Malformed, match="does not exist"):
        config.load_in_child("/nowhere/c.toml")
