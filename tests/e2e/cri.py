# SPDX-License-Identifier: Apache-2.0
"""containerd's CRI plugin, asked as kubelet asks it: one pod whose manifest, policy and directories belong together."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf.message import Message

from devtool import cri, images, paths
from devtool.containerd import RUNTIME, PrivateContainerd
from devtool.cri import MASKED, NAMESPACE, READ_ONLY, Runtime
from tests import fake_cni
from tests.e2e import cri_pb2 as pb
from tests.e2e.host import BUSYBOX, Host, wait_until

PAUSE = "parma.example/pause:nothing"
HANDLERS = (Runtime("parma", RUNTIME, "podsandbox"), Runtime("parma-shim", RUNTIME, "shim"))
RUNTIMES = tuple(handler.name for handler in HANDLERS)

TIMEOUT = 300.0
"""Seconds for any call, a pod's boot on a busy machine included."""

READY, NOT_READY = 0, 1
CREATED, RUNNING, EXITED = 0, 1, 2


@contextlib.contextmanager
def cri_host(
    archives: dict[str, Path],
    *,
    hub: str = "",
    network: Callable[[Path, Path], None] | None = None,
    containerd: Mapping[str, Any] | None = None,
    **settings: object,
) -> Iterator[Host]:
    """A containerd with the CRI plugin and both runtimes, and the images in its namespace.

    The pause image holds nothing at all: who tries to run it fails.

    Args:
        hub: as `tests.fake_cni` has it.
        network: writes another configuration of CNI than that one's; called with its ``conf_dir`` and ``bin_dir``.
        containerd: more arguments of `PrivateContainerd`.
        settings: of Parma.
    """
    write = network or partial(fake_cni.write, hub=hub)

    def configure(root: Path) -> str:
        write(root / "cni", root / "cni-bin")
        return cri.configuration(root, PAUSE, HANDLERS)

    binaries = paths.PREFIX / "containerd-2.1"
    with PrivateContainerd(binaries, parma_config=settings, cri=configure, **(containerd or {})) as daemon:
        archive = daemon.root / "policies/pause.tar"
        images.write_archive(archive, PAUSE, [images.LayerBuilder().finish()], images.ImageConfig(cmd=("/pause",)))
        for path in (archives[BUSYBOX], archive):
            imported = daemon.ctr("--namespace", NAMESPACE, "image", "import", path)
            assert imported.returncode == 0, imported.stderr
        yield Host(daemon, archives)


class Cri:
    """One connection to ``runtime.v1.RuntimeService``."""

    def __init__(self, host: Host) -> None:
        self._address = host.daemon.address
        self._channel = grpc.insecure_channel(f"unix://{self._address}")

    def reconnect(self) -> None:
        """After a restart of the daemon, which refuses everything until it has found its pods again."""
        self.close()
        self._channel = grpc.insecure_channel(f"unix://{self._address}")
        wait_until(self._answers, "containerd to have found its pods again")

    def _answers(self) -> bool:
        try:
            self.call("ListPodSandbox", pb.Empty())
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True

    def close(self) -> None:
        self._channel.close()

    def call(self, method: str, request: Message, response: type[Message] = pb.Empty) -> Any:
        """Raises ``grpc.RpcError``."""
        call = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request, timeout=TIMEOUT, wait_for_ready=True)


