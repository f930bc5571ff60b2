# SPDX-License-Identifier: Apache-2.0
"""Execution policies for images: the container that an image and a command line make, as a policy text.

The generated container is exactly what containerd's default specification for ``ctr run IMAGE NAME [ARGUMENT...]``
asks for. The text is the same for the same input, whoever makes it and when: its hash is what gets attested.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from parma_policy.accounts import Account, resolve
from parma_policy.attestation import NAMES
from parma_policy.framework.view import PRIVILEGED_CAPABILITIES, UNPRIVILEGED_CAPABILITIES
from parma_policy.points import POINTS
from parma_policy.reader import load
from parma_policy.versions import API_VERSION, FRAMEWORK_VERSION
from parma_wire.errors import Malformed

DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What containerd gives a container whose image sets no environment at all."""

TERMINATING_SIGNALS: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGKILL,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTERM,
)
"""Signals that end a process which does not handle them, of those that people send."""

_NO_RULES: Final = ("plan9_mount", "plan9_unmount", "mount_blockdev", "unmount_blockdev")


@dataclass(frozen=True, slots=True)
class Image:
    """What is known of an image: its configuration (the ``config`` object of OCI's image-spec), the dm-verity root
    hashes of its layers, base first, and its account files."""

    config: Mapping[str, Any]
    layers: tuple[str, ...]
    passwd: bytes = b""
    group: bytes = b""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount to allow besides those that the guest makes by itself."""

    destination: str
    source: str
    type: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall be possible with an image beyond what the image says. None: as the image says."""

    command: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    """``NAME=value``; replaces the image's variable of that name."""
    execs: tuple[tuple[str, ...], ...] = ()
    signals: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    user: str | None = None
    working_dir: str | None = None
    privileged: bool = False
    stdio: bool = True
    attestation: tuple[str, ...] = ()
    """Names of ``parma_policy.attestation``: what of attestation the container may reach."""


@dataclass(frozen=True, slots=True)
class Switches:
    """The policy's flags."""

    properties_access: bool = True
    """Statistics and process lists: what ``ctr task metrics`` and ``ps`` show."""
    dump_stacks: bool = False
    runtime_logging: bool = False
    extra: Mapping[str, bool] = field(default_factory=dict)


def container_for(image: Image, wish: Wish) -> dict[str, object]:
    """The policy's container object. Raises Malformed or NotFound for what does not fit the image."""
    config = image.config
    signals = sorted({*TERMINATING_SIGNALS, *wish.signals, *_stop_signal(config)})
    account = resolve(_text(config, "User") if wish.user is None else wish.user, image.passwd, image.group)
    capabilities = sorted(PRIVILEGED_CAPABILITIES if wish.privileged else UNPRIVILEGED_CAPABILITIES)
    container: dict[str, object] = {
        "name": image.name,
        "command": list(_command(config, wish)),
        "env_rules": _env_rules(config, wish),
        "layers": list(image.layers),
        "mounts": [_mount(mount) for mount in wish.mounts],
        "exec_processes": [{"command": list(command), "signals": signals} for command in wish.execs],
        "signals": signals,
        "user": _user(account),
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "inheritable": [],
            "permitted": capabilities,
            "ambient": [],
        },
        "seccomp_profile_sha256": "",
        "allow_elevated": wish.privileged,
        "working_dir": wish.working_dir or _text(config, "WorkingDir") or "/",
        "allow_stdio_access": wish.stdio,
        "no_new_privileges": not wish.privileged,
        "attestation": [name for name in NAMES if name in wish.attestation],
    }
    if not image.name:
        del container["name"]
    return container


