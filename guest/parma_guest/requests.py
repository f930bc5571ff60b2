# SPDX-License-Identifier: Apache-2.0
"""The one place where the host's protobuf messages become typed values.

Whatever a function here returns is well formed and bounded in count and size; whether it is *allowed* is the
policy's business. Unknown fields are refused at any depth, so a field that a newer host sends is never silently
ignored. Raises `Malformed`, and `Unsupported` for what is understood and not offered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from google.protobuf.message import Message

from parma_guest import owners
from parma_guest.values import (
    MAX_DATA_BLOCKS,
    MAX_STRING,
    Capabilities,
    ContainerId,
    ExecId,
    GuestPath,
    Hostname,
    LayerTarget,
    MountSpec,
    ProcessSpec,
    Resources,
    Rlimit,
    RootHash,
    User,
    VolumeName,
    WorkingDirectory,
)
from parma_policy import honoured, seccomp
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed, Unsupported
from parma_wire.limits import DOCUMENT_CHUNK, MAX_DOCUMENT_BYTES, MAX_POLICY_BYTES, POLICY_CHUNK

MAX_LUN: Final = 255
MAX_LAYERS: Final = 128
MAX_ARGS: Final = 1024
MAX_ENV: Final = 2048
MAX_ENV_BYTES: Final = 512 * 1024
MAX_ARGS_BYTES: Final = 512 * 1024
MAX_MOUNTS: Final = 64
MAX_MOUNT_OPTIONS: Final = 16
MAX_GROUPS: Final = 256
MAX_CAPABILITIES: Final = 64
MAX_SYSCTLS: Final = 32
MAX_PATHS: Final = 64
MIN_SCRATCH_BYTES: Final = 1 << 20
MAX_SCRATCH_BYTES: Final = 1 << 40
NONCE_BYTES: Final = 64
MAX_SIGNAL: Final = 64
_MAX_ID: Final = 2**31 - 1  # uids and gids; the upper half of 32 bits has special meanings (-1, -2)

_RLIMITS: Final = frozenset(
    (
        *("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK"),
        *("RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO"),
        *("RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK"),
    )
)
_CAPABILITY: Final = re.compile(r"CAP_[A-Z_]{2,24}", re.ASCII)
_CPUSET: Final = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?){0,63}", re.ASCII)
_SAFE_SYSCTLS: Final = frozenset(
    {
        # Namespaced, and harmless whoever sets them: what Kubernetes calls the safe set.
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_syncookies",
    }
)
_NAMESPACED_SYSCTL: Final = re.compile(
    r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni)|fs\.mqueue\.[a-z_]+|net(\.[A-Za-z0-9_-]+){2,6}", re.ASCII
)
"""Those of the container's own IPC and network namespaces."""
_SYSCTL_VALUE: Final = re.compile(r"[0-9][0-9 ,\t-]{0,127}", re.ASCII)


class MountDevice(NamedTuple):
    """A layer to be verified and mounted."""

    lun: int
    target: LayerTarget
    root_hash: RootHash
    data_blocks: int


class MountScratch(NamedTuple):
    """Scratch space: exactly one of ``lun`` (a host disk, to be encrypted) and ``memory_bytes`` is set."""

    container: ContainerId
    lun: int | None
    memory_bytes: int | None


class MountOverlay(NamedTuple):
    """A container's root file system; ``layers`` has the top layer first."""

    container: ContainerId
    layers: tuple[LayerTarget, ...]
    user_namespace: owners.UserNamespace | None = None


class CreateSandbox(NamedTuple):
    """A pod, before its containers."""

    sandbox: ContainerId
    hostname: Hostname
    sysctls: Mapping[str, str]


class MountVolume(NamedTuple):
    """An emptyDir of the pod: exactly one of ``lun`` (a host disk, to be encrypted) and ``memory_bytes`` is set."""

    name: VolumeName
    lun: int | None
    memory_bytes: int | None


class CreateContainer(NamedTuple):
    """A container to be created, not started."""

    container: ContainerId
    process: ProcessSpec
    mounts: tuple[MountSpec, ...]
    readonly_rootfs: bool
    hostname: Hostname
    seccomp: seccomp.Profile | None
    sysctls: Mapping[str, str]
    resources: Resources
    privileged: bool
    sandbox_container: bool
    pid_namespace_of: ContainerId | None
    masked_in_image: tuple[GuestPath, ...] = ()
    readonly_in_image: tuple[GuestPath, ...] = ()


class ExecProcess(NamedTuple):
    """An additional process for a running container."""

    container: ContainerId
    exec_id: ExecId
    process: ProcessSpec


