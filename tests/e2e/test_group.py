# SPDX-License-Identifier: Apache-2.0
"""Several containers in one VM, and what the attested-policy status says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "600")


def test_containers_of_a_group_share_one_vm_and_one_policy(own_host: Host, name: str) -> None:
    before = Inventory.take(own_host)
    member = f"{name}-member"
    policy = own_host.policy(SLEEP, execs=[("/bin/echo", "alive")])
    assert own_host.run(name, SLEEP, "--detach", policy=policy).returncode == 0
    group = ("--annotation", f"io.kubernetes.cri.sandbox-id={name}", "--detach")
    done = own_host.run(member, SLEEP, *group, policy=policy)
    assert done.returncode == 0, done.stderr
    assert len(list(Path(own_host.state).rglob("group.json"))) <= 1
    for container in (name, member):
        assert own_host.exec(container, f"e-{container}", "/bin/echo", "alive").stdout == "alive\n"
    own_host.remove(member)
    assert own_host.exec(name, "after", "/bin/echo", "alive").stdout == "alive\n"
    # Another policy cannot join: there is one for the life of the VM.
    other = own_host.policy(("/bin/sleep", "601"))
    refused = own_host.run(member, ("/bin/sleep", "601"), *group, policy=other)
    assert "policy" in refused.stderr
    own_host.remove(member)
    own_host.remove(name)
    assert_nothing_left(own_host, before)


def test_the_status_is_shown_as_document_label_and_event(own_host: Host, name: str, tmp_path: Path) -> None:
    log = tmp_path / "events"
    with log.open("wb") as output, own_host.daemon.popen("events", stdout=output) as events:
        assert own_host.run(name, SLEEP, "--detach").returncode == 0
        status = json.loads(own_host.parma("status", "--wait", "60", "--json", name))
        wait_until(lambda: "/parma/attested" in log.read_text(), "the event")
        events.kill()
    assert (status["verdict"], status["emulated"]) == ("attested", True)
    assert "EMULATED" in own_host.parma("status", name).upper()

    def labels() -> dict[str, str]:
        document = json.loads(own_host.daemon.ctr("container", "info", name).stdout)
        return {key: str(value) for key, value in document["Labels"].items()}

    wait_until(lambda: labels().get("io.parma.attestation") == "attested", "the label")
    assert labels()["io.parma.emulated"] == "true"
    assert labels()["io.parma.policy-sha256"] == status["policy_sha256"]
    assert labels()["io.parma.verified-by"] == "shim"
    # A container that has left its VM does not go on saying that it is attested.
    own_host.daemon.ctr("task", "delete", "--force", name)
    wait_until(lambda: labels()["io.parma.attestation"] == "ended", "the label of a container without a VM")
    own_host.remove(name)
