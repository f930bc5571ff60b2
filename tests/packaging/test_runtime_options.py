# SPDX-License-Identifier: Apache-2.0
"""What containerd's configuration says of a runtime reaches the shim: real daemons are asked for pods through CRI.

Each pod is refused before a virtual machine is started, by a message that tells which configuration was read.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from devtool import images, paths
from parma_shim import launcher
from tests import fake_cni
from tests.packaging.cri import Refusal, refused_pod
from tests.packaging.test_containerd_configuration import CRI, base, binaries, containerd

pytestmark = pytest.mark.e2e

PAUSE = "parma.example/pause:test"
IMAGES = {
    "1.7": f'[plugins."{CRI["2"]}"]\n  sandbox_image = "{PAUSE}"\n',
    "2.1": f'[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "{PAUSE}"\n',
}
RUNTIME = """\
[plugins."{cri}".containerd.runtimes.{name}]
  runtime_type = "io.containerd.parma.v2"
  pod_annotations = ["io.parma.*"]
  [plugins."{cri}".containerd.runtimes.{name}.options]
    {option}
"""


@dataclass(frozen=True)
class Cri:
    """A daemon whose runtimes differ in nothing but their options."""

    root: Path

    def refuse(self, runtime: str, annotations: Mapping[str, str] | None = None) -> Refusal:
        return refused_pod(self.root / "c.sock", f"pod-{runtime}", runtime, annotations or {})


@pytest.fixture(scope="module", params=["1.7", "2.1"])
def cri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cri]:
    folder = binaries(request.param)
    root = tmp_path_factory.mktemp("cri")
    for name in ("one", "other"):
        # Each names another guest image, which is not there: whoever misses it has read that file.
        (root / f"{name}.toml").write_text(f'image_dir = "/nonexistent/{name}"\ntee = "none"\n')
    (root / "dropped.d").mkdir()
    (root / "dropped.toml").write_text("vcpus = 2\n")
    (root / "dropped.d/50-site.toml").write_text("memory_mb = 512\n")
    options = {
        **{name: f'ConfigPath = "{root}/{name}.toml"' for name in ("one", "other", "dropped", "missing")},
        "table": 'image_dir = "/nonexistent/table"\n    tee = "none"',
        "typo": 'TypeUrl = "runtimeoptions.v1.Options"\n    scratch_mb = 100',
    }
    version = {"1.7": "2", "2.1": "3"}[request.param]
    text = base(root, version) + IMAGES[request.param]
    for name, option in options.items():
        text += RUNTIME.format(cri=CRI[version], name=name, option=option)
    (root / "config.toml").write_text(text)
    images.write_busybox_image(root / "pause.tar", paths.PREFIX / "bin/busybox", PAUSE)
    fake_cni.write(root / "cni", root / "cni-bin")
    (root / "bin").mkdir()
    launcher.write_launcher(root / "bin/containerd-shim-parma-v2")
    search = f"{root}/bin:{folder}:{paths.PREFIX}/bin:{os.environ['PATH']}"
    with containerd(folder, root / "config.toml", root / "log", environment={**os.environ, "PATH": search}):
        command = f"{folder}/ctr --address {root}/c.sock --namespace k8s.io image import {root}/pause.tar"
        subprocess.run(command.split(), check=True, capture_output=True)
        yield Cri(root)


@pytest.mark.parametrize("runtime", ["one", "other", "table"])
def test_each_runtime_has_the_configuration_that_its_options_name_or_are(cri: Cri, runtime: str) -> None:
    assert f"/nonexistent/{runtime}" in cri.refuse(runtime).message


def test_a_file_that_is_missing_is_named(cri: Cri) -> None:
    assert f"{cri.root}/missing.toml does not exist" in cri.refuse("missing").message


def test_an_unknown_key_of_a_drop_in_comes_back_with_file_and_suggestion(cri: Cri) -> None:
    message = cri.refuse("dropped").message
    assert f"unknown key 'memory_mb' in {cri.root}/dropped.d/50-site.toml" in message
    assert "did you mean 'memory_mib'?" in message


def test_an_unknown_key_of_the_table_comes_back_with_a_suggestion(cri: Cri) -> None:
    message = cri.refuse("typo").message
    assert "unknown key 'scratch_mb' in the runtime's options" in message
    assert "did you mean 'scratch_mib'?" in message


@pytest.mark.parametrize("key", ["io.parma.kernel-parameters", "io.parma.tee", "io.parma.qemu"])
def test_an_annotation_that_is_not_on_the_list_is_refused(cri: Cri, key: str) -> None:
    message = cri.refuse("one", {key: "x"}).message
    assert key in message
    assert "io.parma.policy-file" in message, "what is known is said"
