# SPDX-License-Identifier: Apache-2.0
"""Pods through containerd's CRI plugin, as kubelet asks for them, with and without pause containers of containerd's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

from devtool.cri import NAMESPACE
from parma_policy.reader import load
from tests.e2e import cri_pb2 as pb
from tests.e2e.crashes import cgroups_of, lone_shim, qemu
from tests.e2e.cri import EXITED, NOT_READY, READY, RUNNING, RUNTIMES, Cri, Pod, cri_host
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left
from tests.e2e.networks import Bridge, inside
from tests.policy.builders import capabilities
from tests.policy.compat_cases import confcom_text

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")]

MANIFEST = """\
apiVersion: v1
kind: Pod
metadata:
  name: NAME
spec:
  automountServiceAccountToken: false
  volumes:
  - name: data
    emptyDir: {sizeLimit: 32Mi}
  - name: fast
    emptyDir: {medium: Memory, sizeLimit: 4Mi}
  - name: settings
    configMap: {name: settings}
  - name: fixed
    configMap: {name: settings}
  - name: pinned
    configMap: {name: settings}
  initContainers:
  - name: init
    image: parma.example/busybox:test
    command: [/bin/sh, -c, "echo made > /data/by-init; echo init has run"]
    volumeMounts: [{name: data, mountPath: /data}]
  containers:
  - name: main
    image: parma.example/busybox:test
    command:
    - /bin/sh
    - -c
    - >-
      cat /data/by-init /settings/colour; hostname; busybox httpd -p '[::]:8080' -h /data; trap 'exit 3' TERM;
      while :; do sleep 1; done
    env: [{name: ROLE, value: main}]
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: fast, mountPath: /fast}
    - {name: settings, mountPath: /settings, readOnly: true}
    livenessProbe:
      exec: {command: [/bin/sh, -c, "cat /fast/note"]}
    readinessProbe:
      exec: {command: [/bin/sh, -c, "dd if=/dev/zero of=/fast/big bs=1M count=16 2>/dev/null; stat -c %s /fast/big"]}
    startupProbe:
      exec: {command: [/bin/sh, -c, "dd if=/dev/zero of=/data/big bs=1M count=99 2>/dev/null; stat -c %s /data/big"]}
  - name: sidecar
    image: parma.example/busybox:test
    command: [/bin/sh, -c, "echo attempt >> /data/attempts; cat /data/attempts; sleep 600"]
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: fast, mountPath: /fast}
    - {name: settings, mountPath: /settings, readOnly: true}
    - {name: fixed, mountPath: /fixed, readOnly: true}
    - {name: pinned, mountPath: /pinned, readOnly: true}
    startupProbe:
      exec:
        command: [/bin/sh, -c, "cd /; cat settings/colour settings/size fixed/colour pinned/colour; ls settings"]
    livenessProbe:
      exec: {command: [/bin/sh, -c, "echo from sidecar > /fast/note; readlink /proc/self/ns/ipc"]}
    readinessProbe:
      exec: {command: [/bin/sh, -c, "busybox wget -q -O - http://127.0.0.1:8080/by-init"]}
  - name: greedy
    image: parma.example/busybox:test
    command: [/bin/sh, -c, "grep -q max /sys/fs/cgroup/memory.max || exec tail /dev/zero"]
    resources: {limits: {memory: 24Mi}}
