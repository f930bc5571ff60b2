# SPDX-License-Identifier: Apache-2.0
"""A pod in a real VM: what its containers share, what they do not, and limits that nobody gets around."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_policy.layers.convert import LayerImage
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Malformed, Unsupported
from tests.guest import vm_harness as vm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]

SANDBOX = "aa" * 32
CONTAINERS = ("c1" * 32, "c2" * 32, "c3" * 32)
LAYER_LUN, VOLUME_LUN = 0, 1
SHOW = ["/bin/sh", "-c", "hostname; for n in ipc uts net pid mnt cgroup; do readlink /proc/self/ns/$n; done; sleep 600"]
FILL = ["/bin/sh", "-c", "dd if=/dev/zero of=/data/big bs=1M count=64 2>/dev/null; wc -c < /data/big"]
LOOK = "n=0; while ps -o stat | grep -q '[Z]' && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.1; done; ps -o pid,stat,args"
"""Zombies that go by themselves, soon, are none."""
PROCESSES = ["/bin/sh", "-c", f"tr '\\0' ' ' < /proc/1/cmdline; (sleep 0.1 &) ; sleep 0.5; {LOOK}"]
READ = ["/bin/cat", "/dev/shm/note"]
WRITE = ["/bin/sh", "-c", "echo shared > /dev/shm/note; stat -c %a /data"]
EXECS = (READ, WRITE, FILL, PROCESSES)


def volume(sandbox: str, name: str, options: tuple[str, ...] = ("rbind", "rprivate", "rw")) -> pb.Mount:
    source = f"/run/gcs/c/{sandbox}/sandboxMounts/volumes/empty-dir/{name}"
    return pb.Mount(destination="/data", type="bind", source=source, options=options)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LayerImage]:
    path = tmp_path_factory.mktemp("layer") / "layer.img"
    return path, vm.write_layer(path, vm.layer_tar({}, busybox=True))


@pytest.fixture
def guest(tmp_path: Path, layer: tuple[Path, LayerImage]) -> Iterator[vm.Guest]:
    disk = tmp_path / "volume.img"
    with disk.open("wb") as file:
        file.truncate(32 << 20)
    with vm.running(tmp_path, [layer[0]], writable=[disk]) as guest:
        mounts = [
            {
                "destination": "/data",
                "source": f"sandbox:///volumes/empty-dir/{name}",
                "type": "bind",
                "options": ["rbind", "rprivate", "rw"],
            }
            for name in ("cache", "ram", "missing")
        ]
        execs = [{"command": command, "signals": [9]} for command in EXECS]
        allowed = vm.container_object([layer[1]], SHOW, mounts=mounts, exec_processes=execs)
        guest.set_policy(vm.policy_text(allowed))
        yield guest


def begin(guest: vm.Guest) -> None:
    sysctls = {"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "80"}
    guest.call("CreateSandbox", pb.CreateSandboxRequest(sandbox_id=SANDBOX, hostname="the-pod", sysctls=sysctls))
    guest.start(SANDBOX)


def add(guest: vm.Guest, layer: LayerImage, container: str, **changes: object) -> str:
    """Creates and starts a container; the lines that it prints."""
    if container == CONTAINERS[0]:
        guest.mount_layer(LAYER_LUN, layer)
    guest.call("MountScratch", pb.MountScratchRequest(container_id=container, memory_bytes=16 << 20))
    target = f"/run/mounts/scsi/m{LAYER_LUN}"
    guest.call("MountOverlay", pb.MountOverlayRequest(container_id=container, layer_targets=[target]))
    guest.create(SHOW, container, **changes)
    guest.start(container)
    return container


def shown(guest: vm.Guest, container: str) -> dict[str, str]:
    stream = guest.stream(container, pb.STDOUT)
    text = b""
    while text.count(b"\n") < 7:
        frame = stream.recv(60)
        assert frame is not None
        text += frame.data
    hostname, *namespaces = text.decode().splitlines()
    return {"hostname": hostname, **{line.partition(":")[0]: line for line in namespaces}}


def execute(guest: vm.Guest, container: str, exec_id: str, args: list[str]) -> str:
    guest.call("ExecProcess", pb.ExecProcessRequest(container_id=container, exec_id=exec_id, process=vm.process(args)))
    return guest.read_all(container, exec_id=exec_id).decode()


def test_the_life_of_a_pod(guest: vm.Guest, layer: tuple[Path, LayerImage]) -> None:
    """One boot for all of it: namespaces, /dev/shm, volumes with limits, a container that is replaced, the end."""
    image = layer[1]
    begin(guest)
    with pytest.raises(FailedPrecondition):  # a second pod
        guest.call("CreateSandbox", pb.CreateSandboxRequest(sandbox_id="bb" * 32))
    guest.call("MountVolume", pb.MountVolumeRequest(name="cache", lun=VOLUME_LUN))
    guest.call("MountVolume", pb.MountVolumeRequest(name="ram", memory_bytes=4 << 20))
    with pytest.raises(Denied):  # the policy's word: something is mounted there
        guest.call("MountVolume", pb.MountVolumeRequest(name="ram", memory_bytes=4 << 20))
    with pytest.raises(Malformed):
        guest.call("MountVolume", pb.MountVolumeRequest(name="../etc", memory_bytes=4 << 20))

    first, second, third = CONTAINERS
    add(guest, image, first, mounts=[volume(SANDBOX, "cache")])
    add(guest, image, second, mounts=[volume(SANDBOX, "cache")])
    one, two = shown(guest, first), shown(guest, second)
    assert one["hostname"] == two["hostname"] == "the-pod"
    assert [name for name in one if one[name] == two[name]] == ["hostname", "ipc", "uts", "net"]

    assert execute(guest, first, "write", WRITE) == "777\n"
    assert execute(guest, second, "read", READ) == "shared\n"
    # As much as the disk has room for, not a gigabyte of the guest's memory; and its neighbour sees it.
    written = int(execute(guest, first, "fill", FILL))
    assert 16 << 20 < written < 32 << 20

    # Replaced: what the volume has stays, the id does not come back.
    guest.call("SignalProcess", pb.SignalProcessRequest(container_id=second, signal=9, all=True))
    assert guest.wait(second) == 137
    guest.call("DeleteContainer", pb.DeleteContainerRequest(container_id=second))
    add(guest, image, third, mounts=[volume(SANDBOX, "ram")], pid_namespace_of=SANDBOX)
    assert 3 << 20 < int(execute(guest, third, "fill", FILL)) <= 4 << 20
    # In the pod's processes: the one that keeps the namespaces is first, and leaves no zombies.
    text = execute(guest, third, "ps", PROCESSES)
    assert text.startswith("/pause ")
    assert " Z" not in text

    refused = "c4" * 32
    with pytest.raises(FailedPrecondition):  # a volume that was never made would have no limit
        add(guest, image, refused, mounts=[volume(SANDBOX, "missing")])
    with pytest.raises(Unsupported):
        guest.create(SHOW, refused, hostname="another")
    with pytest.raises(Denied):  # the policy lists no such container
        guest.call("SignalProcess", pb.SignalProcessRequest(container_id=SANDBOX, signal=9))
    guest.call("StopSandbox", pb.StopSandboxRequest())
    assert guest.wait(SANDBOX) == 137
    assert guest.wait(third) == 137  # its process 1 has gone
    with pytest.raises(FailedPrecondition):
        guest.create(SHOW, refused)
