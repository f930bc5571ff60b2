# SPDX-License-Identifier: Apache-2.0
"""The configuration of containerd's CRI plugin, for a private containerd that runs pods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

NAMESPACE: Final = "k8s.io"

MASKED: Final = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What kubelet asks for, for every container that is not privileged."""

# The score is not lowered: root without CAP_SYS_RESOURCE, as in many a container, may not.
_PLUGIN: Final = """\
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    conf_dir = "{root}/cni"
    bin_dir = "{root}/cni-bin"
"""
_RUNTIME: Final = """\
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{name}]
    runtime_type = "{type}"
    sandboxer = "{sandboxer}"
    pod_annotations = ["io.parma.*"]
    container_annotations = ["io.parma.*"]
"""


class Runtime(NamedTuple):
    """A runtime handler."""

    name: str
    type: str
    sandboxer: str


def configuration(root: Path, pause: str, runtimes: Sequence[Runtime]) -> str:
    """For containerd's configuration of version 3; CNI's is below ``root``, in ``cni`` and ``cni-bin``."""
    return _PLUGIN.format(root=root, pause=pause) + "".join(_RUNTIME.format(**item._asdict()) for item in runtimes)
