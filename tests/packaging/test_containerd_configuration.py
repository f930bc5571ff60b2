# SPDX-License-Identifier: Apache-2.0
"""What packaging/ has for containerd's configuration, loaded by real daemons."""

from __future__ import annotations

import re
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devtool import paths

PACKAGING = paths.ROOT / "packaging"
CRI = {"2": "io.containerd.grpc.v1.cri", "3": "io.containerd.cri.v1.runtime"}
"""The plugin that has the runtimes, by version of the configuration."""

BASE = """\
version = {version}
root = "{root}/root"
state = "{root}/state"
imports = {imports}
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{root}/c.sock"
[plugins."{cri}".cni]
  conf_dir = "{root}/cni"
  bin_dir = "{root}/cni-bin"
[plugins."{cri}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."{cri}".containerd.runtimes.runc.options]
    SystemdCgroup = true
"""
"""What an operator has configured already, and must not lose."""


def base(root: Path, version: str, *imports: Path) -> str:
    return BASE.format(version=version, root=root, imports=[str(path) for path in imports], cri=CRI[version])


def binaries(version: str) -> Path:
    folder = paths.PREFIX / f"containerd-{version}"
    if not folder.is_dir():
        pytest.skip(f"{folder.relative_to(paths.ROOT)} is missing: run ./dev setup")
    return folder


def configurations(root: Path) -> dict[str, tuple[str, str]]:
    """By name: containerd's version, and a configuration that includes one of ours as its comment says."""
    appended = base(root, "2") + (PACKAGING / "containerd/parma-1.7.toml").read_text()
    template = (PACKAGING / "k3s/config-v3.toml.tmpl").read_text()
    return {
        "1.7 appended": ("1.7", appended),
        "2.1 appended": ("2.1", appended),  # containerd 2 reads version 2 as well
        "2.1 imported": ("2.1", base(root, "3", PACKAGING / "containerd/parma-2.toml")),
        "k3s template": ("2.1", template.replace('{{ template "base" . }}', base(root, "3"))),
    }


@contextmanager
def containerd(
    folder: Path, config: Path, log: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A daemon that has loaded its plugins."""
    command = [str(folder / "containerd"), "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + 60
        while "containerd successfully booted" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["1.7 appended", "2.1 appended", "2.1 imported", "k3s template"])
def test_a_daemon_loads_it_and_keeps_what_was_configured(tmp_path: Path, name: str) -> None:
    version, text = configurations(tmp_path)[name]
    folder = binaries(version)
    config = tmp_path / "config.toml"
    config.write_text(text)
    dump = subprocess.run([folder / "containerd", "--config", config, "config", "dump"], capture_output=True, text=True)
    merged = tomllib.loads(dump.stdout)
    runtimes: dict[str, Any] = merged["plugins"][CRI[str(merged["version"])]]["containerd"]["runtimes"]
    assert runtimes["runc"]["options"]["SystemdCgroup"] is True
    assert runtimes["parma"]["runtime_type"] == "io.containerd.parma.v2"
    assert runtimes["parma"]["pod_annotations"] == runtimes["parma"]["container_annotations"] == ["io.parma.*"]
    assert runtimes["parma"]["options"] == {"ConfigPath": "/etc/parma/config.toml"}
    log = tmp_path / "log"
    with containerd(folder, config, log):
        plugins = subprocess.run(
            [folder / "ctr", "--address", tmp_path / "c.sock", "plugins", "ls"], capture_output=True, text=True
        ).stdout
    states = re.findall(r"^io\.containerd\.(?:grpc\.v1|cri\.v1)\s+(?:cri|runtime)\s+\S+\s+(\S+)", plugins, re.MULTILINE)
    assert states
    assert set(states) == {"ok"}, log.read_text()
    assert "io.containerd.parma.v2" in log.read_text()  # CRI logs the configuration that it starts with


def test_the_readme_names_every_file() -> None:
    readme = (paths.ROOT / "README.md").read_text()
    missing = [
        path.relative_to(paths.ROOT)
        for path in PACKAGING.rglob("*")
        if path.is_file() and str(path.relative_to(paths.ROOT)) not in readme
    ]
    assert missing == []
