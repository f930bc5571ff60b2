# SPDX-License-Identifier: Apache-2.0
"""Layers that containerd 2.3 has made itself, erofs with dm-verity, used as they are.

Its differ adds trees and metadata only where the host's kernel has dm-verity, and then ``ctr`` mounts with it to look
into the image. So that this runs anywhere, ``veritysetup`` adds the trees here, with the differ's parameters, and the
metadata appear when the container has been created and its task has not; everything else is containerd's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import Completed, PrivateContainerd
from parma_policy.generate.erofs import MKFS_OPTIONS
from tests.e2e.host import BUSYBOX, DEBIAN, Host

VERSION = "containerd-2.3"
CONFIG = f"""
[plugins."io.containerd.differ.v1.erofs"]
  mkfs_options = {json.dumps(MKFS_OPTIONS)}
[plugins."io.containerd.service.v1.diff-service"]
  default = ["erofs", "walking"]
"""
HELLO = ("/bin/echo", "hello")
EROFS = ("--layer-format", "erofs", "--mkfs-erofs", str(paths.PREFIX / "bin/mkfs.erofs"))

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (paths.PREFIX / VERSION / "containerd").exists(), reason=f"there is no {VERSION}"),
]


def add_tree(blob: Path) -> str:
    """What the differ does with ``enable_dmverity``, but for the metadata, which are returned."""
    size = blob.stat().st_size
    done = subprocess.run(
        [
            *(paths.PREFIX / "bin/veritysetup", "format", f"--salt={'00' * 32}"),
            *(f"--data-blocks={size // 4096}", f"--hash-offset={size}", blob, blob),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Root hash:")]
    return json.dumps({"roothash": line.split()[-1], "hashoffset": size})


class ErofsHost(Host):
    """A containerd 2.3 with the erofs snapshotter."""

    metadata: dict[Path, str]
    """By blob."""

    def run_offered(
        self,
        name: str,
        command: Sequence[str],
        *,
        policy: Path,
        image: str = BUSYBOX,
        in_between: Callable[[], object] = lambda: None,
    ) -> Completed:
        """Creates the container, then runs its task with layers offered as the differ would."""
        _, *arguments = self.run_arguments(name, command, "--snapshotter", "erofs", policy=policy, image=image)
        created = self.daemon.ctr("container", "create", *arguments)
        assert created.returncode == 0, created.stderr
        in_between()
        files = {Path(f"{blob}.dmverity"): text for blob, text in self.metadata.items()}
        for path, text in files.items():
            path.write_text(text)
        try:
            return self.daemon.ctr("task", "start", name, timeout=240)
        finally:
            for path in files:
                path.unlink()
            self.remove(name)


@pytest.fixture(scope="module")
def erofs_host(archives: dict[str, Path]) -> Iterator[ErofsHost]:
    with PrivateContainerd(paths.PREFIX / VERSION, added_config=CONFIG) as daemon:
        for archive in archives.values():
            imported = daemon.ctr("image", "import", "--snapshotter", "erofs", archive)
            assert imported.returncode == 0, imported.stderr
        blobs = sorted(daemon.root.glob("root/io.containerd.snapshotter.v1.erofs/snapshots/*/layer.erofs"))
        assert len(blobs) == 4  # busybox's, and three of Debian's
        host = ErofsHost(daemon, archives)
        host.metadata = {blob: add_tree(blob) for blob in blobs}
        yield host


def said_converting(host: Host) -> bool:
    return "converting" in host.daemon.log.read_text()


def converted(host: Host) -> list[Path]:
    return [path for path in host.daemon.data.glob("layers/**/*") if path.is_file() and path.stat().st_size > 4096]


def test_layers_that_the_policy_lists_are_used_as_they_are(erofs_host: ErofsHost, name: str) -> None:
    policy = erofs_host.policy(HELLO, extra=EROFS)
    done = erofs_host.run_offered(name, HELLO, policy=policy)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert not said_converting(erofs_host)
    assert converted(erofs_host) == []


def test_a_changed_layer_is_refused_and_not_converted(erofs_host: ErofsHost, name: str) -> None:
    policy = erofs_host.policy(HELLO, extra=EROFS)
    (blob,) = [blob for blob, text in erofs_host.metadata.items() if json.loads(text)["roothash"] in policy.read_text()]
    original = blob.read_bytes()
    changed = bytearray(original)
    changed[1024 + 60] ^= 1
    try:
        done = erofs_host.run_offered(name, HELLO, policy=policy, in_between=lambda: blob.write_bytes(changed))
    finally:
        blob.write_bytes(original)
    assert done.returncode != 0
    assert "does not verify" in done.stderr
    assert converted(erofs_host) == []


def test_several_layers_make_the_same_files_whether_converted_or_not(erofs_host: ErofsHost, name: str) -> None:
    script = "ls -R /opt; cat /etc/current /opt/kept/*; stat -c '%U %a %h %Y' /usr/bin/passwd /opt/kept/stays"
    command = ("/bin/bash", "-c", script)
    listed = erofs_host.policy(command, image=DEBIAN, extra=EROFS)
    as_they_are = erofs_host.run_offered(f"{name}a", command, image=DEBIAN, policy=listed)
    assert as_they_are.returncode == 0, as_they_are.stderr
    assert not said_converting(erofs_host)
    unlisted = erofs_host.policy(command, image=DEBIAN)
    from_tar = erofs_host.run_offered(f"{name}b", command, image=DEBIAN, policy=unlisted)
    assert from_tar.returncode == 0, from_tar.stderr
    assert said_converting(erofs_host)
    assert as_they_are.stdout == from_tar.stdout
