# SPDX-License-Identifier: Apache-2.0
"""A container that only a signed fragment allows, as the user of ``ctr`` sees it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from parma_policy.reader.syntax import parse
from tests.cose.chains import EKU, shared_authority
from tests.e2e.host import Host

pytestmark = pytest.mark.e2e

HELLO = ("/bin/echo", "hello")
FEED = "parma.example/busybox"


def split(host: Host, folder: Path) -> tuple[Path, bytes]:
    """A policy without containers, and a signed fragment that has them."""
    generated = host.policy(HELLO).read_text()
    statements = parse(generated).statements
    containers = json.dumps(statements["containers"].value)
    text = f'package app\nsvn := 2\nframework_version := "0.5.0"\ncontainers := {containers}\n'
    envelope = sign(host, folder, text)
    rule = host.parma("fragment", "rule", envelope)
    data = {
        **{name: item.value for name, item in statements.items()},
        "containers": [],
        "fragments": [json.loads(rule)],
    }
    lines = [f"{name} := {json.dumps(value)}" for name, value in data.items() if isinstance(value, str | bool | list)]
    lines += [line for line in generated.splitlines() if ":= data.framework." in line]
    if not any(line.startswith("load_fragment ") for line in lines):
        lines.append("load_fragment := data.framework.load_fragment")
    policy = host.daemon.root / "policies" / "delegated.rego"
    policy.write_text("\n".join(["package policy", *lines, ""]))
    return policy, envelope.read_bytes()


def sign(host: Host, folder: Path, text: str) -> Path:
    by = shared_authority()
    (folder / "app.rego").write_text(text)
    (folder / "key.pem").write_bytes(by.leaf.key_pem)
    (folder / "chain.pem").write_bytes(by.chain_pem)
    host.parma(
        *("fragment", "sign", folder / "app.rego", "--key", folder / "key.pem", "--chain", folder / "chain.pem"),
        *("--feed", FEED, "--predicate", f"eku:{EKU}", "--out", folder / "app.cose"),
    )
    return folder / "app.cose"


def annotation(envelope: bytes) -> tuple[str, str]:
    return "--annotation", f"io.parma.fragments={base64.b64encode(envelope).decode()}"


def test_a_fragment_makes_the_difference(host_21: Host, name: str, tmp_path: Path) -> None:
    policy, envelope = split(host_21, tmp_path)
    done = host_21.run(name, HELLO, "--rm", *annotation(envelope), policy=policy)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr

    done = host_21.run(name, HELLO, "--rm", policy=policy)
    assert done.returncode != 0
    assert "mount_device denied" in done.stderr
    host_21.remove(name)
