# SPDX-License-Identifier: Apache-2.0
"""Which enforcement points stand before which request of the host.

The table is complete by construction: the service refuses to be built when a request has no row (`service`), and
a request without a row is refused when it arrives. A row with no points says why none is needed: either the request
comes before there is a policy, or it concerns availability only, which the host has anyway, as it can stop the VM.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple


class Kind(Enum):
    """What must hold before a request is looked at."""

    BOOTSTRAP = "needs no policy"
    READ = "needs a policy; changes nothing"
    CHANGE = "needs a policy, and a group that is not poisoned"
    STOP = "always possible"


class Row(NamedTuple):
    """``points`` are asked in this order; ``reason`` says why there are none."""

    kind: Kind
    points: tuple[str, ...] = ()
    reason: str = ""


def _availability(kind: Kind, why: str) -> Row:
    return Row(kind, reason=f"availability only: {why}")


TABLE: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "Hello": Row(Kind.BOOTSTRAP, reason="reveals the version, which is measured anyway, and boot times"),
        "PutPolicy": Row(Kind.BOOTSTRAP, reason="stores bytes that mean nothing until SetPolicy"),
        "SetPolicy": Row(Kind.BOOTSTRAP, reason="checked against HOST_DATA of the VM's own report, once"),
        "PutDocument": Row(Kind.CHANGE, reason="stores bytes that mean nothing until they are loaded as something"),
        "LoadFragment": Row(Kind.CHANGE, ("load_fragment",)),
        "LoadTrustList": Row(Kind.CHANGE, ("load_transparency_trust_list",)),
        "Evidence": Row(Kind.READ, reason="a report is public; without one nobody could check the policy"),
        "Recording": Row(Kind.READ, ("runtime_logging",)),
        "PutEndorsements": Row(
            Kind.CHANGE, reason="signed by others, and passed on to relying parties by containers that the policy lets"
        ),
        "ConfigureNetwork": Row(Kind.CHANGE, ("configure_network",)),
        "PutFile": Row(Kind.CHANGE, reason="stores bytes that are nowhere until ProvideFiles"),
        "ProvideFiles": Row(Kind.CHANGE, ("provide_files",)),
        "MountDevice": Row(Kind.CHANGE, ("mount_device",)),
        "UnmountDevice": Row(Kind.CHANGE, ("unmount_device",)),
        "MountScratch": Row(Kind.CHANGE, ("rw_mount_device", "scratch_mount")),
        "UnmountScratch": Row(Kind.CHANGE, ("scratch_unmount", "rw_unmount_device")),
        "MountOverlay": Row(Kind.CHANGE, ("mount_overlay",)),
        "UnmountOverlay": Row(Kind.CHANGE, ("unmount_overlay",)),
        "CreateSandbox": Row(
            Kind.CHANGE,
            reason="runs a fixed program of the guest image without rights; what joins it is asked of create_container",
        ),
        "StopSandbox": _availability(Kind.CHANGE, "ends the pod, as ending the VM does"),
        "MountVolume": Row(Kind.CHANGE, ("rw_mount_device", "scratch_mount")),
        "CreateContainer": Row(Kind.CHANGE, ("create_container",)),
        "StartContainer": Row(Kind.CHANGE, reason="runs exactly what create_container allowed"),
        "ExecProcess": Row(Kind.CHANGE, ("exec_in_container",)),
        "SignalProcess": Row(Kind.CHANGE, ("signal_container_process",)),
        "WaitProcess": _availability(Kind.READ, "the host sees that the container ended; the status is the one answer"),
        "ResizePty": _availability(Kind.READ, "a terminal exists only where the policy gives access to stdio"),
        "DeleteProcess": _availability(Kind.CHANGE, "forgets a process that has exited"),
        "DeleteContainer": Row(Kind.CHANGE, ("shutdown_container",)),
        "ListProcesses": Row(Kind.READ, ("get_properties",)),
        "Stats": Row(Kind.READ, ("get_properties",)),
        "PauseContainer": _availability(Kind.CHANGE, "the host can stop the whole VM at any instruction"),
        "ResumeContainer": _availability(Kind.CHANGE, "undoes PauseContainer"),
        "UpdateResources": _availability(Kind.CHANGE, "limits, as the host gives the VM its memory and time"),
        "PowerOff": _availability(Kind.STOP, "the host can end the VM without asking"),
        "Forward": Row(Kind.READ, ("forward_port",)),
        # Stdio was decided with the process (allow_stdio_access); a stream of a denied one is /dev/null.
        "Stream": Row(Kind.READ, reason="decided by create_container: allow_stdio_access"),
    }
)


def row(method: str) -> Row | None:
    """The row of a request, or None: refuse it."""
    return TABLE.get(method)
