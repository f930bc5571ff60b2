# SPDX-License-Identifier: Apache-2.0
"""Pods that cannot be had, asked for through containerd's CRI plugin: the reason arrives, and nothing is left.

No virtual machine is started by any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e import cri_pb2 as pb
from tests.e2e.cri import RUNTIMES, Cri, Pod, cri_host
from tests.e2e.host import BUSYBOX, Host
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

MANIFEST = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: NAME}}
spec:
  automountServiceAccountToken: false
  containers:
  - {{name: app, image: "{BUSYBOX}", command: [/bin/true]}}
"""
HOST = 2
"""``NamespaceMode.NODE``."""


@pytest.fixture(scope="module")
def host(archives: dict[str, Path]) -> Iterator[Host]:
    with cri_host(archives, image_dir="/nonexistent/image") as host:
        yield host


def refused(host: Host, name: str, runtime: str, linux: Mapping[str, Any], **annotations: str) -> str:
    """What RunPodSandbox says."""
    cri = Cri(host)
    pod = Pod.of(host, cri, MANIFEST.replace("NAME", name), runtime)
    pod.linux = dict(linux)
    pod.annotations = annotations
    before = Inventory.take(host)
    with pytest.raises(grpc.RpcError) as caught:
        pod.run()
    assert_nothing_left(host, before)
    cri.close()
    error: Any = caught.value
    return str(error.details())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_sandbox_that_cannot_start_says_why_and_leaves_nothing(host: Host, name: str, runtime: str) -> None:
    assert "no guest image in /nonexistent/image" in refused(host, name, runtime, {})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_misspelt_annotation_is_refused(host: Host, name: str, runtime: str) -> None:
    message = refused(host, name, runtime, {}, **{"io.parma.volume-limit": "a=1Mi"})
    assert "did you mean io.parma.volume-limits?" in message


@pytest.mark.parametrize(("kind", "says"), [("network", "hostNetwork"), ("pid", "hostPID"), ("ipc", "hostIPC")])
def test_a_pod_that_shares_with_its_host_is_refused(host: Host, name: str, kind: str, says: str) -> None:
    """With ``sandboxer = "shim"`` containerd 2.1 itself crashes over the first of these."""
    options = pb.NamespaceOption()
    setattr(options, kind, HOST)
    security = pb.LinuxSandboxSecurityContext(namespace_options=options)
    assert says in refused(host, name, RUNTIMES[0], {"security_context": security})
    if kind != "network":
        message = refused(host, f"{name}-too", RUNTIMES[1], {"security_context": security})
        assert "shares nothing with its host" in message
