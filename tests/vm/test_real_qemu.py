# SPDX-License-Identifier: Apache-2.0
"""Real QEMU, real vsock device, and for some tests the real guest: life, disks, and every kind of death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from parma_shim.digest import hex_digest
from parma_shim.vm import accelerator, cleanup
from parma_shim.vm.command import VmSpec
from parma_shim.vm.image import GuestImage, load_image
from parma_shim.vm.machine import VirtualMachine
from parma_shim.vm.session import Session, boot
from parma_shim.vm.spawn import on_spawn_thread
from parma_wire.errors import AlreadyExists, DeadlineExceeded, Malformed, NotFound, ParmaError, Unavailable
from tests.descriptors import descriptors
from tests.vm.support import PREFIX, ROOT, Settings, soon

IMAGE = ROOT / ".dev/image"
POLICY = b"package policy\n"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (PREFIX / "bin/qemu-system-x86_64").exists(), reason="no QEMU in .dev: run ./dev setup"),
    pytest.mark.skipif(not (IMAGE / "manifest.json").exists(), reason="no guest image in .dev: run ./dev setup"),
]


@pytest.fixture(scope="module")
def image() -> GuestImage:
    return load_image(IMAGE)


def vm_spec(directory: Path, image: GuestImage) -> VmSpec:
    return VmSpec("parma-test", directory / "vm", 1, 384, bytes.fromhex(hex_digest(POLICY)), image, "none")


def launch(directory: Path, image: GuestImage, settings: Settings | None = None) -> VirtualMachine:
    return VirtualMachine.launch(
        vm_spec(directory, image), settings or Settings(directory), deadline=soon(), log=lambda _: None
    )


def marked(directory: Path) -> list[int]:
    """Processes of the VM in this directory, zombies aside."""
    marker = f"{cleanup.MARKER}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def files_of(pid: int, directory: Path) -> list[str]:
    """What a process has open below a directory."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(entry.readlink())
    return sorted(str(link) for link in found if link.is_relative_to(directory))


def wait_for(condition: Callable[[], bool]) -> None:
    """Other processes decide when; bounded."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def machine(tmp_path: Path, image: GuestImage) -> Iterator[VirtualMachine]:
    running = launch(tmp_path, image)
    yield running
    running.destroy()


def test_nothing_is_left_of_a_vm(tmp_path: Path, image: GuestImage) -> None:
    on_spawn_thread(lambda: None)
    before = descriptors()
    running = launch(tmp_path, image)
    assert running.alive
    assert len(marked(tmp_path / "vm")) == 2
    exits: list[int | None] = []
    running.on_exit(exits.append)
    running.destroy()
    running.destroy()
    running.kill()
    assert exits == [-signal.SIGKILL]
    assert not running.alive
    assert marked(tmp_path / "vm") == []
    assert not (tmp_path / "vm").exists()
    wait_for(lambda: descriptors() <= before)  # threads of others may be at work
    running.on_exit(exits.append)
    assert exits == [-signal.SIGKILL] * 2


def test_the_death_of_qemu_is_reported_once_and_takes_the_vsock_device_along(
    machine: VirtualMachine, tmp_path: Path
) -> None:
    ended = threading.Event()
    exits: list[int | None] = []

    def report(status: int | None) -> None:
        exits.append(status)
        ended.set()

    machine.on_exit(report)
    os.kill(machine.pid, signal.SIGKILL)
    assert ended.wait(60)
    assert exits == [-signal.SIGKILL]
    wait_for(lambda: marked(tmp_path / "vm") == [])
    with pytest.raises(Unavailable, match="ended"):
        machine.connect(4050, deadline=soon(5))
    with pytest.raises(Unavailable):
        machine.attach_disk(Path("/dev/null"), readonly=True, deadline=soon(5))


def test_the_death_of_the_vsock_device_ends_the_vm(machine: VirtualMachine, tmp_path: Path) -> None:
    (device,) = (pid for pid in marked(tmp_path / "vm") if pid != machine.pid)
    os.kill(device, signal.SIGKILL)
    assert machine.wait(60)


def test_disks_come_and_go_and_their_files_are_let_go(machine: VirtualMachine, tmp_path: Path) -> None:
    layer, scratch = tmp_path / "layer.img", tmp_path / "scratch.img"
    for path in (layer, scratch):
        with open(path, "wb") as file:
            file.truncate(1 << 20)
    before = files_of(machine.pid, tmp_path)
    for _ in range(3):
        assert machine.attach_disk(layer, readonly=True, deadline=soon()) == 0
        assert machine.attach_disk(scratch, readonly=False, deadline=soon()) == 1
        assert str(layer) in files_of(machine.pid, tmp_path)
        machine.detach_disk(0, deadline=soon())
        assert machine.attach_disk(layer, readonly=True, deadline=soon()) == 0
        machine.detach_disk(1, deadline=soon())
        machine.detach_disk(0, deadline=soon())
    assert files_of(machine.pid, tmp_path) == before
    with pytest.raises(NotFound):
        machine.detach_disk(0, deadline=soon())


def test_a_disk_that_cannot_be_attached_leaves_its_unit_free(machine: VirtualMachine, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(ParmaError):
        machine.attach_disk(tmp_path / "directory", readonly=True, deadline=soon())
    with open(tmp_path / "image", "wb") as file:
        file.truncate(4096)
    with pytest.raises(ParmaError):
        machine.attach_disk(tmp_path / "missing", readonly=True, deadline=soon())
    assert machine.attach_disk(tmp_path / "image", readonly=True, deadline=soon()) == 0


def test_a_stopped_qemu_does_not_block_its_end(machine: VirtualMachine) -> None:
    os.kill(machine.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded):
        machine.attach_disk(Path("/dev/zero"), readonly=True, deadline=time.monotonic() + 0.2)
    machine.destroy()
    assert not machine.alive


def test_the_same_directory_is_not_used_twice(machine: VirtualMachine, tmp_path: Path, image: GuestImage) -> None:
    with pytest.raises(AlreadyExists):
        launch(tmp_path, image)
    assert machine.alive


SHIM = """
import sys, time
from pathlib import Path
from parma_shim.vm.machine import VirtualMachine
from tests.vm.support import Settings, soon
from tests.vm.test_real_qemu import IMAGE, vm_spec
from parma_shim.vm.image import load_image
directory = Path(sys.argv[1])
machine = VirtualMachine.launch(
    vm_spec(directory, load_image(IMAGE)), Settings(directory), deadline=soon(), log=lambda _: None
)
print(machine.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_shim_takes_its_vm_along_and_the_rest_can_be_removed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, "-c", SHIM, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) in marked(tmp_path / "vm")
        process.kill()
    wait_for(lambda: marked(tmp_path / "vm") == [])
    cleanup.destroy_leftovers(tmp_path / "vm")
    assert not (tmp_path / "vm").exists()


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05, 0.1, 0.15, 0.25])
def test_a_shim_killed_at_any_moment_leaves_nothing_that_cannot_be_removed(tmp_path: Path, moment: float) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, "-c", SHIM, str(tmp_path)], stdout=subprocess.DEVNULL, env=environment
    ) as process:
        wait_for((tmp_path / "vm").exists)
        time.sleep(moment)  # what is tested is the moment
        process.kill()
    cleanup.destroy_leftovers(tmp_path / "vm")
    wait_for(lambda: marked(tmp_path / "vm") == [])
    assert not (tmp_path / "vm").exists()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"qemu": Path("/nowhere/qemu")}, Unavailable, "no QEMU at /nowhere/qemu"),
        ({"qemu": Path("/bin/true")}, Unavailable, "QEMU did not start"),
        ({"setpriv": Path("/nowhere/setpriv")}, Unavailable, "/nowhere/setpriv"),
        ({"accelerator": "quick"}, Malformed, "accelerator"),
        pytest.param(
            {"vhost_device_vsock": None},
            Unavailable,
            "no vsock",
            marks=pytest.mark.skipif(Path("/dev/vhost-vsock").exists(), reason="this host has vhost-vsock"),
        ),
        pytest.param(
            {"vhost_device_vsock": Path("/bin/false")},
            Unavailable,
            "ended at once",
            marks=pytest.mark.skipif(Path("/dev/vhost-vsock").exists(), reason="this host has vhost-vsock"),
        ),
    ],
)
def test_a_failed_launch_is_one_error_and_leaves_nothing(
    tmp_path: Path, image: GuestImage, change: dict[str, object], error: type[ParmaError], text: str
) -> None:
    settings = Settings(tmp_path)
    for name, value in change.items():
        setattr(settings, name, value)
    on_spawn_thread(lambda: None)
    before = descriptors()
    with pytest.raises(error, match=text):
        launch(tmp_path, image, settings)
    wait_for(lambda: descriptors() <= before)  # threads of others may be at work
    assert marked(tmp_path / "vm") == []
    assert not (tmp_path / "vm").exists()


