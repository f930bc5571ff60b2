# SPDX-License-Identifier: Apache-2.0
"""From the CRI's description of a pod to the OCI specification that its pause container would have had. Pure.

With ``sandboxer = "podsandbox"`` containerd makes that specification; with ``sandboxer = "shim"`` it hands over the
CRI's message and there is none. Everything else of the shim sees the same document either way.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from parma_shim.api import cri_pb2 as cri
from parma_shim.api import sandbox_pb2 as pb
from parma_shim.task import checks
from parma_wire.errors import Malformed, Unsupported

_PREFIX: Final = "io.kubernetes.cri."


def pod_document(request: pb.CreateSandboxRequest) -> dict[str, Any]:
    """The specification.

    Raises:
        Malformed: the options are no PodSandboxConfig, or an annotation of ours makes no sense.
        Unsupported: the pod wants to share something with its host.
    """
    config = _config(request.options)
    annotations = {**request.annotations, **config.annotations}
    checks.check_annotations(annotations)
    options = config.linux.security_context.namespace_options
    for name, mode in (("hostNetwork", options.network), ("hostPID", options.pid), ("hostIPC", options.ipc)):
        if mode == cri.NODE:
            raise Unsupported("a confidential pod shares nothing with its host", hint=f"without {name}")
    if options.HasField("userns_options") and options.userns_options.mode != cri.NODE:
        raise Unsupported("user namespaces are not supported", hint="without hostUsers: false")
    return {
        "hostname": config.hostname,
        "annotations": {**annotations, **_own_annotations(request.sandbox_id, config)},
        "linux": {
            "namespaces": [{"type": "network", "path": request.netns_path}],
            "sysctl": dict(config.linux.sysctls),
            "cgroupsPath": _cgroup(request.sandbox_id, config),
        },
    }


def _config(options: AnyMessage) -> cri.PodSandboxConfig:
    config = cri.PodSandboxConfig()
    if options.type_url and options.type_url.rpartition("/")[2] != config.DESCRIPTOR.full_name:
        raise Malformed("the sandbox's options are of another type", expected=config.DESCRIPTOR.full_name)
    try:
        config.ParseFromString(options.value)
    except DecodeError as error:
        raise Malformed(f"the sandbox's options make no sense: {error}") from None
    return config


def _own_annotations(sandbox_id: str, config: cri.PodSandboxConfig) -> dict[str, str]:
    """Those that containerd's CRI plugin gives to a pause container."""
    resources = config.linux.resources
    return {
        checks.SANDBOX_ID: sandbox_id,
        f"{_PREFIX}container-type": "sandbox",
        f"{_PREFIX}sandbox-name": config.metadata.name,
        f"{_PREFIX}sandbox-namespace": config.metadata.namespace,
        f"{_PREFIX}sandbox-uid": config.metadata.uid,
        f"{_PREFIX}sandbox-cpu-period": str(resources.cpu_period),
        f"{_PREFIX}sandbox-cpu-quota": str(resources.cpu_quota),
        f"{_PREFIX}sandbox-cpu-shares": str(resources.cpu_shares),
        f"{_PREFIX}sandbox-memory": str(resources.memory_limit_in_bytes),
    }


def _cgroup(sandbox_id: str, config: cri.PodSandboxConfig) -> str:
    """As containerd names a pause container's, with either cgroup driver; "" where the pod has no cgroup."""
    parent = config.linux.cgroup_parent
    if not parent:
        return ""
    name = parent.rpartition("/")[2]
    return f"{name}:cri-containerd:{sandbox_id}" if name.endswith(".slice") else f"{parent}/{sandbox_id}"
