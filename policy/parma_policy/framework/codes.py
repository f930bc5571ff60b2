# SPDX-License-Identifier: Apache-2.0
"""The codes of reasons: the list that users and programs may rely on.

A code never changes its meaning and is never used for anything else. The page ``docs/reasons.md`` is made from this
table, and a test compares it with what the framework says. Nothing in the guest imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_ANY: Final = "any point"
_PROCESS: Final = ("create_container", "exec_in_container")


@dataclass(frozen=True, slots=True)
class Code:
    """One code: where it occurs, what it means, and what to do."""

    points: tuple[str, ...]
    meaning: str
    remedy: str
    topic: str
    """The reference enforcer's words; what follows a colon there are details."""


CODES: Final = MappingProxyType(
    {
        # What every point has in common
        "unknown_point": Code((_ANY,), "There is no such enforcement point.", "None: a request from nowhere.", ""),
        "not_linux": Code((_ANY,), "The point exists in Windows guests only.", "None.", ""),
        "api_version": Code(
            (_ANY,),
            "The policy has no usable api_version, so nothing it says counts.",
            "Give api_version as a semantic version that the guest knows.",
            "",
        ),
        "no_rule": Code(
            (_ANY,),
            "The policy knows of this enforcement point, by its api_version, but has no rule for it.",
            "Add the line `<point> := data.framework.<point>`.",
            "rule for <point> is missing from policy",
        ),
        "old_policy": Code(
            (_ANY,),
            "The policy's api_version is older than this enforcement point, whose default is to deny.",
            "Generate the policy again, with the current api_version.",
            "",
        ),
        "framework_version": Code(
            (_ANY,),
            "The framework_version is missing, malformed or newer than the guest's: the policy's lists do not count.",
            "Use a framework_version that the guest knows, or a newer guest image.",
            "framework_version is missing; framework_version is ahead of the current version",
        ),
        # Layers, overlays, scratch
        "layer": Code(
            ("mount_device",),
            "The device's dm-verity root hash is not a layer of any container of the policy.",
            "The image is another one than the policy was made for: generate the policy again, or run the right image.",
            "deviceHash not found",
        ),
        "layers": Code(
            ("mount_overlay",),
            "No container of the policy has exactly these layers in this order.",
            "As for layer.",
            "no matching containers for overlay",
        ),
        "already_mounted": Code(
            ("mount_device", "rw_mount_device", "mount_overlay", "scratch_mount", "plan9_mount"),
            "Something is mounted at this place already, or an overlay for this container.",
            "None: two things never share a place.",
            "device already mounted at path; overlay has already been mounted; scratch already mounted at path",
        ),
        "not_mounted": Code(
            (
                *("unmount_device", "rw_unmount_device", "mount_overlay", "unmount_overlay"),
                *("create_container", "scratch_unmount", "plan9_unmount"),
            ),
            "Nothing is mounted at this place.",
            "None.",
            "no device at path to unmount; no overlay at path to unmount; no scratch at path to unmount",
        ),
        "in_use": Code(
            ("unmount_device", "unmount_overlay"),
            "A container stands on it.",
            "None: it can be unmounted when the container is gone.",
            "device in use; overlay in use",
        ),
        "target": Code(
            ("mount_device", "rw_mount_device", "plan9_mount"),
            "The place to mount at is not one that the guest uses for this.",
            "None.",
            "mountpoint invalid",
        ),
        "read_write": Code(
            ("unmount_device",),
            "The device there is a read-write one.",
            "None.",
            "received read-only unmount request, but device provided is read-write",
        ),
        "read_only": Code(
            ("rw_unmount_device",),
            "The device there is a read-only one.",
            "None.",
            "received read-write unmount request, but device provided is read-only",
        ),
        "unencrypted": Code(
            ("rw_mount_device", "scratch_mount"),
            "Writable space without encryption.",
            "allow_unencrypted_scratch would have to be true; the host then reads what containers write.",
            "unencrypted scratch not allowed",
        ),
        "ensure_filesystem": Code(
            ("rw_mount_device",),
            "A read-write device must get a new file system.",
            "None.",
            "ensureFilesystem must be set on rw device mounts",
        ),
        "filesystem": Code(
            ("rw_mount_device",),
            "The file system is neither ext4 nor xfs.",
            "None.",
            "rw device mounts uses a filesystem that is not allowed",
        ),
        "unsupported": Code(
            ("mount_blockdev", "unmount_blockdev"),
            "Block devices as such are never given to containers.",
            "None.",
            "blockdev mounts are not supported",
        ),
        # Containers and processes
        "already_started": Code(
            ("create_container",),
            "The container id was used before; an id is used once in the life of a VM.",
            "Use another id.",
            "container already started",
        ),
        "no_overlay": Code(
            ("create_container",),
            "No overlay of layers in the policy is mounted for this container id.",
            "As for layers.",
            "invalid command",
        ),
        "not_started": Code(
            ("exec_in_container", "signal_container_process", "shutdown_container"),
            "No container of this id was created.",
            "None.",
            "container not started",
        ),
        "shut_down": Code(
            ("exec_in_container", "signal_container_process"),
            "The container was shut down.",
            "None.",
            "invalid command; target isn't allowed to receive the signal",
        ),
        "command": Code(
            (*_PROCESS, "exec_external"),
            "The command line is not, element by element, the one in the policy (for exec: none of those listed).",
            "Change command, or add to exec_processes. Arguments are shown only with denials_show_arguments.",
            "invalid command",
        ),
        "working_dir": Code(
            (*_PROCESS, "exec_external"),
            "Another working directory.",
            "Change working_dir.",
            "invalid working directory",
        ),
        "user": Code(_PROCESS, "Another user.", "Change user.user_idname.", "invalid user"),
        "group": Code(_PROCESS, "A group that no rule accepts.", "Add to user.group_idnames.", "invalid user"),
        "umask": Code(_PROCESS, "Another umask.", "Change user.umask.", "invalid user"),
        "no_new_privileges": Code(
            _PROCESS,
            "no_new_privileges is not set although the policy demands it.",
            "Set no_new_privileges to false, which lets set-uid programs gain privileges.",
            "invalid noNewPrivileges",
        ),
        "privileged": Code(
            ("create_container",),
            "A privileged container where the policy allows none.",
            "Set allow_elevated to true, which gives the container the whole VM.",
            "privileged escalation not allowed",
        ),
        "mounts": Code(
            ("create_container",),
            "A mount that is not listed, or with another type, source or set of options.",
            "Add to mounts, or change the one at the same destination.",
            "invalid mount list",
        ),
        "seccomp": Code(
            ("create_container",), "Another seccomp profile.", "Change seccomp_profile_sha256.", "invalid seccomp"
        ),
        "devices": Code(
            ("create_container",), "Host devices are never given to containers.", "None.", "devices not supported"
        ),
        "env": Code(
            (*_PROCESS, "exec_external"),
            "An environment variable that no rule accepts, by its name or its value.",
            "Add to env_rules, or let unknown ones be dropped with allow_environment_variable_dropping. Values are "
            "shown only with denials_show_environment.",
            "invalid env list",
        ),
        "env_required": Code(
            (*_PROCESS, "exec_external"),
            "A variable that the policy requires is missing or has another value.",
            "Set required to false in its rule.",
            "missing required environment variable",
        ),
        "env_ambiguous": Code(
            (*_PROCESS, "exec_external"),
            "One name is given twice with different values; what the program sees would depend on it.",
            "None: give it once.",
            "invalid env list",
        ),
        "env_undecidable": Code(
            (*_PROCESS, "exec_external"),
            "With dropping, several containers of the policy would each keep other variables.",
            "Let the containers differ in their command, or keep the same variables.",
            "invalid env list",
        ),
        "capabilities": Code(
            _PROCESS,
            "One of the five capability sets differs.",
            "Change capabilities, or let more than those listed be dropped with allow_capability_dropping.",
            "capabilities don't match",
        ),
        "capabilities_undecidable": Code(
            _PROCESS,
            "With dropping, several containers of the policy would each keep other capabilities.",
            "Let the containers differ in their command, or have the same capabilities.",
            "containers only distinguishable by capabilties",
        ),
        "stdio_undecidable": Code(
            ("create_container", "exec_external"),
            "Several containers match that differ only in allow_stdio_access.",
            "Let them agree in allow_stdio_access, or differ in something that a request shows.",
            "containers only distinguishable by allow_stdio_access",
        ),
        "attestation_undecidable": Code(
            ("create_container",),
            "Several containers match that differ in what of attestation they may reach, or in their keys.",
            "Let them agree in attestation (with /key/derive: in everything), or differ in what a request shows.",
            "containers only distinguishable by attestation",
        ),
        "signal": Code(
            ("signal_container_process",),
            "A signal that is not listed for this process.",
            "Add it to signals, of the container or of the exec process.",
            "target isn't allowed to receive the signal",
        ),
        # Flags
        "flag": Code(
            ("get_properties", "dump_stacks", "runtime_logging", "host_network", "configure_network"),
            "The policy's flag for this is off.",
            "Set the flag that the reason names to true.",
            "properties access not allowed; dumping of stacks not allowed; runtime logging not allowed; "
            "host network not allowed; network not allowed",
        ),
        "port": Code(
            ("forward_port",),
            "A port on the containers' loopback that is not listed.",
            "Add to forward_ports.",
            "",
        ),
        "provided_source": Code(
            ("provide_files",),
            "No container has a mount with this source, so the host has no business there.",
            "Add to mounts.",
            "",
        ),
        "provided_content": Code(
            ("provide_files",),
            "The files are not those whose SHA-256 the policy has.",
            "Generate the policy again for these files, or leave sha256 out of the mount.",
            "",
        ),
        "provided_update": Code(
            ("provide_files",),
            "The host wants to change files that it has provided.",
            "Give all mounts of this source updates: true.",
            "",
        ),
        "provider": Code(
            ("log_provider",),
            "A source of log events that is not listed.",
            "Add to allowed_log_providers.",
            "log provider not allowed by policy",
        ),
        # Fragments and trust lists
        "issuer": Code(
            ("load_fragment",),
            "No fragment of this issuer is accepted.",
            "Add to fragments.",
            "invalid fragment issuer",
        ),
        "feed": Code(
            ("load_fragment",), "No fragment of this feed is accepted.", "Add to fragments.", "invalid fragment feed"
        ),
        "svn": Code(
            ("load_fragment",),
            "The fragment's security version is below the minimum.",
            "Use a newer fragment, or lower minimum_svn.",
            "fragment svn is below the specified minimum",
        ),
        "fragment_rules": Code(
            ("load_fragment",),
            "Several rules of the policy that accept the fragment contradict each other.",
            "Let all rules for one issuer and feed include the same; no namespace with several sets of parameters.",
            "",
        ),
        "svn_type": Code(
            ("load_fragment",),
            "The fragment's security version and the minimum are a number and a semantic version.",
            "Write both in the same form.",
            "fragment svn and the specified minimum are different types",
        ),
        "svn_mismatch": Code(
            ("load_fragment",),
            "The fragment's envelope and its text have different security versions.",
            "The issuer has to sign it again.",
            "svn in header does not match svn in fragment rego",
        ),
        "receipt": Code(
            ("load_fragment",),
            "A transparency receipt that the policy requires is missing.",
            "Supply it with the fragment, or change required_receipts.",
            "missing receipt",
        ),
        "fragment_text": Code(
            ("load_fragment",),
            "The fragment's text cannot be read, or a parameter in it has no value.",
            "The reason says line and column.",
            "",
        ),
        "trust_list": Code(
            ("load_transparency_trust_list",),
            "No rule of the policy accepts this issuer, subject and version.",
            "Add to transparency_trust_lists.",
            "no TTL candidate matches the provided TTL's issuer, subject and svn",
        ),
        "ledgers": Code(
            ("load_transparency_trust_list",),
            "The trust list names no ledger that the policy accepts.",
            "Add to allowed_ledgers.",
            "The provided TTL does not contain any ledgers it is allowed to load",
        ),
    }
)
"""Every code of the framework."""
