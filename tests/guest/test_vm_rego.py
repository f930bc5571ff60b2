# SPDX-License-Identifier: Apache-2.0
"""A policy with rules of its own in real VMs: decided in the ``rego`` variant of the image, refused in the default."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_policy.layers.convert import LayerImage
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied
from tests.guest import vm_harness as vm

REGO_IMAGE = vm.ROOT / ".dev/image-rego"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]
needs_rego_image = pytest.mark.skipif(
    not (REGO_IMAGE / "manifest.json").exists(),
    reason="the rego variant of the image is not there: './dev test' builds it where it can",
)

COMMAND = ["/bin/sleep", "1000"]

RULES = """
# Of the signals that the container's entry lists, only SIGTERM, and only twice may anybody look.
signal_container_process := data.framework.signal_container_process if input.signal == 15

signal_container_process := {"allowed": false} if input.signal != 15

default looks := 0

looks := data.metadata.looks.count

get_properties := {
    "allowed": looks < 2,
    "metadata": [{"name": "looks", "action": "update", "key": "count", "value": looks + 1}],
}

reason := {"errors": ["not with this policy"]}
"""


def policy(*containers: dict[str, object]) -> bytes:
    own = ("signal_container_process ", "get_properties ", "reason ")
    lines = vm.policy_text(*containers).decode().splitlines()
    return "\n".join([*(line for line in lines if not line.startswith(own)), RULES]).encode()


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[LayerImage, Path]:
    path = tmp_path_factory.mktemp("layer") / "base"
    return vm.write_layer(path, vm.layer_tar({}, busybox=True)), path


@pytest.fixture(scope="module")
def guest(layer: tuple[LayerImage, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[vm.Guest]:
    image, path = layer
    with vm.running(tmp_path_factory.mktemp("vm"), [path], image=REGO_IMAGE) as guest:
        began = time.monotonic()
        guest.set_policy(policy(vm.container_object([image], COMMAND, signals=[9, 15])))
        print(f"policy with rules of its own: loaded in {time.monotonic() - began:.2f} s")
        guest.mount_layer(0, image)
        yield guest


@needs_rego_image
def test_rules_of_the_policy_and_the_framework_decide_together(guest: vm.Guest) -> None:
    name = vm.CONTAINER
    guest.call("MountScratch", pb.MountScratchRequest(container_id=name, memory_bytes=16 << 20))
    overlay = pb.MountOverlayRequest(container_id=name, layer_targets=["/run/mounts/scsi/m0"])
    guest.call("MountOverlay", overlay)
    with pytest.raises(Denied, match="command"):
        guest.call("CreateContainer", pb.CreateContainerRequest(container_id=name, process=vm.process(["/bin/sh"])))
    guest.call("CreateContainer", pb.CreateContainerRequest(container_id=name, process=vm.process(COMMAND)))
    guest.call("StartContainer", pb.StartContainerRequest(container_id=name))

    def send(number: int) -> None:
        guest.call("SignalProcess", pb.SignalProcessRequest(container_id=name, signal=number))

    with pytest.raises(Denied, match="not with this policy"):
        send(signal.SIGKILL)
    began = time.monotonic()
    send(signal.SIGTERM)
    print(f"a signal decided by a rule: {(time.monotonic() - began) * 1000:.0f} ms")


@needs_rego_image
def test_what_a_rule_has_recorded_holds_for_requests_that_only_look(guest: vm.Guest) -> None:
    stats = pb.StatsRequest(container_id=vm.CONTAINER)
    guest.call("Stats", stats)
    guest.call("Stats", stats)
    for _ in range(2):
        with pytest.raises(Denied, match="not with this policy"):
            guest.call("Stats", stats)


def test_the_default_image_refuses_the_policy_and_says_what_it_takes(
    layer: tuple[LayerImage, Path], tmp_path: Path
) -> None:
    with (
        vm.running(tmp_path) as guest,
        pytest.raises(Denied, match=r"line \d+, column \d+.*signal_container_process.*'rego' variant"),
    ):
        guest.set_policy(policy(vm.container_object([layer[0]], COMMAND)))
