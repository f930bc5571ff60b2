# SPDX-License-Identifier: Apache-2.0
"""Devices, overlays, scratch space and shares: what may be mounted, and unmounted again."""

from __future__ import annotations

import re

from parma_policy.framework.decision import Decision, Reason, allowed, denied, shown
from parma_policy.framework.state import Overlay, State, with_item, without
from parma_policy.framework.view import View, unusable
from parma_policy.requests import (
    DISK_TARGET,
    SCRATCH_TARGET,
    MountBlockDevice,
    MountDevice,
    MountOverlay,
    MountReadWriteDevice,
    Plan9Mount,
    ScratchMount,
    Unmount,
)

Outcome = tuple[Decision, State]

_FILESYSTEMS = ("ext4", "xfs")
_SHARE_DIRECTORY = re.compile(r"/mounts/m[0-9]+", re.ASCII)


def _in_use(target: str) -> Reason:
    text = f"something is mounted at {shown(target)} already"
    return Reason("already_mounted", text, "device already mounted at path")


def _bad_target(target: str, expected: str) -> Reason:
    return Reason("target", "mount point is not an allowed one", "mountpoint invalid", expected, shown(target))


def _nothing_there(target: str) -> Reason:
    return Reason("not_mounted", f"nothing is mounted at {shown(target)}", "no device at path to unmount")


def _device_at(view: View, target: str) -> bool:
    return target in view.state.devices or target in view.state.rw_devices


def mount_device(view: View, request: MountDevice) -> Outcome:
    """A read-only device must be a layer of some container."""
    point, state = "mount_device", view.state
    if _device_at(view, request.target):
        return denied(point, _in_use(request.target)), state
    reasons = []
    if not view.has_layer(request.device_hash):
        text = f"layer with root hash {shown(request.device_hash)} is not in the policy"
        change = "the policy would have to be generated again for this image"
        reasons = [*unusable(view), Reason("layer", text, "deviceHash not found", change=change)]
    if not DISK_TARGET.fullmatch(request.target):
        reasons.append(_bad_target(request.target, DISK_TARGET.pattern))
    if reasons:
        return denied(point, *reasons), state
    return allowed(point), view.after(devices=with_item(state.devices, request.target, request.device_hash))


def unmount_device(view: View, request: Unmount) -> Outcome:
    """A mounted read-only device that no overlay uses."""
    point, state, target = "unmount_device", view.state, request.unmount_target
    if target in state.rw_devices:
        topic = "received read-only unmount request, but device provided is read-write"
        return denied(point, Reason("read_write", "the device there is a read-write one", topic)), state
    if target not in state.devices:
        return denied(point, _nothing_there(target)), state
    users = [] if view.policy.parity else [o for o in state.overlays.values() if target in o.layer_targets]
    if users:
        text = f"the device is a layer of container {users[0].container_id}"
        return denied(point, Reason("in_use", text, "device in use")), state
    return allowed(point), view.after(devices=without(state.devices, target))


def rw_mount_device(view: View, request: MountReadWriteDevice) -> Outcome:
    """A read-write device must be encrypted and get a new file system."""
    point, state, target = "rw_mount_device", view.state, request.target
    reasons = []
    if _device_at(view, target):
        reasons.append(_in_use(target))
    if not request.encrypted and not view.policy.flags.allow_unencrypted_scratch:
        topic = "unencrypted scratch not allowed, non-readonly mount request for SCSI disk must request encryption"
        reasons.append(_unencrypted(topic))
    if not request.ensure_filesystem:
        topic = "ensureFilesystem must be set on rw device mounts"
        reasons.append(Reason("ensure_filesystem", "a read-write device must get a new file system", topic))
    if request.filesystem not in _FILESYSTEMS:
        topic = "rw device mounts uses a filesystem that is not allowed"
        reasons.append(
            Reason("filesystem", "file system is not an allowed one", topic, "ext4 or xfs", shown(request.filesystem))
        )
    if not SCRATCH_TARGET.fullmatch(target):
        reasons.append(_bad_target(target, SCRATCH_TARGET.pattern))
    if reasons:
        return denied(point, *reasons), state
    return allowed(point), view.after(rw_devices=state.rw_devices | {target})


def rw_unmount_device(view: View, request: Unmount) -> Outcome:
    """A mounted read-write device."""
    point, state, target = "rw_unmount_device", view.state, request.unmount_target
    if target in state.devices:
        topic = "received read-write unmount request, but device provided is read-only"
        return denied(point, Reason("read_only", "the device there is a read-only one", topic)), state
    if target not in state.rw_devices:
        return denied(point, _nothing_there(target)), state
    return allowed(point), view.after(rw_devices=state.rw_devices - {target})


