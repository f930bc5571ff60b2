# SPDX-License-Identifier: Apache-2.0
"""Requests to the enforcement points as typed values, and how they are made from what the enforcer passes.

The keys are those of the ``input`` documents that confidential-container policies are written against. Whatever is
missing, unknown or of the wrong type is Malformed: the enforcer has a bug, or let something through that it should
have parsed. That is never a decision of the policy.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from parma_policy.model import CAPABILITY_SETS, Capabilities
from parma_wire.errors import Malformed

Request = Any
"""One of the request classes of this module."""

MAX_TEXT: Final = 1 << 21
"""Characters of one string of a request."""
MAX_LIST: Final = 10_000
"""Elements of one list of a request."""

_ID_REGEX: Final = "/run/gcs/c/[0-9a-fA-F]{64}"
_DISK_REGEX: Final = "/run/mounts/scsi/m[0-9]+"
DISK_TARGET: Final = re.compile(r"/run/mounts/scsi/m[0-9]+", re.ASCII)
"""Where read-only disks are mounted."""
SCRATCH_TARGET: Final = re.compile(_ID_REGEX, re.ASCII)
"""Where read-write disks are mounted."""


@dataclass(frozen=True, slots=True)
class UserName:
    """A user or group: numeric id and name, both as text. An empty name: it has none in the container."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount asked for."""

    destination: str
    source: str
    type: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Empty:
    """A request that says nothing but that it is made."""


@dataclass(frozen=True, slots=True)
class MountDevice:
    target: str
    device_hash: str


@dataclass(frozen=True, slots=True)
class MountReadWriteDevice:
    target: str
    encrypted: bool
    ensure_filesystem: bool
    filesystem: str


@dataclass(frozen=True, slots=True)
class Unmount:
    unmount_target: str


@dataclass(frozen=True, slots=True)
class MountBlockDevice:
    target: str


@dataclass(frozen=True, slots=True)
class MountOverlay:
    container_id: str
    layer_paths: tuple[str, ...]
    """Targets of mounted devices, top layer first."""
    target: str


@dataclass(frozen=True, slots=True)
class CreateContainer:
    container_id: str
    arg_list: tuple[str, ...]
    env_list: tuple[str, ...]
    working_dir: str
    sandbox_dir: str
    huge_pages_dir: str
    mounts: tuple[Mount, ...]
    devices: tuple[str, ...]
    privileged: bool
    no_new_privileges: bool
    user: UserName
    groups: tuple[UserName, ...]
    umask: str
    capabilities: Capabilities
    seccomp_profile_sha256: str
    is_sandbox_container: bool


@dataclass(frozen=True, slots=True)
class ExecInContainer:
    container_id: str
    arg_list: tuple[str, ...]
    env_list: tuple[str, ...]
    working_dir: str
    no_new_privileges: bool
    user: UserName
    groups: tuple[UserName, ...]
    umask: str
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class ExecExternal:
    arg_list: tuple[str, ...]
    env_list: tuple[str, ...]
    working_dir: str


@dataclass(frozen=True, slots=True)
class ShutdownContainer:
    container_id: str


@dataclass(frozen=True, slots=True)
class SignalContainerProcess:
    container_id: str
    signal: int
    is_init_process: bool
    arg_list: tuple[str, ...]
    """What the process was started with."""


@dataclass(frozen=True, slots=True)
class Plan9Mount:
    target: str


@dataclass(frozen=True, slots=True)
class ScratchMount:
    target: str
    encrypted: bool


