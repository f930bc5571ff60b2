# SPDX-License-Identifier: Apache-2.0
"""An image whose kernel reads none of the host's ACPI tables: everything is as with others, on one processor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from parma_guest.cmdline import TEES, command_line
from parma_image import build, manifest, measure
from tests.e2e.host import BUSYBOX, Host
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "1000")
LOOK = ("/bin/sh", "-c", "grep -c ^processor /proc/cpuinfo; ls /sys/firmware")
NONCE = "ab" * 64


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `parma image build --without-acpi` makes it: the usual files under another manifest."""
    directory = tmp_path_factory.mktemp("image")
    firmware, kernel, initrd = (directory / name for name in (build.FIRMWARE, build.KERNEL, build.INITRD))
    for path in (firmware, kernel, initrd):
        path.symlink_to(paths.IMAGE / path.name)
    lines = {tee: command_line(tee, acpi=False) for tee in TEES}
    measurements = measure.table(firmware, kernel, initrd, lines)
    made = replace(manifest.load(paths.IMAGE), variant="no-acpi", cmdline=lines, measurements=measurements)
    (directory / manifest.MANIFEST).write_text(made.dump())
    return directory


@pytest.fixture(scope="module")
def host(archives: dict[str, Path], image: Path) -> Iterator[Host]:
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", parma_config={"image_dir": str(image)}) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        yield Host(daemon, archives)


def test_a_container_runs_there_on_one_processor_and_nothing_is_left(host: Host, image: Path, tmp_path: Path) -> None:
    before = Inventory.take(host)
    policy = host.policy(SLEEP, execs=[LOOK])
    done = host.run("alone", SLEEP, "--detach", "--cpus", "3", policy=policy)
    assert done.returncode == 0, done.stderr
    seen = host.exec("alone", "look", *LOOK)
    assert seen.returncode == 0, seen.stderr
    processors, *firmware = seen.stdout.splitlines()
    assert processors == "1"
    assert "acpi" not in firmware

    evidence = tmp_path / "evidence.json"
    host.parma("evidence", "alone", "--wait", "60", "--nonce", NONCE, "--out", evidence)
    measurement = host.parma("measure", "--image", image, "--tee", "emulated").strip()
    verdict = host.parma_result(
        *("verify", evidence, "--nonce", NONCE, "--policy", policy, "--measurement", measurement),
        *("--allow-emulated", "--emulated-root", host.daemon.data / "emulated/root.pem"),
    )
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr

    host.remove("alone")
    assert_nothing_left(host, before)
