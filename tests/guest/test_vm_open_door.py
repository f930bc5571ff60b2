# SPDX-License-Identifier: Apache-2.0
"""A real guest without a TEE and without a policy: what it lets through, and what stays closed all the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from parma_wire import guest_pb2 as pb
from parma_wire.errors import AlreadyExists, Denied, FailedPrecondition, Malformed, ParmaError, Unavailable
from tests.guest import vm_harness as vm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]

LAYER_LUN, ALTERED_LUN = 0, 1
SLEEP = ["/bin/sleep", "1000"]
ADMIN = ["CAP_NET_ADMIN"]
PLAIN, MAPPED, OTHER = "a1" * 32, "b2" * 32, "c3" * 32

DISKS = """
for entry in /sys/block/*; do
    mknod /dev/x b $(tr : ' ' < $entry/dev) && head -c 512 /dev/x > /dev/null 2>&1 && echo "${entry##*/} READ"
    rm -f /dev/x
done
ls -d /run/parma /run/gcs /run/mounts 2>/dev/null
grep -c . /proc/sys/kernel/panic
echo 1 2>/dev/null > /proc/sys/kernel/panic && echo sysctl
echo end
"""

OWNERS = """
id -u
cat /proc/self/uid_map | tr -s ' '
stat -c %u:%g /bin/busybox / /etc
touch /new && chown 34:34 /new && stat -c %u:%g /new
chown 70000 /new 2>/dev/null || echo unmapped
mount -t tmpfs none /tmp 2>/dev/null || echo no mount
mknod /disk b 8 0 2>/dev/null || echo no node
"""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vm.Guest]:
    directory = tmp_path_factory.mktemp("open-door")
    layer = vm.write_layer(directory / "layer", vm.layer_tar({"data": b"x" * 100_000}, busybox=True))
    altered = bytearray((directory / "layer").read_bytes())
    altered[1024 + 56] ^= 1  # the ext4 magic
    (directory / "altered").write_bytes(altered)
    with vm.running(tmp_path_factory.mktemp("vm"), [directory / "layer", directory / "altered"]) as guest:
        with pytest.raises(Malformed, match="incomplete"):
            guest.call("SetPolicy", pb.SetPolicyRequest(size=1))
        assert guest.set_policy(b"") == hashlib.sha256(b"").digest()
        with pytest.raises(FailedPrecondition, match="already"):
            guest.set_policy(vm.policy_text())
        with pytest.raises(Unavailable, match="does not verify"):
            guest.mount_layer(ALTERED_LUN, layer)
        guest.prepare([(LAYER_LUN, layer)], PLAIN)
        guest.create(SLEEP, PLAIN)
        guest.start(PLAIN)
        yield guest


def execute(guest: vm.Guest, container: str, name: str, script: str) -> tuple[int, list[str]]:
    """Exit status and lines of output."""
    process = vm.process(["/bin/sh", "-c", script])
    guest.call("ExecProcess", pb.ExecProcessRequest(container_id=container, exec_id=name, process=process))
    output = guest.read_all(container, exec_id=name).decode()
    return guest.wait(container, name), output.splitlines()


def test_any_command_runs_and_the_guests_own_parts_stay_out_of_reach(guest: vm.Guest) -> None:
    assert execute(guest, PLAIN, "disks", DISKS) == (0, ["1", "end"])


def test_what_the_guest_keeps_books_of_stays_refused(guest: vm.Guest) -> None:
    layer = ["/run/mounts/scsi/m0"]
    refused: tuple[tuple[str, object, type[ParmaError]], ...] = (
        ("MountOverlay", pb.MountOverlayRequest(container_id="c9" * 32, layer_targets=["/run/mounts/scsi/m7"]), Denied),
        ("MountOverlay", pb.MountOverlayRequest(container_id=PLAIN, layer_targets=layer), Denied),
        ("UnmountDevice", pb.UnmountDeviceRequest(target=layer[0]), Denied),
        ("UnmountOverlay", pb.UnmountOverlayRequest(container_id=PLAIN), Denied),
        (
            "CreateContainer",
            pb.CreateContainerRequest(container_id=PLAIN, process=vm.process(SLEEP)),
            AlreadyExists,
        ),
        ("LoadFragment", pb.LoadFragmentRequest(size=3), Malformed),
    )
    for method, request, error in refused:
        with pytest.raises(error):
            guest.call(method, request)


def test_a_container_in_a_user_namespace_owns_its_image_and_nothing_else(guest: vm.Guest) -> None:
    guest.call("MountScratch", pb.MountScratchRequest(container_id=MAPPED, memory_bytes=16 << 20))
    overlay = pb.MountOverlayRequest(container_id=MAPPED, layer_targets=["/run/mounts/scsi/m0"])
    overlay.uid_mappings.append(pb.IdMapping(inside=0, outside=1000, size=65535))
    overlay.gid_mappings.append(pb.IdMapping(inside=0, outside=2000, size=65535))
    guest.call("MountOverlay", overlay)
    guest.create(SLEEP, MAPPED)
    guest.start(MAPPED)
    status, lines = execute(guest, MAPPED, "owners", OWNERS)
    assert status == 0
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "1000", "65535"]
    assert lines[2:6] == ["0:0", "0:0", "0:0", "34:34"]
    assert lines[6:] == ["unmapped", "no mount", "no node"]
    # The other container stands on the same layer, and sees the owners as they are.
    assert execute(guest, PLAIN, "owners", "stat -c %u:%g /bin/busybox") == (0, ["0:0"])


def test_what_no_policy_has_words_for_is_done_without_one(guest: vm.Guest) -> None:
    """Sysctls of the container's namespaces, hidden and read-only paths of the image, and a bridge in its network."""
    guest.call("MountScratch", pb.MountScratchRequest(container_id=OTHER, memory_bytes=16 << 20))
    guest.call("MountOverlay", pb.MountOverlayRequest(container_id=OTHER, layer_targets=["/run/mounts/scsi/m0"]))
    capabilities = pb.Capabilities(bounding=ADMIN, effective=ADMIN, permitted=ADMIN)
    guest.create(
        SLEEP,
        OTHER,
        capabilities=capabilities,
        sysctls={"fs.mqueue.msg_max": "100", "net.core.somaxconn": "77"},
        masked_in_image=["/bin/ls"],
        readonly_in_image=["/tmp"],
    )
    guest.start(OTHER)
    assert execute(guest, OTHER, "sysctls", "cat /proc/sys/fs/mqueue/msg_max /proc/sys/net/core/somaxconn") == (
        0,
        ["100", "77"],
    )
    assert execute(guest, OTHER, "masked", "/bin/ls 2>&1") == (126, ["/bin/sh: /bin/ls: Permission denied"])
    assert execute(guest, OTHER, "read-only", "touch /tmp/a 2>&1") == (1, ["touch: /tmp/a: Read-only file system"])
    process = vm.process(["/bin/brctl", "addbr", "br0"], capabilities=capabilities)
    guest.call("ExecProcess", pb.ExecProcessRequest(container_id=OTHER, exec_id="bridge", process=process))
    assert (guest.read_all(OTHER, exec_id="bridge"), guest.wait(OTHER, "bridge")) == (b"", 0)


def test_nothing_is_left_in_the_places_for_mapped_layers(guest: vm.Guest) -> None:
    guest.call("SignalProcess", pb.SignalProcessRequest(container_id=MAPPED, signal=9))
    assert guest.wait(MAPPED) == 137
    guest.call("DeleteContainer", pb.DeleteContainerRequest(container_id=MAPPED))
    guest.call("UnmountOverlay", pb.UnmountOverlayRequest(container_id=MAPPED))
    guest.call("UnmountScratch", pb.UnmountScratchRequest(container_id=MAPPED))


def test_no_key_and_no_report_is_to_be_had(guest: vm.Guest) -> None:
    assert guest.call("Evidence", pb.EvidenceRequest(nonce=bytes(64))).report == b""
    assert guest.call("Hello", pb.HelloRequest()).tee == "none"
