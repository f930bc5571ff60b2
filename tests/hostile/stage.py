# SPDX-License-Identifier: Apache-2.0
"""What the shared guest has on its disks and in its policy, and an honest host's steps with it."""

from __future__ import annotations

import io
import itertools
import os
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from parma_policy.layers.convert import LayerImage
from parma_wire import guest_pb2 as pb
from parma_wire.errors import NotFound
from tests.guest import vm_harness as vm

SLEEP: Final = ["/bin/sleep", "1000"]
QUIET: Final = ["/bin/sleep", "999"]
GIGABYTE: Final = ["/bin/sh", "-c", "dd if=/dev/zero bs=4M count=256 2>/dev/null; exit 5"]
READ: Final = ["/bin/sh", "-c", "cat /victim > /dev/null; echo $?"]
WHERE: Final = ["/bin/sh", "-c", "pwd; ls -d /layer /victim; echo end"]

SHARED: Final = "/tmp/atlas/emptydir"
"""Where containers' shared directories are, below the sandbox's own."""

SCRIPTS: Final[Mapping[str, str]] = {
    "hello": "echo hello",
    "shared-file": "echo mine > /shared/file && cat /shared/file",
    "shared-link": "ln -s /run/parma /shared/link && ln -s / /shared/root && mkdir /shared/dir && echo made",
    "list-shared": "ls -a /shared",
    "spin-links": (
        "cd /shared; mkdir a; ln -s /run/parma b; while :; do mv -T a x; mv -T b a; mv -T a b; mv -T x a; done"
    ),
    "passwd-fifo": "rm /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group; echo made",
    "stop-others": "while :; do kill -STOP -1; done 2>/dev/null",
    "null-fifo": "rm /dev/null /dev/ptmx; mkfifo /dev/null /dev/ptmx; echo made",
    "root-links": (
        "for name in proc sys dev run etc bin2 rootfs scratch; do ln -s /run /tmp/$name; done;"
        " mkdir -p /deep/er; ln -s ../../../../../../run/gcs /deep/er/up; mknod /disk b 8 0; echo made"
    ),
    "mounts": "cat /proc/self/mountinfo",
    "processes": "cat /proc/[0-9]*/comm | grep -v cat",
    "masked": "for name in acpi kcore keys timer_list; do head -c 1 /proc/$name | wc -c; done 2>/dev/null",
    "write-layer": "echo changed > /layer && cat /layer",
    "secret": "echo parma-plaintext-marker-0123456789 > /note; sync; cat /note",
    "read-note": "cat /note; echo $?",
    "one": "yes one | head -c 1000000 > /tmp/words; sync; echo done",
    "two": "yes two | head -c 1000000 | dd of=/tmp/words conv=notrunc 2>/dev/null; sync; echo done",
    "words": (  # from the disk, whatever the kernel remembers
        "read() { dd if=/tmp/words bs=4096 iflag=direct 2>/dev/null; };"
        " for word in one two; do read | grep -c $word; done; read | wc -l"
    ),
    "lie": (
        "mount -t tmpfs none /proc && mkdir -p /proc/self/ns /proc/1/ns /proc/self/fd /proc/sys/kernel;"
        " echo 'CapEff: 000001ffffffffff' > /proc/self/status; echo made"
    ),
    "truth": "mkdir -p /tmp/p; mount -t proc none /tmp/p; grep CapEff /tmp/p/self/status; cat /tmp/p/[0-9]*/comm",
    "numbers": "cat /proc/sys/kernel/pid_max",
    "storm": "while :; do (:); done",
    "whose": "cat /layer",
}
"""What containers of the group may run besides, by name."""


def script(name: str) -> list[str]:
    """The command line of one of `SCRIPTS`."""
    return ["/bin/sh", "-c", SCRIPTS[name]]


def layer_tar(
    files: Mapping[str, bytes],
    *,
    links: Mapping[str, str] = {},  # never changed
    fifos: Sequence[str] = (),
    busybox: bool = False,
) -> bytes:
    """A layer as `vm.layer_tar` makes them, with symbolic links and named pipes."""
    buffer = io.BytesIO(vm.layer_tar(dict(files), busybox=busybox))
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.PAX_FORMAT) as tar:
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for name in fifos:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.FIFOTYPE, 0o644
            tar.addfile(entry)
    return buffer.getvalue()


