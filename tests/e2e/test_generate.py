# SPDX-License-Identifier: Apache-2.0
"""Policies from every kind of source, in a real guest: each runs its image, and one change in any field is denied.

One VM for each source: the changed containers ask to join it, which is decided as any creation is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from parma_shim.digest import hex_digest
from tests.e2e.conftest import host_for
from tests.e2e.host import BUSYBOX, DEBIAN, Host

pytestmark = pytest.mark.e2e

PROBE = (
    "echo $(id -u) $(id -g) $GREETING $(pwd); grep -q ' /scratch ' /proc/mounts && echo mounted; "
    "while read name value; do case $name in CapEff:|NoNewPrivs:|Seccomp_filters:) echo $name $value;; esac; done "
    "< /proc/self/status"
)
CHECK = ("/bin/sh", "-c", PROBE)
SLEEP = ("/bin/sleep", "600")
NOBODY = 65534


@dataclass(frozen=True)
class Asked:
    """What the host asks for, as ``ctr run`` takes it."""

    mount: str
    """``{own}`` is the container's own directory in the guest."""
    env: tuple[str, ...] = ("GREETING=hello",)
    user: str = f"{NOBODY}:{NOBODY}"
    drop: tuple[str, ...] = ("CAP_NET_RAW",)
    seccomp: bool = True
    cwd: str = "/tmp"
    command: tuple[str, ...] = SLEEP
    image: str = BUSYBOX

    def flags(self, name: str) -> list[str]:
        own = f"/run/gcs/c/{hex_digest(f'default/{name}')}/sandboxMounts"
        return [
            *(word for variable in self.env for word in ("--env", variable)),
            *("--user", self.user, "--cwd", self.cwd, "--mount", self.mount.replace("{own}", own)),
            *(word for name in self.drop for word in ("--cap-drop", name)),
            *(["--seccomp"] if self.seccomp else []),
        ]


Source = Callable[[Path, str], "tuple[list[str], Asked]"]
"""Writes a source; returns the generator's arguments and what the host asks for that source's container, whose name
is the second argument."""

TMPFS = "type=tmpfs,src=tmpfs,dst=/scratch,options=noexec:nosuid:nodev:size=1m"


def from_image(_directory: Path, _name: str) -> tuple[list[str], Asked]:
    options = ["--image", BUSYBOX, "--command", json.dumps(SLEEP), "--env", "GREETING=hello"]
    options += ["--user", f"{NOBODY}:{NOBODY}", "--cwd", "/tmp", "--cap-drop", "NET_RAW", "--seccomp", "default"]
    return [*options, "--mount", TMPFS, "--exec", json.dumps(CHECK)], Asked(TMPFS)


def from_compose(directory: Path, name: str) -> tuple[list[str], Asked]:
    service = {
        "image": BUSYBOX,
        "command": list(SLEEP),
        "environment": {"GREETING": "${WORD}"},
        "user": f"{NOBODY}:{NOBODY}",
        "working_dir": "/tmp",
        "cap_drop": ["NET_RAW"],
        "security_opt": ["no-new-privileges"],
        "tmpfs": ["/scratch:size=1m"],
        "healthcheck": {"test": ["CMD", *(word.replace("$", "$$") for word in CHECK)]},
    }
    (directory / "compose.yaml").write_text(json.dumps({"name": "shop", "services": {name: service}}))
    (directory / "words.env").write_text("WORD=hello\n")
    arguments = ["--compose", str(directory / "compose.yaml"), "--compose-env", str(directory / "words.env")]
    return arguments, Asked(TMPFS, env=("GREETING=hello", f"HOSTNAME={name}"))


def from_kubernetes(directory: Path, name: str) -> tuple[list[str], Asked]:
    security = {
        "runAsUser": NOBODY,
        "runAsGroup": NOBODY,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["NET_RAW"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": BUSYBOX,
        "command": list(SLEEP),
        "workingDir": "/tmp",
        "env": [{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "greeting"}}}],
        "securityContext": security,
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "livenessProbe": {"exec": {"command": [word.replace("$(", "$$(") for word in CHECK]}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "volumes": [{"name": "scratch", "emptyDir": {}}]},
    }
    words = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": {"greeting": "hello"}}
    (directory / "pod.yaml").write_text(f"{json.dumps(pod)}\n---\n{json.dumps(words)}\n")
    return ["--kubernetes", str(directory / "pod.yaml")], Asked(
        # What an emptyDir is in the guest. Kubelet's service variables and the pod's host name come along.
        "type=bind,src={own}/volumes/empty-dir/scratch,dst=/scratch,options=rbind:rprivate:rw",
        env=("GREETING=hello", f"HOSTNAME={name}", "KUBERNETES_SERVICE_HOST=10.0.0.1", "WEB_SERVICE_PORT=80"),
    )


