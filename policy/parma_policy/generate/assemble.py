# SPDX-License-Identifier: Apache-2.0
"""What a source wants, what its image says and what the platform adds become one container of the policy.

The merging is containerd's: of its client library for ``ctr`` and nerdctl, of its CRI plugin for Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from parma_policy import attestation
from parma_policy.accounts import Account, resolve
from parma_policy.generate import possible, seccomp_profiles
from parma_policy.generate.capabilities import changed
from parma_policy.generate.patterns import Text
from parma_policy.generate.platforms import Platform
from parma_policy.generate.policy import Capabilities, Container, EnvRule, Exec, IdName, Mount, User
from parma_policy.generate.signals import allowed_signals, signal_number
from parma_policy.images import Image
from parma_wire.errors import Malformed

DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What containerd gives a container whose image does not say."""

_VOLUMES: Final = "sandbox:///volumes/image/[0-9a-f]{64}"
_FROM_IMAGE: Final = "the image's environment"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that the source sets; it replaces the image's of that name."""

    name: str
    value: Text
    note: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Seccomp:
    """Which profile: none, the platform's default (``default``), or one in a file, by its SHA-256."""

    kind: Literal["none", "default", "file"] = "none"
    sha256: str = ""


NO_SECCOMP: Final = Seccomp()
DEFAULT_SECCOMP: Final = Seccomp("default")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One container as its source wants it. None and empty: as image and platform say."""

    origin: tuple[str, ...] = ()
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    """Replaces the image's entrypoint, and with it the image's arguments."""
    arguments: tuple[str, ...] | None = None
    """Replaces the image's arguments."""
    env: tuple[Variable, ...] = ()
    any_value: tuple[str, ...] = ()
    """Names of variables that may have any value."""
    hostname: str = ""
    """An expression for the container's host name."""
    service_env: bool = False
    user: str | None = None
    """As containerd takes it: ``uid``, ``name``, ``uid:gid``, ``name:group``."""
    kubelet_user: bool = False
    """Where the image says the user: kubelet passes on its user and not its group."""
    run_as_group: int | None = None
    non_root: bool = False
    groups: tuple[int, ...] = ()
    """More that the source gives."""
    image_groups: bool = True
    """Whether the groups that the image's own files give the user count."""
    umask: str = "0022"
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool | None = None
    seccomp: Seccomp | None = None
    read_only: bool = False
    working_dir: str | None = None
    mounts: tuple[Mount, ...] = ()
    execs: tuple[Exec, ...] = ()
    image_health_check: bool = False
    """Whether the image's own health check is run."""
    stop_signal: str = ""
    signals: tuple[int, ...] = ()
    stdio: bool = True
    attestation: tuple[str, ...] = ()


def assemble(wanted: Wanted, image: Image, platform: Platform, *, seccomp_default: str = "") -> Container:
    """The policy's container. ``seccomp_default`` names another default profile than the platform's.

    Raises Malformed or NotFound for what does not fit the image, or cannot be had in the guest.
    """
    bounding = changed(wanted.add, wanted.drop, privileged=wanted.privileged)
    sha256, note = _seccomp(wanted, platform, seccomp_default or platform.seccomp, bounding)
    stop = wanted.stop_signal or image.text("StopSignal")
    no_new_privileges = platform.no_new_privileges if wanted.no_new_privileges is None else wanted.no_new_privileges
    container = Container(
        name=wanted.name,
        origin=wanted.origin,
        command=_command(wanted, image),
        env=tuple(_env(wanted, image, platform)),
        layers=image.layers,
        mounts=tuple(_mounts(wanted, image, platform)),
        execs=(*wanted.execs, *(health_check_commands(image.health_check()) if wanted.image_health_check else ())),
        signals=allowed_signals(*wanted.signals, *((signal_number(stop),) if stop else ())),
        user=_user(wanted, image),
        capabilities=Capabilities.of(frozenset(bounding)),
        seccomp_profile_sha256=sha256,
        seccomp_note=note,
        allow_elevated=wanted.privileged,
        working_dir=wanted.working_dir or image.text("WorkingDir") or "/",
        allow_stdio_access=wanted.stdio,
        no_new_privileges=no_new_privileges and not wanted.privileged,
        attestation=tuple(name for name in attestation.NAMES if name in wanted.attestation),
    )
    possible.check(container)
    return container