class SignalProcess(NamedTuple):
    """A signal for one process, or for all of a container."""

    container: ContainerId
    exec_id: ExecId
    signal: int
    all: bool


def refuse_unknown_fields(message: Message) -> None:
    """Raises `Malformed` if the message, at any depth, has a field that this enforcer does not know.

    Discards the unknown fields as a side effect (that is how it counts them).
    """
    size = message.ByteSize()
    message.DiscardUnknownFields()  # type: ignore[no-untyped-call,unused-ignore]
    if message.ByteSize() != size:
        raise Malformed(f"{type(message).__name__} has a field that the enforcer does not know")


def put_policy(message: pb.PutPolicyRequest) -> tuple[int, bytes]:
    """Offset and data of one piece of the policy."""
    if not 0 < len(message.data) <= POLICY_CHUNK:
        raise Malformed("piece of the policy has a bad size", expected=f"1 to {POLICY_CHUNK} bytes")
    if message.offset > MAX_POLICY_BYTES:
        raise Malformed("policy is too large", expected=f"at most {MAX_POLICY_BYTES} bytes")
    return message.offset, message.data


def put_document(message: pb.PutDocumentRequest) -> tuple[int, bytes]:
    """Offset and data of one piece of a signed document."""
    if not 0 < len(message.data) <= DOCUMENT_CHUNK:
        raise Malformed("piece of the document has a bad size", expected=f"1 to {DOCUMENT_CHUNK} bytes")
    if message.offset > MAX_DOCUMENT_BYTES:
        raise Malformed("the document is too large", expected=f"at most {MAX_DOCUMENT_BYTES} bytes")
    return message.offset, message.data


def nonce(message: pb.EvidenceRequest) -> bytes:
    """The 64 bytes that the report is to answer."""
    if len(message.nonce) != NONCE_BYTES:
        raise Malformed("nonce has a bad size", expected=f"{NONCE_BYTES} bytes")
    return message.nonce


def mount_device(message: pb.MountDeviceRequest) -> MountDevice:
    """See `MountDevice`."""
    if not 1 <= message.data_blocks <= MAX_DATA_BLOCKS:
        raise Malformed("data_blocks is out of range", expected=f"1 to {MAX_DATA_BLOCKS}")
    return MountDevice(
        _lun(message.lun), LayerTarget(message.target), RootHash(message.device_hash), message.data_blocks
    )


def mount_scratch(message: pb.MountScratchRequest) -> MountScratch:
    """See `MountScratch`."""
    return MountScratch(ContainerId(message.container_id), *_backing(message))


def mount_volume(message: pb.MountVolumeRequest) -> MountVolume:
    """See `MountVolume`."""
    return MountVolume(VolumeName(message.name), *_backing(message))


def create_sandbox(message: pb.CreateSandboxRequest) -> CreateSandbox:
    """See `CreateSandbox`."""
    return CreateSandbox(ContainerId(message.sandbox_id), Hostname(message.hostname), _sysctls(message.sysctls))


def mount_overlay(message: pb.MountOverlayRequest) -> MountOverlay:
    """See `MountOverlay`."""
    _at_most(message.layer_targets, MAX_LAYERS, "layers")
    layers = tuple(LayerTarget(target) for target in message.layer_targets)
    if len(set(layers)) != len(layers):
        raise Malformed("a layer is named twice")
    namespace = owners.parse(_mappings(message.uid_mappings), _mappings(message.gid_mappings))
    return MountOverlay(ContainerId(message.container_id), layers, namespace)


def create_container(message: pb.CreateContainerRequest) -> CreateContainer:
    """See `CreateContainer`."""
    _at_most(message.mounts, MAX_MOUNTS, "mounts")
    joined = message.pid_namespace_of
    return CreateContainer(
        container=ContainerId(message.container_id),
        process=process(message.process),
        mounts=tuple(_mount(item) for item in message.mounts),
        readonly_rootfs=message.readonly_rootfs,
        hostname=Hostname(message.hostname),
        seccomp=seccomp.parse(message.seccomp),
        sysctls=_sysctls(message.sysctls),
        resources=resources(message.resources),
        privileged=message.privileged,
        sandbox_container=message.sandbox_container,
        pid_namespace_of=ContainerId(joined) if joined else None,
        masked_in_image=_places(message.masked_in_image),
        readonly_in_image=_places(message.readonly_in_image),
    )


