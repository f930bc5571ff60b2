# SPDX-License-Identifier: Apache-2.0
"""A request of every kind that the guest serves, as an honest host makes it. A new RPC needs a row here."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from parma_wire import guest_pb2 as pb
from tests.guest.model import Request
from tests.guest.test_documents import fragment
from tests.policy.builders import LAYERS

SERVICE = pb.DESCRIPTOR.services_by_name["Guest"]
METHODS = tuple(method.name for method in SERVICE.methods)
COMMAND, EXEC = ("/bin/app", "--serve"), ("/bin/sh",)
"""What the container of `tests.policy.builders` runs."""

_fragment = functools.cache(fragment)

HONEST: Mapping[str, Callable[[str], Any]] = {
    "Hello": lambda _: pb.HelloRequest(),
    "PutPolicy": lambda _: pb.PutPolicyRequest(offset=0, data=b"package policy"),
    "SetPolicy": lambda _: pb.SetPolicyRequest(size=len(b"package policy")),
    "PutDocument": lambda _: pb.PutDocumentRequest(offset=0, data=_fragment()),
    "LoadFragment": lambda _: pb.LoadFragmentRequest(size=len(_fragment())),
    "LoadTrustList": lambda _: pb.LoadTrustListRequest(size=len(_fragment())),
    "Evidence": lambda _: pb.EvidenceRequest(nonce=bytes(64)),
    "Recording": lambda _: pb.RecordingRequest(),
    "PutEndorsements": lambda _: pb.PutEndorsementsRequest(reference_info=b"\xd2\x84\x40\xa0\x40\x40"),
    "ConfigureNetwork": lambda _: pb.ConfigureNetworkRequest(
        interfaces=[
            pb.NetworkInterface(
                mac=b"\x02\0\0\0\0\1",
                name="eth0",
                mtu=1500,
                addresses=[pb.NetworkAddress(address=b"\n\0\0\2", prefix_length=24, broadcast=b"\n\0\0\xff")],
                routes=[pb.NetworkRoute(destination=bytes(4), gateway=b"\n\0\0\1")],
                neighbours=[pb.NetworkNeighbour(address=b"\n\0\0\1", mac=b"\x02\0\0\0\0\2")],
            )
        ]
    ),
    "PutFile": lambda _: pb.PutFileRequest(
        data=b"127.0.0.1 localhost\n", mode=0o644, uid=os.geteuid(), gid=os.getegid()
    ),
    "ProvideFiles": lambda name: pb.ProvideFilesRequest(container_id=name, source="/volumes/secret/s"),
    "MountDevice": lambda _: Request("MountDevice", target=0, lun=0, root_hash=LAYERS[0]).message(),
    "UnmountDevice": lambda _: Request("UnmountDevice", target=0).message(),
    "MountScratch": lambda name: Request("MountScratch", name, lun=1).message(),
    "UnmountScratch": lambda name: Request("UnmountScratch", name).message(),
    "MountOverlay": lambda name: Request("MountOverlay", name, layers=(0,)).message(),
    "UnmountOverlay": lambda name: Request("UnmountOverlay", name).message(),
    "CreateSandbox": lambda name: pb.CreateSandboxRequest(sandbox_id=name, hostname="pod"),
    "StopSandbox": lambda _: pb.StopSandboxRequest(),
    "MountVolume": lambda _: pb.MountVolumeRequest(name="cache", lun=2),
    "CreateContainer": lambda name: Request("CreateContainer", name, command=COMMAND).message(),
    "StartContainer": lambda name: Request("StartContainer", name).message(),
    "ExecProcess": lambda name: Request("ExecProcess", name, command=EXEC, exec_id="e0").message(),
    "SignalProcess": lambda name: pb.SignalProcessRequest(container_id=name, signal=15, all=True),
    "WaitProcess": lambda name: pb.WaitProcessRequest(container_id=name),
    "ResizePty": lambda name: pb.ResizePtyRequest(container_id=name, width=80, height=25),
    "DeleteProcess": lambda name: pb.DeleteProcessRequest(container_id=name, exec_id="e0"),
    "DeleteContainer": lambda name: Request("DeleteContainer", name).message(),
    "ListProcesses": lambda name: pb.ListProcessesRequest(container_id=name),
    "Stats": lambda name: pb.StatsRequest(container_id=name),
    "PauseContainer": lambda name: pb.PauseContainerRequest(container_id=name),
    "ResumeContainer": lambda name: pb.ResumeContainerRequest(container_id=name),
    "UpdateResources": lambda name: pb.UpdateResourcesRequest(
        container_id=name, resources=pb.Resources(memory_limit=1 << 26)
    ),
    "PowerOff": lambda _: pb.PowerOffRequest(),
}
"""By name; the argument is a container's or a pod's id."""