def test_a_kernel_that_is_none_is_reported_with_qemus_words(tmp_path: Path, image: GuestImage) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"no kernel")
    broken = image._replace(kernel=image.kernel._replace(path=tmp_path / "vmlinuz"))
    with pytest.raises(Unavailable, match=r"QEMU did not start: .*kernel"):
        launch(tmp_path, broken)
    assert not (tmp_path / "vm").exists()


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm")
def test_the_choice_of_accelerator_is_one_that_runs_the_kernel(tmp_path: Path, image: GuestImage) -> None:
    settings = Settings(tmp_path)
    settings.accelerator = "auto"
    chosen = accelerator.choose(
        settings, image.kernel.path, tee="none", environment={}, deadline=soon(), log=lambda _: None
    )
    settings.accelerator = chosen
    running = launch(tmp_path, image, settings)
    connection = running.connect(4050, deadline=soon(240))
    connection.close()
    running.destroy()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, image: GuestImage) -> Iterator[Session]:
    """The real guest, with a policy."""
    directory = tmp_path_factory.mktemp("session")
    booted = boot(
        lambda: launch(directory, image),
        POLICY,
        signer=None,
        on_machine=lambda _: None,
        call_timeout=60,
        deadline=soon(240),
        log=print,
    )
    yield booted
    booted.end(orderly=True)
    assert not (directory / "vm").exists()


def test_the_guest_answers_and_accounts_for_its_start(session: Session) -> None:
    assert session.greeting.tee == "none"
    assert list(session.timings)[:2] == ["qemu", "firmware"]
    assert list(session.timings)[-1] == "policy"
    assert all(value >= 0 for value in session.timings.values())
    assert session.machine.first_output is not None


def test_further_connections_are_independent(session: Session) -> None:
    client = session.open_stream_connection()
    client.close()
    client.join(60)
    assert session.guest.hello().tee == "none"


def test_nobody_listening_is_found_out_within_the_deadline(session: Session) -> None:
    with pytest.raises(DeadlineExceeded):
        session.machine.connect(9, deadline=time.monotonic() + 0.5)


def test_a_guest_that_is_stopped_runs_into_the_deadline_and_goes_on_afterwards(session: Session) -> None:
    os.kill(session.machine.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded):
        session.guest.hello(deadline=time.monotonic() + 0.3)
    os.kill(session.machine.pid, signal.SIGCONT)
    assert session.guest.hello().tee == "none"