def unsafe_sysctl(values: Mapping[str, str]) -> str:
    """The first that changes more than Kubernetes calls safe, or ""."""
    return next((name for name in values if name not in _SAFE_SYSCTLS), "")


def exec_process(message: pb.ExecProcessRequest) -> ExecProcess:
    """See `ExecProcess`."""
    exec_id = ExecId(message.exec_id)
    if exec_id.is_init:
        raise Malformed("exec id is missing")
    return ExecProcess(ContainerId(message.container_id), exec_id, process(message.process))


def signal_process(message: pb.SignalProcessRequest) -> SignalProcess:
    """See `SignalProcess`."""
    if not 1 <= message.signal <= MAX_SIGNAL:
        raise Malformed("signal is out of range", expected=f"1 to {MAX_SIGNAL}")
    exec_id = ExecId(message.exec_id)
    if message.all and not exec_id.is_init:
        raise Malformed("'all' concerns a container, not one of its processes")
    return SignalProcess(ContainerId(message.container_id), exec_id, message.signal, message.all)


def console_size(width: int, height: int) -> tuple[int, int]:
    """Characters, as the terminal driver stores them (16 bits each)."""
    if width > 0xFFFF or height > 0xFFFF:
        raise Malformed("console size is out of range", expected="at most 65535")
    return width, height


def process(message: pb.Process) -> ProcessSpec:
    """See `ProcessSpec`."""
    return ProcessSpec(
        args=_args(message.args),
        env=_env(message.env),
        cwd=WorkingDirectory(message.cwd or "/"),
        user=_user(message.user),
        capabilities=_capabilities(message.capabilities),
        no_new_privileges=message.no_new_privileges,
        rlimits=_rlimits(message.rlimits),
        oom_score_adj=_oom_score(message),
        terminal=message.terminal,
        console_size=console_size(message.console_width, message.console_height),
        stdin=message.stdin,
    )


def resources(message: pb.Resources) -> Resources:
    """See `Resources`."""
    if message.cpuset_cpus and not _CPUSET.fullmatch(message.cpuset_cpus):
        raise Malformed("cpuset_cpus is malformed", expected="for example 0-2,4")
    optional: dict[str, int] = {}
    for name, least, most in (
        ("memory_limit", -1, 2**62),
        ("memory_swap", -1, 2**62),
        ("memory_reservation", 0, 2**62),
        ("cpu_quota", -1, 2**40),
        ("cpu_period", 1_000, 1_000_000),
        ("cpu_shares", 2, 262_144),
        ("pids_limit", -1, 2**31 - 1),
        ("blkio_weight", 10, 1_000),
    ):
        if message.HasField(name):
            value = getattr(message, name)
            if not least <= value <= most:
                raise Malformed(f"{name} is out of range", expected=f"{least} to {most}")
            optional[name] = value
    return Resources(cpuset_cpus=message.cpuset_cpus, **optional)


def _mappings(items: Iterable[pb.IdMapping]) -> list[owners.IdMapping]:
    return [owners.IdMapping(item.inside, item.outside, item.size) for item in items]


def _backing(message: pb.MountScratchRequest | pb.MountVolumeRequest) -> tuple[int | None, int | None]:
    """LUN or bytes of memory: exactly one of them."""
    backing = message.WhichOneof("backing")
    if backing == "lun":
        return _lun(message.lun), None
    if backing == "memory_bytes":
        if not MIN_SCRATCH_BYTES <= message.memory_bytes <= MAX_SCRATCH_BYTES:
            raise Malformed("memory_bytes is out of range", expected="1 MiB to 1 TiB")
        return None, message.memory_bytes
    raise Malformed("writable space has no backing", expected="lun or memory_bytes")


def _lun(value: int) -> int:
    if value > MAX_LUN:
        raise Malformed("LUN is out of range", expected=f"0 to {MAX_LUN}")
    return value


def _places(paths: Iterable[str]) -> tuple[GuestPath, ...]:
    _at_most(paths, MAX_PATHS, "hidden paths")
    found = tuple(GuestPath(path) for path in paths)
    if not all(honoured.is_place(path) for path in found):
        raise Malformed("a path to be hidden is not allowed", expected="neither / nor anything below /proc, /sys, /dev")
    return found


def _at_most(items: Iterable[object], most: int, what: str) -> None:
    if len(items) > most:  # type: ignore[arg-type]
        raise Malformed(f"too many {what}", expected=f"at most {most}")


