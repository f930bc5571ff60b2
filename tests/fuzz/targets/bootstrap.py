# SPDX-License-Identifier: Apache-2.0
"""``start``: command line, environment and standard input. Read by hand, so held against the protobuf library."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from parma_shim import bootstrap, fields, flags
from parma_shim.api import bootstrap_pb2, runc_options_pb2, runtime_options_pb2
from parma_wire.errors import Malformed

_WORDS = ["-namespace", "ns", "-address", "/c.sock", "-publish-binary", "/usr/bin/containerd", "-id", "x", "start"]
_OPTIONS = Any(
    type_url="runtimeoptions.v1.Options",
    value=runtime_options_pb2.Options(config_path="/etc/other.toml", config_body=b"x=1").SerializeToString(),
)
_RUNC = Any(
    type_url="containerd.runc.v1.Options", value=runc_options_pb2.Options(shim_cgroup="/shims").SerializeToString()
)
_PARAMS = bootstrap_pb2.BootstrapParams(
    instance_id="x",
    namespace="ns",
    log_level=bootstrap_pb2.LOG_LEVEL_DEBUG,
    containerd_version="2.3.4",
    containerd_ttrpc_address="/other.ttrpc",
    containerd_grpc_address="/other",
    socket_dir="/run/elsewhere",
    extensions=[bootstrap_pb2.Extension(value=_OPTIONS), bootstrap_pb2.Extension(value=_RUNC)],
)


def _seed(words: list[str], stdin: bytes) -> bytes:
    line = " ".join(words).encode()
    return len(line).to_bytes(2, "little") + line + stdin


SEEDS = [
    _seed(_WORDS, b""),
    _seed(_WORDS, _PARAMS.SerializeToString()),
    _seed(["--debug", *_WORDS], _OPTIONS.SerializeToString()),
    _seed(["-debug=false", *_WORDS], _RUNC.SerializeToString()),
    _seed(["-id=", "-v", "--", "delete"], b"\xff"),
]


def target(data: bytes) -> None:
    """The length of the command line, its words, then what is on standard input."""
    size = int.from_bytes(data[:2], "little") % 256
    words = data[2 : 2 + size].decode("utf-8", "surrogateescape").split(" ")
    stdin = data[2 + size :]
    _check_fields(stdin)
    try:
        call = flags.parse([word for word in words if word])
        boot = bootstrap.from_start(call, {"MAX_SHIM_VERSION": "2", "GRPC_ADDRESS": "/grpc"}, stdin)
    except Malformed:
        return
    assert boot.id
    assert boot.namespace
    assert boot.grpc_address
    assert boot.ttrpc_address
    if boot.dialect == bootstrap.PARAMS:
        _check_params(boot, stdin)
    else:
        assert boot.socket_dir == bootstrap.DEFAULT_SOCKET_DIR


def _check_fields(data: bytes) -> None:
    """What is a message here is one for the library, up to what the reader leaves to whoever asks for a text."""
    found = fields.decode(data)
    if found is None:
        return
    for number, kind, _ in found:
        assert number > 0
        assert kind in (fields.VARINT, fields.FIXED64, fields.LENGTH, fields.FIXED32)


def _check_params(boot: bootstrap.Bootstrap, data: bytes) -> None:
    try:
        params = bootstrap_pb2.BootstrapParams.FromString(data)
    except DecodeError:
        return  # a text in it is not UTF-8, or a number too large for a field's: the library is stricter
    assert (boot.id, boot.namespace) == (params.instance_id, params.namespace)
    assert boot.socket_dir == (params.socket_dir or bootstrap.DEFAULT_SOCKET_DIR)
    if params.containerd_ttrpc_address:
        assert boot.ttrpc_address == params.containerd_ttrpc_address
    if params.containerd_grpc_address:
        assert boot.grpc_address == params.containerd_grpc_address
