# SPDX-License-Identifier: Apache-2.0
"""The guest's request decoder: any bytes behind any method become a typed request, `Malformed` or `Unsupported`.

The first byte chooses the message, the rest is its wire form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from parma_guest import requests
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed, Unsupported

DECODERS: tuple[tuple[type[Message], Callable[[Any], object]], ...] = (
    (pb.CreateContainerRequest, requests.create_container),
    (pb.ExecProcessRequest, requests.exec_process),
    (pb.SignalProcessRequest, requests.signal_process),
    (pb.MountDeviceRequest, requests.mount_device),
    (pb.MountScratchRequest, requests.mount_scratch),
    (pb.MountOverlayRequest, requests.mount_overlay),
    (pb.PutPolicyRequest, requests.put_policy),
    (pb.EvidenceRequest, requests.nonce),
    (pb.Resources, requests.resources),
)

_PROCESS = pb.Process(
    args=["/bin/app", "-v"],
    env=["PATH=/bin", "A=1"],
    cwd="/srv",
    user=pb.User(uid=1000, gid=1000, additional_gids=[5], umask=0o22),
    capabilities=pb.Capabilities(bounding=["CAP_KILL"], effective=["CAP_KILL"], permitted=["CAP_KILL"]),
    no_new_privileges=True,
    rlimits=[pb.Rlimit(type="RLIMIT_NOFILE", hard=1024, soft=1024)],
    oom_score_adj=10,
    terminal=True,
    console_width=80,
    console_height=25,
)
_CREATE = pb.CreateContainerRequest(
    container_id="ab" * 32,
    process=_PROCESS,
    mounts=[
        pb.Mount(destination="/data", type="bind", source="/run/x", options=["rbind", "rw"]),
        pb.Mount(destination="/t", type="tmpfs", source="tmpfs", options=["size=64m", "mode=1777"]),
    ],
    hostname="host.example",
    seccomp=b'{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}',
    sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
    resources=pb.Resources(memory_limit=1 << 26, cpu_quota=50_000, cpu_period=100_000, cpuset_cpus="0-1"),
)
SEEDS = [
    bytes([number]) + message.SerializeToString()
    for number, message in (
        (0, _CREATE),
        (1, pb.ExecProcessRequest(container_id="ab" * 32, exec_id="e1", process=_PROCESS)),
        (2, pb.SignalProcessRequest(container_id="ab" * 32, signal=15, all=True)),
        (3, pb.MountDeviceRequest(lun=1, target="/run/mounts/scsi/m1", device_hash="cd" * 32, data_blocks=4096)),
        (4, pb.MountScratchRequest(container_id="ab" * 32, memory_bytes=1 << 24)),
        (5, pb.MountOverlayRequest(container_id="ab" * 32, layer_targets=["/run/mounts/scsi/m1"])),
        (6, pb.PutPolicyRequest(offset=0, data=b"package policy")),
        (7, pb.EvidenceRequest(nonce=bytes(64))),
        (8, pb.Resources(pids_limit=100)),
    )
]


def target(data: bytes) -> None:
    """Decodes as the server does: protobuf, no unknown fields, then types."""
    kind, decode = DECODERS[(data[0] if data else 0) % len(DECODERS)]
    message = kind()
    try:
        message.ParseFromString(data[1:])
    except DecodeError:
        return
    with contextlib.suppress(Malformed, Unsupported):
        requests.refuse_unknown_fields(message)
        decode(message)
