# SPDX-License-Identifier: Apache-2.0
"""``./dev demo``: one container in its own VM under a policy, then three things the policy refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from devtool import images, paths, progress, setup
from devtool.containerd import RUNTIME, Completed, PrivateContainerd

IMAGE = "parma.example/busybox:demo"
SCRIPT = 'echo "hello from $(uname -sr), pid $$, $(nproc) vCPU"; exit 3'
COMMAND = ("/bin/sh", "-c", SCRIPT)
SLEEPER = ("/bin/sleep", "600")


EXT4_MAGIC = b"\x53\xef"
"""In the layer's superblock: read when the layer is mounted."""


class DemoError(Exception):
    """The demonstration did not go as announced."""


def title(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def show(done: Completed) -> Completed:
    """Prints what the user of ``ctr`` sees."""
    for line in (done.stdout + done.stderr).splitlines():
        print(f"   {line}")
    print(f"   exit code {done.returncode}", flush=True)
    return done


def parma(*arguments: str | Path, config: Path) -> str:
    """Runs the ``parma`` command and returns its output."""
    done = subprocess.run(
        [paths.VENV / "bin/parma", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PARMA_CONFIG": str(config)},
    )
    if done.returncode != 0:
        raise DemoError(f"parma {' '.join(map(str, arguments))} failed with {done.returncode}")
    return done.stdout


def make_policy(daemon: PrivateContainerd, archive: Path, name: str, command: Sequence[str]) -> Path:
    """Generates the policy for the image with this command and puts it where the host's configuration allows."""
    policy = daemon.root / "policies" / name
    parma(
        "policy", "generate", "--image-archive", archive, "--command", json.dumps(command), "--out", policy,
        config=daemon.parma_config,
    )  # fmt: skip
    return policy


def run(daemon: PrivateContainerd, policy: Path, name: str, command: Sequence[str], *flags: str) -> Completed:
    """``ctr run`` as a user would type it."""
    arguments = ["run", *flags, "--runtime", RUNTIME, "--annotation", f"io.parma.policy-file={policy}", IMAGE, name]
    print(f"   $ ctr {' '.join([*arguments, *command])}", flush=True)
    with progress.shown(daemon.root / "parma", lambda line: print(f"   ... {line}", flush=True)):
        done = daemon.ctr(*arguments, *command, timeout=180)
    return show(done)


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise DemoError(f"expected {what}")


def corrupt_layer(directory: Path, text: bytes) -> None:
    """Flips one bit of what it finds in a converted layer: the host is the attacker and may write to its own files."""
    for layer in directory.rglob("*.img"):
        content = layer.read_bytes()
        offset = content.find(text)
        if offset >= 0:
            status = layer.stat()
            with layer.open("r+b") as device:
                device.seek(offset)
                device.write(bytes([content[offset] ^ 1]))
            # The cache converts anew what has another time than it remembers; an attacker would think of that.
            os.utime(layer, ns=(status.st_atime_ns, status.st_mtime_ns))
            return
    raise DemoError(f"expected {text!r} in a layer below {directory}")


def demonstrate(daemon: PrivateContainerd, archive: Path) -> None:
    title("A policy for this image and this command")
    policy = make_policy(daemon, archive, "demo.rego", COMMAND)
    print(parma("policy", "check", policy, config=daemon.parma_config), end="")

    title("The container, in a virtual machine of its own")
    began = time.monotonic()
    done = run(daemon, policy, "demo", COMMAND, "--rm")
    print(f"   ({time.monotonic() - began:.1f} s, boot included)")
    expect("hello from Linux" in done.stdout and done.returncode == 3, "the greeting and exit code 3")

    title("The attested-policy status of a running one")
    sleeper_policy = make_policy(daemon, archive, "sleeper.rego", SLEEPER)
    expect(run(daemon, sleeper_policy, "sleeper", SLEEPER, "--detach").returncode == 0, "a running container")
    print(parma("status", "--wait", "30", "sleeper", config=daemon.parma_config), end="")

    title("Refused: an exec that the policy does not list")
    print("   $ ctr task exec --exec-id x sleeper /bin/cat /etc/passwd")
    done = show(daemon.ctr("task", "exec", "--exec-id", "x", "sleeper", "/bin/cat", "/etc/passwd"))
    expect(done.returncode != 0 and "root:" not in done.stdout, "a refusal")
    daemon.remove_containers()

    title("Refused: the same container with another command")
    done = run(daemon, policy, "other", ("/bin/sh", "-c", "cat /etc/passwd"), "--rm")
    expect(done.returncode != 0 and "root:" not in done.stdout, "a refusal")
    daemon.remove_containers()

    title("Refused: a layer with one byte changed on the host")
    corrupt_layer(daemon.data / "layers", EXT4_MAGIC)
    done = run(daemon, policy, "tampered", COMMAND, "--rm")
    expect(done.returncode != 0 and "hello" not in done.stdout, "a refusal")


def main() -> int:
    """Returns the exit code."""
    setup.ensure_all()
    archive = paths.DEV / "busybox.tar"
    images.write_busybox_image(archive, paths.PREFIX / "bin/busybox", IMAGE)
    with PrivateContainerd(paths.PREFIX / "containerd-2.1") as daemon:
        title("A private containerd, and an image made from Debian's busybox-static")
        show(daemon.ctr("image", "import", archive))
        demonstrate(daemon, archive)
    title("Done; everything started here is gone again")
    return 0