def generate(containers: Sequence[Mapping[str, object]], switches: Switches | None = None) -> str:
    """The policy text for these containers (objects as ``container_for`` makes them).

    It was read back by the strict reader. Raises Malformed for containers that are none.
    """
    switches = switches or Switches()
    flags = {
        "allow_properties_access": switches.properties_access,
        "allow_dump_stacks": switches.dump_stacks,
        "allow_runtime_logging": switches.runtime_logging,
        "allow_environment_variable_dropping": False,
        "allow_unencrypted_scratch": False,
        "allow_capability_dropping": False,
        "allow_host_network": False,
        **switches.extra,
    }
    parts = [
        "package policy",
        "",
        "# Made by 'parma policy generate'. The SHA-256 of this text, every byte of it, is the HOST_DATA of the",
        "# attestation report of a VM that enforces it.",
        "",
        f'api_version := "{API_VERSION}"',
        f'framework_version := "{FRAMEWORK_VERSION}"',
        "",
        "# What may run, and how. Whatever differs in anything is denied.",
        f"containers := {_literal(list(containers))}",
        "",
        "# What the host may see or leave out.",
        *(f"{name} := {json.dumps(value)}" for name, value in flags.items()),
        "",
        "# Each of these is decided by the framework in the measured guest, from the data above.",
        *(f"{name} := data.framework.{name}" for name, point in POINTS.items() if _has_rule(name, linux=point.linux)),
        'reason := {"errors": data.framework.errors}',
        "",
    ]
    text = "\n".join(parts)
    load(text.encode())
    return text


def _has_rule(name: str, *, linux: bool) -> bool:
    return linux and name not in _NO_RULES


def _literal(value: object, indent: str = "") -> str:
    """JSON with one member to a line, and lists of plain values on one line."""
    inner = indent + "    "
    if isinstance(value, Mapping):
        members = (f"{inner}{json.dumps(key)}: {_literal(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(members) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        if all(isinstance(item, Mapping) and _short(item) for item in value):
            lines = (f"{inner}{json.dumps(item)}" for item in value)
        else:
            lines = (f"{inner}{_literal(item, inner)}" for item in value)
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    return json.dumps(value)


def _short(value: Mapping[str, object]) -> bool:
    return len(json.dumps(value)) <= 160 and not any(isinstance(item, Mapping) for item in value.values())


# -- the image's part --------------------------------------------------------------------------------------------


def _command(config: Mapping[str, Any], wish: Wish) -> tuple[str, ...]:
    command = wish.command if wish.command is not None else (*_texts(config, "Entrypoint"), *_texts(config, "Cmd"))
    if not command:
        raise Malformed("the image says no command", hint="give one with --command")
    return command


def _env_rules(config: Mapping[str, Any], wish: Wish) -> list[dict[str, object]]:
    variables: dict[str, str] = {}
    for variable in (*(_texts(config, "Env") or (DEFAULT_PATH,)), *wish.env):
        name, separator, _ = variable.partition("=")
        if not name or not separator:
            raise Malformed(f"environment variable {name[:80]!r} has no value", expected="NAME=value")
        variables[name] = variable
    rules: list[dict[str, object]] = [
        {"pattern": variable, "strategy": "string", "required": True} for variable in variables.values()
    ]
    if "TERM" not in variables:  # containerd adds it to containers with a terminal
        rules.append({"pattern": "TERM=xterm", "strategy": "string", "required": False})
    return rules


def _stop_signal(config: Mapping[str, Any]) -> tuple[int, ...]:
    name = _text(config, "StopSignal")
    return (signal_number(name),) if name else ()


def signal_number(name: str) -> int:
    """The number of a signal given as ``15``, ``TERM`` or ``SIGTERM``. Raises Malformed."""
    if name.isascii() and name.isdigit() and 1 <= int(name[:4]) <= 64:
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    base, plus, offset = full.partition("+")
    if base == "SIGRTMIN" and plus and offset.isdigit() and int(offset[:3]) <= 30:
        return int(signal.SIGRTMIN) + int(offset)
    try:
        return int(signal.Signals[full])
    except KeyError:
        raise Malformed(f"unknown signal {name[:40]!r}", expected="a number, or a name like SIGTERM") from None


def _user(account: Account) -> dict[str, object]:
    return {
        "user_idname": {"pattern": str(account.uid), "strategy": "id"},
        "group_idnames": [{"pattern": str(gid), "strategy": "id"} for gid in account.groups],
        "umask": "0022",
    }


def _mount(mount: Mount) -> dict[str, object]:
    return {
        "destination": mount.destination,
        "source": mount.source,
        "type": mount.type,
        "options": list(mount.options),
    }


def _text(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"the image's configuration has a wrong {name}", expected="a string")
    return value


def _texts(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = config.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed(f"the image's configuration has a wrong {name}", expected="a list of strings")
    return tuple(value)
