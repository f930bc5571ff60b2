# SPDX-License-Identifier: Apache-2.0
"""The tutorial is true: every command in it is run, in order, and prints what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from devtool import images, paths
from tests.e2e.host import Host

pytestmark = pytest.mark.e2e

PAGE = paths.ROOT / "docs" / "tutorial.md"
IMAGE = "example.org/app:1"
POLICIES = "/etc/parma/policies"


@dataclass(frozen=True)
class Block:
    """Commands, whether they have to fail, and the output that the page shows below them."""

    commands: str
    fails: bool
    shown: str


def blocks(text: str) -> list[Block]:
    """The shell blocks of a page, each with the text block behind it, if there is one."""
    found = re.findall(r"^```(sh|sh fails|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    result: list[Block] = []
    for kind, content in found:
        if kind == "text":
            last = result.pop()
            result.append(Block(last.commands, last.fails, content))
        else:
            result.append(Block(content, kind == "sh fails", ""))
    return result


def matches(shown: str, output: str) -> bool:
    """Whether the output has what is shown, in this order; ``...`` stands for anything."""
    pieces = [re.escape(piece.strip("\n")) for piece in shown.split("...")]
    return re.search(".*?".join(pieces), output, re.DOTALL) is not None


@pytest.fixture
def shell(host_21: Host, tmp_path: Path) -> dict[str, str]:
    """An environment in which ``ctr`` and ``parma`` are those of the private host; ``app.tar`` is in the folder."""
    images.write_busybox_image(tmp_path / "app.tar", paths.PREFIX / "bin/busybox", IMAGE)
    programs = tmp_path / "bin"
    programs.mkdir()
    ctr = programs / "ctr"
    ctr.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, host_21.daemon.command()))} "$@"\n')
    ctr.chmod(0o755)
    (programs / "parma").symlink_to(paths.VENV / "bin/parma")
    environment = {**os.environ, **host_21.daemon.environment(), "PARMA_CONFIG": str(host_21.daemon.parma_config)}
    return {**environment, "PATH": f"{programs}:{environment['PATH']}"}


def test_every_command_does_what_the_page_says(host_21: Host, shell: dict[str, str], tmp_path: Path) -> None:
    policies = host_21.daemon.root / "policies"
    steps = blocks(PAGE.read_text())
    assert len(steps) > 8
    try:
        for step in steps:
            commands = step.commands.replace(POLICIES, str(policies))
            done = subprocess.run(
                ["bash", "-e", "-c", commands],
                cwd=tmp_path,
                env=shell,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )
            output = done.stdout.replace(str(policies), POLICIES)
            assert (done.returncode != 0) is step.fails, f"{step.commands}\n{output}"
            assert matches(step.shown, output), f"{step.commands}\n{output}"
    finally:
        host_21.remove("app")


def test_what_is_shown_is_compared() -> None:
    assert matches("a...c\n", "x\na b c d")
    assert matches("", "anything")
    assert not matches("a...c", "c a")
    assert not matches("a b", "a  b")


def test_blocks_are_paired_with_what_is_shown_below() -> None:
    page = "x\n```sh\na\n```\n```text\nout\n```\n\n```sh fails\nb\n```\n```json\n{}\n```\n"
    assert blocks(page) == [Block("a\n", False, "out\n"), Block("b\n", True, "")]
