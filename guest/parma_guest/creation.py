# SPDX-License-Identifier: Apache-2.0
"""Creating a container: what the policy is asked, what must be there, and taking everything back when a step fails."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from parma_guest import decisions, oci, paths
from parma_guest.attest.service import Access, Session, merged
from parma_guest.containers import Attestation, Container, Host, Members, Network, Runtime, stdio_plan, watched
from parma_guest.enforcer import Asker, Enforcer
from parma_guest.pod import Pod, namespace
from parma_guest.processes import Process
from parma_guest.requests import CreateContainer, unsafe_sysctl
from parma_guest.storage import Storage
from parma_guest.undo import Undo
from parma_guest.users import with_home
from parma_guest.values import ContainerId, ExecId, GuestPath, MountSpec
from parma_wire.errors import AlreadyExists, FailedPrecondition, Unsupported

if TYPE_CHECKING:
    from parma_guest.provided import HostFiles

MAX_CONTAINERS: Final = 64
_ONLY_PROVIDED: Final = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


def require_safe_sysctls(sysctls: Mapping[str, str], policy: Asker) -> None:
    """Raises `Unsupported` for one that says more of a container's kernel than a policy can have allowed."""
    unsafe = unsafe_sysctl(sysctls)
    if unsafe:
        policy.require_open_door(f"the sysctl {unsafe}")


