# SPDX-License-Identifier: Apache-2.0
"""Linux capabilities as container managers write them, and what adding and dropping them leads to.

The order is that of the OCI spec which containerd makes: its default seccomp profile depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from parma_policy.framework.view import UNPRIVILEGED_CAPABILITIES
from parma_policy.generate.nodes import Node

BY_NUMBER: Final = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
        *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
        *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
        *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
        *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
        "CHECKPOINT_RESTORE",
    )
)
"""All of them, in the order of the kernel's numbers: that of a container that gets all which the host has."""


def full_name(name: str) -> str:
    """``CAP_NET_ADMIN`` for ``net_admin`` and the like; ``ALL`` stays; empty for what is no capability."""
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    return full if full in BY_NUMBER else ""


def read(nodes: Sequence[Node]) -> tuple[str, ...]:
    """Full names; notes a problem for each that is no capability."""
    found = []
    for node in nodes:
        name = full_name(node.text())
        if not name:
            node.problem("no capability of Linux has this name")
        found.append(name)
    return tuple(name for name in found if name)


def changed(add: Sequence[str], drop: Sequence[str], *, privileged: bool = False) -> tuple[str, ...]:
    """The default capabilities after adding and dropping, as containerd's CRI plugin, nerdctl and ctr do it.

    ``ALL`` counts first, so that single ones can be taken back; a privileged container has every one, whatever is
    dropped.
    """
    if privileged:
        return BY_NUMBER
    names = list(UNPRIVILEGED_CAPABILITIES)
    if "ALL" in add:
        names = list(BY_NUMBER)
    if "ALL" in drop:
        names = []
    names += [name for name in dict.fromkeys(add) if name != "ALL" and name not in names]
    return tuple(name for name in names if name not in drop)
