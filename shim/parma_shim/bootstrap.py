# SPDX-License-Identifier: Apache-2.0
"""What containerd says to ``start``, whichever dialect it speaks (tier 0).

=============  ==========================================  =====================
containerd     standard input                              recognised by
=============  ==========================================  =====================
1.6            ``Any`` or nothing                          no MAX_SHIM_VERSION
1.7, 2.0-2.2   ``Any`` (the runtime's options) or nothing  (nothing tells them apart)
2.3 and later  ``BootstrapParams``                         id and namespace inside it equal the flags
=============  ==========================================  =====================

An ``Any`` and a ``BootstrapParams`` can each be parsed as the other, hence the rule of the last row.
"""

import posix

from . import fields
from .flags import Invocation

LIMIT = 10 << 20
"""Largest standard input that is read, in bytes."""

DEFAULT_SOCKET_DIR = "/run/containerd/s"

LEGACY, UNKNOWN, PARAMS = 1, 2, 3
"""Dialects: containerd 1.6, something of 1.7 to 2.2, and 2.3 or later."""

_LOG_LEVEL_DEBUG = -4

_SHIM_CGROUP = {"containerd.runc.v1.Options": 3, "containerd.linux.runc.CreateOptions": 9}
"""The field of the shim's cgroup; the second type is what 1.7's client sends to runtimes other than runc."""


class Bootstrap:
    """Everything ``start`` and the daemon need to know of their containerd."""

    __slots__ = (
        "config_body",
        "config_path",
        "debug",
        "dialect",
        "grpc_address",
        "id",
        "namespace",
        "shim_cgroup",
        "socket_dir",
        "ttrpc_address",
    )

    def __init__(self, identity: str, namespace: str) -> None:
        self.id = identity
        self.namespace = namespace
        self.dialect = UNKNOWN
        self.grpc_address = ""
        self.ttrpc_address = ""
        self.socket_dir = DEFAULT_SOCKET_DIR
        self.debug = False
        self.config_path = ""
        self.config_body = b""
        self.shim_cgroup = ""


def from_start(call: Invocation, environment: dict[str, str], stdin: bytes) -> Bootstrap:
    """Reads one ``start``.

    Raises:
        Malformed: no id or no namespace, or a path in the parameters that is not absolute.
    """
    boot = Bootstrap(call.require("id"), call.require("namespace"))
    boot.grpc_address = call.get("address") or environment.get("GRPC_ADDRESS", "")
    boot.ttrpc_address = environment.get("TTRPC_ADDRESS", "")
    boot.debug = "debug" in call.switches
    if "MAX_SHIM_VERSION" not in environment:
        boot.dialect = LEGACY
    message = fields.decode(stdin) if stdin else None
    if message and fields.text(message, 1) == boot.id and fields.text(message, 2) == boot.namespace:
        _take_params(boot, message)
    elif message:
        _take_options(boot, message)
    if not boot.ttrpc_address and boot.grpc_address:
        boot.ttrpc_address = boot.grpc_address + ".ttrpc"
    return boot


def _take_params(boot: Bootstrap, message: list[fields.Field]) -> None:
    boot.dialect = PARAMS
    boot.debug = boot.debug or fields.number(message, 3) <= _LOG_LEVEL_DEBUG
    boot.ttrpc_address = fields.text(message, 5) or boot.ttrpc_address
    boot.grpc_address = fields.text(message, 6) or boot.grpc_address
    boot.socket_dir = fields.text(message, 9) or boot.socket_dir
    for extension in fields.blobs(message, 8):
        for packed in fields.blobs(fields.decode(extension) or [], 1):
            _take_options(boot, fields.decode(packed) or [])


def _take_options(boot: Bootstrap, message: list[fields.Field]) -> None:
    """An ``Any`` with the runtime's options; of other types nothing is known and nothing taken."""
    kind = (fields.text(message, 1) or "").rpartition("/")[2]
    for value in fields.blobs(message, 2):
        options = fields.decode(value) or []
        if kind == "runtimeoptions.v1.Options":
            boot.config_path = fields.text(options, 2) or ""
            boot.config_body = b"".join(fields.blobs(options, 3)[-1:])
        elif kind in _SHIM_CGROUP:
            boot.shim_cgroup = fields.text(options, _SHIM_CGROUP[kind]) or ""


def environment() -> dict[str, str]:
    """Those of the process's environment variables that count."""
    names = (b"GRPC_ADDRESS", b"TTRPC_ADDRESS", b"MAX_SHIM_VERSION")
    values = posix.environ
    return {name.decode(): values[name].decode(errors="surrogateescape") for name in names if name in values}


def read_stdin() -> bytes:
    """Standard input to its end, or nothing when a person runs the program in a terminal.

    Raises:
        Malformed: more than :data:`LIMIT` bytes.
    """
    try:
        if posix.isatty(0):
            return b""
        parts: list[bytes] = []
        total = 0
        while part := posix.read(0, 65536):
            parts.append(part)
            total += len(part)
            if total > LIMIT:
                from parma_wire.errors import Malformed

                raise Malformed("the parameters on standard input are too large", expected=f"at most {LIMIT} bytes")
    except OSError:
        return b""  # closed: the same as empty
    return b"".join(parts)