class Creator:
    """Of a group's containers."""

    def __init__(
        self,
        members: Members,
        enforcer: Enforcer,
        storage: Storage,
        pod: Pod,
        runtime: Runtime,
        host: Host,
        attestation: Attestation,
        network: Network,
    ) -> None:
        self._members = members
        self._enforcer = enforcer
        self._storage = storage
        self._pod = pod
        self._runtime = runtime
        self._host = host
        self._attestation = attestation
        self._network = network
        self._host_files: HostFiles | None = None

    @property
    def host_files(self) -> HostFiles:
        """What the host provides for containers to mount."""
        if self._host_files is None:
            from parma_guest.provided import HostFiles  # many containers have none

            self._host_files = HostFiles(self._host)
        return self._host_files

    def create(self, request: CreateContainer, policy: Asker) -> int:
        """Returns init's process id in the guest."""
        container = request.container
        if container in self._members.used_ids:
            raise AlreadyExists("the container id was used before")
        if not self._storage.has_overlay(container):
            raise FailedPrecondition("the container has no root file system")
        if len(self._members.containers) >= MAX_CONTAINERS:
            raise FailedPrecondition("too many containers", expected=f"at most {MAX_CONTAINERS}")
        require_safe_sysctls(request.sysctls, policy)
        if request.masked_in_image or request.readonly_in_image:
            policy.require_open_door("a part of the image that is hidden or read-only")
        sandbox = self._sandbox_of(request)
        identity = self._host.identity(container, request.process.user)
        verdict = policy.ask("create_container", decisions.create_container(request, identity, sandbox))
        plan = stdio_plan(request.process, verdict.stdio)
        env = decisions.kept(request.process.env, verdict.env)
        capabilities = decisions.kept_capabilities(request.process.capabilities, verdict.capabilities)
        for mount in request.mounts:
            self._prepare_mount(mount, sandbox)
        access = Access(verdict.attestation, verdict.identity)
        policy_bytes = self._enforcer.policy_bytes
        session = self._attestation.prepare(container, access, policy_bytes, decisions.policy_digest(policy_bytes))
        with Undo() as undo, ExitStack() as pins:
            undo.add(session.close)
            env = merged(with_home(env, identity), session.environment)
            request = request._replace(mounts=self._pinned(request, sandbox, pins))
            joined = self._joined_namespaces(request)
            users = self._storage.user_namespace(container)
            network = self._network_namespace(session, mapped=users is not None)
            if network:
                joined["network"] = network
            memory = self._pod.shared_memory
            spec = oci.container(request, env, capabilities, joined, memory, session.device, users)
            launched = self._runtime.create(container, spec, plan)
            init = watched(self._host, container, ExecId(""), request.process.args, launched)
            undo.add(lambda: self._discard(init))
            self._require_still_there(request)
            session.serve(init.pid)
        self._members.add(Container(container, init, verdict.stdio, session))
        if request.sandbox_container:
            self._members.sandbox = container
        return init.pid

    def _sandbox_of(self, request: CreateContainer) -> ContainerId:
        if request.sandbox_container and self._members.sandbox is not None:
            raise AlreadyExists("the group has a sandbox container already")
        return self._members.sandbox or request.container

    def _joined_namespaces(self, request: CreateContainer) -> dict[str, str]:
        """Type and path of those that exist already. In a pod the names that go with them are the pod's, too."""
        joined = self._pod.namespaces()
        if joined and (request.hostname or request.sysctls):
            raise Unsupported("host name and sysctls are the pod's", expected="a container without")
        if self._members.sandbox is not None and self._members.get(self._members.sandbox).init.exited:
            raise FailedPrecondition("the pod has stopped")
        if request.pid_namespace_of is not None:
            found = self._members.get(request.pid_namespace_of)
            if found.init.exited:
                raise FailedPrecondition("the container whose processes are to be shared has stopped")
            joined["pid"] = namespace(found.init.pid, "pid")
        return joined

    def _network_namespace(self, session: Session, *, mapped: bool) -> str | None:
        """The path of the one that all share, or None for the container's own.

        What listens for a container on 127.0.0.1 is for nobody else: its keys are not another container's. There is no
        telling in a shared namespace: whoever is in it may connect, and read what others say on loopback where it has
        CAP_NET_RAW. So such a container has a namespace of its own, or has the group's network to itself: nothing else
        lives there but what keeps a pod's namespaces. ``mapped``: the container has a user namespace, which may only
        mount /sys for a network that belongs to it.
        """
        if not self._network.configured:
            return None if session.listens or mapped else self._network.namespace()
        others = [other for other in self._members.containers.values() if other.container != self._pod.sandbox]
        living = any(not other.init.exited for other in others)
        if (living and session.listens) or any(other.session.listens for other in others):
            raise Unsupported("endpoints of attestation and a network cannot be had by several containers of a VM")
        # Before anybody listens: see `parma_guest.forwarding`.
        self._members.has_endpoints |= session.listens
        return self._network.namespace()

    def _require_still_there(self, request: CreateContainer) -> None:
        """crun joins namespaces by numbers of processes: had one ended meanwhile, another might have had its number."""
        for container in (self._members.sandbox, request.pid_namespace_of):
            if container is not None and not self._members.get(container).init.alive:
                raise FailedPrecondition("a container whose namespaces are shared has stopped meanwhile")

    def _prepare_mount(self, mount: MountSpec, sandbox: ContainerId) -> None:
        if mount.type != "bind":
            return
        base = paths.sandbox_mounts(sandbox)
        if not GuestPath(mount.source).is_below(base) or mount.source == base:
            raise Unsupported("a bind mount must come from the sandbox's own directory", expected=f"below {base}")
        self._pod.require_volume(mount.source)
        if self._host_files is not None or mount.destination in _ONLY_PROVIDED:
            self.host_files.provided.check_mount(sandbox, mount.destination, mount.source)
        self._host.prepare_bind(base, mount.source)

    def _pinned(self, request: CreateContainer, sandbox: ContainerId, pins: ExitStack) -> tuple[MountSpec, ...]:
        """The mounts for crun: each bind mount from what its source is now, whatever its name leads to later."""
        base = paths.sandbox_mounts(sandbox)
        return tuple(
            mount._replace(
                source=pins.enter_context(self._host.pinned(base, mount.source, paths.pin(request.container, number)))
            )
            if mount.type == "bind"
            else mount
            for number, mount in enumerate(request.mounts)
        )

    def _discard(self, init: Process) -> None:
        """A container that was created, and cannot be kept."""
        self._runtime.delete(init.container)
        init.close()