def _args(args: Iterable[str]) -> tuple[str, ...]:
    _at_most(args, MAX_ARGS, "arguments")
    found = tuple(args)
    if not found or not found[0]:
        raise Malformed("process has no command")
    if any("\0" in arg or len(arg.encode()) >= MAX_STRING for arg in found):
        raise Malformed("an argument is malformed", expected=f"no NUL, less than {MAX_STRING} bytes")
    if sum(len(arg.encode()) for arg in found) > MAX_ARGS_BYTES:
        raise Malformed("arguments are too large", expected=f"at most {MAX_ARGS_BYTES} bytes in all")
    return found


def _env(env: Iterable[str]) -> tuple[str, ...]:
    _at_most(env, MAX_ENV, "environment variables")
    found = tuple(env)
    names = set()
    for variable in found:
        name, separator, _value = variable.partition("=")
        # The text of a variable may be a secret: errors never quote it.
        if not separator or not name:
            raise Malformed("an environment variable is malformed", expected="NAME=value")
        if "\0" in variable or "\n" in variable or len(variable.encode()) >= MAX_STRING:
            raise Malformed("an environment variable has a NUL, a newline or too many bytes")
        if name in names:
            raise Malformed("an environment variable is given twice")
        names.add(name)
    if sum(len(variable.encode()) for variable in found) > MAX_ENV_BYTES:
        raise Malformed("environment is too large", expected=f"at most {MAX_ENV_BYTES} bytes in all")
    return found


def _user(message: pb.User) -> User:
    _at_most(message.additional_gids, MAX_GROUPS, "groups")
    umask = message.umask if message.HasField("umask") else 0o022
    if umask > 0o777:
        raise Malformed("umask is out of range", expected="at most 0777")
    ids = (message.uid, message.gid, *message.additional_gids)
    if any(number > _MAX_ID for number in ids):
        raise Malformed("user or group id is out of range", expected=f"at most {_MAX_ID}")
    return User(message.uid, message.gid, tuple(message.additional_gids), umask)


def _capabilities(message: pb.Capabilities) -> Capabilities:
    sets = []
    for names in (message.bounding, message.effective, message.inheritable, message.permitted, message.ambient):
        _at_most(names, MAX_CAPABILITIES, "capabilities")
        if not all(_CAPABILITY.fullmatch(name) for name in names):
            raise Malformed("a capability is malformed", expected="for example CAP_CHOWN")
        sets.append(tuple(names))
    return Capabilities(*sets)


def _rlimits(items: Iterable[pb.Rlimit]) -> tuple[Rlimit, ...]:
    _at_most(items, len(_RLIMITS), "resource limits")
    found = tuple(Rlimit(item.type, item.hard, item.soft) for item in items)
    if len({item.type for item in found}) != len(found):
        raise Malformed("a resource limit is given twice")
    for item in found:
        if item.type not in _RLIMITS or item.soft > item.hard:
            raise Malformed("a resource limit is malformed", expected="a known type and soft <= hard")
    return found


def _oom_score(message: pb.Process) -> int | None:
    if not message.HasField("oom_score_adj"):
        return None
    if not -999 <= message.oom_score_adj <= 1000:
        raise Malformed("oom_score_adj is out of range", expected="-999 to 1000")
    return message.oom_score_adj


def _mount(message: pb.Mount) -> MountSpec:
    destination = GuestPath(message.destination)
    if not honoured.is_place(destination):
        raise Malformed("mount destination is not allowed", expected="neither / nor anything below /proc, /sys, /dev")
    if message.type not in honoured.MOUNT_TYPES:
        known = ", ".join(sorted(honoured.MOUNT_TYPES))
        raise Unsupported(f"mounts of this type are not supported; there are {known}")
    source = str(GuestPath(message.source)) if message.type == "bind" else message.source
    if message.type == "tmpfs" and source not in honoured.TMPFS_SOURCES:
        raise Malformed("source of a tmpfs is malformed", expected="tmpfs")
    _at_most(message.options, MAX_MOUNT_OPTIONS, "mount options")
    if honoured.refused_option(message.type, message.options) is not None:
        raise Malformed("a mount option is not allowed")
    return MountSpec(destination, message.type, source, tuple(message.options))


def _sysctls(values: Mapping[str, str]) -> dict[str, str]:
    _at_most(values, MAX_SYSCTLS, "sysctls")
    for name, value in values.items():
        if name not in _SAFE_SYSCTLS and not _NAMESPACED_SYSCTL.fullmatch(name):
            raise Unsupported("a sysctl is not in the list of those that only concern the container")
        if not _SYSCTL_VALUE.fullmatch(value):
            raise Malformed("the value of a sysctl is malformed", expected="numbers")
    return dict(values)
