# SPDX-License-Identifier: Apache-2.0
"""The containers of a group, and what one of them is to another in the guest."""

from __future__ import annotations

from collections import UserDict
from typing import NamedTuple

from parma_shim import guest_request
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm.undo import Undo
from parma_wire.errors import Unsupported


class Member(NamedTuple):
    """A container that exists in the guest."""

    guest_id: str
    undo: Undo
    is_pod: bool = False
    """It is what keeps a pod's namespaces."""
    own_pids: bool = False
    """It has a pid namespace of its own, in a pod."""

    @classmethod
    def of(cls, spec: ContainerSpec, undo: Undo) -> Member:
        """The container of this specification; ``undo`` takes back what it has in the guest."""
        is_pod = guest_request.is_sandbox_container(spec.oci)
        own_pids = not is_pod and not guest_request.shares_pid_namespace(spec.oci)
        return cls(spec.guest_id, undo, is_pod, own_pids)


class Members(UserDict[str, Member]):
    """By containerd's id. The first container, or the pod, has the group's."""

    def __init__(self, group_id: str) -> None:
        super().__init__()
        self._group_id = group_id
        self.unwanted: set[str] = set()
        """Those whose deletion was asked for: one that failed is tried again when the name is wanted."""

    def __delitem__(self, container_id: str) -> None:
        super().__delitem__(container_id)
        self.unwanted.discard(container_id)

    @property
    def sandbox(self) -> str:
        """The pod's id in the guest; "" for a group that is none."""
        head = self.get(self._group_id)
        return head.guest_id if head is not None and head.is_pod else ""

    def pid_namespace_for(self, spec: ContainerSpec) -> str:
        """The guest id of whose pid namespace the container is to join: the pod's, or another container's.

        All paths on the host are the same, as all processes are the VM's. But in a pod whose containers have pid
        namespaces of their own, one that is to join one means the container that it is there to look at.
        Raises Unsupported where that could be several.
        """
        if not guest_request.shares_pid_namespace(spec.oci):
            return ""
        head = self.get(self._group_id)
        if head is None:
            return ""
        alone = [member.guest_id for member in self.values() if member.own_pids] if head.is_pod else []
        if len(alone) > 1:
            raise Unsupported("whose processes are to be shared cannot be told", expected="one container with its own")
        return alone[0] if alone else head.guest_id
