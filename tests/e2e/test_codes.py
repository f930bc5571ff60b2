# SPDX-License-Identifier: Apache-2.0
"""Refusals as clients of containerd's API see them: PermissionDenied is a code, not a text; and nothing is left.

One guest for the requests that a running container is refused; the others boot, or are refused before, one by one.
"""

from __future__ import annotations

import base64
import gzip
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.client import GONE, Containerd, code_of
from tests.e2e.host import BUSYBOX, Host
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SLEEP = ("/bin/sleep", "600")


@pytest.fixture(scope="module")
def client(archives: dict[str, Path]) -> Iterator[Containerd]:
    with PrivateContainerd(paths.PREFIX / "containerd-2.1") as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        client = Containerd(Host(daemon, archives))
        yield client
        client.close()


def inline(policy: bytes) -> tuple[str, str]:
    return ("--annotation", f"io.parma.policy={base64.b64encode(policy).decode()}")


NOT_TAKEN = {
    "not UTF-8": (b'package policy\nname := "\xff"\n', "UTF-8"),
    "not Rego": (b"this is not Rego\n", "package"),
    "rules of its own": (b"package policy\nmount_device { true }\n", "line 2"),
    "empty": (b"", "empty"),
    "too large": (gzip.compress(b"package policy\n" + b"#" * (2 << 20)), "2097152"),
}


@pytest.mark.parametrize("policy", NOT_TAKEN)
def test_a_policy_that_cannot_be_taken_is_permission_denied(client: Containerd, name: str, policy: str) -> None:
    text, reason = NOT_TAKEN[policy]
    before = Inventory.take(client.host)
    flags = ("--runtime", "io.containerd.parma.v2", *inline(text))
    assert client.host.daemon.ctr("container", "create", *flags, BUSYBOX, name, *SLEEP).returncode == 0
    client.host.names.add(name)
    call = client.sending_create(name)
    assert code_of(call) == "PERMISSION_DENIED"
    assert reason in call.details()
    assert client.state(name) == GONE
    client.host.remove(name)
    assert_nothing_left(client.host, before)


def test_another_command_is_permission_denied(client: Containerd, name: str) -> None:
    before = Inventory.take(client.host)
    client.new_container(name, ("/bin/sleep", "601"), policy=client.host.policy(SLEEP))
    call = client.sending_create(name)
    assert (code_of(call), client.state(name)) == ("PERMISSION_DENIED", GONE)
    assert "command" in call.details()
    client.host.remove(name)
    assert_nothing_left(client.host, before)


def test_a_running_containers_refusals_are_permission_denied_and_change_nothing(client: Containerd, name: str) -> None:
    client.new_container(name, SLEEP)
    client.create(name)
    client.start(name)
    client.add_exec(name, "e1", ("/bin/cat", "/etc/passwd"))
    assert code_of(client.sending_start(name, "e1")) == "PERMISSION_DENIED"
    assert client.wait(name, "e1") == 255  # nobody waits for ever for what never ran
    assert client.delete(name, "e1") == 255
    assert code_of(client.sending_kill(name, signal.SIGWINCH)) == "PERMISSION_DENIED"
    assert client.state(name) == "RUNNING"
    client.host.remove(name)


LYING = """
import hashlib
import parma_shim.vm.recipe
parma_shim.vm.recipe.hex_digest = lambda _: hashlib.sha256(b"the policy of somebody else").hexdigest()
from parma_shim.main import main
"""


def test_a_vm_that_was_launched_for_another_policy_takes_none(archives: dict[str, Path], name: str) -> None:
    """The host puts another HOST_DATA into the launch than the digest of the policy that it hands over."""
    with PrivateContainerd(paths.PREFIX / "containerd-2.1") as daemon:
        launcher = daemon.root / "bin/containerd-shim-parma-v2"
        launcher.write_text(launcher.read_text().replace("from parma_shim.main import main\n", LYING))
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        client = Containerd(Host(daemon, archives))
        before = Inventory.take(client.host)
        client.new_container(name, SLEEP)
        call = client.sending_create(name)
        assert code_of(call) == "PERMISSION_DENIED"
        assert "not the one that this VM was launched for" in call.details()
        assert "HOST_DATA" in call.details()
        client.host.remove(name)
        assert_nothing_left(client.host, before)
        client.close()