@dataclass(frozen=True, slots=True)
class LogProvider:
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProvidedFile:
    """``path`` is below the source, empty where that is the file."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ProvideFiles:
    """All that the host has for one source of mounts."""

    container_id: str
    sandbox_dir: str
    source: str
    files: tuple[ProvidedFile, ...]
    update: bool

    @property
    def huge_pages_dir(self) -> str:
        """There are none to provide anything in."""
        return ""


@dataclass(frozen=True, slots=True)
class ForwardPort:
    """A connection to a TCP port on the containers' loopback."""

    port: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transparency receipt that was already validated."""

    issuer: str
    ttl_subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadFragment:
    issuer: str
    feed: str
    header_svn: int | None
    """From the signed envelope, where it has one."""
    rego: str
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True)
class LoadTransparencyTrustList:
    issuer: str
    subject: str
    svn: int
    ledgers: tuple[str, ...]


# -- decoding ----------------------------------------------------------------------------------------------------

Decoder = Callable[[object, str], Any]


def _bad(key: str, expected: str) -> Malformed:
    return Malformed(f"request member {key!r} has the wrong type or size", expected=expected)


def text(value: object, key: str) -> str:
    """A string without NUL that has a UTF-8 form."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _bad(key, "a string")
    if "\0" in value:
        raise Malformed(f"request member {key!r} contains a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Malformed(f"request member {key!r} is not valid Unicode") from None
    return value


def flag(value: object, key: str) -> bool:
    """A truth value."""
    if not isinstance(value, bool):
        raise _bad(key, "true or false")
    return value


def number(value: object, key: str) -> int:
    """A whole number that fits 63 bits."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >> 63:
        raise _bad(key, "a whole number")
    return value


def optional_number(value: object, key: str) -> int | None:
    """A whole number, or None."""
    return None if value is None else number(value, key)


def texts(value: object, key: str) -> tuple[str, ...]:
    """A list of strings. None counts as the empty list."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or len(value) > MAX_LIST:
        raise _bad(key, "a list of strings")
    # The common case, fast: joining checks that all are strings, and one look at the whole finds what is special.
    try:
        joined = "".join(value)
    except TypeError:
        raise _bad(key, "a list of strings") from None
    if joined.isascii() and "\0" not in joined and len(joined) <= MAX_TEXT:
        return tuple(value)
    return tuple([text(item, key) for item in value])


def devices(value: object, key: str) -> tuple[str, ...]:
    """A list of OCI devices, each a path or an object with one: no policy can allow any, so the paths are all."""
    if not isinstance(value, list | tuple) or len(value) > MAX_LIST:
        raise _bad(key, "a list of devices")
    return tuple(text(item.get("path") if isinstance(item, Mapping) else item, key) for item in value)


def constant(expected: str) -> Decoder:
    """A member that policies' rules read but that only has one value; it may be left out."""

    def check(value: object, key: str) -> None:
        if value is not None and value != expected:
            raise Malformed(f"request member {key!r} has an unexpected value", expected=expected)

    return check


def items(schema: Schema) -> Decoder:
    """A list of objects."""
    return functools.partial(_items, schema)


def _items(schema: Schema, value: object, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_LIST:
        raise _bad(key, "a list of objects")
    return tuple([schema.decode(item, key) for item in value])


class Schema:
    """Makes one class of request from a mapping. ``members`` are (key, decoder) in the order of the class's fields;
    ``constants`` are keys that may be given with the one value they can have."""

    def __init__(
        self, target: type, members: Mapping[str, Decoder], constants: Mapping[str, str] | None = None
    ) -> None:
        self.target = target
        self.members = tuple(members.items())
        self.keys = frozenset(members)
        self.constants = {key: constant(value) for key, value in (constants or {}).items()}
        if len(members) != len(fields(target)):
            raise TypeError(target)

    def decode(self, value: object, where: str) -> Any:
        """The request; Malformed where ``value`` is not exactly of this shape. ``where`` names it in messages."""
        if isinstance(value, self.target):
            return value
        if not isinstance(value, Mapping):
            raise _bad(where, "an object")
        if value.keys() != self.keys:
            self._check_keys(value, where)
        return self.target(*[decode(value[key], key) for key, decode in self.members])

    def _check_keys(self, value: Mapping[object, object], where: str) -> None:
        for key in value:
            if key not in self.keys:
                if not isinstance(key, str) or key not in self.constants:
                    raise Malformed(f"{where}: unknown request member {str(key)[:60]!r}")
                self.constants[key](value[key], key)
        missing = sorted(key for key in self.keys if key not in value)
        if missing:
            raise Malformed(f"{where}: request member {missing[0]!r} is missing")


USER_NAME: Final = Schema(UserName, {"id": text, "name": text})
MOUNT: Final = Schema(Mount, {"destination": text, "source": text, "type": text, "options": texts})
RECEIPT: Final = Schema(Receipt, {"issuer": text, "ttl_subjects": texts})
PROVIDED_FILE: Final = Schema(ProvidedFile, {"path": text, "sha256": text})
CAPABILITIES: Final = Schema(Capabilities, dict.fromkeys(CAPABILITY_SETS, texts))

EMPTY: Final = Schema(Empty, {})
MOUNT_DEVICE: Final = Schema(MountDevice, {"target": text, "deviceHash": text}, {"mountPathRegex": _DISK_REGEX})
MOUNT_RW_DEVICE: Final = Schema(
    MountReadWriteDevice,
    {"target": text, "encrypted": flag, "ensureFilesystem": flag, "filesystem": text},
    {"mountPathRegex": _ID_REGEX},
)
UNMOUNT: Final = Schema(Unmount, {"unmountTarget": text})
MOUNT_BLOCKDEV: Final = Schema(MountBlockDevice, {"target": text})
MOUNT_OVERLAY: Final = Schema(MountOverlay, {"containerID": text, "layerPaths": texts, "target": text})
CREATE_CONTAINER: Final = Schema(
    CreateContainer,
    {
        "containerID": text,
        "argList": texts,
        "envList": texts,
        "workingDir": text,
        "sandboxDir": text,
        "hugePagesDir": text,
        "mounts": items(MOUNT),
        "devices": devices,
        "privileged": flag,
        "noNewPrivileges": flag,
        "user": USER_NAME.decode,
        "groups": items(USER_NAME),
        "umask": text,
        "capabilities": CAPABILITIES.decode,
        "seccompProfileSHA256": text,
        "isSandboxContainer": flag,
    },
)
EXEC_IN_CONTAINER: Final = Schema(
    ExecInContainer,
    {
        "containerID": text,
        "argList": texts,
        "envList": texts,
        "workingDir": text,
        "noNewPrivileges": flag,
        "user": USER_NAME.decode,
        "groups": items(USER_NAME),
        "umask": text,
        "capabilities": CAPABILITIES.decode,
    },
)
EXEC_EXTERNAL: Final = Schema(ExecExternal, {"argList": texts, "envList": texts, "workingDir": text})
PROVIDE_FILES: Final = Schema(
    ProvideFiles,
    {"containerID": text, "sandboxDir": text, "source": text, "files": items(PROVIDED_FILE), "update": flag},
)
FORWARD_PORT: Final = Schema(ForwardPort, {"port": number})
SHUTDOWN_CONTAINER: Final = Schema(ShutdownContainer, {"containerID": text})
SIGNAL_CONTAINER_PROCESS: Final = Schema(
    SignalContainerProcess, {"containerID": text, "signal": number, "isInitProcess": flag, "argList": texts}
)
PLAN9_MOUNT: Final = Schema(
    Plan9Mount, {"target": text}, {"rootPrefix": "/run/gcs/c", "mountPathPrefix": "/mounts/m[0-9]+"}
)
SCRATCH_MOUNT: Final = Schema(ScratchMount, {"target": text, "encrypted": flag})
LOG_PROVIDER: Final = Schema(LogProvider, {"providers": texts})
LOAD_FRAGMENT: Final = Schema(
    LoadFragment,
    {"issuer": text, "feed": text, "header_svn": optional_number, "rego": text, "receipts": items(RECEIPT)},
)
LOAD_TRUST_LIST: Final = Schema(
    LoadTransparencyTrustList, {"issuer": text, "subject": text, "svn": number, "ledgers": texts}
)
