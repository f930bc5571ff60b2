# SPDX-License-Identifier: Apache-2.0
"""The enforcement points: everything that the host can ask for and the policy decides.

This table is the single declaration. What the reader accepts as a rule of a policy, the functions that decide
(``framework.handlers``), the answer for older policies and the reference page all follow it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from parma_policy import requests
from parma_policy.requests import Schema
from parma_policy.versions import Version, version


class Default(enum.Enum):
    """The answer where a policy has no rule for a point because its ``api_version`` is older than the point."""

    DENY = "deny"
    ALLOW = "allow"
    FRAMEWORK = "framework"
    """As if the policy had handed the point to the framework."""


@dataclass(frozen=True, slots=True)
class EnforcementPoint:
    """One kind of request."""

    name: str
    introduced: Version
    default: Default
    schema: Schema
    linux: bool = True
    """False: exists for Windows guests only and is always denied here."""


def _declare() -> dict[str, EnforcementPoint]:
    allow, deny, framework = Default.ALLOW, Default.DENY, Default.FRAMEWORK
    table = (
        ("mount_device", "0.1.0", deny, requests.MOUNT_DEVICE),
        ("unmount_device", "0.2.0", allow, requests.UNMOUNT),
        ("rw_mount_device", "0.11.0", framework, requests.MOUNT_RW_DEVICE),
        ("rw_unmount_device", "0.11.0", framework, requests.UNMOUNT),
        ("mount_blockdev", "0.11.1", deny, requests.MOUNT_BLOCKDEV),
        ("unmount_blockdev", "0.11.1", deny, requests.UNMOUNT),
        ("mount_overlay", "0.1.0", deny, requests.MOUNT_OVERLAY),
        ("unmount_overlay", "0.6.0", allow, requests.UNMOUNT),
        ("create_container", "0.1.0", deny, requests.CREATE_CONTAINER),
        ("exec_in_container", "0.2.0", allow, requests.EXEC_IN_CONTAINER),
        ("exec_external", "0.3.0", allow, requests.EXEC_EXTERNAL),
        ("shutdown_container", "0.4.0", allow, requests.SHUTDOWN_CONTAINER),
        ("signal_container_process", "0.5.0", allow, requests.SIGNAL_CONTAINER_PROCESS),
        ("plan9_mount", "0.6.0", allow, requests.PLAN9_MOUNT),
        ("plan9_unmount", "0.6.0", allow, requests.UNMOUNT),
        ("get_properties", "0.7.0", allow, requests.EMPTY),
        ("dump_stacks", "0.7.0", allow, requests.EMPTY),
        ("runtime_logging", "0.8.0", allow, requests.EMPTY),
        ("load_fragment", "0.9.0", deny, requests.LOAD_FRAGMENT),
        ("scratch_mount", "0.10.0", allow, requests.SCRATCH_MOUNT),
        ("scratch_unmount", "0.10.0", allow, requests.UNMOUNT),
        ("log_provider", "0.11.0", allow, requests.LOG_PROVIDER),
        ("load_transparency_trust_list", "0.12.0", deny, requests.LOAD_TRUST_LIST),
        ("host_network", "0.12.0", deny, requests.EMPTY),
    )
    points = {name: EnforcementPoint(name, version(since), default, schema) for name, since, default, schema in table}
    for name, since in (("mount_cims", "0.11.0"), ("registry_changes", "0.10.0")):
        points[name] = EnforcementPoint(name, version(since), deny, requests.EMPTY, linux=False)
    return points


POINTS: Final = MappingProxyType(_declare())
"""All enforcement points by name."""