@dataclass
class Stage:
    """A guest with its disks. ``luns`` and ``images`` by the name of the layer."""

    guest: vm.Guest
    directory: Path
    luns: Mapping[str, int]
    images: Mapping[str, LayerImage]
    scratch_lun: int
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_id(self) -> str:
        """A container id that nobody had."""
        return f"{next(self._numbers):064x}"

    def target(self, layer: str) -> str:
        """Where the layer is mounted."""
        return f"/run/mounts/scsi/m{self.luns[layer]}"

    def disk(self, layer: str) -> Path:
        """The file behind the layer."""
        return self.directory / layer

    def make_rootfs(self, container: str, *layers: str, scratch_lun: int | None = None) -> None:
        """Scratch and overlay; ``layers`` base first, as in the policy."""
        scratch = pb.MountScratchRequest(container_id=container)
        if scratch_lun is None:
            scratch.memory_bytes = 32 << 20
        else:
            scratch.lun = scratch_lun
        self.guest.call("MountScratch", scratch)
        targets = [self.target(layer) for layer in reversed(layers)]
        self.guest.call("MountOverlay", pb.MountOverlayRequest(container_id=container, layer_targets=targets))

    @contextmanager
    def container(
        self, args: Sequence[str] = SLEEP, *layers: str, scratch_lun: int | None = None, **changes: Any
    ) -> Iterator[str]:
        """A started container; gone without a trace afterwards, which is part of every test that uses it."""
        name = self.new_id()
        self.make_rootfs(name, *(layers or ("base",)), scratch_lun=scratch_lun)
        self.guest.create(args, name, **changes)
        self.guest.start(name)
        yield name
        self.end(name)

    def end(self, container: str) -> None:
        """Stops and removes a container and what is under it."""
        with suppress(NotFound):  # it has ended by itself
            self.signal(container)
        self.guest.wait(container)
        self.remove(container)

    def remove(self, container: str) -> None:
        """A container that has stopped or was never started."""
        for method in ("DeleteContainer", "UnmountOverlay", "UnmountScratch"):
            self.guest.call(method, getattr(pb, f"{method}Request")(container_id=container))

    def remove_rootfs(self, container: str) -> None:
        """Overlay and scratch of an id that has no container."""
        for method in ("UnmountOverlay", "UnmountScratch"):
            self.guest.call(method, getattr(pb, f"{method}Request")(container_id=container))

    def signal(self, container: str, number: int = 9, exec_id: str = "") -> None:
        """A signal."""
        request = pb.SignalProcessRequest(container_id=container, exec_id=exec_id, signal=number)
        self.guest.call("SignalProcess", request)

    def start_exec(self, container: str, name: str, exec_id: str = "", **changes: Any) -> str:
        """Begins one of `SCRIPTS`; its exec id."""
        exec_id = exec_id or f"{name}-{next(self._numbers)}"
        process = vm.process(script(name), **changes)
        request = pb.ExecProcessRequest(container_id=container, exec_id=exec_id, process=process)
        self.guest.call("ExecProcess", request)
        return exec_id

    def run(self, container: str, name: str, **changes: Any) -> list[str]:
        """The lines that one of `SCRIPTS` prints."""
        exec_id = self.start_exec(container, name, **changes)
        output = self.guest.read_all(container, exec_id=exec_id).decode()
        self.guest.wait(container, exec_id)
        return output.splitlines()

    def run_once(self, name: str) -> list[str]:
        """`run` in a container of its own."""
        with self.container() as container:
            return self.run(container, name)

    def assert_unharmed(self) -> None:
        """Whatever was tried, an honest host can go on: a whole life of a container."""
        assert self.run_once("hello") == ["hello"]


_ADMINS: Final = [*vm.CAPABILITIES, "CAP_SYS_ADMIN"]
ADMIN: Final = pb.Capabilities(bounding=_ADMINS, effective=_ADMINS, permitted=_ADMINS)
"""What one container of the policy may have, which takes any variable besides."""
ANY_VARIABLE: Final = [{"pattern": "[A-Z_]+=.+", "strategy": "re2", "required": False}]

LAYERS: Final = ("base", "middle", "top", "victim", "other")


def write_layers(directory: Path) -> dict[str, LayerImage]:
    """Their images. ``other`` is well made, and in no policy."""
    noise = random.Random(7).randbytes(2 << 20)  # noqa: S311
    links = {"up": "../../../../../../..", "sysfs": "/proc", "data": "/run"}
    tars = {
        "base": layer_tar({"layer": b"base\n"}, links=links, busybox=True),
        "middle": layer_tar({"layer": b"middle\n"}),
        "top": layer_tar({"layer": b"top\n"}),
        "victim": layer_tar({"victim": noise}, links={"etc/resolv.conf": "/proc/1/root/etc"}),
        "other": layer_tar({"layer": b"other\n"}, busybox=True),
    }
    return {name: vm.write_layer(directory / name, tars[name]) for name in LAYERS}


def policy(images: Mapping[str, LayerImage]) -> bytes:
    """What the shared guest may do."""
    execs = [{"command": script(name), "signals": [9]} for name in SCRIPTS]
    mounts = [
        {"source": f"sandbox://{SHARED}/.+", "destination": "/shared", "type": "bind", "options": ["rbind", "rw"]},
        {"source": f"sandbox://{SHARED}/.+", "destination": "/data/in", "type": "bind", "options": ["rbind", "rw"]},
    ]

    def sets(capabilities: pb.Capabilities) -> dict[str, list[str]]:
        return {field.name: list(getattr(capabilities, field.name)) for field in capabilities.DESCRIPTOR.fields}

    def container(command: Sequence[str], *layers: str, **changes: object) -> dict[str, object]:
        return vm.container_object(
            [images[layer] for layer in layers], command, exec_processes=execs, mounts=mounts, **changes
        )

    return vm.policy_text(
        container(SLEEP, "base"),
        container(SLEEP, "base", "middle", "top"),
        container(READ, "base", "victim"),
        container(GIGABYTE, "base", allow_stdio_access=False),
        container(WHERE, "base", working_dir="/up"),
        container(QUIET, "base", allow_stdio_access=False),
        container(SLEEP, "base", "victim"),
        container(SLEEP, "base", capabilities=sets(ADMIN), env_rules=ANY_VARIABLE),
    )


@contextmanager
def running(directory: Path, *, luns: Sequence[int] = (), **options: Any) -> Iterator[Stage]:
    """A guest with all layers, a scratch disk of 64 MiB and the policy set; the layers of the policy are mounted."""
    images = write_layers(directory)
    with (directory / "scratch").open("wb") as scratch:
        os.truncate(scratch.fileno(), 64 << 20)
    disks = [directory / name for name in LAYERS]
    with vm.running(directory / "vm", disks, writable=[directory / "scratch"], **options) as guest:
        stage = Stage(guest, directory, {name: lun for lun, name in enumerate(LAYERS)}, images, len(LAYERS))
        guest.set_policy(policy(images))
        for name in ("base", "middle", "top"):
            guest.mount_layer(stage.luns[name], images[name])
        yield stage
