# SPDX-License-Identifier: Apache-2.0
"""Which function decides which enforcement point. A function is named as its point; importing this module checks
that none is missing."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final

from parma_policy.framework import containers, mounts, provided, switches
from parma_policy.framework.decision import Decision
from parma_policy.framework.state import State
from parma_policy.framework.view import View
from parma_policy.points import OWN_POINTS, POINTS
from parma_policy.requests import LoadFragment

Handler = Callable[[View, Any], tuple[Decision, State]]


def load_fragment(view: View, request: LoadFragment) -> tuple[Decision, State]:
    """See ``fragments``: loaded with the first fragment, as most container groups have none."""
    from parma_policy.framework import fragments

    return fragments.load_fragment(view, request)


_FUNCTIONS: Final[tuple[Handler, ...]] = (
    mounts.mount_device,
    mounts.unmount_device,
    mounts.rw_mount_device,
    mounts.rw_unmount_device,
    mounts.mount_blockdev,
    mounts.unmount_blockdev,
    mounts.mount_overlay,
    mounts.unmount_overlay,
    mounts.scratch_mount,
    mounts.scratch_unmount,
    mounts.plan9_mount,
    mounts.plan9_unmount,
    containers.create_container,
    containers.exec_in_container,
    containers.signal_container_process,
    containers.shutdown_container,
    switches.exec_external,
    switches.get_properties,
    switches.dump_stacks,
    switches.runtime_logging,
    switches.host_network,
    switches.configure_network,
    switches.forward_port,
    provided.provide_files,
    switches.log_provider,
    switches.load_transparency_trust_list,
    load_fragment,
)

_BY_NAME: Final = {function.__name__: function for function in _FUNCTIONS}

HANDLERS: Final = MappingProxyType(
    {name: _BY_NAME[name] for name, point in (*POINTS.items(), *OWN_POINTS.items()) if point.linux}
)
"""Deciding function by enforcement point."""
