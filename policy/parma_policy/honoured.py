# SPDX-License-Identifier: Apache-2.0
"""What the guest can honour of mounts and working directories, whatever a policy allows.

The guest refuses everything else before it asks the policy, so the generator has no use for a policy that says it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MOUNT_TYPES: Final = frozenset({"bind", "tmpfs"})
TMPFS_SOURCES: Final = ("tmpfs", "shm", "none")
FORBIDDEN_BELOW: Final = ("/proc", "/sys", "/dev")
ALLOWED_BELOW: Final = ("/dev/shm", "/dev/termination-log")  # noqa: S108 - Kubernetes has them there; no device is

_PLAIN_OPTIONS: Final = frozenset(
    (
        *("ro", "rw", "nosuid", "suid", "nodev", "noexec", "exec", "sync", "dirsync"),
        *("relatime", "norelatime", "noatime", "strictatime", "nodiratime"),
        *("bind", "rbind", "private", "rprivate", "slave", "rslave", "shared", "rshared"),
    )
)
_TMPFS_OPTION: Final = re.compile(
    r"(size=[0-9]{1,15}[kmg%]?|mode=[0-7]{3,4}|(uid|gid)=[0-9]{1,9}|nr_inodes=[0-9]{1,9})"
)


def refused_option(kind: str, options: Sequence[str]) -> str | None:
    """The first option that no mount of this type may have."""
    for option in options:
        if option not in _PLAIN_OPTIONS and not (kind == "tmpfs" and _TMPFS_OPTION.fullmatch(option)):
            return option
    return None


def is_place(destination: str) -> bool:
    """Whether something may be mounted there, for a path in its only spelling."""
    if destination == "/":
        return False
    below = any(destination == place or destination.startswith(f"{place}/") for place in FORBIDDEN_BELOW)
    return not below or destination in ALLOWED_BELOW
