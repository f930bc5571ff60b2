# SPDX-License-Identifier: Apache-2.0
"""Security contexts of pods and containers, merged as kubelet does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from parma_policy.generate import capabilities, seccomp_profiles
from parma_policy.generate.assemble import DEFAULT_SECCOMP, NO_SECCOMP, Seccomp
from parma_policy.generate.nodes import Fields
from parma_wire.errors import ParmaError

_MAX_ID: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Security:
    """What a container may do beyond running its command. None: as image and platform say."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    non_root: bool = False
    groups: tuple[int, ...] = ()
    image_groups: bool = True
    seccomp: Seccomp = NO_SECCOMP
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    read_only: bool = False


def read_pod(fields: Fields | None, seccomp_root: Path | None) -> Security:
    """``securityContext`` of a pod."""
    if fields is None:
        return Security()
    with fields:
        fields.ignore("fsGroupChangePolicy", "seLinuxChangePolicy")
        # The guest has its own list of those that concern nothing but the pod.
        fields.ignore("sysctls")
        groups = [node.integer(0, _MAX_ID) for node in fields.items("supplementalGroups")]
        fs_group = fields.maybe_integer("fsGroup", 0, _MAX_ID)
        policy = fields.text("supplementalGroupsPolicy", "Merge")
        common = _common(fields, Security(), seccomp_root)
    return replace(
        common,
        groups=tuple(groups) if fs_group is None else (*groups, fs_group),
        image_groups=policy != "Strict",
    )


def read_container(fields: Fields | None, pod: Security, seccomp_root: Path | None) -> Security:
    """``securityContext`` of a container, over that of its pod."""
    if fields is None:
        return pod
    with fields:
        fields.refuse("procMount", "the guest always masks parts of /proc", harmless=("Default",))
        inner = fields.child("capabilities")
        add, drop = _capabilities(inner)
        escalation = fields.maybe_flag("allowPrivilegeEscalation")
        privileged = fields.flag("privileged")
        read_only = fields.flag("readOnlyRootFilesystem")
        common = _common(fields, pod, seccomp_root)
    if privileged and escalation is False:
        fields.node.problem("privileged and allowPrivilegeEscalation: false exclude each other")
    return replace(
        common,
        groups=pod.groups,
        image_groups=pod.image_groups,
        add=add,
        drop=drop,
        privileged=privileged,
        no_new_privileges=escalation is False,
        read_only=read_only,
    )


def _common(fields: Fields, pod: Security, seccomp_root: Path | None) -> Security:
    """What both have: the container's counts before the pod's."""
    fields.refuse("seLinuxOptions", "there is no SELinux in the VM")
    fields.refuse("windowsOptions", "Windows is not supported")
    user = fields.maybe_integer("runAsUser", 0, _MAX_ID)
    group = fields.maybe_integer("runAsGroup", 0, _MAX_ID)
    non_root = fields.maybe_flag("runAsNonRoot")
    app_armor = fields.child("appArmorProfile")
    if app_armor is not None:
        with app_armor:
            app_armor.ignore("localhostProfile")
            app_armor.refuse("type", "there is no AppArmor in the VM", harmless=("Unconfined",))
    profile = fields.child("seccompProfile")
    return Security(
        run_as_user=pod.run_as_user if user is None else user,
        run_as_group=pod.run_as_group if group is None else group,
        non_root=pod.non_root if non_root is None else non_root,
        seccomp=pod.seccomp if profile is None else _seccomp(profile, seccomp_root),
    )


def _capabilities(fields: Fields | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if fields is None:
        return (), ()
    with fields:
        return capabilities.read(fields.items("add")), capabilities.read(fields.items("drop"))


def _seccomp(fields: Fields, root: Path | None) -> Seccomp:
    with fields:
        kind = fields.needed_text("type")
        name = fields.text("localhostProfile")
    match kind:
        case "RuntimeDefault":
            return DEFAULT_SECCOMP
        case "Unconfined":
            return NO_SECCOMP
        case "Localhost" if root is None:
            hint = "say with --seccomp-root DIR where kubelet's profiles are"
            fields.node.problem("a profile of the host", hint=hint)
        case "Localhost" if root is not None:
            return _from_file(fields, root, name)
        case _:
            fields.node.problem(f"type {kind} is not known")
    return NO_SECCOMP


def _from_file(fields: Fields, root: Path, name: str) -> Seccomp:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        fields.node.problem("localhostProfile leads out of the directory of profiles")
        return NO_SECCOMP
    try:
        return Seccomp("file", seccomp_profiles.from_file(path))
    except ParmaError as error:
        fields.node.problem(str(error))
        return NO_SECCOMP