def mount_blockdev(view: View, _request: MountBlockDevice) -> Outcome:
    """Block devices as such are never given to containers."""
    return denied("mount_blockdev", _no_block_devices()), view.state


def unmount_blockdev(view: View, _request: Unmount) -> Outcome:
    """See ``mount_blockdev``."""
    return denied("unmount_blockdev", _no_block_devices()), view.state


def _no_block_devices() -> Reason:
    return Reason("unsupported", "block devices are not supported", "blockdev mounts are not supported")


def mount_overlay(view: View, request: MountOverlay) -> Outcome:
    """The layers, all mounted, must be those of some container, in order; that decides what the id can become."""
    point, state = "mount_overlay", view.state
    topic = "no matching containers for overlay"
    if request.container_id in state.matches:
        text = "an overlay is mounted for this container already"
        return denied(point, Reason("already_mounted", text, "overlay has already been mounted")), state
    if request.target in state.overlays:
        text = f"an overlay is mounted at {shown(request.target)} already"
        return denied(point, Reason("already_mounted", text, topic)), state
    missing = [path for path in request.layer_paths if path not in state.devices]
    if missing:
        text = f"no layer is mounted at {shown(missing[0])}"
        return denied(point, *unusable(view), Reason("not_mounted", text, topic)), state
    layers = tuple(state.devices[path] for path in reversed(request.layer_paths))
    candidates = tuple(view.containers_of(layers)) if layers or view.policy.parity else ()
    if not candidates:
        from parma_policy.framework import denials

        return denied(point, *unusable(view), denials.overlay(view, layers)), state
    return allowed(point), view.after(
        matches=with_item(state.matches, request.container_id, candidates),
        overlays=with_item(state.overlays, request.target, Overlay(request.container_id, request.layer_paths)),
    )


def unmount_overlay(view: View, request: Unmount) -> Outcome:
    """A mounted overlay whose container was never created, or was shut down."""
    point, state, target = "unmount_overlay", view.state, request.unmount_target
    overlay = state.overlays.get(target)
    if overlay is None:
        text = f"no overlay is mounted at {shown(target)}"
        return denied(point, Reason("not_mounted", text, "no overlay at path to unmount")), state
    started = state.started.get(overlay.container_id)
    if started is not None and not started.shut_down and not view.policy.parity:
        return denied(point, Reason("in_use", "the container was not shut down", "overlay in use")), state
    return allowed(point), view.after(overlays=without(state.overlays, target))


def scratch_mount(view: View, request: ScratchMount) -> Outcome:
    """Scratch space is encrypted, once at each place."""
    point, state = "scratch_mount", view.state
    if request.target in state.scratch_mounts:
        text = f"scratch space is mounted at {shown(request.target)} already"
        return denied(point, Reason("already_mounted", text, "scratch already mounted at path")), state
    if not request.encrypted and not view.policy.flags.allow_unencrypted_scratch:
        return denied(point, _unencrypted("unencrypted scratch not allowed")), state
    mounted = with_item(state.scratch_mounts, request.target, request.encrypted)
    return allowed(point), view.after(scratch_mounts=mounted)


def scratch_unmount(view: View, request: Unmount) -> Outcome:
    """Mounted scratch space."""
    point, state, target = "scratch_unmount", view.state, request.unmount_target
    if target not in state.scratch_mounts:
        text = f"no scratch space is mounted at {shown(target)}"
        return denied(point, Reason("not_mounted", text, "no scratch at path to unmount")), state
    return allowed(point), view.after(scratch_mounts=without(state.scratch_mounts, target))


def _unencrypted(topic: str) -> Reason:
    flag = "allow_unencrypted_scratch"
    change = f"{flag} would have to be true"
    return Reason("unencrypted", "scratch space must be encrypted", topic, change=change, where=flag)


def plan9_mount(view: View, request: Plan9Mount) -> Outcome:
    """A share below the directory of a container whose overlay is mounted."""
    point, state = "plan9_mount", view.state
    if request.target in state.plan9_mounts:
        return denied(point, _in_use(request.target)), state
    container_id, separator, rest = request.target.removeprefix("/run/gcs/c/").partition("/")
    good = request.target.startswith("/run/gcs/c/") and _SHARE_DIRECTORY.fullmatch(separator + rest)
    if not good or container_id not in state.matches:
        return denied(point, _bad_target(request.target, "/run/gcs/c/<container id>/mounts/m<number>")), state
    return allowed(point), view.after(plan9_mounts=with_item(state.plan9_mounts, request.target, container_id))


def plan9_unmount(view: View, request: Unmount) -> Outcome:
    """A mounted share."""
    point, state, target = "plan9_unmount", view.state, request.unmount_target
    if target not in state.plan9_mounts:
        return denied(point, _nothing_there(target)), state
    return allowed(point), view.after(plan9_mounts=without(state.plan9_mounts, target))
