# SPDX-License-Identifier: Apache-2.0
"""Just enough of Kubernetes' CRI (``runtime.v1``, gRPC) to ask a containerd for a pod of some runtime class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from parma_shim.fields import bytes_field

RUN_POD_SANDBOX = "/runtime.v1.RuntimeService/RunPodSandbox"


class Refusal(NamedTuple):
    """How containerd answered."""

    code: str
    message: str


def pod_request(name: str, runtime: str, annotations: Mapping[str, str]) -> bytes:
    """``RunPodSandboxRequest``."""
    metadata = bytes_field(1, name) + bytes_field(2, name) + bytes_field(3, "default")
    config = bytes_field(1, metadata)
    for key, value in annotations.items():
        config += bytes_field(7, bytes_field(1, key) + bytes_field(2, value))
    return bytes_field(1, config) + bytes_field(2, runtime)


def refused_pod(address: Path, name: str, runtime: str, annotations: Mapping[str, str]) -> Refusal:
    """Asks for a pod that must not come to be."""
    with grpc.insecure_channel(f"unix://{address}") as channel:
        method: Any = channel.unary_unary(RUN_POD_SANDBOX)
        call = method.future(pod_request(name, runtime, annotations), timeout=120, wait_for_ready=True)
        code = call.code()
        assert code is not grpc.StatusCode.OK, "the pod runs"
        return Refusal(code.name, call.details())
