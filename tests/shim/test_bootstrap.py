# SPDX-License-Identifier: Apache-2.0
"""The dialects in which containerd says what to start."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any

from parma_shim import bootstrap, flags
from parma_shim.api import bootstrap_pb2, runc_options_pb2, runtime_options_pb2

CALL = ["-namespace", "ns", "-address", "/c.sock", "-publish-binary", "/usr/bin/containerd", "-id", "x", "start"]
NEW = {"MAX_SHIM_VERSION": "2", "TTRPC_ADDRESS": "/c.sock.ttrpc"}
OPTIONS = Any(
    type_url="runtimeoptions.v1.Options",
    value=runtime_options_pb2.Options(config_path="/etc/other.toml", config_body=b"x=1").SerializeToString(),
)


def read(stdin: bytes = b"", environment: dict[str, str] | None = None, *extra: str) -> bootstrap.Bootstrap:
    return bootstrap.from_start(flags.parse([*extra, *CALL]), NEW if environment is None else environment, stdin)


def params(**changes: object) -> bytes:
    values: dict[str, object] = {
        "instance_id": "x",
        "namespace": "ns",
        "containerd_version": "2.3.4",
        "containerd_ttrpc_address": "/other.ttrpc",
        "containerd_grpc_address": "/other",
        "socket_dir": "/run/elsewhere",
        **changes,
    }
    return bootstrap_pb2.BootstrapParams(**values).SerializeToString()  # type: ignore[arg-type]


def test_no_input_is_containerd_1_7_to_2_2() -> None:
    boot = read()
    assert (boot.id, boot.namespace, boot.grpc_address) == ("x", "ns", "/c.sock")
    assert (boot.dialect, boot.ttrpc_address) == (bootstrap.UNKNOWN, "/c.sock.ttrpc")
    assert boot.socket_dir == "/run/containerd/s"
    assert not boot.debug


def test_without_max_shim_version_it_is_containerd_1_6() -> None:
    boot = read(environment={})
    assert (boot.dialect, boot.ttrpc_address) == (bootstrap.LEGACY, "/c.sock.ttrpc")


def test_a_bare_any_gives_the_runtimes_options() -> None:
    boot = read(OPTIONS.SerializeToString())
    assert boot.dialect == bootstrap.UNKNOWN
    assert (boot.config_path, boot.config_body) == ("/etc/other.toml", b"x=1")


def test_runcs_options_give_the_shims_cgroup() -> None:
    options = runc_options_pb2.Options(shim_cgroup="/shims", systemd_cgroup=True)
    packed = Any(type_url="containerd.runc.v1.Options", value=options.SerializeToString())
    assert read(packed.SerializeToString()).shim_cgroup == "/shims"


def test_so_do_the_options_of_an_older_client() -> None:
    """``containerd.linux.runc.CreateOptions``, which has the cgroup as field 9, after no_pivot_root."""
    packed = Any(type_url="containerd.linux.runc.CreateOptions", value=b"\x08\x01\x4a\x06/shims")
    assert read(packed.SerializeToString()).shim_cgroup == "/shims"


def test_parameters_are_recognised_by_id_and_namespace() -> None:
    boot = read(params(extensions=[bootstrap_pb2.Extension(value=OPTIONS)]))
    assert boot.dialect == bootstrap.PARAMS
    assert (boot.grpc_address, boot.ttrpc_address) == ("/other", "/other.ttrpc")
    assert (boot.socket_dir, boot.config_path) == ("/run/elsewhere", "/etc/other.toml")


def test_parameters_of_another_container_are_not_parameters() -> None:
    assert read(params(instance_id="y")).dialect == bootstrap.UNKNOWN
    assert read(params(namespace="other")).dialect == bootstrap.UNKNOWN


def test_a_log_level_of_debug_or_trace_is_debug() -> None:
    assert [read(params(log_level=level)).debug for level in (-8, -4, 0, 4)] == [True, True, False, False]
    assert read(b"", None, "-debug").debug


def test_options_of_an_unknown_type_are_ignored() -> None:
    boot = read(Any(type_url="somebody.Else", value=b"\x12\x03abc").SerializeToString())
    assert (boot.config_path, boot.config_body, boot.shim_cgroup) == ("", b"", "")


def test_input_that_is_no_message_is_ignored() -> None:
    assert read(b"\xff\xff\xff").dialect == bootstrap.UNKNOWN