def from_confcom(directory: Path, name: str) -> tuple[list[str], Asked]:
    properties = {
        "image": BUSYBOX,
        "command": list(SLEEP),
        "workingDir": "/tmp",
        "environmentVariables": [{"name": "GREETING", "value": "h[aeiou]llo", "regex": True}],
        "execProcesses": [{"command": list(CHECK)}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch", "mountType": "emptyDir"}],
        "securityContext": {
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["NET_RAW"]},
        },
    }
    document = {"version": "1.0", "containers": [{"name": "main", "properties": properties}]}
    (directory / "input.json").write_text(json.dumps(document))
    return ["--confcom", str(directory / "input.json")], Asked(
        "type=bind,src={own}/tmp/atlas/emptydir/scratch,dst=/scratch,options=rbind:rshared:rw",
        env=("GREETING=hello", "Fabric_Id=1"),
        seccomp=False,
    )


@pytest.fixture(scope="module")
def roomy_host(archives: dict[str, Path]) -> Iterator[Host]:
    """With scratch space in memory: several containers are made and undone in one VM."""
    yield from host_for("containerd-2.1", archives, scratch="memory", scratch_mib=64, memory_mib=1024)


@pytest.mark.parametrize("source", [from_image, from_compose, from_kubernetes, from_confcom], ids=lambda f: f.__name__)
def test_a_generated_policy_runs_its_image_and_denies_changes(
    roomy_host: Host, name: str, source: Source, tmp_path: Path
) -> None:
    host = roomy_host
    arguments, asked = source(tmp_path, name)
    policy = host.daemon.root / "policies" / f"{name}.rego"
    images = [word for archive in host.archives.values() for word in ("--image-archive", str(archive))]
    if source is from_image:
        images = ["--containerd", str(host.daemon.address)]
    host.parma("policy", "generate", *images, *arguments, "--out", policy)
    done = host.run(name, asked.command, *asked.flags(name), "--detach", policy=policy)
    assert done.returncode == 0, done.stderr
    checked = host.exec(name, "check", *CHECK)
    assert checked.returncode == 0, checked.stderr
    lines = checked.stdout.splitlines()
    assert lines[:2] == [f"{NOBODY} {NOBODY} hello /tmp", "mounted"]
    filters = 2 if asked.seccomp else 1  # one is the enforcer's, of every process in the guest
    assert {"NoNewPrivs: 1", "CapEff: 0000000000000000", f"Seccomp_filters: {filters}"} <= set(lines)

    # Each creation takes its time under emulation, and all sources' policies are decided alike.
    fields = changes(asked) if source is from_kubernetes else {"environment": changes(asked)["environment"]}
    for field, (changed, reason) in fields.items():
        other = f"{name}-{field}"
        join = ("--annotation", f"io.kubernetes.cri.sandbox-id={name}", "--detach")
        refused = host.run(other, changed.command, *changed.flags(other), *join, policy=policy, image=changed.image)
        assert refused.returncode != 0, field
        assert "denied" in refused.stderr.lower(), (field, refused.stderr)
        assert reason in refused.stderr.lower(), (field, refused.stderr)
        host.remove(other)

    refused = host.exec(name, "other", "/bin/cat", "/etc/passwd")
    assert "command" in refused.stderr
    assert "exec_in_container" in refused.stderr
    refused = host.daemon.ctr("task", "kill", "--signal", "SIGWINCH", name)
    assert "signal" in refused.stderr
    assert host.status(name) == "RUNNING"
    host.remove(name)


def changes(asked: Asked) -> dict[str, tuple[Asked, str]]:
    """The same container with one field changed, and the word by which the reason names it."""
    greeting, *others = asked.env
    return {
        "command": (replace(asked, command=("/bin/sleep", "601")), "command"),
        "environment": (replace(asked, env=("GREETING=hi", *others)), "environment"),
        "preload": (replace(asked, env=(greeting, *others, "LD_PRELOAD=/x.so")), "environment"),
        "user": (replace(asked, user=f"0:{NOBODY}"), "user"),
        "group": (replace(asked, user=f"{NOBODY}:0"), "group"),
        "capability": (replace(asked, drop=()), "capabilities"),
        "mount": (replace(asked, mount="type=tmpfs,src=tmpfs,dst=/scratch,options=exec"), "mount"),
        "layer": (replace(asked, image=DEBIAN), "layer"),
        "directory": (replace(asked, cwd="/"), "working directory"),
        "seccomp": (replace(asked, seccomp=not asked.seccomp), "seccomp"),
    }
