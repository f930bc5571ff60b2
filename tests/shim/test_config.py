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
        'qemu = "/a\\rb"',
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


def test_containerds_own_keys_in_the_runtimes_options_are_not_ours_to_refuse() -> None:
    body = b'TypeUrl = "runtimeoptions.v1.Options"\nConfigPath = ""\nConfigBody = ""\nvcpus = 3'
    assert config.load("", body).vcpus == 3


def test_in_a_file_they_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="unknown key 'ConfigPath'"):
        load(tmp_path, 'ConfigPath = "/etc/other.toml"')


def test_an_unknown_key_in_the_runtimes_options_is_refused_with_a_suggestion() -> None:
    with pytest.raises(Malformed, match=r"unknown key 'vcpu' in the runtime's options.*did you mean 'vcpus'"):
        config.load("", b"vcpu = 3")


def test_the_text_form_says_the_same(tmp_path: Path) -> None:
    made = config.Config(tee="none", policy_dirs=(Path('/with "quotes"'),), qemu_data_dir=None, vcpus=7)
    assert load(tmp_path, "\n".join(config.to_lines(made).values())) == made


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A configuration with two drop-ins, and things beside them that are none."""
    (tmp_path / "c.toml").write_text("vcpus = 2\nmemory_mib = 600\nscratch_mib = 100")
    (tmp_path / "c.d/10-older.toml").parent.mkdir()
    (tmp_path / "c.d/10-older.toml").write_text("vcpus = 3\nmemory_mib = 700")
    (tmp_path / "c.d/20-newer.toml").write_text("vcpus = 4")
    (tmp_path / "c.d/30-saved.toml~").write_text("vcpus = 5")
    return tmp_path


def test_drop_ins_win_over_the_file_in_the_order_of_their_names(parts: Path) -> None:
    found = config.load(str(parts / "c.toml"))
    assert (found.vcpus, found.memory_mib, found.scratch_mib) == (4, 700, 100)
    assert config.load_in_child(str(parts / "c.toml")) == found


def test_the_runtimes_options_win_over_all_files(parts: Path) -> None:
    found = config.load(str(parts / "c.toml"), b"vcpus = 6")
    assert (found.vcpus, found.memory_mib) == (6, 700)


def test_it_is_known_who_said_what(parts: Path) -> None:
    origins = config.load_with_origins(str(parts / "c.toml"), b"call_timeout = 9").origins
    assert origins == {
        "vcpus": str(parts / "c.d/20-newer.toml"),
        "memory_mib": str(parts / "c.d/10-older.toml"),
        "scratch_mib": str(parts / "c.toml"),
        "call_timeout": config.OPTIONS,
    }


def test_a_wrong_drop_in_is_named(parts: Path) -> None:
    (parts / "c.d/15.toml").write_text("vcpu = 1")
    with pytest.raises(Malformed, match=r"unknown key 'vcpu' in .*c\.d/15\.toml.*did you mean 'vcpus'"):
        config.load(str(parts / "c.toml"))


@pytest.mark.parametrize("text", ["vcpus = 5", ""])
def test_reading_in_a_child_gives_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    assert config.load_in_child(str(tmp_path / "c.toml")) == config.load(str(tmp_path / "c.toml"))


def test_an_error_in_the_child_is_the_parents() -> None:
    with pytest.raises(Malformed, match="does not exist"):
        config.load_in_child("/nowhere/c.toml")


def test_every_key_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text()
    assert [key for key in config.Config._fields if f"| `{key}` |" not in text] == []


def test_tables_nested_without_end_are_refused() -> None:
    with pytest.raises(Malformed, match="is not TOML"):
        config.load(body=b"x = " + b"[" * 100_000)