"""

LIMIT = 24 << 20
"""Bytes, of the greedy one, as kubelet hands it over. ``tail`` keeps what may be the last line, and that never ends."""

VM_MEMORY = 4 << 30
"""Bytes that no VM of these tests has."""


SETTINGS = {"colour": "blue\n"}


def probe(pod: Pod, container: str, kind: str) -> tuple[str, ...]:
    """The command of a probe of the manifest."""
    spec = next(item for item in pod.manifest["spec"]["containers"] if item["name"] == container)
    return tuple(spec[f"{kind}Probe"]["exec"]["command"])


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


@pytest.fixture(scope="module")
def host(archives: dict[str, Path], bridge: Bridge) -> Iterator[Host]:
    with cri_host(archives, hub=bridge.hub, file_updates=0.5) as host:
        yield host


@pytest.fixture
def cri(host: Host) -> Iterator[Cri]:
    cri = Cri(host)
    yield cri
    cri.close()


@pytest.fixture(params=RUNTIMES)
def pod(host: Host, cri: Cri, request: pytest.FixtureRequest, name: str, tmp_path: Path) -> Iterator[Pod]:
    manifest = MANIFEST.replace("NAME", name)
    limits = {"io.parma.volume-limits": "data=32Mi"}  # which kubelet keeps to itself
    local = tmp_path / "settings"
    local.mkdir()
    (local / "colour").write_text(SETTINGS["colour"])
    generate = ("--file-updates", "--pin", f"/pinned={local}")
    cgroup = {"cgroup_parent": f"/{name}"}
    host.names.add(name)
    pod = Pod.of(
        host, cri, manifest, request.param, generate=generate, config_map=SETTINGS, annotations=limits, linux=cgroup
    )
    policy = pod.policy.read_text().splitlines()
    # The generator's option is about all volumes.
    fixed = [line.replace(', "updates": true', "") if "/configmap/fixed" in line else line for line in policy]
    assert fixed != policy
    pod.policy.write_text("\n".join(fixed) + "\n")
    yield pod
    if pod.id:
        pod.remove()
    pod.discard()


def wait_for_exit(pod: Pod, container: str) -> int:
    wait_until(lambda: pod.container_status(container).state == EXITED, "the container's end")
    return int(pod.container_status(container).exit_code)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        action()
    return str(caught.value.details())


def check_updates(host: Host, pod: Pod, sidecar: str) -> None:
    """All three config maps change on the host; what arrives is what the policy lets."""

    def refusals(volume: str, reason: str) -> list[str]:
        lines = [line for line in host.daemon.log.read_text().splitlines() if "change of files" in line]
        source = f'source="{pod.config_map_directory(volume)}"'
        return [line for line in lines if source in line and reason in line and "level=warning" in line]

    def seen() -> list[str]:
        return pod.execute(sidecar, *probe(pod, "sidecar", "startup"))[1].split()

    for volume in ("fixed", "pinned", "settings"):
        pod.write_config_map(volume, {"colour": "green\n", "size": "2\n"})
    wait_until(lambda: seen() == ["green", "2", "blue", "blue", "colour", "size"], "the change")
    wait_until(lambda: bool(refusals("fixed", "cannot be changed")), "the refusal of a change")
    wait_until(lambda: bool(refusals("pinned", "not those that the policy knows")), "the refusal of other content")
    counted = [line for line in host.parma("metrics").splitlines() if line.startswith("parma_shim_denials_total")]
    assert any('method="ProvideFiles"' in line and pod.id in line for line in counted)

    # A link out of the volume: nothing of that version arrives.
    pod.write_config_map("settings", {"colour": "red\n", "size": Path("/etc/shadow")})
    wait_until(lambda: bool(refusals("settings", "leads out")), "the refusal of a link")
    assert seen() == ["green", "2", "blue", "blue", "colour", "size"]


def check_accounts(host: Host, pod: Pod, main: str, sidecar: str) -> None:
    """Who wants more memory than he may have is alone in losing it; what everybody uses is known."""
    greedy = pod.start("greedy", linux={"resources": {"memory_limit_in_bytes": LIMIT}})
    assert wait_for_exit(pod, greedy) == 137
    # containerd hears of the reason in another way than of the end, and takes them in any order.
    wait_until(lambda: pod.container_status(greedy).reason == "OOMKilled", "the reason")
    assert pod.container_status(main).state == RUNNING

    # Each container by the guest's account; the pod by the host's, which has QEMU and the shim there.
    whole, containers = pod.stats_with(main, sidecar)
    numbers = containers[main]
    assert numbers.cpu.usage_core_nano_seconds.value > 0
    assert 0 < numbers.memory.working_set_bytes.value <= numbers.memory.usage_bytes.value < VM_MEMORY
    assert numbers.memory.page_faults.value > numbers.memory.major_page_faults.value
    assert cgroups_of([*qemu(host), lone_shim(host)]) == {f"/{pod.manifest['metadata']['name']}/{pod.id}"}
    assert whole.linux.cpu.usage_core_nano_seconds.value > 0
    assert whole.linux.memory.usage_bytes.value > numbers.memory.usage_bytes.value


def test_the_life_of_a_pod_under_one_policy(host: Host, pod: Pod, bridge: Bridge) -> None:
    """One boot: three containers, two volumes, a fourth, a restart of a container and one of containerd, the end."""
    before = Inventory.take(host)
    pod.run()
    assert pod.status().status.state == READY

    init = pod.start("init")
    assert wait_for_exit(pod, init) == 0
    wait_until(lambda: pod.log("init") == "init has run", "containerd to have written the log")
    main, sidecar = pod.start("main"), pod.start("sidecar")
    expected = ["made", "blue", pod.manifest["metadata"]["name"]]
    wait_until(lambda: pod.log("main").split() == expected, "main's output")
    wait_until(lambda: pod.log("sidecar") == "attempt", "the sidecar's output")

    # What they share, and that volumes have their sizes and not the VM's.
    code, ipc = pod.execute(sidecar, *probe(pod, "sidecar", "liveness"))
    assert (code, ipc[:4]) == (0, "ipc:")
    assert pod.execute(main, *probe(pod, "main", "liveness")) == (0, "from sidecar\n")
    assert int(pod.execute(main, *probe(pod, "main", "readiness"))[1]) <= 4 << 20
    filled = int(pod.execute(main, *probe(pod, "main", "startup"))[1])
    assert 16 << 20 < filled < 99 << 20
    assert not list(pod.directory.glob("volumes/kubernetes.io~empty-dir/*/*")), "the host has what containers wrote"

    # The network is the pod's: among its containers, and from outside.
    assert pod.execute(sidecar, *probe(pod, "sidecar", "readiness")) == (0, "made\n")
    url = f"http://{pod.status().status.network.ip}:8080/by-init"
    assert inside(bridge.hub, ["curl", "-sf", "--max-time", "20", url]).stdout == "made\n"

    check_updates(host, pod, sidecar)
    check_accounts(host, pod, main, sidecar)

    # A container that the policy does not list, and a process.
    assert "denied" in refusal(lambda: pod.start("main", command=["/bin/sh", "-c", "cat /data/by-init"]))
    assert "denied" in refusal(lambda: pod.execute(main, "/bin/cat", "/data/by-init"))

    # One container again: same name, another id. The others go on, and so do the volumes.
    pod.stop_container(sidecar, grace=1)
    assert wait_for_exit(pod, sidecar) in (137, 143)
    pod.remove_container(sidecar)
    sidecar = pod.start("sidecar")
    wait_until(lambda: pod.log("sidecar").split() == ["attempt", "attempt"], "the second attempt's output")
    assert pod.container_status(main).state == RUNNING

    # containerd dies and comes back.
    host.daemon.kill()
    host.daemon.start()
    pod.cri.reconnect()
    assert pod.status().status.state == READY
    assert pod.container_status(main).state == RUNNING
    assert pod.execute(main, *probe(pod, "main", "liveness")) == (0, "from sidecar\n")
    status = json.loads(host.parma("status", "--namespace", NAMESPACE, "--json", pod.id))
    assert (status["verdict"], status["policy_sha256"]) == ("attested", sha256(pod.policy.read_bytes()).hexdigest())
    if pod.runtime == "parma-shim":
        assert pod.attestation()["verdict"] == "attested"

    # The end, in order; each step as often as anybody likes.
    assert {"processes", "networks", "files"} <= set(Inventory.take(host).since(before, host))
    pod.stop_container(main, grace=60)  # its shell looks for signals once a second, by the guest's clock
    assert wait_for_exit(pod, main) == 3
    for _ in range(2):
        pod.stop()
        assert pod.status().status.state == NOT_READY
    pod.remove()
    pod.discard()
    assert_nothing_left(host, before)
    pod.cri.call("RemovePodSandbox", pb.PodSandboxRequest(pod_sandbox_id=pod.id))


CLOUD_MANIFEST = """\
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  automountServiceAccountToken: false
  volumes:
  - name: cache
    emptyDir: {sizeLimit: 32Mi}
  containers:
  - name: main
    image: parma.example/busybox:test
    command: [/bin/sh, -c, "echo mine > /cache/note; cat /cache/note; stat -f -c %T /cache; sleep 600"]
    volumeMounts: [{name: cache, mountPath: /cache}]
