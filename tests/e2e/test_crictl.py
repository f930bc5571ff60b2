# SPDX-License-Identifier: Apache-2.0
"""A pod by hand: crictl, as an operator uses it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from devtool import paths
from tests.e2e.cri import Cri, Pod, cri_host
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

CRICTL = paths.GO / "crictl"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CRICTL.exists(), reason="there is no crictl: ./dev setup builds it where Go is installed"),
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
    command: [/bin/sh, -c, "echo hello from the guest; sleep 600"]
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
    pod = Pod.of(host, cri, MANIFEST, "parma-shim")
    yield pod
    if pod.id:
        pod.remove()
    cri.close()


def crictl(host: Host, *arguments: str | Path) -> str:
    """Its output; an exit code other than 0 fails the test."""
    command = [CRICTL, "--timeout", "200s", "--runtime-endpoint", f"unix://{host.daemon.address}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def written(path: Path, message: Any) -> Path:
    """A configuration file of crictl's."""
    path.write_text(json.dumps(MessageToDict(message, preserving_proto_field_name=True)))
    return path


def test_a_pod_by_hand(host: Host, pod: Pod, tmp_path: Path) -> None:
    before = Inventory.take(host)
    (pod.directory / "logs").mkdir()
    sandbox_file = written(tmp_path / "pod.json", pod.config)
    pod.id = crictl(host, "runp", "--runtime", pod.runtime, sandbox_file)
    host.names.add(pod.id)
    assert "Ready" in crictl(host, "pods", "--id", pod.id)

    container_file = written(tmp_path / "container.json", pod.container_config("app"))
    app = crictl(host, "create", pod.id, container_file, sandbox_file)
    crictl(host, "start", app)
    assert "Running" in crictl(host, "ps", "--id", app)
    wait_until(lambda: crictl(host, "logs", app) == "hello from the guest", "the log")
    assert crictl(host, "exec", "--sync", app, "/bin/hostname") == "by-hand"
    assert app[:13] in crictl(host, "stats", "--id", app)

    # It shows the values of the status's info beside the status, those that are JSON as JSON.
    shown = json.loads(crictl(host, "inspectp", pod.id))
    assert shown["parma.attestation"]["verdict"] == "attested", shown.keys()

    crictl(host, "stop", "--timeout", "1", app)
    crictl(host, "rm", app)
    crictl(host, "stopp", pod.id)
    crictl(host, "rmp", pod.id)
    assert_nothing_left(host, before)
