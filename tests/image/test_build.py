# SPDX-License-Identifier: Apache-2.0
"""The image as a whole, built from Debian's packages and booted."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from parma_guest import cmdline
from parma_image import build, cpio, lz4, manifest, verify
from parma_image.cli import main
from parma_image.cpio import Tree

pytestmark = pytest.mark.e2e

_DEV = Path(__file__).resolve().parents[2] / ".dev"
_PROBE = Path(__file__).with_name("parma_probe")
_CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+cx16"
_SHELLS = {"sh", "bash", "dash", "ash", "ksh", "zsh", "fish", "busybox", "toybox"}
_OTHER_DOORS = {"getty", "agetty", "login", "su", "sudo", "dpkg", "apt", "apt-get", "pip", "pip3", "modprobe", "insmod"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("image")
    build.build_image(directory, workdir=_DEV / "archive", relock_if_gone=True)
    return directory


@pytest.fixture(scope="module")
def tree(image: Path) -> Tree:
    return cpio.read(lz4.decompress((image / build.INITRD).read_bytes()))


def test_two_builds_give_the_same_bytes(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Packages are unpacked anew, in another place, with another hash seed and umask.
    work = tmp_path / "work"
    work.mkdir()
    for name in ("debs", "wheels"):
        shutil.copytree(_DEV / "archive" / name, work / name, copy_function=_link)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    build.build_image(tmp_path / "again", workdir=work, relock_if_gone=True)
    for name in (build.KERNEL, build.INITRD, build.FIRMWARE, manifest.MANIFEST):
        assert (image / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_image_matches_its_manifest(image: Path) -> None:
    assert verify.verify_image(image) == []


def test_every_file_is_listed(image: Path, tree: Tree) -> None:
    assert manifest.load(image).files == manifest.list_files(tree)


@pytest.mark.parametrize("name", [build.KERNEL, build.INITRD, build.FIRMWARE])
def test_one_changed_byte_is_found(name: str, image: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(image, tmp_path / "copy")
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert verify.verify_image(copy) == [f"{name} is not the file that the manifest describes"]


def test_there_is_a_measurement_for_every_tee_and_shape(image: Path) -> None:
    found = {(row.tee, row.vcpus) for row in manifest.load(image).measurements}
    assert found == {(tee, vcpus) for tee in cmdline.TEES for vcpus in (1, 2, 4, 8, 16, 32, 64)}


def test_an_image_without_acpi_differs_in_its_command_lines_and_has_vms_of_one_processor(
    image: Path, tmp_path: Path
) -> None:
    assert (
        main(["image", "build", "--without-acpi", "--relock", "--workdir", str(_DEV / "archive"), str(tmp_path)]) == 0
    )
    for name in (build.KERNEL, build.INITRD, build.FIRMWARE):
        assert (image / name).read_bytes() == (tmp_path / name).read_bytes(), name
    made = manifest.load(tmp_path)
    assert made.variant == "no-acpi"
    assert made.cmdline == {tee: cmdline.command_line(tee, acpi=False) for tee in cmdline.TEES}
    assert {(row.tee, row.vcpus) for row in made.measurements} == {(tee, 1) for tee in cmdline.TEES}
    assert verify.verify_image(tmp_path) == []


def test_there_is_no_shell_and_no_other_way_in(tree: Tree) -> None:
    names = {path.rsplit("/", 1)[-1] for path, _, _ in tree.entries()}
    assert names & (_SHELLS | _OTHER_DOORS) == set()


def test_programs_are_the_known_few(tree: Tree) -> None:
    programs = {
        path
        for path, mode, data in tree.entries()
        if stat.S_ISREG(mode) and mode & 0o111 and "/x86_64-linux-gnu/" not in path and data
    }
    assert programs == {
        "init",
        "usr/bin/crun",
        "usr/bin/python3.13",
        "usr/lib64/ld-linux-x86-64.so.2",
        "usr/sbin/mke2fs",
    }


def test_nothing_is_setuid_and_no_python_source_is_left(tree: Tree) -> None:
    assert [path for path, mode, _ in tree.entries() if mode & (stat.S_ISUID | stat.S_ISGID)] == []
    assert [path for path, _, _ in tree.entries() if path.endswith(".py")] == []


def test_code_of_the_host_side_stays_outside(tree: Tree) -> None:
    # cryptography is inside: the guest verifies signed fragments. Of what it needs to be built nothing is.
    outside = ("parma_shim", "parma_image", "cffi", "pycparser", "grpc", "sevsnpmeasure", "unittest", "ensurepip")
    found = [path for path, _, _ in tree.entries() if any(f"/{name}/" in f"/{path}/" for name in outside)]
    assert found == []


def test_probe_image_boots_and_everything_in_it_works(tmp_path: Path) -> None:
    qemu = _DEV / "prefix/bin/qemu-system-x86_64"
    if not qemu.exists():
        pytest.skip("no QEMU in .dev/prefix: ./dev setup unpacks it")
    packages = {"parma_probe": _PROBE}
    build.build_image(
        tmp_path,
        workdir=_DEV / "archive",
        relock_if_gone=True,
        entry="parma_probe.init",
        packages=packages,
        measurements=False,
    )
    said = _boot(qemu, tmp_path)
    assert said["done"] == "yes"
    assert said["tee"] == "emulated"
    assert said["message"] == "0a0178"
    assert said["regex"] == "True"
    assert (said["crun"], said["mkfs.ext4"]) == ("0", "0")
    assert said["shells"] == "[]"
    assert "sev_guest" in said["unused-modules"].replace("-", "_")


def _boot(qemu: Path, image: Path) -> dict[str, str]:
    """What the probe printed; the VM powers off by itself."""
    command: list[str | Path] = [
        qemu,
        "-machine",
        "q35",
        "-cpu",
        _CPU,
        "-accel",
        "tcg,thread=multi",
        "-m",
        "512",
        "-no-reboot",
    ]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]
    command += ["-kernel", image / build.KERNEL, "-initrd", image / build.INITRD]
    command += ["-append", cmdline.command_line("emulated")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True)
    return {key: value for key, _, value in (line.partition(" ") for line in done.stdout.splitlines())}
