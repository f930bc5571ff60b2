# SPDX-License-Identifier: Apache-2.0
"""What nerdctl 2.x asks of containerd, without nerdctl: the same specification, hooks, annotations, labels and logging.

``Nerdctl.run`` is ``nerdctl run -d``: a container made with ``ctr``, whose specification is changed to nerdctl's, and a
task whose output goes to a logger. What differs is who writes the state directory: ``nerdctl_programs``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtool import cni
from tests.e2e import nerdctl_programs
from tests.e2e import tasks_pb2 as pb
from tests.e2e.client import Containerd
from tests.e2e.host import BUSYBOX, Host

_RESTART = "containerd.io/restart."


@dataclass(frozen=True)
class Flags:
    """Of ``nerdctl run``."""

    publish: dict[int, int] = field(default_factory=dict)
    """Port of the host to port of the container."""
    env: Sequence[str] = ()
    cwd: str = ""
    user: str = ""
    cap_drop: Sequence[str] = ()
    read_only: bool = False
    tmpfs: Sequence[str] = ()
    memory: int = 0
    cpus: float = 0
    hostname: str = ""
    restart: str = ""
    tty: bool = False

    def for_ctr(self) -> list[str]:
        """Those that ``ctr`` has, too, with what nerdctl has by default."""
        values = {"--cwd": self.cwd, "--user": self.user, "--memory-limit": str(self.memory or "")}
        words = ["--seccomp", "--allow-new-privs", *(["--read-only"] if self.read_only else [])]
        words += [word for flag, value in values.items() if value for word in (flag, value)]
        words += [word for variable in self.env for word in ("--env", variable)]
        words += [word for name in self.cap_drop for word in ("--cap-drop", name)]
        for path in self.tmpfs:
            words += ["--mount", f"type=tmpfs,src=tmpfs,dst={path},options=noexec:nosuid:nodev"]
        if self.restart:
            words += ["--label", f"{_RESTART}policy={self.restart}", "--label", f"{_RESTART}status=running"]
        return words


class Nerdctl:
    """One containerd, in the network namespace ``node``, as nerdctl uses it."""

    def __init__(self, host: Host, directory: Path, node: str) -> None:
        self.host = host
        self.directory = directory / "containers"
        self.directory.mkdir()
        self._node = node
        self.client = Containerd(host)
        self._ids: dict[str, str] = {}
        self._logger = directory / "nerdctl"
        self._logger.write_text(
            f'#!/bin/sh\nexec {sys.executable} {nerdctl_programs.__file__} "$@"\n',
        )
        self._logger.chmod(0o755)

    def id(self, name: str) -> str:
        return self._ids[name]

    def pid(self, name: str) -> int:
        """The process that nerdctl looks at for a container's files and network."""
        (line,) = (
            line for line in self.host.daemon.ctr("task", "list").stdout.splitlines() if line.startswith(self.id(name))
        )
        return int(line.split()[1])

    def log(self, name: str) -> str:
        """``nerdctl logs``."""
        file = self.directory / self.id(name) / "log"
        return file.read_bytes().decode() if file.exists() else ""

    def address(self, name: str) -> str:
        return (self.directory / self.id(name) / "address").read_text()

    def create(self, name: str, command: Sequence[str], flags: Flags, policy: Path) -> str:
        """``nerdctl create``; returns the container's id."""
        identity = hashlib.sha256(name.encode()).hexdigest()
        self._ids[name] = identity
        own = self.directory / identity
        own.mkdir()
        hostname = flags.hostname or identity[:12]
        (own / "name").write_text(name)
        (own / "hostname").write_text(f"{hostname}\n")
        (own / "hosts").write_text("")  # the hook's to write
        (own / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch parma.example\n")
        ports = [
            {"hostPort": host, "containerPort": inside, "protocol": "tcp"} for host, inside in flags.publish.items()
        ]
        (own / "ports").write_text(json.dumps(ports))
        words = self.host.run_arguments(identity, command, *flags.for_ctr(), policy=policy, image=BUSYBOX)
        uri = ["--label", f"{_RESTART}loguri={self._log_uri()}"] if flags.restart else []
        done = self.host.daemon.ctr("container", "create", *uri, *words[1:])
        assert done.returncode == 0, done.stderr
        self.client.change_spec(identity, lambda spec: self._change(spec, name, hostname, flags))
        return identity

    def run(self, name: str, command: Sequence[str], flags: Flags, policy: Path) -> str:
        """``nerdctl run -d``; returns the container's id."""
        identity = self.create(name, command, flags, policy)
        uri = self._log_uri()
        stderr = "" if flags.tty else uri
        request = pb.CreateTaskRequest(container_id=identity, stdout=uri, stderr=stderr, terminal=flags.tty)
        self.client.send("Create", request, pb.CreateTaskResponse).result()
        self.client.start(identity)
        return identity

    def stop(self, name: str) -> int:
        """``nerdctl stop``: the stop signal, here to a process that has a handler; returns the exit status."""
        identity = self.id(name)
        # Asked for first: what is restarted may be another task by the time that the signal was sent.
        ending = self.client.send("Wait", pb.WaitRequest(container_id=identity), pb.WaitResponse)
        self.client.kill(identity, 15)
        return int(ending.result().exit_status)

    def remove(self, name: str) -> None:
        """``nerdctl rm -f``."""
        self.host.remove(self.id(name))

    def close(self) -> None:
        for name in self._ids:
            self.remove(name)
        self.client.close()

    def _log_uri(self) -> str:
        return f"binary://{self._logger}?{nerdctl_programs.LOGGING}={self.directory}"

    def _change(self, spec: dict[str, Any], name: str, hostname: str, flags: Flags) -> None:
        own = self.directory / self.id(name)
        spec["hostname"] = hostname
        process = spec["process"]
        process["env"].append(f"HOSTNAME={hostname}")
        process["terminal"] = flags.tty
        process["env"] += ["TERM=xterm"] if flags.tty else []
        process.pop("rlimits", None)
        mounts = [mount for mount in spec["mounts"] if mount["destination"] != "/run"]
        options = ["ro", "nosuid", "noexec", "nodev"]
        mounts.append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
        for file in ("resolv.conf", "hosts", "hostname"):
            source, options = str(own / file), ["bind", "rprivate"]
            mounts.append({"destination": f"/etc/{file}", "type": "bind", "source": source, "options": options})
        spec["mounts"] = mounts
        linux = spec["linux"]
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
        if flags.cpus:
            linux["resources"]["cpu"] = {"quota": int(flags.cpus * 100000), "period": 100000}
        spec["annotations"] |= {
            "nerdctl/name": name,
            "nerdctl/namespace": "default",
            "nerdctl/state-dir": str(own),
            "nerdctl/hostname": hostname,
            "nerdctl/networks": '["bridge"]',
        }
        spec["hooks"] = {
            "createRuntime": [self._hook("createRuntime")],
            "poststop": [self._hook("postStop")],
        }

    def _hook(self, event: str) -> dict[str, Any]:
        arguments = [str(self._logger), self._node, str(self.directory), event]
        environment = [f"PATH={cni.environment()['PATH']}", f"CNI_PATH={cni.PLUGINS}"]
        return {"path": str(self._logger), "args": arguments, "env": environment}
