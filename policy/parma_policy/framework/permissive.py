# SPDX-License-Identifier: Apache-2.0
"""Permissive policies: what would be denied for what it is, is allowed and recorded.

For learning what a workload needs. Only the line ``permissive := true`` in the policy, and so in what HOST_DATA
hashes, switches it on; there is no other way. A permissive policy promises a relying party nothing but what stays
enforced all the same:

* a layer is still mounted through dm-verity with the root hash that the host names, so the recording knows for certain
  what was run, and an overlay still consists of mounted layers only;
* writable space is still encrypted and made anew;
* each place is used by one thing, each container id once, and nothing is unmounted that is in use: the state stays
  consistent, or else neither the recording nor the enforcer would mean anything;
* fragments, trust lists, host devices, block devices and shares are never forced: what they bring cannot be learned
  from a request;
* a container that the policy does not know reaches nothing of attestation: no secret is released to it, no key derived;
* a malformed request is malformed.

The functions here say what the state is after a request that the policy does not allow, or None where it stays
denied. ``matches`` of a container that did something the policy does not know is empty from then on: it is none of
the policy's containers.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final

from parma_policy.framework.decision import Decision, Kind
from parma_policy.framework.state import Overlay, Started, State, with_item
from parma_policy.framework.view import View
from parma_policy.requests import (
    DISK_TARGET,
    CreateContainer,
    ExecInContainer,
    LogProvider,
    MountDevice,
    MountOverlay,
    ProvideFiles,
    SignalContainerProcess,
)


def override(view: View, denial: Decision, request: Any) -> tuple[Decision, State]:
    """The answer of a permissive policy to a request with this denial; the denial itself where it stays."""
    forced = FORCED.get(denial.point)
    after = forced(view, request) if forced and denial.kind is Kind.DENIED else None
    if after is None:
        return denial, view.state
    kept = request.providers if isinstance(request, LogProvider) else None
    decision = Decision(
        allowed=True, point=denial.point, reasons=denial.reasons, allow_stdio_access=True, providers_to_keep=kept
    )
    return decision, after


def _mount_device(view: View, request: MountDevice) -> State | None:
    state, target = view.state, request.target
    if target in state.devices or target in state.rw_devices or not DISK_TARGET.fullmatch(target):
        return None
    return view.after(devices=with_item(state.devices, target, request.device_hash))


def _mount_overlay(view: View, request: MountOverlay) -> State | None:
    state = view.state
    taken = request.container_id in state.matches or request.target in state.overlays
    if taken or not request.layer_paths or not all(path in state.devices for path in request.layer_paths):
        return None
    overlay = Overlay(request.container_id, request.layer_paths)
    return view.after(
        matches=with_item(state.matches, request.container_id, ()),
        overlays=with_item(state.overlays, request.target, overlay),
    )


def _create_container(view: View, request: CreateContainer) -> State | None:
    state, identity = view.state, request.container_id
    has_overlay = any(overlay.container_id == identity for overlay in state.overlays.values())
    if identity in state.started or not has_overlay or request.devices:
        return None
    started = Started(request.privileged, allow_stdio_access=True)
    return view.after(
        matches=with_item(state.matches, identity, ()), started=with_item(state.started, identity, started)
    )


def _process(view: View, request: ExecInContainer | SignalContainerProcess) -> State | None:
    state, identity = view.state, request.container_id
    started = state.started.get(identity)
    if started is None or started.shut_down:
        return None
    return view.after(matches=with_item(state.matches, identity, ()))


def _provide_files(view: View, request: ProvideFiles) -> State | None:
    files = frozenset((file.path, file.sha256) for file in request.files)
    return view.after(provided=with_item(view.state.provided, request.source, files))


def _unchanged(view: View, _request: object) -> State | None:
    return view.state


FORCED: Final = MappingProxyType[str, Callable[[View, Any], State | None]](
    {
        "mount_device": _mount_device,
        "mount_overlay": _mount_overlay,
        "create_container": _create_container,
        "exec_in_container": _process,
        "signal_container_process": _process,
        "exec_external": _unchanged,
        "get_properties": _unchanged,
        "dump_stacks": _unchanged,
        "runtime_logging": _unchanged,
        "log_provider": _unchanged,
        "host_network": _unchanged,
        "configure_network": _unchanged,
        "forward_port": _unchanged,
        "provide_files": _provide_files,
    }
)
"""The points at which a permissive policy does not deny, and the state after what it would have denied."""
