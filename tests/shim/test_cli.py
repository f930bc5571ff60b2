# SPDX-License-Identifier: Apache-2.0
"""The command ``parma`` and the launcher it writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parma_shim import __version__, cli, config, launcher


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"parma {__version__}\n"


def test_without_a_command_it_says_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert "usage: parma" in capsys.readouterr().err


def test_config_show_prints_what_applies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text("vcpus = 3")
    assert cli.main(["config", "show", "--config", str(tmp_path / "c.toml")]) == 0
    (tmp_path / "again.toml").write_text(capsys.readouterr().out)
    assert config.load(str(tmp_path / "again.toml")).vcpus == 3


def test_config_show_says_where_values_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text("vcpus = 3")
    assert cli.main(["config", "show", "--origin", "--config", str(tmp_path / "c.toml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"vcpus = 3  # {tmp_path}/c.toml" in lines
    assert 'tee = "snp"  # default' in lines


def test_an_error_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", "--config", "/nowhere"]) == 1
    assert capsys.readouterr().err == "parma: the configuration /nowhere does not exist\n"


def test_help_lists_the_commands_of_all_rooms(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert [name for name in ("policy", "verify", "config", "shim-launcher") if name not in text] == []


def test_a_rooms_command_loads_no_other_room() -> None:
    code = (
        "import sys\nfrom parma_shim import cli\ncli.build_parser(['config'])\n"
        "print([name for name in sys.modules if name.startswith(('parma_policy', 'parma_snp', 'cryptography'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout == "[]\n", done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}


def test_the_launcher_runs_with_its_configuration_built_in(tmp_path: Path) -> None:
    out = tmp_path / "containerd-shim-parma-v2"
    assert cli.main(["shim-launcher", "--config", "/etc/parma/other.toml", str(out)]) == 0
    done = subprocess.run([out, "-v"], capture_output=True, env={"PYTHONPATH": "/nowhere"})
    assert done.returncode == 0
    assert __version__.encode() in done.stdout
    text = out.read_text()
    assert "main('/etc/parma/other.toml')" in text
    assert text.startswith(f"#!{launcher.interpreter()} -IS\n")


def test_the_launchers_byte_code_is_warm(tmp_path: Path) -> None:
    launcher.write_launcher(tmp_path / "shim")
    package = Path(launcher.__file__).parent
    cached = package / "__pycache__" / f"main.{sys.implementation.cache_tag}.pyc"
    assert cached.stat().st_mtime >= (package / "main.py").stat().st_mtime
