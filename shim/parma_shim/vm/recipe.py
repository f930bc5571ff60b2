# SPDX-License-Identifier: Apache-2.0
"""What a group's VM is made of: the specification of its first container, or of the pod, and the configuration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, NamedTuple

from parma_shim.config import Config
from parma_shim.digest import hex_digest
from parma_shim.helpers.call import call
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm.command import VmSpec
from parma_shim.vm.image import GuestImage, load_image, unverified_files
from parma_shim.vm.sizing import size_of
from parma_wire.errors import Unavailable

_IMAGE_CACHE: Final = "verified-images"


class Place(NamedTuple):
    """Whose VM, and where its files are."""

    namespace: str
    group_id: str
    directory: Path
    shim_is_placed: bool = False
    """containerd put the shim into a cgroup of its own: it stays there."""


def launch_spec(config: Config, place: Place, spec: ContainerSpec, image: GuestImage, policy: bytes) -> VmSpec:
    """The VM for a group that begins with this container."""
    linux, process = spec.oci.get("linux") or {}, spec.oci.get("process") or {}
    size = size_of(
        spec.oci,
        default_vcpus=config.vcpus,
        default_memory_mib=config.memory_mib,
        extra_mib=config.scratch_mib if config.scratch == "memory" else 0,
        shapes=image.shapes(config.tee),
    )
    return VmSpec(
        name=f"parma-{place.namespace}-{place.group_id}"[:100],
        directory=place.directory,
        vcpus=size.vcpus,
        memory_mib=size.memory_mib,
        host_data=bytes.fromhex(hex_digest(policy)),
        image=image,
        tee=config.tee,
        cgroups_path=linux.get("cgroupsPath") or "",
        shim_goes_there=not place.shim_is_placed,
        oom_score_adj=process.get("oomScoreAdj"),
    )


def verified_image(config: Config, end: float) -> GuestImage:
    """The guest image, its files compared with the manifest once after each change."""
    image = load_image(config.image_dir)
    _make_private(config.data_dir)
    cache = config.data_dir / _IMAGE_CACHE
    if unverified_files(image, cache):
        request = {"directory": str(config.image_dir), "cache": str(cache)}
        call(config.python, "image", request, timeout=max(0.0, end - time.monotonic()))
    return image


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot make {directory}: {error.strerror}", hint="data_dir in the config") from error
