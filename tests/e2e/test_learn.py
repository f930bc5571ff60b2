# SPDX-License-Identifier: Apache-2.0
"""Learning a policy: a permissive run in a real guest, its recording, the policy made of it, and what that denies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devtool.containerd import RUNTIME
from tests.e2e.host import BUSYBOX, Host

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "600")


def flags(policy: Path) -> tuple[str, str]:
    return ("--annotation", f"io.parma.policy-file={policy}")


def test_a_permissive_run_is_recorded_learned_from_and_then_enforced(host_21: Host, name: str, tmp_path: Path) -> None:
    policies = host_21.daemon.root / "policies"
    starting, learned = policies / f"{name}-starting.rego", policies / f"{name}-learned.rego"
    host_21.parma("policy", "learn", "--starting-policy", "--out", starting)
    run = ("run", "--detach", "--runtime", RUNTIME, *flags(starting), BUSYBOX, name, *SLEEP)
    done = host_21.daemon.ctr(*run, timeout=240)
    assert done.returncode == 0, done.stderr

    status = host_21.parma_result("status", "--wait", "60", "--json", name)
    document = json.loads(status.stdout)
    assert status.returncode == 1
    assert (document["verdict"], document["permissive"]) == ("permissive", True)
    assert "Permissive:     YES" in host_21.parma_result("status", name).stdout

    assert host_21.exec(name, "e1", "/bin/echo", "learned").stdout == "learned\n"
    recording = tmp_path / "run.jsonl"
    recording.write_text(host_21.parma("record", name))
    host_21.remove(name)
    host_21.parma("policy", "learn", recording, "--out", learned)
    host_21.parma("policy", "simulate", learned, recording)

    again = f"{name}b"
    done = host_21.daemon.ctr(
        "run", "--detach", "--runtime", RUNTIME, *flags(learned), BUSYBOX, again, *SLEEP, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert host_21.exec(again, "e1", "/bin/echo", "learned").stdout == "learned\n"
    refused = host_21.exec(again, "e2", "/bin/echo", "something else")
    assert refused.returncode != 0
    assert "exec_in_container denied" in refused.stderr
    nothing = host_21.parma_result("record", again)
    assert nothing.returncode != 0
    assert "denied" in nothing.stderr or "not permissive" in nothing.stderr
    host_21.remove(again)
