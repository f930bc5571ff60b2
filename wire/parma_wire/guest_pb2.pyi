from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StreamKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STREAM_KIND_UNSPECIFIED: _ClassVar[StreamKind]
    STDIN: _ClassVar[StreamKind]
    STDOUT: _ClassVar[StreamKind]
    STDERR: _ClassVar[StreamKind]
STREAM_KIND_UNSPECIFIED: StreamKind
STDIN: StreamKind
STDOUT: StreamKind
STDERR: StreamKind

class HelloRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HelloResponse(_message.Message):
    __slots__ = ("version", "tee", "phases")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEE_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    version: str
    tee: str
    phases: _containers.RepeatedCompositeFieldContainer[BootPhase]
    def __init__(self, version: _Optional[str] = ..., tee: _Optional[str] = ..., phases: _Optional[_Iterable[_Union[BootPhase, _Mapping]]] = ...) -> None: ...

class BootPhase(_message.Message):
    __slots__ = ("name", "uptime_us")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UPTIME_US_FIELD_NUMBER: _ClassVar[int]
    name: str
    uptime_us: int
    def __init__(self, name: _Optional[str] = ..., uptime_us: _Optional[int] = ...) -> None: ...

class PutPolicyRequest(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutPolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class SetPolicyResponse(_message.Message):
    __slots__ = ("policy_sha256", "wants_endorsements")
    POLICY_SHA256_FIELD_NUMBER: _ClassVar[int]
    WANTS_ENDORSEMENTS_FIELD_NUMBER: _ClassVar[int]
    policy_sha256: bytes
    wants_endorsements: bool
    def __init__(self, policy_sha256: _Optional[bytes] = ..., wants_endorsements: _Optional[bool] = ...) -> None: ...

class PutDocumentRequest(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutDocumentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LoadFragmentRequest(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class LoadFragmentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LoadTrustListRequest(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class LoadTrustListResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutEndorsementsRequest(_message.Message):
    __slots__ = ("host_amd_cert", "reference_info")
    HOST_AMD_CERT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_INFO_FIELD_NUMBER: _ClassVar[int]
    host_amd_cert: bytes
    reference_info: bytes
    def __init__(self, host_amd_cert: _Optional[bytes] = ..., reference_info: _Optional[bytes] = ...) -> None: ...

class PutEndorsementsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EvidenceRequest(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    def __init__(self, nonce: _Optional[bytes] = ...) -> None: ...

class EvidenceResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: bytes
    def __init__(self, report: _Optional[bytes] = ...) -> None: ...

class RecordingRequest(_message.Message):
    __slots__ = ("offset",)
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: int
    def __init__(self, offset: _Optional[int] = ...) -> None: ...

class RecordingResponse(_message.Message):
    __slots__ = ("data", "size", "dropped")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    size: int
    dropped: int
    def __init__(self, data: _Optional[bytes] = ..., size: _Optional[int] = ..., dropped: _Optional[int] = ...) -> None: ...

class PutFileRequest(_message.Message):
    __slots__ = ("name", "offset", "data", "mode", "uid", "gid")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    data: bytes
    mode: int
    uid: int
    gid: int
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., mode: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ...) -> None: ...

class PutFileResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProvideFilesRequest(_message.Message):
    __slots__ = ("container_id", "source", "update")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    source: str
    update: bool
    def __init__(self, container_id: _Optional[str] = ..., source: _Optional[str] = ..., update: _Optional[bool] = ...) -> None: ...

class ProvideFilesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NetworkAddress(_message.Message):
    __slots__ = ("address", "prefix_length", "broadcast", "no_prefix_route")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_FIELD_NUMBER: _ClassVar[int]
    NO_PREFIX_ROUTE_FIELD_NUMBER: _ClassVar[int]
    address: bytes
    prefix_length: int
    broadcast: bytes
    no_prefix_route: bool
    def __init__(self, address: _Optional[bytes] = ..., prefix_length: _Optional[int] = ..., broadcast: _Optional[bytes] = ..., no_prefix_route: _Optional[bool] = ...) -> None: ...

class NetworkRoute(_message.Message):
    __slots__ = ("destination", "prefix_length", "gateway", "source", "metric", "on_link")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    ON_LINK_FIELD_NUMBER: _ClassVar[int]
    destination: bytes
    prefix_length: int
    gateway: bytes
    source: bytes
    metric: int
    on_link: bool
    def __init__(self, destination: _Optional[bytes] = ..., prefix_length: _Optional[int] = ..., gateway: _Optional[bytes] = ..., source: _Optional[bytes] = ..., metric: _Optional[int] = ..., on_link: _Optional[bool] = ...) -> None: ...

class NetworkNeighbour(_message.Message):
    __slots__ = ("address", "mac")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    address: bytes
    mac: bytes
    def __init__(self, address: _Optional[bytes] = ..., mac: _Optional[bytes] = ...) -> None: ...

class NetworkInterface(_message.Message):
    __slots__ = ("mac", "name", "mtu", "addresses", "routes", "neighbours", "new_mac")
    MAC_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    NEW_MAC_FIELD_NUMBER: _ClassVar[int]
    mac: bytes
    name: str
    mtu: int
    addresses: _containers.RepeatedCompositeFieldContainer[NetworkAddress]
    routes: _containers.RepeatedCompositeFieldContainer[NetworkRoute]
    neighbours: _containers.RepeatedCompositeFieldContainer[NetworkNeighbour]
    new_mac: bytes
    def __init__(self, mac: _Optional[bytes] = ..., name: _Optional[str] = ..., mtu: _Optional[int] = ..., addresses: _Optional[_Iterable[_Union[NetworkAddress, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[NetworkRoute, _Mapping]]] = ..., neighbours: _Optional[_Iterable[_Union[NetworkNeighbour, _Mapping]]] = ..., new_mac: _Optional[bytes] = ...) -> None: ...

class ConfigureNetworkRequest(_message.Message):
    __slots__ = ("interfaces",)
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    interfaces: _containers.RepeatedCompositeFieldContainer[NetworkInterface]
    def __init__(self, interfaces: _Optional[_Iterable[_Union[NetworkInterface, _Mapping]]] = ...) -> None: ...

class ConfigureNetworkResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MountDeviceRequest(_message.Message):
    __slots__ = ("lun", "target", "device_hash", "data_blocks")
    LUN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DEVICE_HASH_FIELD_NUMBER: _ClassVar[int]
    DATA_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    lun: int
    target: str
    device_hash: str
    data_blocks: int
    def __init__(self, lun: _Optional[int] = ..., target: _Optional[str] = ..., device_hash: _Optional[str] = ..., data_blocks: _Optional[int] = ...) -> None: ...

class MountDeviceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnmountDeviceRequest(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: str
    def __init__(self, target: _Optional[str] = ...) -> None: ...

class UnmountDeviceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MountScratchRequest(_message.Message):
    __slots__ = ("container_id", "lun", "memory_bytes")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    LUN_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    lun: int
    memory_bytes: int
    def __init__(self, container_id: _Optional[str] = ..., lun: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class MountScratchResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnmountScratchRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class UnmountScratchResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IdMapping(_message.Message):
    __slots__ = ("inside", "outside", "size")
    INSIDE_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    inside: int
    outside: int
    size: int
    def __init__(self, inside: _Optional[int] = ..., outside: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class MountOverlayRequest(_message.Message):
    __slots__ = ("container_id", "layer_targets", "uid_mappings", "gid_mappings")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_TARGETS_FIELD_NUMBER: _ClassVar[int]
    UID_MAPPINGS_FIELD_NUMBER: _ClassVar[int]
    GID_MAPPINGS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    layer_targets: _containers.RepeatedScalarFieldContainer[str]
    uid_mappings: _containers.RepeatedCompositeFieldContainer[IdMapping]
    gid_mappings: _containers.RepeatedCompositeFieldContainer[IdMapping]
    def __init__(self, container_id: _Optional[str] = ..., layer_targets: _Optional[_Iterable[str]] = ..., uid_mappings: _Optional[_Iterable[_Union[IdMapping, _Mapping]]] = ..., gid_mappings: _Optional[_Iterable[_Union[IdMapping, _Mapping]]] = ...) -> None: ...

class MountOverlayResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnmountOverlayRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class UnmountOverlayResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class User(_message.Message):
    __slots__ = ("uid", "gid", "additional_gids", "umask")
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_GIDS_FIELD_NUMBER: _ClassVar[int]
    UMASK_FIELD_NUMBER: _ClassVar[int]
    uid: int
    gid: int
    additional_gids: _containers.RepeatedScalarFieldContainer[int]
    umask: int
    def __init__(self, uid: _Optional[int] = ..., gid: _Optional[int] = ..., additional_gids: _Optional[_Iterable[int]] = ..., umask: _Optional[int] = ...) -> None: ...

class Capabilities(_message.Message):
    __slots__ = ("bounding", "effective", "inheritable", "permitted", "ambient")
    BOUNDING_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    INHERITABLE_FIELD_NUMBER: _ClassVar[int]
    PERMITTED_FIELD_NUMBER: _ClassVar[int]
    AMBIENT_FIELD_NUMBER: _ClassVar[int]
    bounding: _containers.RepeatedScalarFieldContainer[str]
    effective: _containers.RepeatedScalarFieldContainer[str]
    inheritable: _containers.RepeatedScalarFieldContainer[str]
    permitted: _containers.RepeatedScalarFieldContainer[str]
    ambient: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bounding: _Optional[_Iterable[str]] = ..., effective: _Optional[_Iterable[str]] = ..., inheritable: _Optional[_Iterable[str]] = ..., permitted: _Optional[_Iterable[str]] = ..., ambient: _Optional[_Iterable[str]] = ...) -> None: ...

class Rlimit(_message.Message):
    __slots__ = ("type", "hard", "soft")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    type: str
    hard: int
    soft: int
    def __init__(self, type: _Optional[str] = ..., hard: _Optional[int] = ..., soft: _Optional[int] = ...) -> None: ...

class Process(_message.Message):
    __slots__ = ("args", "env", "cwd", "user", "capabilities", "no_new_privileges", "rlimits", "oom_score_adj", "terminal", "console_width", "console_height", "stdin")
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    NO_NEW_PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    RLIMITS_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    CONSOLE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    CONSOLE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    args: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: User
    capabilities: Capabilities
    no_new_privileges: bool
    rlimits: _containers.RepeatedCompositeFieldContainer[Rlimit]
    oom_score_adj: int
    terminal: bool
    console_width: int
    console_height: int
    stdin: bool
    def __init__(self, args: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., capabilities: _Optional[_Union[Capabilities, _Mapping]] = ..., no_new_privileges: _Optional[bool] = ..., rlimits: _Optional[_Iterable[_Union[Rlimit, _Mapping]]] = ..., oom_score_adj: _Optional[int] = ..., terminal: _Optional[bool] = ..., console_width: _Optional[int] = ..., console_height: _Optional[int] = ..., stdin: _Optional[bool] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("destination", "type", "source", "options")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    destination: str
    type: str
    source: str
    options: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, destination: _Optional[str] = ..., type: _Optional[str] = ..., source: _Optional[str] = ..., options: _Optional[_Iterable[str]] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("memory_limit", "cpu_quota", "cpu_period", "cpu_shares", "pids_limit", "cpuset_cpus", "memory_swap", "memory_reservation", "blkio_weight")
    MEMORY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CPU_QUOTA_FIELD_NUMBER: _ClassVar[int]
    CPU_PERIOD_FIELD_NUMBER: _ClassVar[int]
    CPU_SHARES_FIELD_NUMBER: _ClassVar[int]
    PIDS_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CPUSET_CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SWAP_FIELD_NUMBER: _ClassVar[int]
    MEMORY_RESERVATION_FIELD_NUMBER: _ClassVar[int]
    BLKIO_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    memory_limit: int
    cpu_quota: int
    cpu_period: int
    cpu_shares: int
    pids_limit: int
    cpuset_cpus: str
    memory_swap: int
    memory_reservation: int
    blkio_weight: int
    def __init__(self, memory_limit: _Optional[int] = ..., cpu_quota: _Optional[int] = ..., cpu_period: _Optional[int] = ..., cpu_shares: _Optional[int] = ..., pids_limit: _Optional[int] = ..., cpuset_cpus: _Optional[str] = ..., memory_swap: _Optional[int] = ..., memory_reservation: _Optional[int] = ..., blkio_weight: _Optional[int] = ...) -> None: ...

class CreateSandboxRequest(_message.Message):
    __slots__ = ("sandbox_id", "hostname", "sysctls")
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    hostname: str
    sysctls: _containers.ScalarMap[str, str]
    def __init__(self, sandbox_id: _Optional[str] = ..., hostname: _Optional[str] = ..., sysctls: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CreateSandboxResponse(_message.Message):
    __slots__ = ("pid",)
    PID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    def __init__(self, pid: _Optional[int] = ...) -> None: ...

class StopSandboxRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopSandboxResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MountVolumeRequest(_message.Message):
    __slots__ = ("name", "lun", "memory_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LUN_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    lun: int
    memory_bytes: int
    def __init__(self, name: _Optional[str] = ..., lun: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class MountVolumeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateContainerRequest(_message.Message):
    __slots__ = ("container_id", "process", "mounts", "readonly_rootfs", "hostname", "seccomp", "sysctls", "resources", "privileged", "sandbox_container", "pid_namespace_of", "masked_in_image", "readonly_in_image")
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    READONLY_ROOTFS_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    SECCOMP_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_CONTAINER_FIELD_NUMBER: _ClassVar[int]
    PID_NAMESPACE_OF_FIELD_NUMBER: _ClassVar[int]
    MASKED_IN_IMAGE_FIELD_NUMBER: _ClassVar[int]
    READONLY_IN_IMAGE_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    process: Process
    mounts: _containers.RepeatedCompositeFieldContainer[Mount]
    readonly_rootfs: bool
    hostname: str
    seccomp: bytes
    sysctls: _containers.ScalarMap[str, str]
    resources: Resources
    privileged: bool
    sandbox_container: bool
    pid_namespace_of: str
    masked_in_image: _containers.RepeatedScalarFieldContainer[str]
    readonly_in_image: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, container_id: _Optional[str] = ..., process: _Optional[_Union[Process, _Mapping]] = ..., mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., readonly_rootfs: _Optional[bool] = ..., hostname: _Optional[str] = ..., seccomp: _Optional[bytes] = ..., sysctls: _Optional[_Mapping[str, str]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., privileged: _Optional[bool] = ..., sandbox_container: _Optional[bool] = ..., pid_namespace_of: _Optional[str] = ..., masked_in_image: _Optional[_Iterable[str]] = ..., readonly_in_image: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateContainerResponse(_message.Message):
    __slots__ = ("pid",)
    PID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    def __init__(self, pid: _Optional[int] = ...) -> None: ...

class StartContainerRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class StartContainerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExecProcessRequest(_message.Message):
    __slots__ = ("container_id", "exec_id", "process")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    process: Process
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., process: _Optional[_Union[Process, _Mapping]] = ...) -> None: ...

class ExecProcessResponse(_message.Message):
    __slots__ = ("pid",)
    PID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    def __init__(self, pid: _Optional[int] = ...) -> None: ...

class SignalProcessRequest(_message.Message):
    __slots__ = ("container_id", "exec_id", "signal", "all")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    signal: int
    all: bool
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., signal: _Optional[int] = ..., all: _Optional[bool] = ...) -> None: ...

class SignalProcessResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WaitProcessRequest(_message.Message):
    __slots__ = ("container_id", "exec_id")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ...) -> None: ...

class WaitProcessResponse(_message.Message):
    __slots__ = ("exit_status", "oom_killed")
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLED_FIELD_NUMBER: _ClassVar[int]
    exit_status: int
    oom_killed: bool
    def __init__(self, exit_status: _Optional[int] = ..., oom_killed: _Optional[bool] = ...) -> None: ...

class ResizePtyRequest(_message.Message):
    __slots__ = ("container_id", "exec_id", "width", "height")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    width: int
    height: int
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class ResizePtyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteProcessRequest(_message.Message):
    __slots__ = ("container_id", "exec_id")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ...) -> None: ...

class DeleteProcessResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteContainerRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class DeleteContainerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListProcessesRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class ListProcessesResponse(_message.Message):
    __slots__ = ("processes",)
    class Entry(_message.Message):
        __slots__ = ("pid", "exec_id", "init")
        PID_FIELD_NUMBER: _ClassVar[int]
        EXEC_ID_FIELD_NUMBER: _ClassVar[int]
        INIT_FIELD_NUMBER: _ClassVar[int]
        pid: int
        exec_id: str
        init: bool
        def __init__(self, pid: _Optional[int] = ..., exec_id: _Optional[str] = ..., init: _Optional[bool] = ...) -> None: ...
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[ListProcessesResponse.Entry]
    def __init__(self, processes: _Optional[_Iterable[_Union[ListProcessesResponse.Entry, _Mapping]]] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("memory_usage", "memory_limit", "memory_inactive_file", "memory_anon", "memory_file", "oom_events", "oom_kill_events", "cpu_usage_us", "cpu_user_us", "cpu_system_us", "cpu_nr_periods", "cpu_nr_throttled", "cpu_throttled_us", "pids_current", "pids_limit", "io_read_bytes", "io_write_bytes", "memory_page_faults", "memory_major_page_faults")
    MEMORY_USAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_INACTIVE_FILE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_ANON_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FILE_FIELD_NUMBER: _ClassVar[int]
    OOM_EVENTS_FIELD_NUMBER: _ClassVar[int]
    OOM_KILL_EVENTS_FIELD_NUMBER: _ClassVar[int]
    CPU_USAGE_US_FIELD_NUMBER: _ClassVar[int]
    CPU_USER_US_FIELD_NUMBER: _ClassVar[int]
    CPU_SYSTEM_US_FIELD_NUMBER: _ClassVar[int]
    CPU_NR_PERIODS_FIELD_NUMBER: _ClassVar[int]
    CPU_NR_THROTTLED_FIELD_NUMBER: _ClassVar[int]
    CPU_THROTTLED_US_FIELD_NUMBER: _ClassVar[int]
    PIDS_CURRENT_FIELD_NUMBER: _ClassVar[int]
    PIDS_LIMIT_FIELD_NUMBER: _ClassVar[int]
    IO_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    IO_WRITE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PAGE_FAULTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MAJOR_PAGE_FAULTS_FIELD_NUMBER: _ClassVar[int]
    memory_usage: int
    memory_limit: int
    memory_inactive_file: int
    memory_anon: int
    memory_file: int
    oom_events: int
    oom_kill_events: int
    cpu_usage_us: int
    cpu_user_us: int
    cpu_system_us: int
    cpu_nr_periods: int
    cpu_nr_throttled: int
    cpu_throttled_us: int
    pids_current: int
    pids_limit: int
    io_read_bytes: int
    io_write_bytes: int
    memory_page_faults: int
    memory_major_page_faults: int
    def __init__(self, memory_usage: _Optional[int] = ..., memory_limit: _Optional[int] = ..., memory_inactive_file: _Optional[int] = ..., memory_anon: _Optional[int] = ..., memory_file: _Optional[int] = ..., oom_events: _Optional[int] = ..., oom_kill_events: _Optional[int] = ..., cpu_usage_us: _Optional[int] = ..., cpu_user_us: _Optional[int] = ..., cpu_system_us: _Optional[int] = ..., cpu_nr_periods: _Optional[int] = ..., cpu_nr_throttled: _Optional[int] = ..., cpu_throttled_us: _Optional[int] = ..., pids_current: _Optional[int] = ..., pids_limit: _Optional[int] = ..., io_read_bytes: _Optional[int] = ..., io_write_bytes: _Optional[int] = ..., memory_page_faults: _Optional[int] = ..., memory_major_page_faults: _Optional[int] = ...) -> None: ...

class PauseContainerRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class PauseContainerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeContainerRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class ResumeContainerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UpdateResourcesRequest(_message.Message):
    __slots__ = ("container_id", "resources")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    resources: Resources
    def __init__(self, container_id: _Optional[str] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ...) -> None: ...

class UpdateResourcesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PowerOffRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PowerOffResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StreamOpen(_message.Message):
    __slots__ = ("container_id", "exec_id", "kind")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    kind: StreamKind
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., kind: _Optional[_Union[StreamKind, str]] = ...) -> None: ...

class StreamFrame(_message.Message):
    __slots__ = ("open", "data", "window_update", "eof")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    WINDOW_UPDATE_FIELD_NUMBER: _ClassVar[int]
    EOF_FIELD_NUMBER: _ClassVar[int]
    open: StreamOpen
    data: bytes
    window_update: int
    eof: bool
    def __init__(self, open: _Optional[_Union[StreamOpen, _Mapping]] = ..., data: _Optional[bytes] = ..., window_update: _Optional[int] = ..., eof: _Optional[bool] = ...) -> None: ...

class ForwardOpen(_message.Message):
    __slots__ = ("port",)
    PORT_FIELD_NUMBER: _ClassVar[int]
    port: int
    def __init__(self, port: _Optional[int] = ...) -> None: ...

class ForwardFrame(_message.Message):
    __slots__ = ("open", "data", "window_update", "eof")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    WINDOW_UPDATE_FIELD_NUMBER: _ClassVar[int]
    EOF_FIELD_NUMBER: _ClassVar[int]
    open: ForwardOpen
    data: bytes
    window_update: int
    eof: bool
    def __init__(self, open: _Optional[_Union[ForwardOpen, _Mapping]] = ..., data: _Optional[bytes] = ..., window_update: _Optional[int] = ..., eof: _Optional[bool] = ...) -> None: ...

class GetReportRequest(_message.Message):
    __slots__ = ("report_data", "vmpl")
    REPORT_DATA_FIELD_NUMBER: _ClassVar[int]
    VMPL_FIELD_NUMBER: _ClassVar[int]
    report_data: bytes
    vmpl: int
    def __init__(self, report_data: _Optional[bytes] = ..., vmpl: _Optional[int] = ...) -> None: ...

class GetReportResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: bytes
    def __init__(self, report: _Optional[bytes] = ...) -> None: ...

class GetDerivedKeyRequest(_message.Message):
    __slots__ = ("guest_field_select",)
    GUEST_FIELD_SELECT_FIELD_NUMBER: _ClassVar[int]
    guest_field_select: int
    def __init__(self, guest_field_select: _Optional[int] = ...) -> None: ...

class GetDerivedKeyResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    def __init__(self, key: _Optional[bytes] = ...) -> None: ...
