# SPDX-License-Identifier: Apache-2.0
"""A pod by hand: crictl, as an operator uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from devtool import paths
from devtool.crictl import PROGRAM, Crictl
from tests.e2e.cri import Cri, Pod, cri_host
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not PROGRAM.exists(), reason="there is no crictl: ./dev setup builds it where Go is installed"),
]

MANIFEST = """\
apiVersion: v1
kind: Pod
metadata: {name: by-hand}
spec:
  automountServiceAccountToken: false
  containers:
  - name: app
    image: parma.example/busybox:test
    command: [/bin/sh, -c, "busybox httpd -p 127.0.0.1:8080 -h /bin; echo hello from the guest; sleep 600"]
    livenessProbe:
      exec: {command: [/bin/hostname]}
"""


@pytest.fixture
def host(archives: dict[str, Path]) -> Iterator[Host]:
    with cri_host(archives) as host:
        yield host


@pytest.fixture
def pod(host: Host) -> Iterator[Pod]:
    """One whose directory and policy exist; it does not."""
    cri = Cri(host)
    pod = Pod.of(host, cri, MANIFEST, "parma-shim", generate=("--forward-port", "8080"))
    yield pod
    if pod.id:
        pod.remove()
    cri.close()


def written(path: Path, message: Any) -> Path:
    """A configuration file of crictl's."""
    path.write_text(json.dumps(MessageToDict(message, preserving_proto_field_name=True)))
    return path


def fetched(address: str, path: str) -> bytes:
    """By HTTP. Raises ConnectionError."""
    connection = HTTPConnection(address, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_pod_by_hand(host: Host, pod: Pod, tmp_path: Path) -> None:
    before = Inventory.take(host)
    crictl = Crictl(host.daemon.address)
    (pod.directory / "logs").mkdir()
    sandbox_file = written(tmp_path / "pod.json", pod.config)
    pod.id = crictl("runp", "--runtime", pod.runtime, sandbox_file)
    host.names.add(pod.id)
    assert "Ready" in crictl("pods", "--id", pod.id)

    container_file = written(tmp_path / "container.json", pod.container_config("app"))
    app = crictl("create", pod.id, container_file, sandbox_file)
    crictl("start", app)
    assert "Running" in crictl("ps", "--id", app)
    wait_until(lambda: crictl("logs", app) == "hello from the guest", "the log")
    assert crictl("exec", "--sync", app, "/bin/hostname") == "by-hand"
    # Without it, where the shim has not answered in the two seconds that it has.
    wait_until(lambda: app[:13] in crictl("stats", "--id", app), "statistics")

    # On the pod's loopback in the guest; another port is one that the policy does not list.
    with crictl.forwarding(pod.id, 8080, 8081) as (allowed, denied):
        for _ in range(2):
            assert fetched(allowed, "/busybox") == (paths.PREFIX / "bin/busybox").read_bytes()
        with pytest.raises(ConnectionError):
            fetched(denied, "/busybox")
    wait_until(lambda: "forward_port denied" in host.daemon.log.read_text(), "the log of the denial")

    # It shows the values of the status's info beside the status, those that are JSON as JSON.
    shown = json.loads(crictl("inspectp", pod.id))
    assert shown["parma.attestation"]["verdict"] == "attested", shown.keys()

    crictl("stop", "--timeout", "1", app)
    crictl("rm", app)
    crictl("stopp", pod.id)
    crictl("rmp", pod.id)
    assert_nothing_left(host, before)
