# SPDX-License-Identifier: Apache-2.0
"""User namespaces: which mappings are taken, and layers mounted through one, with real namespaces and a fake mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from parma_guest import owners, paths
from parma_guest.overlay import Overlays
from parma_guest.owners import IdMapping, Owners, UserNamespace
from parma_guest.reaper import Child
from parma_guest.undo import CleanupFailed
from parma_guest.values import LayerTarget
from parma_wire.errors import Malformed, Unavailable
from tests.guest.fakes import CONTAINER, FakeKernel

WHOLE = (IdMapping(0, 1000, 65535),)
GROUPS = (IdMapping(0, 2000, 65535),)
NAMESPACE = UserNamespace(WHOLE, GROUPS)
LAYERS = (LayerTarget("/run/mounts/scsi/m1"), LayerTarget("/run/mounts/scsi/m0"))


def test_no_mappings_are_no_namespace() -> None:
    assert owners.parse([], []) is None
    assert owners.parse(WHOLE, GROUPS) == NAMESPACE


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [IdMapping(0, 1000, 0)],
        [IdMapping(0, 2**32 - 1, 1)],
        [IdMapping(2**32 - 2, 0, 2)],
        [IdMapping(0, 1000, 10), IdMapping(9, 5000, 10)],
        [IdMapping(0, 1000, 10), IdMapping(50, 1009, 10)],
        [IdMapping(number, number, 1) for number in range(17)],
    ],
)
def test_mappings_that_make_no_sense_are_malformed(bad: Sequence[IdMapping]) -> None:
    with pytest.raises(Malformed):
        owners.parse(bad, GROUPS)
    with pytest.raises(Malformed):
        owners.parse(WHOLE, bad)


def test_several_mappings_that_touch_are_taken() -> None:
    several = (IdMapping(0, 0, 20), IdMapping(20, 2000, 65535))
    found = owners.parse(several, several)
    assert found is not None
    assert [owners.outside(found.uids, number) for number in (0, 19, 20, 34, 65554, 65555)] == [
        *(0, 19, 2000, 2014, 67534, None)
    ]


class Programs:
    """Real processes in place of those that the guest's reaper starts; ``script`` does the helper's work."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.command = ["unshare", "--user", "sh", "-c", "printf .; read line"]

    def spawn(self, arguments: Sequence[str], stdio: tuple[int, int, int]) -> Child:
        assert arguments[0] == paths.PYTHON
        assert "CLONE_NEWUSER" in arguments[-1]
        process = subprocess.Popen(self.command, stdin=stdio[0], stdout=stdio[1], stderr=stdio[2])
        self.started.append(process)
        return Child(process.pid)


@pytest.fixture
def programs() -> Iterator[Programs]:
    made = Programs()
    yield made
    for process in made.started:
        process.wait(60)  # it ends by itself, or this fails


class Kernel(FakeKernel):
    """Looks at the namespace that layers are mounted through."""

    def __init__(self, programs: Programs) -> None:
        super().__init__()
        self._programs = programs
        self.maps: list[list[list[str]]] = []

    def mount_idmapped(self, source: str, target: str, namespace: int) -> None:
        process = Path(f"/proc/{self._programs.started[-1].pid}")
        assert os.fstat(namespace).st_ino == (process / "ns/user").stat().st_ino
        self.maps.append([(process / name).read_text().split() for name in ("uid_map", "gid_map")])
        super().mount_idmapped(source, target, namespace)


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def test_layers_are_seen_through_a_namespace_with_the_mappings_while_the_overlay_is_mounted(programs: Programs) -> None:
    kernel = Kernel(programs)
    overlays = Overlays(kernel, Owners(kernel, programs.spawn))
    overlays.attach(CONTAINER, LAYERS, NAMESPACE)
    assert kernel.maps == [[["0", "1000", "65535"], ["0", "2000", "65535"]]] * 2
    (overlay,) = kernel.mounts  # the layers' places are gone again
    assert overlay[4].startswith(f"lowerdir={paths.OWNERS}/0:{paths.OWNERS}/1,upperdir=")
    assert kernel.owners == {f"{paths.scratch_directory(CONTAINER)}/upper": (1000, 2000)}
    assert overlays.user_namespace(CONTAINER) == NAMESPACE
    overlays.detach(CONTAINER)
    assert overlays.user_namespace(CONTAINER) is None
    assert not kernel.mounts


def test_a_container_without_a_namespace_has_its_layers_as_they_are(programs: Programs) -> None:
    kernel = Kernel(programs)
    overlays = Overlays(kernel, Owners(kernel, programs.spawn))
    overlays.attach(CONTAINER, LAYERS)
    assert kernel.mounts[0][4].startswith(f"lowerdir={LAYERS[0]}:{LAYERS[1]},")
    assert overlays.user_namespace(CONTAINER) is None
    assert not programs.started


@pytest.mark.parametrize("broken", [f"{paths.OWNERS}/1", paths.rootfs(CONTAINER)])
def test_what_cannot_be_mounted_leaves_nothing(programs: Programs, broken: str) -> None:
    kernel = Kernel(programs)
    kernel.broken.add(broken)
    overlays = Overlays(kernel, Owners(kernel, programs.spawn))
    with pytest.raises(Unavailable, match="cannot be mounted"):
        overlays.attach(CONTAINER, LAYERS, NAMESPACE)
    assert not kernel.mounts
    assert overlays.user_namespace(CONTAINER) is None


def test_a_place_that_stays_mounted_is_no_success(programs: Programs) -> None:
    kernel = Kernel(programs)
    kernel.stuck.add(f"{paths.OWNERS}/0")
    with pytest.raises(CleanupFailed):
        Overlays(kernel, Owners(kernel, programs.spawn)).attach(CONTAINER, LAYERS, NAMESPACE)
    assert paths.rootfs(CONTAINER) not in kernel.mounted()


def test_a_helper_that_makes_no_namespace_is_unavailable(programs: Programs) -> None:
    programs.command = ["true"]
    kernel = Kernel(programs)
    with pytest.raises(Unavailable, match="user namespace"):
        Overlays(kernel, Owners(kernel, programs.spawn)).attach(CONTAINER, LAYERS, NAMESPACE)
    assert not kernel.mounts
