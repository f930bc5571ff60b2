# SPDX-License-Identifier: Apache-2.0
"""Records containerd's default seccomp profiles: ``generate/data/seccomp.json``.

The profile is compiled into each client of containerd, and depends on the capabilities of the container. So ``ctr`` of
a version is asked for it without any of those that matter, and with each of them alone; what is recorded is which rules
come always, which with a capability, and which without CAP_SYS_ADMIN. Run from the checkout, after ``./dev setup``, as
root, with names and the directories that have the ``ctr``; the name is the first version that has this profile::

    .dev/venv/bin/python -m tests.policy.generate.record_seccomp containerd-2.1=.dev/prefix/containerd-2.1
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

from devtool import images, paths  # noqa: E402
from devtool.containerd import PrivateContainerd  # noqa: E402
from parma_policy.framework.view import PRIVILEGED_CAPABILITIES, UNPRIVILEGED_CAPABILITIES  # noqa: E402

IMAGE = "parma.example/busybox:test"
DATA = ROOT / "policy/parma_policy/generate/data/seccomp.json"

Profile = dict[str, Any]
Ask = Callable[[tuple[str, ...]], Profile]


def asker(daemon: PrivateContainerd) -> Ask:
    """A function that returns the default profile of a container with exactly these capabilities."""

    def ask(capabilities: tuple[str, ...]) -> Profile:
        flags = [f"--cap-drop={name}" for name in UNPRIVILEGED_CAPABILITIES if name not in capabilities]
        flags += [f"--cap-add={name}" for name in capabilities if name not in UNPRIVILEGED_CAPABILITIES]
        made = daemon.ctr("container", "create", "--seccomp", *flags, IMAGE, "profile")
        assert made.returncode == 0, made.stderr
        spec = json.loads(daemon.ctr("container", "info", "profile").stdout)["Spec"]
        assert set(spec["process"]["capabilities"].get("bounding") or ()) == set(capabilities)
        daemon.ctr("container", "delete", "profile")
        profile: Profile = spec["linux"]["seccomp"]
        return profile

    return ask


def record(ask: Ask) -> Profile:
    """The profile in parts."""
    bare = ask(())
    admin = ask(("CAP_SYS_ADMIN",))["syscalls"]
    common = 0
    while bare["syscalls"][common] == admin[common]:
        common += 1
    parts = {"CAP_SYS_ADMIN": admin[common:]}
    without_admin = bare["syscalls"][common:]
    for name in PRIVILEGED_CAPABILITIES:
        if name == "CAP_SYS_ADMIN":
            continue
        syscalls = ask((name,))["syscalls"]
        assert syscalls[:common] == bare["syscalls"][:common]
        assert syscalls[len(syscalls) - len(without_admin) :] == without_admin
        if added := syscalls[common : len(syscalls) - len(without_admin)]:
            parts[name] = added
    head = {name: value for name, value in bare.items() if name != "syscalls"}
    return {
        **head,
        "syscalls": bare["syscalls"][:common],
        "by_capability": parts,
        "without_sys_admin": without_admin,
    }


def record_version(directory: Path) -> Profile:
    """From the ``ctr`` in a directory; it says nothing to the daemon that depends on the daemon's version."""
    with PrivateContainerd(paths.PREFIX / "containerd-2.1") as daemon:
        archive = daemon.root / "busybox.tar"
        images.write_busybox_image(archive, paths.PREFIX / "bin/busybox", IMAGE)
        assert daemon.ctr("image", "import", archive).returncode == 0
        daemon.binaries = directory
        return record(asker(daemon))


if __name__ == "__main__":
    recorded = json.loads(DATA.read_text())
    for argument in sys.argv[1:]:
        version, _, directory = argument.partition("=")
        recorded[version] = record_version(Path(directory))
    DATA.write_text(json.dumps(dict(sorted(recorded.items())), indent=1) + "\n")
