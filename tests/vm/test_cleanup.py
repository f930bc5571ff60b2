# SPDX-License-Identifier: Apache-2.0
"""What is left of a VM is removed, whatever is left; nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.vm import cleanup

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries the marker of the VM in ``tmp_path/vm``."""
    (tmp_path / "vm").mkdir()
    environment = {cleanup.MARKER: str(tmp_path / "vm")}
    with subprocess.Popen(["/bin/sleep", "600"], env=environment) as process:
        yield process
        process.kill()


def write_state(directory: Path, *lines: str) -> None:
    (directory / "processes").write_text("\n".join(lines) + "\n")


def entry(process: subprocess.Popen[bytes]) -> str:
    return f"{process.pid} {cleanup.start_time(process.pid)}"


def test_listed_processes_are_killed_and_files_removed(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    directory = tmp_path / "vm"
    write_state(directory, cleanup.HEADER_RUNNING, entry(sleeper))
    (directory / "console.log").write_text("x")
    (directory / "sub").mkdir()
    (directory / "sub/file").write_text("x")
    cleanup.destroy_leftovers(directory)
    assert sleeper.wait(60) == -signal.SIGKILL
    assert not directory.exists()
    cleanup.destroy_leftovers(directory)


def test_a_number_that_now_belongs_to_another_process_is_spared(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    started = int(cleanup.start_time(sleeper.pid))
    write_state(tmp_path / "vm", cleanup.HEADER_RUNNING, f"{sleeper.pid} {started - 1}")
    cleanup.destroy_leftovers(tmp_path / "vm")
    assert sleeper.poll() is None


def test_while_the_list_is_incomplete_the_marker_counts(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    write_state(tmp_path / "vm", cleanup.HEADER_STARTING)
    cleanup.destroy_leftovers(tmp_path / "vm")
    assert sleeper.wait(60) == -signal.SIGKILL


def test_another_vms_process_is_spared(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    other = tmp_path / "vm2"
    other.mkdir()
    write_state(other, cleanup.HEADER_STARTING)
    cleanup.destroy_leftovers(other)
    assert sleeper.poll() is None
    assert not other.exists()


def test_with_a_complete_list_nobody_else_is_looked_for(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    write_state(tmp_path / "vm", cleanup.HEADER_RUNNING)
    cleanup.destroy_leftovers(tmp_path / "vm")
    assert sleeper.poll() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"parma-vm 1 running\n1 1\n99999999999999999999 1\n-5 3\nx y z\n\n", b"parma-vm 2 other\n"],
)
def test_a_damaged_list_does_not_stop_the_removal(tmp_path: Path, content: bytes) -> None:
    directory = tmp_path / "vm"
    directory.mkdir()
    (directory / "processes").write_bytes(content)
    cleanup.destroy_leftovers(directory)
    assert not directory.exists()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    directory = tmp_path / "vm"
    directory.mkdir()
    (directory / "link").symlink_to(outside)
    cleanup.destroy_leftovers(directory)
    assert (outside / "precious").exists()
    assert not directory.exists()


def test_a_directory_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (tmp_path / "vm").symlink_to(outside)
    with pytest.raises(OSError):
        cleanup.destroy_leftovers(tmp_path / "vm")
    assert (outside / "precious").exists()


def test_only_c_modules_are_imported() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules);"
        "import parma_shim.vm.cleanup; print(sorted(set(sys.modules) - before))"
    )
    argv = [sys.executable, "-ISc", code, str(ROOT / "shim")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    ours = {"parma_shim", "parma_shim.vm", "parma_shim.vm.cleanup"}
    others = set(eval(done.stdout)) - ours  # noqa: S307 - our own output
    assert others <= {"errno", "select", "time", "posix", "_signal", "__future__"}, others


def test_start_time_is_that_of_the_kernel_whatever_the_process_is_called(tmp_path: Path) -> None:
    program = tmp_path / "a) b (c"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "600"]) as process:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        assert cleanup.start_time(process.pid) == fields[19]
        process.kill()
    assert cleanup.start_time(process.pid) == ""
    assert cleanup.start_time(os.getpid()) != ""
