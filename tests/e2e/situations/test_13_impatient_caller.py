# SPDX-License-Identifier: Apache-2.0
"""A caller that does not wait for the boot: what it began goes, and the same name can be used at once."""

from __future__ import annotations

import signal

import pytest

from tests.e2e import tasks_pb2 as pb
from tests.e2e.client import TIMEOUT, Containerd, code_of
from tests.e2e.crashes import SLEEP, qemu
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

PATIENCE = 2.0
"""Seconds: crictl's default, and less than any VM takes to boot here. QEMU is there by then, or not yet."""

TEARDOWN = 15.0


@pytest.mark.parametrize("cancel", [False, True], ids=["time is over", "cancelled"])
def test_a_create_that_is_given_up_is_undone_and_its_name_is_free(own_host: Host, name: str, cancel: bool) -> None:
    before, client = Inventory.take(own_host), Containerd(own_host)
    client.new_container(name, SLEEP)
    patience = TIMEOUT if cancel else PATIENCE
    call = client.send("Create", pb.CreateTaskRequest(container_id=name), pb.CreateTaskResponse, timeout=patience)
    wait_until(lambda: bool(qemu(own_host)) or call.done(), "the VM to boot, or the time to be over")
    if cancel:
        assert not call.done()
        call.cancel()
    else:
        assert code_of(call) == "DEADLINE_EXCEEDED"
    wait_until(lambda: not qemu(own_host), "the VM to go", timeout=TEARDOWN)
    # By containerd, after the shim's `delete`: until then it refuses the name, whoever's shim it is. The second goes
    # after the first, whoever's it is by then.
    task = f"io.containerd.runtime.v2.task/default/{name}"
    bundle, work = (own_host.daemon.root / top / task for top in ("state", "root"))
    gone = lambda: not bundle.exists() and not work.exists()  # noqa: E731
    wait_until(gone, "containerd to remove the bundle", timeout=2 * TEARDOWN)
    client.create(name)
    client.start(name)
    client.kill(name, signal.SIGKILL)
    assert client.wait(name) == 137
    assert client.delete(name) == 137
    own_host.remove(name)
    client.close()
    assert_nothing_left(own_host, before)