"""


def test_an_unmodified_policy_of_confcom_runs_in_a_pod(host: Host, cri: Cri, name: str) -> None:
    pod = Pod.of(host, cri, CLOUD_MANIFEST.replace("NAME", name), "parma")
    (made,) = load(pod.policy.read_bytes()).containers.containers
    anybody = {"pattern": "", "strategy": "any"}
    mounts = {"/cache": "emptydir", "/etc/resolv.conf": "resolvconf"}
    container = {
        "command": list(made.command),
        "env_rules": [
            {"pattern": f"{variable}=.+", "strategy": "re2", "required": False} for variable in ("PATH", "HOSTNAME")
        ],
        "layers": list(made.layers),
        "mounts": [
            {
                "destination": place,
                "source": f"sandbox:///tmp/atlas/{kind}/.+",
                "type": "bind",
                "options": ["rbind", "rshared", "rw"],
            }
            for place, kind in mounts.items()
        ],
        "exec_processes": [],
        "signals": [15],
        "user": {"user_idname": anybody, "group_idnames": [anybody], "umask": "0022"},
        "capabilities": capabilities(),
        "seccomp_profile_sha256": "",
        "allow_elevated": False,
        "working_dir": "/",
        "allow_stdio_access": True,
        "no_new_privileges": False,
    }
    pod.policy.write_text(confcom_text(container, pretty=False))
    try:
        pod.run()
        pod.start("main")
        wait_until(lambda: len(pod.log("main").split()) == 2, "the container's output")
        assert pod.log("main").split() == ["mine", "ext2/ext3"]
    finally:
        if pod.id:
            pod.remove()