@dataclass
class Pod:
    """A pod as kubelet has it: its manifest, and its directory on the host."""

    host: Host
    cri: Cri
    manifest: dict[str, Any]
    runtime: str
    policy: Path
    directory: Path
    config_map: dict[str, str] = field(default_factory=dict)
    """Of the pod's volumes of that kind, whatever their names."""
    linux: dict[str, Any] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    id: str = ""
    attempts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, host: Host, cri: Cri, manifest: str, runtime: str, *, generate: tuple[str | Path, ...] = (), **fields: Any
    ) -> Pod:
        """From YAML: its policy is generated from that, and these options."""
        document = yaml.safe_load(manifest)
        directory = host.daemon.root / f"kubelet/pods/{document['metadata']['name']}"
        directory.mkdir(parents=True)
        source = directory / "pod.yaml"
        source.write_text(manifest)
        policy = host.daemon.root / f"policies/{document['metadata']['name']}.rego"
        archive = host.archives[BUSYBOX]
        options = ("--kubernetes", source, "--image-archive", archive, *generate)
        host.parma("policy", "generate", *options, "--out", policy)
        return cls(host, cri, document, runtime, policy, directory, **fields)

    @property
    def config(self) -> pb.PodSandboxConfig:
        name = self.manifest["metadata"]["name"]
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=name, namespace="default"),
            hostname=name,
            log_directory=str(self.directory / "logs"),
            annotations={"io.parma.policy-file": str(self.policy), **self.annotations},
        )
        config.linux.MergeFrom(pb.LinuxPodSandboxConfig(**self.linux))
        for container in self.manifest["spec"]["containers"]:
            for port in container.get("ports", ()):
                config.port_mappings.add(container_port=port["containerPort"], host_port=port.get("hostPort", 0))
        return config

    def run(self) -> None:
        """RunPodSandbox."""
        (self.directory / "logs").mkdir(exist_ok=True)
        request = pb.RunPodSandboxRequest(config=self.config, runtime_handler=self.runtime)
        self.id = self.cri.call("RunPodSandbox", request, pb.RunPodSandboxResponse).pod_sandbox_id
        self.host.names.add(self.id)

    def status(self, *, verbose: bool = False) -> pb.PodSandboxStatusResponse:
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=self.id, verbose=verbose)
        response: pb.PodSandboxStatusResponse = self.cri.call("PodSandboxStatus", request, pb.PodSandboxStatusResponse)
        return response

    def stop(self) -> None:
        """StopPodSandbox: whatever runs in it is killed first."""
        self.cri.call("StopPodSandbox", pb.PodSandboxRequest(pod_sandbox_id=self.id))

    def remove(self) -> None:
        """StopPodSandbox and RemovePodSandbox."""
        self.stop()
        self.cri.call("RemovePodSandbox", pb.PodSandboxRequest(pod_sandbox_id=self.id))

    def container_config(self, name: str, **changes: Any) -> pb.ContainerConfig:
        """The next attempt of a container of the manifest."""
        spec = self.manifest["spec"]
        container = next(c for c in (*spec.get("initContainers", ()), *spec["containers"]) if c["name"] == name)
        attempt = self.attempts[name] = self.attempts.get(name, -1) + 1
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=attempt),
            image=pb.ImageSpec(image=container["image"]),
            command=container["command"],
            envs=[pb.KeyValue(key=item["name"], value=item["value"]) for item in container.get("env", ())],
            mounts=[self._mount(item) for item in container.get("volumeMounts", ())],
            log_path=f"{name}-{attempt}.log",
        )
        config.linux.security_context.MergeFrom(
            pb.LinuxContainerSecurityContext(masked_paths=MASKED, readonly_paths=READ_ONLY)
        )
        config.linux.security_context.namespace_options.pid = 0 if spec.get("shareProcessNamespace") else 1
        config.MergeFrom(pb.ContainerConfig(**changes))
        return config

    def create(self, name: str, **changes: Any) -> str:
        """CreateContainer; the container's id."""
        config = self.container_config(name, **changes)
        request = pb.CreateContainerRequest(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return str(self.cri.call("CreateContainer", request, pb.CreateContainerResponse).container_id)

    def start(self, name: str, **changes: Any) -> str:
        """CreateContainer and StartContainer; the container's id."""
        container = self.create(name, **changes)
        self.cri.call("StartContainer", pb.ContainerRequest(container_id=container))
        return container

    def stop_container(self, container: str, grace: int = 5) -> None:
        self.cri.call("StopContainer", pb.StopContainerRequest(container_id=container, timeout=grace))

    def remove_container(self, container: str) -> None:
        self.cri.call("RemoveContainer", pb.ContainerRequest(container_id=container))

    def container_status(self, container: str) -> pb.ContainerStatus:
        request = pb.ContainerStatusRequest(container_id=container)
        status: pb.ContainerStatus = self.cri.call("ContainerStatus", request, pb.ContainerStatusResponse).status
        return status

    def stats(self) -> pb.PodSandboxStats:
        """Of ListPodSandboxStats: without the containers whose shim has not answered in the two seconds that it has."""
        request = pb.ListPodSandboxStatsRequest(filter=pb.PodSandboxStatsFilter(id=self.id))
        (stats,) = self.cri.call("ListPodSandboxStats", request, pb.ListPodSandboxStatsResponse).stats
        found: pb.PodSandboxStats = stats
        return found

    def stats_with(self, *containers: str) -> tuple[pb.PodSandboxStats, dict[str, pb.ContainerStats]]:
        """As soon as all of these have answered in time."""
        whole, each = pb.PodSandboxStats(), dict[str, pb.ContainerStats]()

        def complete() -> bool:
            whole.CopyFrom(self.stats())
            each.clear()
            each.update({one.attributes.id: one for one in whole.linux.containers})
            return set(containers) <= set(each)

        wait_until(complete, "every container's statistics")
        return whole, each

    def execute(self, container: str, *command: str) -> tuple[int, str]:
        """ExecSync: exit code and output."""
        request = pb.ExecSyncRequest(container_id=container, cmd=command, timeout=int(TIMEOUT))
        answer = self.cri.call("ExecSync", request, pb.ExecSyncResponse)
        return answer.exit_code, (answer.stdout + answer.stderr).decode()

    def log(self, name: str) -> str:
        """What the last container of this name has written, without CRI's timestamps."""
        path = self.directory / f"logs/{name}-{self.attempts[name]}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return "\n".join(line.split(" ", 3)[-1] for line in lines)

    def attestation(self) -> dict[str, Any]:
        """The attested-policy status that the pod's own carries."""
        info = self.status(verbose=True).info
        found: dict[str, Any] = json.loads(info["parma.attestation"])
        return found

    def _mount(self, mount: Mapping[str, Any]) -> pb.Mount:
        """With kubelet's directory of that volume, made if need be."""
        volume = next(item for item in self.manifest["spec"]["volumes"] if item["name"] == mount["name"])
        if "emptyDir" in volume:
            path = self.directory / f"volumes/kubernetes.io~empty-dir/{volume['name']}"
            if not path.exists():
                path.mkdir(parents=True)
                self._make_tmpfs(path, volume["emptyDir"] or {})
        else:
            path = self.config_map_directory(volume["name"])
            if not path.exists():
                path.mkdir(parents=True)
                self.write_config_map(volume["name"], self.config_map)
        return pb.Mount(container_path=mount["mountPath"], host_path=str(path), readonly="configMap" in volume)

    def config_map_directory(self, volume: str) -> Path:
        """kubelet's."""
        return self.directory / f"volumes/kubernetes.io~configmap/{volume}"

    def write_config_map(self, volume: str, data: Mapping[str, str | Path]) -> None:
        """As kubelet does: keys are links to a folder that is a link to the current one, which is replaced at once.

        A path becomes a link, as none of kubelet's.
        """
        path = self.config_map_directory(volume)
        version = path / f"..2026_{len(list(path.iterdir()))}"
        version.mkdir()
        for key, value in data.items():
            if isinstance(value, Path):
                (version / key).symlink_to(value)
            else:
                (version / key).write_text(value)
        (path / "..data_tmp").symlink_to(version.name)
        (path / "..data_tmp").rename(path / "..data")
        for key in data:
            if not (path / key).is_symlink():
                (path / key).symlink_to(f"..data/{key}")

    def _make_tmpfs(self, path: Path, source: Mapping[str, Any]) -> None:
        """As kubelet does for one in memory."""
        if source.get("medium") == "Memory":
            size = str(source["sizeLimit"]).removesuffix("Mi")
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", path], check=True)

    def discard(self) -> None:
        """kubelet's own cleaning up."""
        for path in (self.directory / "volumes/kubernetes.io~empty-dir").glob("*"):
            if path.is_mount():
                subprocess.run(["umount", path], check=True)