def health_check_commands(test: Sequence[str]) -> tuple[Exec, ...]:
    """For ``["CMD", ...]``, ``["CMD-SHELL", text]`` and ``["NONE"]``. nerdctl makes a shell command of each."""
    note = "the health check"
    match tuple(test):
        case ("CMD", *words) if words:
            shell = ("/bin/sh", "-c", " ".join(words))
            return (Exec(tuple(words), note), Exec(shell, note))
        case ("CMD-SHELL", *words) if words:
            return (Exec(("/bin/sh", "-c", " ".join(words)), note),)
    return ()


def _command(wanted: Wanted, image: Image) -> tuple[str, ...]:
    if wanted.entrypoint:
        command = (*wanted.entrypoint, *(wanted.arguments or ()))
    else:
        arguments = wanted.arguments or image.texts("Cmd")
        command = (*image.texts("Entrypoint"), *arguments)
    if not command:
        raise Malformed("the image says no command, nor does the source", hint="give one with --command")
    return command


def _env(wanted: Wanted, image: Image, platform: Platform) -> Iterator[EnvRule]:
    """Fixed ones first, then those that may have any value, then the platform's."""
    fixed: dict[str, EnvRule] = {}
    for variable in image.texts("Env"):
        name, separator, _ = variable.partition("=")
        if not name or not separator:
            raise Malformed(f"environment variable {name[:80]!r} of the image has no value", expected="NAME=value")
        fixed[name] = EnvRule(variable, required=True, note=_FROM_IMAGE)
    if not fixed or (platform.default_path == "always" and "PATH" not in fixed):
        fixed = {"PATH": EnvRule(DEFAULT_PATH, required=True, note="containerd's default"), **fixed}
    for given in wanted.env:
        fixed.pop(given.name, None)  # the source's own stand together
        fixed[given.name] = _env_rule(given)
    for name in wanted.any_value:
        fixed[name] = EnvRule(f"{_quoted_name(name)}=.*", "re2", required=False, note="any value, on request")
    yield from fixed.values()
    for rule in platform.env_rules(wanted.hostname or ".+", services=wanted.service_env):
        if rule.name not in fixed:
            yield rule


def _quoted_name(name: str) -> str:
    return Text.of(name).expression


def _env_rule(variable: Variable) -> EnvRule:
    value = variable.value.literal
    if value is not None:
        return EnvRule(f"{variable.name}={value}", required=variable.required, note=variable.note)
    expression = f"{_quoted_name(variable.name)}={variable.value.expression}"
    return EnvRule(expression, "re2", required=variable.required, note=variable.note)


def _mounts(wanted: Wanted, image: Image, platform: Platform) -> Iterator[Mount]:
    yield from wanted.mounts
    taken = {mount.destination for mount in wanted.mounts}
    if platform.image_volumes:
        for destination in image.volumes():
            path = destination.rstrip("/")
            if path and path not in taken:
                yield Mount(path, _VOLUMES, "bind", platform.image_volumes, "a volume that the image declares")
                taken.add(path)
    for mount in platform.mount_rules(read_only=wanted.read_only):
        if mount.destination not in taken:
            yield mount


def _user(wanted: Wanted, image: Image) -> User:
    image_user = image.text("User")
    given = image_user if wanted.user is None else wanted.user
    accounts = []
    if wanted.user is None and wanted.kubelet_user:
        # Without kubelet, a client of CRI leaves the group to containerd, which takes the image's.
        accounts.append(resolve(image_user, image.passwd, image.group))
        given = image_user.partition(":")[0]
    if wanted.run_as_group is not None:
        given = f"{given.partition(':')[0] or '0'}:{wanted.run_as_group}"
    account = resolve(given, image.passwd, image.group)
    if wanted.non_root and account.uid == 0:
        raise Malformed("the container must not run as root, and it does", hint="Kubernetes would not start it")
    groups = {gid for found in (account, *accounts) for gid in _groups(found, with_image=wanted.image_groups)}
    groups.update(wanted.groups)
    return User(IdName(str(account.uid)), tuple(IdName(str(gid)) for gid in sorted(groups)), wanted.umask)


def _groups(account: Account, *, with_image: bool) -> tuple[int, ...]:
    return account.groups if with_image else (account.gid,)


def _seccomp(wanted: Wanted, platform: Platform, default: str, bounding: Sequence[str]) -> tuple[str, str]:
    """SHA-256 of the profile, and a note."""
    choice = wanted.seccomp or (DEFAULT_SECCOMP if platform.seccomp_applied else NO_SECCOMP)
    if wanted.privileged or choice.kind == "none":
        return "", ""
    if choice.kind == "default":
        return seccomp_profiles.default(default, bounding), f"the default profile of {default}"
    return choice.sha256, ""
