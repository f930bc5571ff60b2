# SPDX-License-Identifier: Apache-2.0
"""One VM for the situations that it survives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.e2e.client import Containerd
from tests.e2e.crashes import TRAPPED
from tests.e2e.host import Host

SHELL = ("/bin/sh",)
"""What is to be done in the container comes through stdin: one policy allows all of these tests."""

ECHO = ("/bin/echo", "a line")
SLEEP = ("/bin/sleep", "600")
TRUE = ("/bin/true",)
DIGEST = ("/bin/sha256sum",)
YES = ("/bin/yes",)
ORPHANS = ("/bin/sh", "-c", "sleep 600 & echo left")
"""Ends at once; what it leaves behind holds its output open."""

EXECS = (SHELL, ECHO, SLEEP, TRUE, DIGEST, YES, ORPHANS)


class Vm:
    """A pod that runs: its first container stays, further ones come and go."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.client = Containerd(host)
        self.policy = host.policy(TRAPPED, execs=EXECS)
        self._flags = ("--annotation", f"io.kubernetes.cri.sandbox-id={name}")
        self._numbers = itertools.count()
        self.add(name)
        self.client.create(name)
        self.client.start(name)

    def fresh(self) -> str:
        """An exec's or a container's name."""
        return f"{self.name}-{next(self._numbers)}"

    def add(self, name: str) -> None:
        """A container of the pod, without a task."""
        self.client.new_container(name, TRAPPED, *self._flags, policy=self.policy)

    def begin(self) -> str:
        """A container that runs."""
        name = self.fresh()
        self.add(name)
        self.client.create(name)
        self.client.start(name)
        return name

    def close(self) -> None:
        self.host.remove(self.name)
        self.client.close()


@pytest.fixture(scope="session")
def vm(host_21: Host) -> Iterator[Vm]:
    made = Vm(host_21, "situations")
    yield made
    made.close()


@pytest.fixture
def own_vm(own_host: Host) -> Iterator[Vm]:
    """One that does not survive, or whose containerd does not."""
    made = Vm(own_host, "pod")
    yield made
    made.client.close()
