# SPDX-License-Identifier: Apache-2.0
"""The enforcement points: everything that the host can ask for and the policy decides.

This table is the single declaration. What the reader accepts as a rule of a policy, the functions that decide
(``framework.handlers``), the answer for older policies, the policy that allows nothing (``closed_door``) and the
reference page (``docs/enforcement-points.md``) all follow it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from parma_policy import requests
from parma_policy.requests import Schema
from parma_policy.versions import API_VERSION, FRAMEWORK_VERSION, Version, version


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
    """The ``api_version`` from which on a policy must have a rule for it."""
    default: Default
    schema: Schema
    """The input."""
    rule: str
    """What the framework allows, in a sentence."""
    results: tuple[str, ...] = ()
    """Fields of ``framework.Decision`` that are decided here besides ``allowed``."""
    changes: tuple[str, ...] = ()
    """Fields of ``framework.State`` that an allowed request changes."""
    linux: bool = True
    """False: exists for Windows guests only and is always denied here."""


def _points() -> tuple[EnforcementPoint, ...]:
    allow, deny, framework = Default.ALLOW, Default.DENY, Default.FRAMEWORK

    def point(
        name: str,
        since: str,
        default: Default,
        schema: Schema,
        rule: str,
        results: tuple[str, ...] = (),
        changes: tuple[str, ...] = (),
    ) -> EnforcementPoint:
        return EnforcementPoint(name, version(since), default, schema, rule, results, changes)

    def windows(name: str, since: str) -> EnforcementPoint:
        rule = "Never: it belongs to Windows guests."
        return EnforcementPoint(name, version(since), deny, requests.EMPTY, rule, linux=False)

    return (
        point(
            *("mount_device", "0.1.0", deny, requests.MOUNT_DEVICE),
            "A read-only device whose root hash is a layer of some container, at a free place for disks.",
            changes=("devices",),
        ),
        point(
            *("unmount_device", "0.2.0", allow, requests.UNMOUNT),
            "A mounted read-only device that no overlay uses.",
            changes=("devices",),
        ),
        point(
            *("rw_mount_device", "0.11.0", framework, requests.MOUNT_RW_DEVICE),
            "A read-write device that is encrypted and gets a new ext4 or xfs, at a free place for scratch space.",
            changes=("rw_devices",),
        ),
        point(
            *("rw_unmount_device", "0.11.0", framework, requests.UNMOUNT),
            "A mounted read-write device.",
            changes=("rw_devices",),
        ),
        point(
            *("mount_blockdev", "0.11.1", deny, requests.MOUNT_BLOCKDEV),
            "Never: containers get no block devices.",
        ),
        point(
            *("unmount_blockdev", "0.11.1", deny, requests.UNMOUNT),
            "Never, as nothing can have been mounted.",
        ),
        point(
            *("mount_overlay", "0.1.0", deny, requests.MOUNT_OVERLAY),
            "Mounted devices that are, in order, exactly the layers of some container; once for each container id. "
            "Those containers are what the id can become.",
            changes=("matches", "overlays"),
        ),
        point(
            *("unmount_overlay", "0.6.0", allow, requests.UNMOUNT),
            "A mounted overlay whose container was never created, or was shut down.",
            changes=("overlays",),
        ),
        point(
            *("create_container", "0.1.0", deny, requests.CREATE_CONTAINER),
            "On the overlay mounted for this id, with everything as one of the containers with these layers says; "
            "once for each id. Those that say so are what the id still can be.",
            results=("env_list", "caps", "allow_stdio_access", "attestation", "identity"),
            changes=("matches", "started"),
        ),
        point(
            *("exec_in_container", "0.2.0", allow, requests.EXEC_IN_CONTAINER),
            "A command that a container which the id can still be lists in exec_processes, with the container's "
            "environment, working directory, user and capabilities.",
            results=("env_list", "caps", "allow_stdio_access"),
            changes=("matches",),
        ),
        point(
            *("exec_external", "0.3.0", allow, requests.EXEC_EXTERNAL),
            "A process outside of the containers that external_processes lists.",
            results=("env_list", "allow_stdio_access"),
        ),
        point(
            *("shutdown_container", "0.4.0", allow, requests.SHUTDOWN_CONTAINER),
            "A container that was created, also repeatedly.",
            changes=("matches", "started"),
        ),
        point(
            *("signal_container_process", "0.5.0", allow, requests.SIGNAL_CONTAINER_PROCESS),
            "A signal that a container which the id can still be lists: for its first process, or for the command "
            "that the process was started with.",
            changes=("matches",),
        ),
        point(
            *("plan9_mount", "0.6.0", allow, requests.PLAN9_MOUNT),
            "A share below the directory of a container whose overlay is mounted. Parma's guest has no shares and "
            "never asks.",
            changes=("plan9_mounts",),
        ),
        point(
            *("plan9_unmount", "0.6.0", allow, requests.UNMOUNT),
            "A mounted share.",
            changes=("plan9_mounts",),
        ),
        point(
            *("get_properties", "0.7.0", allow, requests.EMPTY),
            "With allow_properties_access: statistics, process lists.",
        ),
        point(
            *("dump_stacks", "0.7.0", allow, requests.EMPTY),
            "With allow_dump_stacks: the enforcer's own stacks.",
        ),
        point(
            *("runtime_logging", "0.8.0", allow, requests.EMPTY),
            "With allow_runtime_logging: the enforcer's own log.",
        ),
        point(
            *("load_fragment", "0.9.0", deny, requests.LOAD_FRAGMENT),
            "A signed fragment of an issuer and feed that fragments lists, new enough, with the receipts required.",
            results=("add_module",),
            changes=("fragments",),
        ),
        point(
            *("scratch_mount", "0.10.0", allow, requests.SCRATCH_MOUNT),
            "Encrypted scratch space, at a free place.",
            changes=("scratch_mounts",),
        ),
        point(
            *("scratch_unmount", "0.10.0", allow, requests.UNMOUNT),
            "Mounted scratch space.",
            changes=("scratch_mounts",),
        ),
        point(
            *("log_provider", "0.11.0", allow, requests.LOG_PROVIDER),
            "Sources of log events that allowed_log_providers lists; others are dropped where that is allowed.",
            results=("providers_to_keep",),
        ),
        point(
            *("load_transparency_trust_list", "0.12.0", deny, requests.LOAD_TRUST_LIST),
            "A trust list whose issuer, subject and version transparency_trust_lists accepts, for the ledgers that "
            "it accepts.",
            results=("allowed_ledgers",),
        ),
        point(
            *("host_network", "0.12.0", deny, requests.EMPTY),
            "With allow_host_network: the VM's own network for a container.",
        ),
        windows("mount_cims", "0.11.0"),
        windows("registry_changes", "0.10.0"),
    )


POINTS: Final = MappingProxyType({point.name: point for point in _points()})
"""All enforcement points by name."""

OWN_POINTS: Final = MappingProxyType(
    {
        point.name: point
        for point in (
            EnforcementPoint(
                "configure_network",
                version("0.0.0"),
                Default.FRAMEWORK,
                requests.EMPTY,
                "Unless allow_network is false: a network for the VM's containers, once. What comes over it is as "
                "little trusted as the host is.",
            ),
            EnforcementPoint(
                "provide_files",
                version("0.0.0"),
                Default.FRAMEWORK,
                requests.PROVIDE_FILES,
                "Files of the host for a source that some container mounts: with the sha256 that mounts of this source "
                "have, if any has one. To be changed later only where all mounts of this source have updates.",
                changes=("provided",),
            ),
            EnforcementPoint(
                "forward_port",
                version("0.0.0"),
                Default.FRAMEWORK,
                requests.FORWARD_PORT,
                "A connection from the host to a TCP port on the containers' loopback, that forward_ports lists.",
            ),
        )
    }
)
"""What only Parma's guest asks. No policy has rules for these: the framework answers, from switches of Parma's own
(``model.Extensions``) that a policy written for another enforcer does not have."""


ASKED: Final = MappingProxyType({**POINTS, **OWN_POINTS})
"""All that a denial can be of."""


def closed_door() -> str:
    """The policy that hands every point to the framework and gives it nothing to say yes with: all is denied."""
    return "\n".join(
        [
            "package policy",
            f'api_version := "{API_VERSION}"',
            f'framework_version := "{FRAMEWORK_VERSION}"',
            *(f"{point.name} := data.framework.{point.name}" for point in POINTS.values() if point.linux),
            "allow_network := false",
            'reason := {"errors": data.framework.errors}',
            "",
        ]
    )
