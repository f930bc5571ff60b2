# SPDX-License-Identifier: Apache-2.0
"""What is refused, and how it looks to the user of ``ctr``: one clear reason, at once, and nothing left behind."""

from __future__ import annotations

import base64
import gzip
import os
from pathlib import Path

import pytest

from devtool import demo
from devtool.containerd import RUNTIME, Completed
from tests.e2e.host import BUSYBOX, DEBIAN, Host
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

HELLO = ("/bin/echo", "hello")


def refused(host: Host, name: str, *flags: str, command: tuple[str, ...] = HELLO, image: str = BUSYBOX) -> Completed:
    """Runs it, asserts that it failed without output and left nothing, and returns what the user saw."""
    host.names.add(name)
    before = Inventory.take(host)
    done = host.daemon.ctr("run", "--rm", "--runtime", RUNTIME, *flags, image, name, *command, timeout=180)
    assert done.returncode != 0
    assert "hello" not in done.stdout
    assert host.status(name) == ""
    host.remove(name)
    assert_nothing_left(host, before)
    return done


def inline(policy: bytes) -> tuple[str, str]:
    return ("--annotation", f"io.parma.policy={base64.b64encode(policy).decode()}")


def test_no_policy_is_refused_with_the_way_to_make_one(host: Host, name: str) -> None:
    assert "parma policy generate" in refused(host, name).stderr


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (b'package policy\nname := "\xff"\n', "UTF-8"),
        (b"this is not Rego\n", "package"),
        (b"", "empty"),
    ],
    ids=["not UTF-8", "not Rego", "empty"],
)
def test_a_policy_that_cannot_be_read_is_refused(host_21: Host, name: str, policy: bytes, reason: str) -> None:
    assert reason in refused(host_21, name, *inline(policy)).stderr


def test_a_policy_that_is_too_large_is_refused(host_21: Host, name: str) -> None:
    packed = gzip.compress(b"package policy\n" + b"#" * (2 * 1024 * 1024))
    assert "2097152" in refused(host_21, name, *inline(packed)).stderr


def test_a_policy_file_outside_the_allowed_directories_is_refused(host_21: Host, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "p.rego"
    outside.write_bytes(host_21.policy(HELLO).read_bytes())
    done = refused(host_21, name, "--annotation", f"io.parma.policy-file={outside}")
    assert "policy_dirs" in done.stderr


def test_an_inline_policy_works_as_a_file_does(host_21: Host, name: str) -> None:
    policy = host_21.policy(HELLO).read_bytes()
    done = host_21.daemon.ctr("run", "--rm", "--runtime", RUNTIME, *inline(policy), BUSYBOX, name, *HELLO)
    assert (done.returncode, done.stdout) == (0, "hello\n")


def test_another_command_is_denied_and_named(host: Host, name: str) -> None:
    policy = host.policy(HELLO)
    done = refused(host, name, "--annotation", f"io.parma.policy-file={policy}", command=("/bin/echo", "hello you"))
    assert "create_container" in done.stderr
    assert "command" in done.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--env", "LD_PRELOAD=/evil.so"), "env"),
        (("--cwd", "/tmp"), "working"),
        (("--user", "1"), "user"),
        (("--cap-add", "CAP_SYS_ADMIN"), "capabilit"),
        (("--privileged",), "denied"),
        (("--mount", "type=bind,src=/etc,dst=/host-etc,options=rbind:ro"), "mount"),
    ],
    ids=["environment", "working directory", "user", "capability", "privileged", "mount"],
)
def test_a_changed_container_is_denied_with_the_reason(
    host_21: Host, name: str, flags: tuple[str, ...], reason: str
) -> None:
    policy = host_21.policy(HELLO)
    done = refused(host_21, name, *flags, "--annotation", f"io.parma.policy-file={policy}")
    assert reason in done.stderr.lower()


def test_an_exec_that_the_policy_does_not_list_is_denied(host: Host, name: str) -> None:
    assert host.run(name, ("/bin/sleep", "600"), "--detach").returncode == 0
    done = host.exec(name, "e1", "/bin/cat", "/etc/passwd")
    assert done.returncode != 0
    assert "root:" not in done.stdout
    assert "exec_in_container" in done.stderr
    assert host.status(name) == "RUNNING"
    host.remove(name)


def test_another_image_under_the_same_command_is_denied(host_21: Host, name: str) -> None:
    policy = host_21.policy(HELLO, image=BUSYBOX)
    done = refused(host_21, name, "--annotation", f"io.parma.policy-file={policy}", image=DEBIAN)
    assert "deviceHash not found" in done.stderr or "layer" in done.stderr


@pytest.mark.parametrize(
    ("changed", "reason"),
    [(demo.EXT4_MAGIC, "dm-verity"), (b"\x7fELF", "Input/output error")],
    ids=["superblock", "program"],
)
def test_a_layer_with_one_bit_changed_is_not_run(own_host: Host, name: str, changed: bytes, reason: str) -> None:
    assert own_host.run(name, HELLO, "--rm").returncode == 0
    demo.corrupt_layer(own_host.daemon.data / "layers", changed)
    done = refused(own_host, name, "--annotation", f"io.parma.policy-file={own_host.policy(HELLO)}")
    assert reason in done.stderr


def test_a_cached_layer_that_was_cut_short_is_made_again(own_host: Host, name: str) -> None:
    assert own_host.run(name, HELLO, "--rm").returncode == 0
    (layer,) = (own_host.daemon.data / "layers").glob("**/*.img")
    good = layer.read_bytes()
    os.truncate(layer, len(good) // 2)
    done = own_host.run(name, HELLO, "--rm")
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert layer.read_bytes() == good


def test_a_task_without_an_image_is_refused(host_21: Host, name: str, tmp_path: Path) -> None:
    before = Inventory.take(host_21)
    done = host_21.daemon.ctr(
        *("run", "--rm", "--runtime", RUNTIME, "--annotation", f"io.parma.policy-file={host_21.policy(HELLO)}"),
        *("--rootfs", tmp_path, name, *HELLO),
    )
    assert done.returncode != 0
    assert "has no image" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    host_21.remove(name)
    assert_nothing_left(host_21, before)
